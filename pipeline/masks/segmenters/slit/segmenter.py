"""SLIT: the regions between the boundaries found by DirectSAM (Chen et al., 2024)."""

import threading
from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from pipeline.masks.masks import Masks, Region
from pipeline.masks.segmenter import Machine, register
from pipeline.masks.segmenters.slit.settings import WEIGHTS, SlitSettings
from pipeline.masks.weights import find_weights

if TYPE_CHECKING:
    from pipeline.masks.segmenters.slit.boundaries import Boundaries

EIGHT_NEIGHBOURS = np.ones((3, 3))

_loading = threading.Lock()


@register
class Slit(SlitSettings):
    """Divides an image along the boundaries found by the network DirectSAM.

    A pixel is boundary where its probability is above `threshold`, or where one of its four
    neighbours is. The masks are the connected components (8-neighbourhood) of all other pixels.

    A mask's score is 1 − (mean boundary probability inside it)/threshold: 1 if the network finds no
    trace of a boundary in it, 0 if all its probabilities are at the threshold.

    For its parameters see `SlitSettings`.
    """

    def segment(
        self, images: Sequence[NDArray[np.uint8]], machine: Machine = Machine()
    ) -> list[Masks]:
        """Segments images; see `Segmenter.segment`."""
        if not images:
            return []
        with _loading:
            boundaries = _boundaries(self, machine)
        return [cut(seen, self.threshold) for seen in boundaries.probabilities(images)]


def cut(probability: NDArray[np.float32], threshold: float) -> Masks:
    """Returns the regions between boundaries (docs/method.md, "Segmenters").

    Args:
        probability: boundary probabilities, float32 height×width in [0, 1].
        threshold: pixels above this and their four neighbours are boundary.
    """
    boundary = ndimage.binary_dilation(probability > threshold)
    labels, count = ndimage.label(~boundary, EIGHT_NEIGHBOURS)
    inside = ndimage.mean(probability, labels, range(1, count + 1))
    regions = [
        Region(columns.start, rows.start, labels[rows, columns] == number, (1 - mean / threshold,))
        for number, ((rows, columns), mean) in enumerate(
            zip(ndimage.find_objects(labels), inside, strict=True), start=1
        )
    ]
    height, width = probability.shape
    return Masks.of(height, width, regions, len(Slit.score_names))


@lru_cache(maxsize=1)
def _boundaries(slit: SlitSettings, machine: Machine) -> "Boundaries":
    from pipeline.masks.segmenters.slit.boundaries import (
        Boundaries,
        import_transformers,
        load_network,
    )

    import_transformers()
    path = find_weights(WEIGHTS, slit.weights_sha256, machine.weights)
    return Boundaries(load_network(path, slit.architecture), slit, machine)
