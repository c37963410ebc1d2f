"""SLIT: the regions between the boundaries found by DirectSAM (Chen et al., 2024)."""

import re
import threading
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BeforeValidator, Field
from scipy import ndimage

from pipeline.masks.masks import Masks, Region
from pipeline.masks.segmenter import Machine, Segmenter, register
from pipeline.masks.weights import find_weights

if TYPE_CHECKING:
    from pipeline.masks.segmenters.slit.boundaries import Boundaries

WEIGHTS = "https://huggingface.co/chendelong/DirectSAM-1800px-0424/resolve/main/model.safetensors"
# SegFormer-B5; other parameters have the defaults of transformers' SegformerConfig.
PUBLISHED = {
    "depths": (3, 6, 40, 3),
    "hidden_sizes": (64, 128, 320, 512),
    "num_attention_heads": (1, 2, 5, 8),
    "sr_ratios": (8, 4, 2, 1),
    "decoder_hidden_size": 768,
}
EIGHT_NEIGHBOURS = np.ones((3, 3))

_loading = threading.Lock()


def _sha256(value: Any) -> Any:
    if isinstance(value, str) and re.fullmatch("[0-9a-f]{64}", value):
        return value
    raise ValueError(
        f"{value!r} is no SHA-256, 64 hexadecimal digits: fetch {WEIGHTS}, run `sha256sum "
        "model.safetensors`, and set segmenter.weights_sha256 to what it prints"
    )


@register
class Slit(Segmenter):
    """Divides an image along the boundaries found by the network DirectSAM.

    A pixel is boundary where its probability is above `threshold`, or where one of its four
    neighbours is. The masks are the connected components (8-neighbourhood) of all other pixels.

    A mask's score is 1 − (mean boundary probability inside it)/threshold: 1 if the network finds no
    trace of a boundary in it, 0 if all its probabilities are at the threshold.

    Args:
        weights_sha256: SHA-256 of the network's weights, a safetensors file.
        side: side of the square that images are resized to for the network, in pixels.
        threshold: threshold of the boundary probability, in (0, 1).
        precision: dtype of the network's computation; `bfloat16` is faster on a GPU.
    """

    name: Literal["slit"] = "slit"
    version: Literal[1] = 1
    weights_sha256: Annotated[str, BeforeValidator(_sha256)]
    side: Annotated[int, Field(ge=32)] = 1800
    threshold: Annotated[float, Field(gt=0, lt=1)] = 0.001
    precision: Literal["float32", "bfloat16"] = "float32"
    uses_device: ClassVar[bool] = True
    architecture: ClassVar[Mapping[str, Any]] = PUBLISHED

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
    """Returns the regions between boundaries (method.md, "Segmenters").

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
def _boundaries(slit: Slit, machine: Machine) -> "Boundaries":
    from pipeline.masks.segmenters.slit.boundaries import (
        Boundaries,
        import_transformers,
        load_network,
    )

    import_transformers()
    path = find_weights(WEIGHTS, slit.weights_sha256, machine.weights)
    return Boundaries(load_network(path, slit.architecture), slit, machine)
