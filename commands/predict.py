"""Photographs → their classes, and a picture or a page of why."""

import sys
from itertools import count
from pathlib import Path

from PIL import Image
from PIL.PngImagePlugin import PngInfo

from pipeline.datasets.photograph import UnreadableImageError, examine_photograph
from pipeline.errors import ProtoMaskError
from pipeline.files import atomic_file, sha256
from pipeline.report.image_page import write_photograph_page
from pipeline.report.predictor import Predictor
from pipeline.training.devices import make_fabric
from stages.finished import Finished
from stages.params import Params
from stages.workspace import Workspace

SOURCE = "ProtoMask photograph"


def run(workspace: Workspace, photographs: list[Path], out: Path) -> None:
    if out.exists() and not out.is_dir():
        raise ProtoMaskError(f"{out} is a file; --out names a folder for the pictures")
    predictor = load_predictor(workspace, workspace.read_params())
    unreadable = 0
    for path in photographs:
        try:
            photograph, remarks = examine_photograph(path)
        except UnreadableImageError as error:
            print(f"Error: {error}", file=sys.stderr)
            unreadable += 1
            continue
        for remark in remarks:
            print(f"{path}: {remark}", file=sys.stderr)
        asked = predictor.ask(path.name, photograph)
        target = _write(predictor.picture(asked), path, out)
        said = ", ".join(f"{name} {score:.2f}" for name, score in asked.ranking)
        print(f"{path}: {said} -> {target}")
    if unreadable:
        raise ProtoMaskError(f"{unreadable} of {len(photographs)} photographs could not be read")


def write_page(workspace: Workspace, photograph: Path, out: Path) -> None:
    if out.is_dir():
        raise ProtoMaskError(f"{out} is a folder; --out names the page to write")
    if out.exists() and out.samefile(photograph):
        raise ProtoMaskError(f"{out} is the photograph itself; --out names the page to write")
    pixels, remarks = examine_photograph(photograph)
    for remark in remarks:
        print(f"{photograph}: {remark}", file=sys.stderr)
    params = workspace.read_params()
    predictor = load_predictor(workspace, params)
    asked = predictor.ask(photograph.name, pixels)
    with atomic_file(out) as part:
        write_photograph_page(part, asked, predictor.looks(params.explain.only_mask))
    (name, score), *_ = asked.ranking
    print(f"{photograph}: {name} {score:.2f} -> {out}")


def load_predictor(workspace: Workspace, params: Params) -> Predictor:
    """Returns what answers with a workspace's finished model.

    Raises:
        ProtoMaskError: something is missing, damaged or made from something else.
    """
    finished = Finished.read(workspace)
    return Predictor(
        finished.network,
        make_fabric(params.runtime, finished.about.precision),
        finished.about,
        workspace.machine(params),
        finished.prototypes(),
        finished.crops,
        finished.index.ids,
    )


def _write(picture: Image.Image, photograph: Path, out: Path) -> Path:
    """Writes a photograph's picture, over an earlier one of the same photograph only."""
    source = sha256(photograph)
    for number in count(1):
        target = out / f"{photograph.stem}{f'-{number}' if number > 1 else ''}.png"
        if not target.exists() or _source_of(target) == source:
            break
    about = PngInfo()
    about.add_text(SOURCE, source)
    with atomic_file(target) as part:
        picture.save(part, "PNG", pnginfo=about)
    return target


def _source_of(picture: Path) -> str | None:
    """Returns the hash of the photograph that a picture explains; None if it is no such picture."""
    try:
        with Image.open(picture) as image:
            return image.info.get(SOURCE)
    except (OSError, SyntaxError, ValueError):
        return None
