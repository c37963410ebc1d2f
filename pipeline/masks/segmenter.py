"""The interface of a segmenter."""

import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal, TypeVar

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, ValidationError

from pipeline.datasets.image_file import read_image
from pipeline.datasets.listing import refuse_changed
from pipeline.errors import ProtoMaskError
from pipeline.masks.masks import Masks
from pipeline.registry import Registry


@dataclass(frozen=True)
class Machine:
    """Settings of this machine for segmenters; they change masks by rounding only.

    Args:
        device: PyTorch's name of the device: "cpu", "cuda", "cuda:1".
        weights: file with the segmenter's weights; None downloads them once for each user.
        masks: file or folder of masks that the segmenter `import` reads.
        memory_fraction: share of the device's memory that may be used, in (0, 1].
        compile: whether networks are compiled (`torch.compile`) before the first image.
        codebook: file with the codebook that a segmenter has learned.
        engine: what computes a frozen backbone on a CPU (`runtime.engine`).
    """

    device: str = "cpu"
    weights: Path | None = None
    masks: Path | None = None
    memory_fraction: float = 0.9
    compile: bool = False
    codebook: Path | None = None
    engine: Literal["auto", "openvino", "pytorch"] = "pytorch"


@dataclass(frozen=True)
class Source:
    """An image file.

    Args:
        root: the data set's folder.
        name: path of the file relative to it, with forward slashes.
        sha256: SHA-256 of its content in the index, 64 hex digits.
    """

    root: Path
    name: str
    sha256: str

    def read(self) -> NDArray[np.uint8]:
        """Reads the image: uint8 RGB, height×width×3.

        Raises:
            ProtoMaskError: the file is missing, unreadable, or has changed since it was listed.
        """
        path = self.root / self.name
        refuse_changed(path, self.sha256)
        return read_image(path)


class Segmenter(BaseModel, ABC):
    """Finds the regions of images; its fields are exactly the parameters that change them.

    `version` is raised when the algorithm changes masks, so that a cache can tell old masks from
    new ones. Weights are identified by their SHA-256.

    Args:
        name: name that the segmenter is registered under.
        version: of the algorithm; raised when it finds other masks.

    Attributes:
        label: the segmenter's name in tables; empty if it is `name`.
        score_names: names of a mask's scores.
        images_per_batch: number of images that are segmented and cached together.
        uses_device: whether the segmenter computes on `Machine.device`.
        shares_device: whether it computes little there and much on the CPU, so that several
            processes use one GPU side by side.
        learned: parameters that `fit` sets where they are None.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    name: str
    version: int
    label: ClassVar[str] = ""
    score_names: ClassVar[tuple[str, ...]] = ("score",)
    images_per_batch: ClassVar[int] = 16
    uses_device: ClassVar[bool] = False
    shares_device: ClassVar[bool] = False
    learned: ClassVar[tuple[str, ...]] = ()

    @property
    def part_names(self) -> Mapping[int, str]:
        """The names of its parts by their numbers (`Masks.parts`); empty if they have none."""
        return {}

    @abstractmethod
    def segment(
        self, images: Sequence[NDArray[np.uint8]], machine: Machine = Machine()
    ) -> list[Masks]:
        """Segments images.

        Args:
            images: RGB images, uint8 height×width×3 each; sizes may differ.
            machine: the device and other settings of this machine.

        Returns:
            The masks of each image, at its own resolution.
        """

    def fit(self, sources: Sequence[Source], folder: Path, machine: Machine) -> "Segmenter":
        """Returns the segmenter for a data set; by default this one, which learns nothing.

        Args:
            sources: the image files that it may learn from, without those of an official test
                split.
            folder: folder of what segmenters keep from run to run.
            machine: the device and other settings of this machine.

        Raises:
            ProtoMaskError: it cannot learn from them.
        """
        return self

    def with_learnt(self, machine: Machine) -> "Segmenter":
        """Returns the segmenter with what it has learned read from its file, once for all images.

        By default this one, which has no such file.

        Args:
            machine: names the file.

        Raises:
            ProtoMaskError: the file is missing, damaged, or another one.
        """
        return self

    def named(self, sources: Sequence[Source], folder: Path, machine: Machine) -> "Segmenter":
        """Returns the segmenter with names, of images and of parts, that images do not tell.

        By default this one.

        Args:
            sources: all images that will be segmented.
            folder: folder of this segmenter's finished masks.
            machine: the settings of this machine.

        Raises:
            ProtoMaskError: it was given something that it cannot use.
        """
        return self

    def learnt(self) -> bytes | None:
        """Returns what `fit` has learned as a file's content, which is stored with the masks."""
        return None

    def identity(self, source: Source) -> str:
        """Returns what an image's masks depend on, beside the segmenter: its content's SHA-256."""
        return source.sha256

    def segment_sources(self, sources: Sequence[Source], machine: Machine) -> list[Masks]:
        """Segments image files of a data set.

        Args:
            sources: the image files to segment.
            machine: the device and other settings of this machine.

        Raises:
            ProtoMaskError: an image is missing, unreadable, or has changed since it was listed.
        """
        return self.segment([source.read() for source in sources], machine)

    def remarks(self, sources: Sequence[Source], machine: Machine) -> list[str]:
        """Returns what a person should know of what the segmenter was given beside the images.

        Such as masks to import that are of none of the images: how many, and a few of them.

        Args:
            sources: all image files of the data set.
            machine: the settings of this machine.

        Raises:
            ProtoMaskError: it was given something that it cannot use.
        """
        return []

    def fingerprint(self) -> dict[str, Any]:
        """Returns the parameters that determine the segmenter's masks, as JSON values."""
        return self.model_dump(mode="json")

    def differing(self, fingerprint: Mapping[str, Any]) -> list[str]:
        """Returns the parameters in which another segmenter differs from this one.

        What was learned counts only where this segmenter asks for something in particular.

        Args:
            fingerprint: the other segmenter's parameters, as `fingerprint` returns them.
        """
        own = self.fingerprint()
        free = {name for name in self.learned if own[name] is None}
        names = {*own, *fingerprint} - free
        return sorted(name for name in names if own.get(name) != fingerprint.get(name))

    def key(self) -> str:
        """Returns a short name that is unique to segmenters with the same fingerprint."""
        canonical = json.dumps(self.fingerprint(), sort_keys=True)
        return f"{self.name}-{hashlib.sha256(canonical.encode()).hexdigest()[:16]}"


SEGMENTERS: Registry[type[Segmenter]] = Registry(
    "segmenter", "pipeline.masks.segmenters", "protomask.segmenters"
)

Kind = TypeVar("Kind", bound=type[Segmenter])


def register(segmenter: Kind) -> Kind:
    """Registers a segmenter under the default of its parameter `name`; a decorator of its class."""
    parameters: type[BaseModel] = segmenter
    SEGMENTERS.add(parameters.model_fields["name"].default, segmenter)
    return segmenter


def with_fingerprint(fingerprint: dict[str, Any]) -> Segmenter:
    """Returns the segmenter with a fingerprint, as `Segmenter.fingerprint` returns it.

    Args:
        fingerprint: the parameters that determine the segmenter's masks, with its `name`.

    Raises:
        ProtoMaskError: this version of ProtoMask has no such segmenter.
    """
    try:
        return SEGMENTERS[fingerprint["name"]].model_validate(fingerprint)
    except (ProtoMaskError, ValidationError) as error:
        raise ProtoMaskError(
            "the masks were computed by a segmenter that this version of ProtoMask does not have "
            f"({error}): run `dvc repro`"
        ) from None
