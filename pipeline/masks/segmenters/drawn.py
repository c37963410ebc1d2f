"""The true parts of the built-in data set: the upper bound of what a segmenter can find there."""

from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from pipeline.datasets.image_file import read_label_image
from pipeline.datasets.readers.demo.classes import PARTS
from pipeline.errors import ProtoMaskError
from pipeline.masks.masks import Masks, Region
from pipeline.masks.segmenter import Machine, Segmenter, Source, register

Groups = dict[str, tuple[str, ...]]

BIRD: Groups = {"bird": PARTS}
GROUPS: Groups = {
    "head": ("crown", "beak", "eye", "cheek", "throat"),
    "body": ("breast", "belly", "back", "wing", "wing bar"),
}
LEVELS: tuple[Groups, ...] = (BIRD, GROUPS, {part: (part,) for part in PARTS})
"""What is one mask, from the whole object to single parts, and which drawn parts it is made of."""
NUMBERS = {name: number for number, name in enumerate((*PARTS, *GROUPS, *BIRD))}
"""Numbers of the masks' parts: a single part has its place in `PARTS`."""
ADVICE = "`segmenter=drawn` knows the true parts of `dataset=demo` alone: choose another segmenter"


@register
class Drawn(Segmenter):
    """Returns the drawn parts of the images of `demo`, and head, body and the whole bird.

    A part that is hidden or not drawn has no mask; one in several pieces, such as the legs, is one
    mask.
    """

    name: Literal["drawn"] = "drawn"
    version: Literal[2]
    label: ClassVar[str] = "the drawn parts"

    @property
    def part_names(self) -> dict[int, str]:
        """The names of the drawn parts, of head, body and bird, by their numbers."""
        return {number: name for name, number in NUMBERS.items()}

    def segment(
        self, images: Sequence[NDArray[np.uint8]], machine: Machine = Machine()
    ) -> list[Masks]:
        """Refuses images, of whose parts their pixels do not tell.

        Raises:
            ProtoMaskError: always.
        """
        raise ProtoMaskError(ADVICE)

    def segment_sources(self, sources: Sequence[Source], machine: Machine) -> list[Masks]:
        """Reads the parts of image files of the demo; see `Segmenter.segment_sources`.

        Raises:
            ProtoMaskError: an image is not the demo's, or its file has changed.
        """
        return [self._masks(source) for source in sources]

    def _masks(self, source: Source) -> Masks:
        height, width = source.read().shape[:2]
        path = _label_path(source)
        if not path.is_file():
            raise ProtoMaskError(f"{source.root / source.name} has no drawn parts: {ADVICE}")
        labels = read_label_image(path)
        if labels.shape != (height, width):
            raise ProtoMaskError(f"{path} is not of the size of its image: {ADVICE}")
        return Masks.of(height, width, _regions(labels), len(self.score_names))


def _label_path(source: Source) -> Path:
    """Returns where the demo has an image's parts: `parts/CLASS/NUMBER.png`."""
    _, *name = PurePosixPath(source.name).with_suffix(".png").parts
    return source.root / "parts" / Path(*name)


def _regions(labels: NDArray[np.uint8]) -> Iterator[Region]:
    """Yields the parts that are visible, and their groups, as regions of the whole image."""
    for level, found in enumerate(LEVELS):
        for name, parts in found.items():
            inside = np.isin(labels, [PARTS.index(part) + 1 for part in parts])
            if inside.any():
                yield Region(0, 0, inside, (1.0,), NUMBERS[name], level)
