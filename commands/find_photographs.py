"""Which photographs are meant by names of files, folders and patterns."""

import glob
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from pipeline.datasets.image_file import SUFFIXES
from pipeline.datasets.listing import files_of_any_name
from pipeline.errors import ProtoMaskError


class Photographs(NamedTuple):
    """Photographs that were asked for.

    Args:
        named: those that were named one by one.
        found: those that lie in a folder, or match a pattern.
        passed_over: what lies or matches there and has not the ending of an image's name.
    """

    named: list[Path]
    found: list[Path]
    passed_over: list[Path]


def find_photographs(given: Sequence[Path]) -> Photographs:
    """Returns the photographs that are meant, each once, in the order of what was given.

    Folders are looked through at any depth, without what is hidden.

    Args:
        given: files, folders, and patterns such as `photos/**/*.jpg` that the shell has left alone.

    Raises:
        ProtoMaskError: a folder holds no photograph, or a pattern matches none.
    """
    named: dict[Path, None] = {}
    found: dict[Path, None] = {}
    passed_over: dict[Path, None] = {}
    for path in given:
        pattern = not path.exists() and glob.has_magic(str(path))
        if not (pattern or path.is_dir()):
            named[path] = None
            continue
        files = list(_matching(path) if pattern else _below(path))
        photographs = [file for file in files if file.suffix.lower() in SUFFIXES]
        if not photographs:
            what = "matches" if pattern else "holds"
            other = f", only {len(files)} other files" if files else ""
            raise ProtoMaskError(f"{path} {what} no photograph{other}")
        found |= dict.fromkeys(photographs)
        passed_over |= dict.fromkeys(file for file in files if file not in found)
    return Photographs(list(named), [path for path in found if path not in named], [*passed_over])


def _matching(pattern: Path) -> Iterator[Path]:
    """Yields the files that match; what of the pattern is a folder means that folder."""
    there = next(folder for folder in pattern.parents if folder.exists())
    names = glob.glob(str(pattern.relative_to(there)), root_dir=there, recursive=True)  # noqa: PTH207
    for path in sorted(there / name for name in names):
        if path.is_file():
            yield path


def _below(folder: Path) -> Iterator[Path]:
    for name in files_of_any_name(folder):
        yield folder / name
