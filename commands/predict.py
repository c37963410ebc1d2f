"""Photographs → their classes, and a picture or a page of why."""

import sys
from itertools import count
from pathlib import Path

from PIL import Image
from PIL.PngImagePlugin import PngInfo

from pipeline.datasets.image_file import UnreadableImageError
from pipeline.errors import ProtoMaskError
from pipeline.files import atomic_file, sha256
from protomask import Answer, Model, load

SOURCE = "ProtoMask photograph"
SAID = 3


def run(folder: Path, images: list[Path], out: Path) -> None:
    if out.exists() and not out.is_dir():
        raise ProtoMaskError(f"{out} is a file; --out names a folder for the pictures")
    model = _open(folder)
    unreadable = 0
    for path in images:
        try:
            answer = model.predict(path)
        except UnreadableImageError as error:
            print(f"Error: {error}", file=sys.stderr)
            unreadable += 1
            continue
        target = _write(answer.figure(), path, out)
        _say(path, answer, target)
    if unreadable:
        raise ProtoMaskError(f"{unreadable} of {len(images)} photographs could not be read")


def write_page(folder: Path, image: Path, out: Path) -> None:
    if out.is_dir():
        raise ProtoMaskError(f"{out} is a folder; --out names the page to write")
    if out.exists() and out.samefile(image):
        raise ProtoMaskError(f"{out} is the photograph itself; --out names the page to write")
    answer = _open(folder).predict(image)
    answer.write_page(out)
    _say(image, answer, out)


def _open(folder: Path) -> Model:
    model = load(folder)
    for remark in model.remarks:
        print(f"Warning: {remark}", file=sys.stderr)
    return model


def _say(path: Path, answer: Answer, target: Path) -> None:
    for remark in answer.remarks:
        print(f"{path}: {remark}", file=sys.stderr)
    first = list(answer.scores.items())[:SAID]
    scores = ", ".join(f"{name} {score:.2f}" for name, score in first)
    print(f"{path}: {answer.why}\n    {scores} -> {target}")


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
