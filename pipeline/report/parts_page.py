"""The page of the parts that the segmenter finds, each with examples from many classes."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pipeline.datasets.index import Index
from pipeline.masks.part_names import PartNames, names_file
from pipeline.report.drawing import COLOURS, QUALITY_SMALL, Outline, outlined
from pipeline.report.image_renderer import ImageRenderer
from pipeline.report.pages import Picture, picture, write_page
from pipeline.report.parts import Part, Parts, parts_in
from pipeline.report.typical import spread_over_classes
from pipeline.saliency.prototypes import Prototypes

NUM_EXAMPLES, THUMBNAIL = 9, 128
AROUND, AT_LEAST = 1.4, 1 / 3
"""Side of an example: times the mask's longer side, at least this share of the image's shorter."""


class Shower(NamedTuple):
    """A class with prototypes that show a part.

    Args:
        label, name: number and name of the class.
        cards: number of the first prototype of each card on the class's page, and of all on it.
    """

    label: int
    name: str
    cards: list[tuple[int, tuple[int, ...]]]


class Shown(NamedTuple):
    """A part on the page.

    Args:
        part: the part.
        called: its name, or `part 7`.
        found: `found in 96 % of the images`.
        examples: pictures of it.
        num_prototypes: number of prototypes that show it.
        showers: these prototypes by class.
    """

    part: Part
    called: str
    found: str
    examples: list[Picture]
    num_prototypes: int
    showers: list[Shower]


class PartsPage:
    """Writes the page.

    Args:
        index: the data set's images, with ids and classes.
        renderer: reads these images and their masks.
        prototypes: the finished model's prototypes.
        names: what the parts are called.
    """

    def __init__(
        self, index: Index, renderer: ImageRenderer, prototypes: Prototypes, names: PartNames
    ) -> None:
        self.index, self.renderer, self.prototypes = index, renderer, prototypes
        self.names, self.found = names, parts_in(renderer.masks)
        self.parts = Parts.of(renderer.masks, names.names)

    def write(self, path: Path, not_learned: Sequence[str]) -> None:
        """Writes the page, which links to index.html and classes/ beside it.

        Args:
            path: path of the HTML file.
            not_learned: what speaks against the model's having learned anything; empty if nothing.
        """
        segmenter = self.renderer.masks.about["segmenter"]
        pictures = self._examples()
        shown = [self._shown(part, pictures[part.number]) for part in self.found]
        levels = sorted({part.level for part in self.found if part.foreground})
        remarks = [self.names.remark, self.names.unknown(self.parts.shares)]
        write_page(
            path,
            "parts_page.html.jinja",
            dataset=self.index.dataset,
            not_learned=not_learned,
            views=self.prototypes.views,
            segmenter=segmenter["name"],
            learned_from=self.renderer.masks.learned_from(),
            remarks=[remark for remark in remarks if remark],
            num_images=len(self.index),
            levels={
                level: [of for of in shown if of.part.foreground and of.part.level == level]
                for level in levels
            },
            background=[of for of in shown if not of.part.foreground],
            names=self.names.names,
            file=names_file(segmenter, self.parts.shares, self.names.names),
        )

    def examples(self, part: Part) -> list[int]:
        """Returns the images that are shown of a part: the first of each class that has it.

        Args:
            part: the part.

        Returns:
            Rows of the index, evenly spaced over the classes (see `spread_over_classes`).
        """
        labels = self.index.labels[part.rows].tolist()
        return [int(part.rows[place]) for place in spread_over_classes(labels, NUM_EXAMPLES)]

    def _examples(self) -> dict[int, list[Picture]]:
        """Draws the examples of all parts, image by image, so that each is read once."""
        chosen = {part.number: self.examples(part) for part in self.found}
        drawn = {
            (number, row): self._example(number, row)
            for row in sorted({row for rows in chosen.values() for row in rows})
            for number, rows in chosen.items()
            if row in rows
        }
        pictures = {number: [drawn[number, row] for row in rows] for number, rows in chosen.items()}
        return {number: list(filter(None, found)) for number, found in pictures.items()}

    def _example(self, part: int, row: int) -> Picture | None:
        """Draws the largest mask of a part in an image; None if its file is not available."""
        pixels = self.renderer.image(row)
        if pixels is None:
            return None
        masks = self.renderer.masks.masks(row)
        mask = int(np.flatnonzero(masks.parts == part)[0])
        drawn = draw_around(pixels, masks.full(mask), masks.boxes[mask].tolist(), THUMBNAIL)
        alt = f"{self.parts.called(part)} in {self.index.ids[row]}"
        return picture(drawn, alt[0].upper() + alt[1:], QUALITY_SMALL)

    def _shown(self, part: Part, examples: list[Picture]) -> Shown:
        prototypes, number = self.prototypes, part.number
        cards = {
            label: [group for group in groups if prototypes.part_P[group[0]] == number]
            for label in range(len(prototypes.class_names))
            for groups in [prototypes.distinct(label)]
        }
        showers = [
            Shower(label, prototypes.class_names[label], [(group[0], group) for group in groups])
            for label, groups in cards.items()
            if groups
        ]
        called, found = self.parts.called(number), self.parts.found(number)
        count = sum(len(group) for groups in cards.values() for group in groups)
        return Shown(part, called, found, examples, count, showers)


def draw_around(
    pixels: NDArray[np.uint8], mask: NDArray[np.bool_], box: list[int], side: int
) -> Image.Image:
    """Draws a mask and what is around it, with the mask outlined and the rest darkened.

    Args:
        pixels: the RGB image, uint8 height×width×3.
        mask: the mask, bool height×width.
        box: its tight box (x0, y0, x1, y1) in pixels, half-open.
        side: the picture's longer side in pixels.

    Returns:
        A square around the mask's middle, as far as it lies in the image.
    """
    height, width = mask.shape
    x0, y0, x1, y1 = box
    around = max(AROUND * max(x1 - x0, y1 - y0), AT_LEAST * min(height, width))
    rows = _around((y0 + y1) / 2, around, height)
    columns = _around((x0 + x1) / 2, around, width)
    outline = Outline(mask[rows, columns], COLOURS[0])
    return outlined(pixels[rows, columns], [outline], side)


def _around(middle: float, length: float, end: int) -> slice:
    """Returns the pixels of a stretch of this length within 0..end, moved inside if it can be."""
    first = min(max(round(middle - length / 2), 0), max(end - round(length), 0))
    return slice(first, min(first + round(length), end))
