"""What a segmenter is to the pipeline."""

import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from pipeline.datasets.listing import refuse_changed
from pipeline.datasets.photograph import read_photograph
from pipeline.masks.masks import Masks


@dataclass(frozen=True)
class Machine:
    """What a segmenter works with on this machine; nothing here changes what it finds, beyond
    rounding.

    Args:
        device: PyTorch's name of it: "cpu", "cuda", "cuda:1".
        weights: the file with the segmenter's weights; None downloads them once for this user.
        masks: the masks that the segmenter `import` reads.
        memory_fraction: the share of the device's memory that may be used, in (0, 1].
        compile: compile the networks (`torch.compile`) before the first image.
    """

    device: str = "cpu"
    weights: Path | None = None
    masks: Path | None = None
    memory_fraction: float = 0.9
    compile: bool = False


@dataclass(frozen=True)
class Source:
    """An image file.

    Args:
        root: the data set's folder.
        name: the file's path below it, with forward slashes.
        sha256: what the index has of it.
    """

    root: Path
    name: str
    sha256: str

    def read(self) -> NDArray[np.uint8]:
        """Returns the photograph: uint8 RGB, height×width×3.

        Raises:
            ProtoMaskError: it is missing or is not the one in the index.
        """
        path = self.root / self.name
        refuse_changed(path, self.sha256)
        return read_photograph(path)


class Segmenter(BaseModel, ABC):
    """Finds the regions of images. Its fields are its parameters, and exactly those that change
    what it finds.

    A change of its algorithm that changes masks raises `version`, a parameter like the others:
    that is what tells a cache that the masks in it are of another kind. Weights are a parameter by
    their SHA-256.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    name: str
    version: int
    score_names: ClassVar[tuple[str, ...]] = ("score",)
    images_per_shard: ClassVar[int] = 16
    uses_device: ClassVar[bool] = False

    @abstractmethod
    def segment(
        self, images: Sequence[NDArray[np.uint8]], machine: Machine = Machine()
    ) -> list[Masks]:
        """Segments photographs.

        Args:
            images: uint8 RGB, each height×width×3, sizes may differ.
            machine: what to work with.

        Returns:
            The masks of each image, at its own resolution.
        """

    def identity(self, source: Source) -> str:
        """Returns what an image's masks depend on, beside the segmenter: its bytes."""
        return source.sha256

    def segment_sources(self, sources: Sequence[Source], machine: Machine) -> list[Masks]:
        """Segments image files of a data set."""
        return self.segment([source.read() for source in sources], machine)

    def fingerprint(self) -> dict[str, Any]:
        """Returns everything that decides what this segmenter finds in an image, as JSON values."""
        return self.model_dump(mode="json")

    def key(self) -> str:
        """Returns a short name that only a segmenter with the same fingerprint has."""
        canonical = json.dumps(self.fingerprint(), sort_keys=True)
        return f"{self.name}-{hashlib.sha256(canonical.encode()).hexdigest()[:16]}"
