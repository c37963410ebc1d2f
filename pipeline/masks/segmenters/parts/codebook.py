"""What `parts` learns from a data set: directions of features, what is object, and which parts.

Dimensions: S stages with C_s channels, G×G cells of the first stage's grid, R×R of the coarser grid
on which objectness is spread, D and E directions for objects and for parts.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from pipeline.errors import ProtoMaskError
from pipeline.masks.segmenters.parts.features import FeatureMaps
from pipeline.masks.segmenters.parts.objectness import GRID, contrast, norm, scaled, spread
from pipeline.masks.segmenters.parts.settings import PartsSettings

FORMAT = 1
LIMIT = 5.0
"""Standardised features are cut at this many standard deviations: single channels of some networks
have values of hundreds."""
FRINGE = 0.2
"""How far below the threshold of objectness a cell may still belong to the object's fringe."""
Tensors = dict[str, NDArray[np.float32]]


@dataclass(frozen=True)
class Directions:
    """A projection of the standardised features of several stages, which are centred already.

    Args:
        stages: places of the stages among the settings' stages.
        matrices: for each of them, float32 C_s×D.
    """

    stages: tuple[int, ...]
    matrices: tuple[NDArray[np.float32], ...]

    def of(self, standard: Sequence[NDArray[np.float32]], side: int) -> NDArray[np.float32]:
        """Returns the projection of an image's cells, float32 side×side×D.

        Args:
            standard: the standardised features of all stages, float32 C_s×h_s×w_s.
            side: cells a side of the grid that all stages are interpolated to.
        """
        projected = (
            resized(np.einsum("chw,cd->dhw", standard[place], matrix, optimize=True), side)
            for place, matrix in zip(self.stages, self.matrices, strict=True)
        )
        return np.sum(list(projected), axis=0).transpose(1, 2, 0)


@dataclass(frozen=True, eq=False)
class Codebook:
    """What is learned; see `learning.learn`.

    Args:
        mean, std: of each stage's channels over the images, float32 C_s.
        for_objects, for_parts: projections of the standardised features.
        weights: float32 D, of the projections for objects, and `bias`: their linear objectness.
        bias: a number.
        centres: for each level from 1, unit vectors float32 parts×E.
        about: what it was learned with: backbone, its hash, side, stages …, and the number of
            images.
    """

    mean: tuple[NDArray[np.float32], ...]
    std: tuple[NDArray[np.float32], ...]
    for_objects: Directions
    for_parts: Directions
    weights: NDArray[np.float32]
    bias: float
    centres: tuple[NDArray[np.float32], ...]
    about: dict

    def standard(self, maps: FeatureMaps) -> list[NDArray[np.float32]]:
        """Returns the standardised features of an image, float32 C_s×h_s×w_s for each stage."""
        return standardised([each.values() for each in maps], self.mean, self.std)

    def objectness(self, standard: Sequence[NDArray[np.float32]]) -> NDArray[np.float64]:
        """Returns the objectness of an image's cells, G×G: 0 at the threshold, 1 for an object.

        Args:
            standard: the standardised features of all stages.
        """
        side = standard[0].shape[-1]
        fine = self.for_objects.of(standard, side)
        coarse = pooled(fine, min(GRID, side))
        found = fine @ self.weights + self.bias
        even = spread(unit(coarse), coarse @ self.weights + self.bias)
        return scaled(found + resized(even[None], side)[0])

    def looks(
        self, standard: Sequence[NDArray[np.float32]], objectness: NDArray[np.float64]
    ) -> NDArray[np.float32]:
        """Returns what parts are told from one another by, unit vectors float32 G×G×E.

        They say in what a cell differs from its object as a whole: a red bird's wing and a blue
        one's differ from either bird alike.

        Args:
            standard: the standardised features of all stages.
            objectness: G×G, from `objectness`.
        """
        return unit(from_object(self.for_parts.of(standard, len(objectness)), objectness))

    @cached_property
    def content(self) -> bytes:
        """The codebook as the bytes of a safetensors file."""
        tensors: Tensors = {"weights": self.weights}
        for stage, (mean, std) in enumerate(zip(self.mean, self.std, strict=True)):
            tensors |= {f"mean.{stage}": mean, f"std.{stage}": std}
        for name, directions in (("objects", self.for_objects), ("parts", self.for_parts)):
            for stage, matrix in zip(directions.stages, directions.matrices, strict=True):
                tensors[f"{name}.{stage}"] = matrix
        for level, centres in enumerate(self.centres, start=1):
            tensors[f"centres.{level}"] = centres
        about = json.dumps({"format": FORMAT, "bias": self.bias, **self.about}, sort_keys=True)
        tensors = {name: np.ascontiguousarray(tensors[name]) for name in sorted(tensors)}
        return save(tensors, {"protomask": about})

    @property
    def sha256(self) -> str:
        """SHA-256 of `content`, 64 hex digits."""
        return hashlib.sha256(self.content).hexdigest()

    def refuse_unless(self, settings: PartsSettings, backbone: str) -> None:
        """Checks that the codebook fits.

        Args:
            settings: the parameters that it is to be used with.
            backbone: the fingerprint of the backbone that it is to be used with.

        Raises:
            ProtoMaskError: it was learned with others, which the message names.
        """
        wanted = {**decisive(settings), "backbone_sha256": backbone}
        differing = [name for name, value in wanted.items() if self.about.get(name) != value]
        if differing:
            said = ", ".join(
                f"{name} {self.about.get(name)}, not {wanted[name]}" for name in differing
            )
            raise ProtoMaskError(
                f"the codebook {self.sha256[:12]}… was learned with {said}: set these as they were "
                "(`segmenter`), or set segmenter.codebook=null to learn another"
            )

    @classmethod
    def read(cls, path: Path, sha256: str) -> "Codebook":
        """Reads a codebook.

        Args:
            path: the file.
            sha256: the SHA-256 that it must have.

        Raises:
            ProtoMaskError: the file is missing, another one, damaged, or of another version.
        """
        try:
            found = hashlib.sha256(path.read_bytes()).hexdigest()
        except OSError as error:
            raise ProtoMaskError(
                f"runtime.codebook: {path} cannot be read ({error.strerror}); give the codebook "
                f"with the SHA-256 {sha256}, or set segmenter.codebook=null to learn another"
            ) from None
        if found != sha256:
            raise ProtoMaskError(
                f"runtime.codebook: {path} has the SHA-256 {found}, not {sha256}; give the other "
                f"file, or, if this one is meant, set segmenter.codebook={found}"
            )
        try:
            with safe_open(path, "numpy") as file:
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
                about = json.loads(file.metadata()["protomask"])
            return cls._of(tensors, about)
        except (SafetensorError, KeyError, ValueError, TypeError) as error:
            raise ProtoMaskError(
                f"runtime.codebook: {path} is no codebook that this version of ProtoMask reads "
                f"({type(error).__name__}: {error}); set segmenter.codebook=null to learn another"
            ) from None

    @classmethod
    def _of(cls, tensors: Tensors, about: dict) -> "Codebook":
        if about.pop("format") != FORMAT:
            raise ValueError(f"its format is not {FORMAT}")
        bias, stages = about.pop("bias"), range(len(about["stages"]))
        return cls(
            tuple(tensors[f"mean.{stage}"] for stage in stages),
            tuple(tensors[f"std.{stage}"] for stage in stages),
            _directions(tensors, "objects", stages),
            _directions(tensors, "parts", stages),
            tensors["weights"],
            bias,
            tuple(tensors[f"centres.{level + 1}"] for level in range(len(about["levels"]))),
            about,
        )


