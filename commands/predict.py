"""Photographs → their classes, as lines, tables, pictures or a page of why."""

import sys
from collections.abc import Sequence
from itertools import compress, count
from pathlib import Path

from PIL import Image
from PIL.PngImagePlugin import PngInfo

from commands.answer_tables import Record, Tables, reason_not_to_write
from commands.find_photographs import Photographs, find_photographs
from pipeline.datasets.image_file import UnreadableImageError
from pipeline.errors import ProtoMaskError
from pipeline.files import atomic_file, sha256
from pipeline.progress import examples
from protomask import Answer, Model, load

SOURCE = "ProtoMask photograph"
FIRST = 3


def run(folder: Path, given: list[Path], out: Path | None, tables: Tables) -> None:
    """Says of photographs what they are, and writes what was asked for.

    Args:
        folder: of the model.
        given: files, folders and patterns.
        out: the folder for pictures; None draws none.
        tables: the files of answers.

    Raises:
        ProtoMaskError: one that was named cannot be read, or none can; the others are done. Or
            nothing was done, since what was asked for cannot be written.
    """
    _refuse_folder(out)
    photographs = _without_own_pictures(find_photographs(given))
    paths = [*photographs.named, *photographs.found]
    if not paths:
        raise ProtoMaskError("there is no photograph, only pictures that `protomask predict` drew")
    tables.refuse_unwritable(paths)
    model = _open(folder)
    records: list[Record] = []
    try:
        for path in paths:
            records.append(_ask(model, path, out, tables))
    finally:
        written = tables.write(records) if records else []
        if len(records) < len(paths):
            kept = f", in {', '.join(map(str, written))}" if written else ""
            print(f"{len(records)} of {len(paths)} photographs were done{kept}", file=sys.stderr)
    unreadable = list(compress(paths, ["error" in record.row for record in records]))
    _sum_up(photographs, unreadable, written)
    if len(unreadable) == len(paths) or not set(photographs.named).isdisjoint(unreadable):
        raise ProtoMaskError(f"{len(unreadable)} of {len(paths)} photographs could not be read")


def _refuse_folder(out: Path | None) -> None:
    """Checks that a folder for pictures is one, or can be made."""
    if out is None:
        return
    if out.exists() and not out.is_dir():
        raise ProtoMaskError(f"{out} is a file; --out names a folder for the pictures")
    if why := reason_not_to_write(out / "picture.png"):
        raise ProtoMaskError(f"{out}: a picture in it {why}; --out names a folder for the pictures")


def _without_own_pictures(photographs: Photographs) -> Photographs:
    """Passes over the pictures of an earlier run, where `--out` lies among the photographs."""
    own = {path for path in photographs.found if _source_of(path) is not None}
    found = [path for path in photographs.found if path not in own]
    return photographs._replace(found=found, passed_over=[*photographs.passed_over, *sorted(own)])


def _ask(model: Model, path: Path, out: Path | None, tables: Tables) -> Record:
    try:
        answer = model.predict(path)
    except UnreadableImageError as error:
        print(f"Error: {error}", file=sys.stderr)
        return tables.failure(path, str(error))
    target = None if out is None else _write(answer.figure(), path, out)
    _say(path, answer, target, aloud=not tables.to_terminal)
    return tables.record(path, answer)


def _sum_up(photographs: Photographs, unreadable: Sequence[Path], written: Sequence[Path]) -> None:
    """Says what was left out of folders, and which files were written."""
    if unreadable and photographs.found:
        print(f"{len(unreadable)} could not be read: {_examples(unreadable)}", file=sys.stderr)
    if photographs.passed_over:
        print(
            f"{len(photographs.passed_over)} other files were passed over: "
            f"{_examples(photographs.passed_over)}",
            file=sys.stderr,
        )
    for path in written:
        print(f"wrote {path}", file=sys.stderr)


def _examples(paths: Sequence[Path]) -> str:
    return examples([str(path) for path in paths])


def write_page(folder: Path, image: Path, out: Path) -> None:
    if out.is_dir():
        raise ProtoMaskError(f"{out} is a folder; --out names the page to write")
    if out.exists() and image.exists() and out.samefile(image):
        raise ProtoMaskError(f"{out} is the photograph itself; --out names the page to write")
    answer = _open(folder).predict(image)
    answer.write_page(out)
    _say(image, answer, out, aloud=True)


def _open(folder: Path) -> Model:
    model = load(folder)
    for remark in model.remarks:
        print(f"Warning: {remark}", file=sys.stderr)
    return model


def _say(path: Path, answer: Answer, target: Path | None, aloud: bool) -> None:
    for remark in answer.remarks:
        print(f"{path}: {remark}", file=sys.stderr)
    if aloud:
        first = list(answer.scores.items())[:FIRST]
        scores = ", ".join(f"{name} {score:.2f}" for name, score in first)
        drawn = "" if target is None else f" -> {target}"
        print(f"{path}: {answer.why}\n    {scores}{drawn}")


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
    if picture.suffix.lower() != ".png":
        return None
    try:
        with Image.open(picture) as image:
            return image.info.get(SOURCE)
    except (OSError, SyntaxError, ValueError):
        return None
