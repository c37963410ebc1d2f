"""What a segmenter is to the pipeline."""

import hashlib
import json
from abc import ABC, abstractmethod
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from pipeline.masks.masks import Masks


class Segmenter(BaseModel, ABC):
    """Finds the regions of images. Its fields are its parameters, and exactly those that change
    what it finds.

    A change of its algorithm that changes masks raises `version`, a parameter like the others:
    that is what tells a cache that the masks in it are of another kind.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    name: str
    version: int
    score_names: ClassVar[tuple[str, ...]] = ("score",)

    @abstractmethod
    def segment(self, images: list[NDArray[np.uint8]]) -> list[Masks]:
        """Segments a batch of photographs.

        Args:
            images: uint8 RGB, each height×width×3, sizes may differ.

        Returns:
            The masks of each image, at its own resolution.
        """

    def weights_sha256(self) -> str | None:
        """Returns the hash of the weights, or None for a segmenter without any."""
        return None

    def fingerprint(self) -> dict[str, Any]:
        """Returns everything that decides what this segmenter finds in an image, as JSON values."""
        return {**self.model_dump(mode="json"), "weights_sha256": self.weights_sha256()}

    def key(self) -> str:
        """Returns a short name that only a segmenter with the same fingerprint has."""
        canonical = json.dumps(self.fingerprint(), sort_keys=True)
        return f"{self.name}-{hashlib.sha256(canonical.encode()).hexdigest()[:16]}"
