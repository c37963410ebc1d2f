"""Photographs → their classes, and a picture or a page of why."""

import sys
from itertools import count
from pathlib import Path

from PIL import Image
from PIL.PngImagePlugin import PngInfo

from pipeline.datasets.image_file import UnreadableImageError, examine_image
from pipeline.errors import ProtoMaskError
from pipeline.files import atomic_file, sha256
from pipeline.masks.part_names import read_part_names
from pipeline.report.image_page import write_image_page
from pipeline.report.parts import Parts
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
        _parts(finished),
    )


def _parts(finished: Finished) -> Parts:
    """Returns what is known of the parts; the masks of the data set need not be there any more."""
    own, path = finished.crops.part_names, finished.workspace.part_names
    names = read_part_names(path, finished.about.segmenter, own)
    if names.remark:
        print(f"Warning: {names.remark}", file=sys.stderr)
    try:
        return Parts.of(finished.masks(), names.names)
    except ProtoMaskError:
        return Parts(names.names, {})


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
