"""A folder of PNG files: one or several for each photograph, named after it."""

import csv
from collections.abc import Iterable, Sequence
from pathlib import Path, PurePosixPath
from typing import ClassVar

import numpy as np
from scipy.ndimage import find_objects

from pipeline.datasets import listing
from pipeline.errors import ProtoMaskError
from pipeline.masks.layout import Layout, Place, register
from pipeline.masks.masks import Region
from pipeline.masks.names import form
from pipeline.masks.png import Reading, read_png
from pipeline.progress import examples

METADATA = "metadata.csv"
SCORE = "predicted_iou"
"""What Segment Anything's script `amg.py` writes beside masks, and the column of its score."""


@register
class FolderMasks(Layout):
    """Reads PNG files that are named after photographs, or lie in folders that are.

    The masks of `class/photo.jpg` are all files in `FOLDER/class/photo.jpg/` or
    `FOLDER/class/photo/`, or the file `FOLDER/class/photo.png` or `FOLDER/class/photo.jpg.png`.

    Where a folder has the `metadata.csv` of `amg.py`, masks have the scores in it.

    Args:
        path: path of the folder of masks.
        files: the PNG files, and the files with scores.
        reading: what a PNG file holds: one mask, or one mask for each of its values but 0.
    """

    name: ClassVar[str] = "png"
    title: ClassVar[str] = "PNG files named after photographs"
    what: ClassVar[str] = "PNG files"
    rank: ClassVar[int] = 4

    def __init__(self, path: Path, files: Sequence[str], reading: Reading) -> None:
        super().__init__(path, files, reading)
        self._pngs = [file for file in files if PurePosixPath(file).name != METADATA]
        self.example = self._pngs[0]
        self._entries: dict[str, list[str]] = {file: [file] for file in self._pngs}
        for file in self._pngs:
            self._entries.setdefault(str(PurePosixPath(file).parent), []).append(file)
        self._by_form: dict[str, list[str]] = {}
        for name in self._entries:
            self._by_form.setdefault(form(name), []).append(name)
        self._scores = {
            str(PurePosixPath(file).parent): _scores(path / file) or {}
            for file in files
            if PurePosixPath(file).name == METADATA
        }

    @classmethod
    def reads(cls, place: Place) -> list[str]:
        """Returns the PNG files of a folder, and its files with scores; see `Layout.reads`."""
        pngs = place.ending(".png") if place.path.is_dir() else []
        tables = [file for file in place.ending(".csv") if PurePosixPath(file).name == METADATA]
        scored = [file for file in tables if _scores(place.path / file) is not None]
        return sorted([*pngs, *scored]) if pngs else []

    def __contains__(self, name: str) -> bool:
        return name in self._entries

    def __len__(self) -> int:
        """Returns the number of PNG files."""
        return len(self._pngs)

    def related(self, image: str) -> list[list[str]]:
        """Returns the folders and files that are named after a photograph, as `Named.related`.

        On the last level are those that have the end of its path.

        Args:
            image: path of the image relative to the data set's root.
        """
        stem = str(PurePosixPath(image).with_suffix(""))
        spellings = dict.fromkeys((image, stem, f"{image}.png", f"{stem}.png"))
        known = [name for name in spellings if name in self._entries]
        loose = [name for spelling in spellings for name in self._by_form.get(form(spelling), [])]
        exact, near = known[: image in self._entries], known[image in self._entries :]
        ends = [name for end in _shorter(spellings) for name in self._by_form.get(form(end), [])]
        return [exact, near, list(dict.fromkeys(loose)), list(dict.fromkeys(ends))]

    def advice(self, image: str) -> str:
        """Returns where the masks of a photograph are looked for."""
        stem = str(PurePosixPath(image).with_suffix(""))
        return f"its masks belong into {image}/ or {stem}/, or into the one file {stem}.png"

    def unused(self, used: set[str]) -> list[str]:
        """Returns the files that belong to none of the names in use."""
        met = {file for name in used for file in self._entries[name]}
        return [file for file in self._pngs if file not in met]

    def names_of(self, file: str) -> list[str]:
        """Returns the names that a file's masks may be found by: its own, and its folder's."""
        return [file, str(PurePosixPath(file).parent)]

    def remarks(self) -> list[str]:
        """Returns what is to be said of all files: how many are no PNG files."""
        others = sorted({*listing.visible_files(self.path)} - {*self.files})
        if not others:
            return []
        return [f"{len(others)} files in {self.path} are no PNG files: {examples(others)}"]

    def regions(self, name: str, height: int, width: int) -> list[Region]:
        """Returns the masks of an image, sorted by file name and value; see `Layout.regions`.

        Raises:
            ProtoMaskError: a file is no PNG file, is turned by metadata, has another size, or holds
                labels where it should hold a mask, or the other way round.
        """
        return [
            region for file in self._entries[name] for region in self._regions(file, height, width)
        ]

    def _regions(self, name: str, height: int, width: int) -> list[Region]:
        file, score = self.path / name, self._score(name)
        numbers = read_png(file, self.reading)
        if numbers.shape != (height, width):
            raise ProtoMaskError(
                f"{file} has {numbers.shape[1]}×{numbers.shape[0]} pixels, but the upright "
                f"photograph {width}×{height}"
            )
        if not numbers.any():
            return [Region(0, 0, np.zeros((0, 0), bool), (score,))]
        return [
            Region(columns.start, rows.start, numbers[rows, columns] == number, (score,))
            for number, (rows, columns) in enumerate(find_objects(numbers), start=1)
        ]

    def _score(self, file: str) -> float:
        """Returns the score of the masks in a file; 1 where nothing is said of it."""
        place = PurePosixPath(file)
        return self._scores.get(str(place.parent), {}).get(place.stem, 1.0)


def _shorter(paths: Iterable[str]) -> list[str]:
    """Returns the ends of paths, without the whole paths."""
    parts = [PurePosixPath(path).parts for path in paths]
    return ["/".join(its[start:]) for its in parts for start in range(1, len(its))]


def _scores(path: Path) -> dict[str, float] | None:
    """Returns the score of each mask by its number; None if the table is another one.

    Raises:
        ProtoMaskError: a score is no number.
    """
    with path.open(encoding="utf-8", errors="replace", newline="") as file:
        rows = csv.DictReader(file)
        if not {"id", SCORE} <= {*(rows.fieldnames or ())}:
            return None
        try:
            return {row["id"]: float(row[SCORE]) for row in rows}
        except (TypeError, ValueError):
            raise ProtoMaskError(f"{path}, line {rows.line_num}: {SCORE} is no number") from None
