"""What the parts that masks show are called, and in how many of the images each is found."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pipeline.masks.masks import NO_PART
from pipeline.masks.store import MaskStore


class Part(NamedTuple):
    """A part that a segmenter finds in images.

    Args:
        number: its number, the same in all images.
        level: level of most of its masks: 0 for whole objects, 1, 2, … for ever finer parts.
        foreground: whether most of its masks are of an object rather than of background.
        num_masks: the number of its masks.
        rows: int64, the images in which it is found, as rows of the store, ascending.
    """

    number: int
    level: int
    foreground: bool
    num_masks: int
    rows: NDArray[np.int64]


@dataclass(frozen=True)
class Parts:
    """The parts of a data set.

    Args:
        names: their names by their numbers; parts without a name are missing.
        shares: share of the images in which each is found, in (0, 1], by number; empty if unknown.
    """

    names: Mapping[int, str]
    shares: Mapping[int, float]

    @classmethod
    def of(cls, masks: MaskStore, names: Mapping[int, str]) -> "Parts":
        """Returns the parts of a mask store.

        Args:
            masks: the store.
            names: names of the parts by their numbers.
        """
        return cls(names, {part.number: len(part.rows) / len(masks) for part in parts_in(masks)})

    def called(self, part: int) -> str:
        """Returns a part's name, `wing`; without one, its number, `part 7`."""
        return self.names.get(part, f"part {part}")

    def found(self, part: int) -> str:
        """Returns `found in 96 % of the images`; nothing where that is not known.

        It is never 0 % of them, and 100 % are all.
        """
        share = self.shares.get(part)
        if share is None:
            return ""
        percent = min(max(round(100 * share), 1), 99)
        return "found in all images" if share == 1 else f"found in {percent} % of the images"

    def said(self, part: int) -> str:
        """Returns a part's name; without one, its number and in how many images it is found.

        Args:
            part: the part's number; `NO_PART` for nothing, of which nothing is said.
        """
        if part == NO_PART:
            return ""
        found = self.found(part)
        return self.called(part) if part in self.names or not found else f"part {part}, {found}"


def parts_in(masks: MaskStore) -> list[Part]:
    """Returns the parts that the masks of a store show, in the order of their numbers."""
    part_M, level_M, foreground_M = masks.parts(), masks.levels(), masks.foreground()
    row_M = np.repeat(np.arange(len(masks)), masks.num_masks())
    found = []
    for number in np.unique(part_M[part_M != NO_PART]).tolist():
        its = part_M == number
        found.append(
            Part(
                number,
                int(np.bincount(level_M[its]).argmax()),
                bool(2 * foreground_M[its].sum() > its.sum()),
                int(its.sum()),
                np.unique(row_M[its]),
            )
        )
    return found
