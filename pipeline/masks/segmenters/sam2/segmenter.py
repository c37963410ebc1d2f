"""SAM 2 (Ravi et al., 2024), prompted with a grid of points on the image and on crops of it."""

import threading
from collections.abc import Sequence
from functools import lru_cache
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import ProtoMaskError
from pipeline.masks.masks import Masks, Region
from pipeline.masks.segmenter import Machine, register
from pipeline.masks.segmenters.sam2.settings import Sam2Settings


class Generator(Protocol):
    """Finds the regions of RGB images, uint8 height×width×3 each."""

    def __call__(self, images: Sequence[NDArray[np.uint8]]) -> list[list[Region]]:
        """Returns the regions of each image.

        Args:
            images: RGB images, uint8 height×width×3 each; sizes may differ.
        """
        ...


@register
class Sam2(Sam2Settings):
    """Automatic mask generation with SAM 2.1; see `Sam2Settings` for its parameters."""

    def segment(
        self, images: Sequence[NDArray[np.uint8]], machine: Machine = Machine()
    ) -> list[Masks]:
        """Segments images; see `Segmenter.segment`."""
        with _loading:
            generate = _generator(self, machine)
        with _on_device:
            found = generate(images)
        return [
            Masks.of(image.shape[0], image.shape[1], regions, len(self.score_names))
            for image, regions in zip(images, found, strict=True)
        ]


_loading, _on_device = threading.Lock(), threading.Lock()


@lru_cache(maxsize=1)
def _generator(settings: Sam2Settings, machine: Machine) -> Generator:
    """Builds the network, once in each process."""
    try:
        from pipeline.masks.segmenters.sam2.batched import BatchedGenerator
        from pipeline.masks.segmenters.sam2.model import load_model
        from pipeline.masks.segmenters.sam2.reference import ReferenceGenerator
    except ModuleNotFoundError as error:
        raise ProtoMaskError(
            f"segmenter=sam2 needs the package {error.name}, which is not installed: "
            "in the repository, run `SAM2_BUILD_CUDA=0 pip install --no-build-isolation "
            "-c constraints.txt -e '.[sam2]'`"
        ) from None
    model = load_model(settings.model, settings.weights_sha256, machine)
    if settings.engine == "reference":
        return ReferenceGenerator(model, settings)
    return BatchedGenerator(model, settings, machine)