def decisive(settings: PartsSettings) -> dict:
    """Returns the parameters that a codebook depends on, as JSON values."""
    others = {"sample", "min_area", "superpixel", "codebook"}
    return settings.model_dump(mode="json", exclude=others)


def guess(
    settings: PartsSettings, maps: FeatureMaps, fine: NDArray[np.float32]
) -> NDArray[np.float64]:
    """Returns the first guess of objectness of an image, before anything is learned, G×G.

    Args:
        settings: names the guess.
        maps: the image's feature maps.
        fine: the projections for objects of its cells, float32 G×G×D.
    """
    if settings.objectness == "contrast":
        return contrast(unit(fine))
    return resized(norm(maps[-1].values())[None], len(fine))[0]


def standardised(
    values: Sequence[NDArray[np.float32]],
    mean: Sequence[NDArray[np.float32]],
    std: Sequence[NDArray[np.float32]],
) -> list[NDArray[np.float32]]:
    """Returns features in standard deviations from the mean, cut at LIMIT, over the root of C_s.

    So every stage has the same weight, however many channels it has.

    Args:
        values: the features of each stage, float32 C_s×h_s×w_s.
        mean: mean of each stage's channels, float32 C_s.
        std: their standard deviation, float32 C_s.
    """
    return [
        np.clip((of - m[:, None, None]) / s[:, None, None], -LIMIT, LIMIT) / np.sqrt(len(m))
        for of, m, s in zip(values, mean, std, strict=True)
    ]


def from_object(cells: NDArray[np.float32], objectness: NDArray[np.float64]) -> NDArray[np.float32]:
    """Returns the differences of cells from the mean of the object's cells, float32 G×G×(any).

    Args:
        cells: float32 G×G×(any).
        objectness: G×G; a cell's weight grows from 0 at −FRINGE to 1.
    """
    weight = np.clip(objectness + FRINGE, 0, 1)
    total = max(weight.sum(), 1e-9)
    return cells - (np.einsum("gh,ghd->d", weight, cells) / total).astype(np.float32)


def unit(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    """Returns vectors of length 1 along the last axis; zeros stay zeros."""
    return vectors / np.maximum(np.linalg.norm(vectors, axis=-1, keepdims=True), 1e-9)


def resized(maps: NDArray, side: int) -> NDArray:
    """Interpolates maps, C×h×w, to C×side×side bilinearly."""
    tensor = torch.from_numpy(np.ascontiguousarray(maps))[None]
    if tensor.shape[-2:] == (side, side):
        return maps
    return torch.nn.functional.interpolate(tensor, (side, side), mode="bilinear")[0].numpy()


def pooled(cells: NDArray[np.float32], side: int) -> NDArray[np.float32]:
    """Averages cells, G×G×D, to side×side×D."""
    tensor = torch.from_numpy(np.ascontiguousarray(cells.transpose(2, 0, 1)))[None]
    found = torch.nn.functional.adaptive_avg_pool2d(tensor, (side, side))[0]
    return found.numpy().transpose(1, 2, 0)


def _directions(tensors: Tensors, name: str, stages: range) -> Directions:
    used = tuple(stage for stage in stages if f"{name}.{stage}" in tensors)
    return Directions(used, tuple(tensors[f"{name}.{stage}"] for stage in used))
