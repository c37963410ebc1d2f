"""Photographs → their classes, and a picture or a page of why."""

import sys
from itertools import count
from pathlib import Path

from PIL import Image
from PIL.PngImagePlugin import PngInfo

from commands.named_parts import named_parts
from pipeline.datasets.image_file import UnreadableImageError, examine_image
from pipeline.errors import ProtoMaskError
from pipeline.files import atomic_file, sha256
from pipeline.report.image_page import write_image_page
from pipeline.report.predictor import Predictor
from pipeline.training import learning
from pipeline.training.fabric import make_fabric
from stages.finished import Finished
from stages.params import Params
from stages.workspace import Workspace

SOURCE = "ProtoMask photograph"


def run(workspace: Workspace, images: list[Path], out: Path) -> None:
    if out.exists() and not out.is_dir():
        raise ProtoMaskError(f"{out} is a file; --out names a folder for the pictures")
    predictor = load_predictor(workspace, workspace.read_params())
    unreadable = 0
    for path in images:
        try:
            image, remarks = examine_image(path)
        except UnreadableImageError as error:
            print(f"Error: {error}", file=sys.stderr)
            unreadable += 1
            continue
        for remark in remarks:
            print(f"{path}: {remark}", file=sys.stderr)
        prediction = predictor.predict(path.name, image)
        target = _write(predictor.picture(prediction), path, out)
        scores = ", ".join(f"{name} {score:.2f}" for name, score in prediction.ranking)
        print(f"{path}: {prediction.why}\n    {scores} -> {target}")
    if unreadable:
        raise ProtoMaskError(f"{unreadable} of {len(images)} photographs could not be read")


def write_page(workspace: Workspace, image: Path, out: Path) -> None:
    if out.is_dir():
        raise ProtoMaskError(f"{out} is a folder; --out names the page to write")
    if out.exists() and out.samefile(image):
        raise ProtoMaskError(f"{out} is the photograph itself; --out names the page to write")
    pixels, remarks = examine_image(image)
    for remark in remarks:
        print(f"{image}: {remark}", file=sys.stderr)
    params = workspace.read_params()
    predictor = load_predictor(workspace, params)
    prediction = predictor.predict(image.name, pixels)
    with atomic_file(out) as part:
        write_image_page(part, prediction, predictor.explainer(params.explain.only_mask))
    scores = ", ".join(f"{name} {score:.2f}" for name, score in prediction.ranking)
    print(f"{image}: {prediction.why}\n    {scores} -> {out}")


def load_predictor(workspace: Workspace, params: Params) -> Predictor:
    """Returns what answers with a workspace's finished model; warns if that has not learned.

    Raises:
        ProtoMaskError: something is missing, damaged or made from something else.
    """
    finished = Finished.read(workspace)
    if finished.about.not_learned:
        print(f"Warning: {learning.said(finished.about.not_learned)}", file=sys.stderr)
    return Predictor(
        finished.network,
        make_fabric(params.runtime, finished.about.precision),
        finished.about,
        workspace.machine(params),
        finished.prototypes(),
        finished.crops,
        finished.index.ids,
        named_parts(finished),
    )


def _write(picture: Image.Image, image: Path, out: Path) -> Path:
    """Writes a photograph's picture, over an earlier one of the same photograph only."""
    source = sha256(image)
    for number in count(1):
        target = out / f"{image.stem}{f'-{number}' if number > 1 else ''}.png"
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
