"""Pascal VOC's folders of instances and classes, as CVAT's "Segmentation mask 1.1" has them."""

from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import ClassVar

import numpy as np
import pandas as pd

from pipeline.errors import ProtoMaskError
from pipeline.masks.layout import NamedLayout, Place, register
from pipeline.masks.masks import NO_PART, Region
from pipeline.masks.png import Numbers, Reading, number_of, read_colours

INSTANCES, CLASSES, LABELS = "SegmentationObject", "SegmentationClass", "labelmap.txt"
NEITHER = number_of(np.array([[0, 0, 0], [224, 224, 192]]))
"""The colours of background and of pixels that are not decided."""


@register
class VocMasks(NamedLayout[str]):
    """Reads a mask of each colour of an instance map; its part is the class of most of its pixels.

    `labelmap.txt` has the names and the colours of the classes; without it no part is known.
    """

    name: ClassVar[str] = "voc"
    title: ClassVar[str] = "Pascal VOC's instance maps (CVAT's Segmentation mask)"
    what: ClassVar[str] = "instance maps"
    rank: ClassVar[int] = 0

    def __init__(self, path: Path, files: Sequence[str], reading: Reading) -> None:
        super().__init__(path, files, reading)
        instances = {_photograph(file): file for file in files if INSTANCES in _folders(file)}
        self.hold(instances, suffixes=False)
        self._classes = {_photograph(file): file for file in files if CLASSES in _folders(file)}
        labels = [
            label for file in files if file.endswith(LABELS) for label in _labels(path / file)
        ]
        self._parts = {colour: part for part, (_, colour) in enumerate(labels)}
        self.part_names = {part: name for part, (name, _) in enumerate(labels)}

    @classmethod
    def reads(cls, place: Place) -> list[str]:
        """Returns maps of instances and classes, and the list of classes; see `Layout.reads`."""
        pngs = [file for file in place.ending(".png") if {INSTANCES, CLASSES} & _folders(file)]
        if not any(INSTANCES in _folders(file) for file in pngs):
            return []
        return [*pngs, *(file for file in place.files if PurePosixPath(file).name == LABELS)]

    def advice(self, image: str) -> str:
        """Returns how the instance map of a photograph has to be named."""
        return f"its map is {INSTANCES}/{PurePosixPath(image).with_suffix('.png')}"

    def regions(self, name: str, height: int, width: int) -> list[Region]:
        """Returns the masks of an image by their colours' numbers; see `Layout.regions`."""
        instances = self._read(self.entries[name], height, width)
        classes = self._classes_of(name, height, width)
        colours = [number for number in np.unique(instances) if number not in NEITHER]
        return [
            Region(0, 0, inside, (1.0,), self._part(classes, inside))
            for inside in (instances == number for number in colours)
        ]

    def _part(self, classes: Numbers | None, inside: np.ndarray) -> int:
        if classes is None:
            return NO_PART
        most = pd.Series(classes[inside]).mode()[0]
        return self._parts.get(int(most), NO_PART)

    def _classes_of(self, name: str, height: int, width: int) -> Numbers | None:
        file = self._classes.get(name)
        return None if file is None else self._read(file, height, width)

    def _read(self, file: str, height: int, width: int) -> Numbers:
        colours = read_colours(self.path / file)
        if colours.shape != (height, width):
            raise ProtoMaskError(
                f"{self.path / file} has {colours.shape[1]}×{colours.shape[0]} pixels, but the "
                f"upright photograph {width}×{height}"
            )
        return colours


def _folders(file: str) -> set[str]:
    return set(PurePosixPath(file).parts[:-1])


def _photograph(file: str) -> str:
    """Returns the path of a map below the folder of maps, without its suffix."""
    parts = PurePosixPath(file).with_suffix("").parts
    start = next(at for at, part in enumerate(parts) if part in (INSTANCES, CLASSES))
    return "/".join(parts[start + 1 :])


def _labels(path: Path) -> list[tuple[str, int]]:
    """Returns the names of classes and their colours' numbers, without the background.

    Raises:
        ProtoMaskError: a line is not such as `wing:0,128,0::`.
    """
    found = []
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    for number, line in enumerate(lines, start=1):
        name, _, rest = line.partition(":")
        colour = rest.partition(":")[0]
        if not colour or name.startswith("#"):
            continue
        shares = colour.split(",")
        if len(shares) != 3 or not all(share.strip().isdecimal() for share in shares):
            raise ProtoMaskError(f"{path}, line {number}: {line!r} is not such as `wing:0,128,0::`")
        found.append((name, int(number_of(np.array([int(share) for share in shares])))))
    return [(name, colour) for name, colour in found if colour not in NEITHER]
