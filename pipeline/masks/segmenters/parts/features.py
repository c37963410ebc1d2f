"""Feature maps of images, in eight bits, and a cache of them.

Dimensions: S stages, C channels and h×w cells of a stage.
"""

import hashlib
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from pipeline.backbone.backbone import Backbone, round_on_gpu
from pipeline.backbone.engine import Wanted, version
from pipeline.errors import ProtoMaskError
from pipeline.files import atomic_file, sha256
from pipeline.masks.segmenter import Machine, Source
from pipeline.masks.segmenters.parts.settings import PartsSettings

STEPS = 255
AT_ONCE = 16
"""Images whose feature maps are computed side by side before they are kept."""


@dataclass(frozen=True)
class FeatureMap:
    """A stage's feature map of an image; what eight bits cannot hold is lost.

    Args:
        steps: uint8 C×h×w.
        low: float32 C, the value of step 0.
        width: float32 C, the difference between two steps.
    """

    steps: NDArray[np.uint8]
    low: NDArray[np.float32]
    width: NDArray[np.float32]

    @classmethod
    def of(cls, values: NDArray[np.float32]) -> "FeatureMap":
        """Rounds the values of each channel to 256 steps from the smallest to the largest.

        Args:
            values: float32 C×h×w.
        """
        # Sums depend on the order in memory, which a map from the cache has lost.
        values = np.ascontiguousarray(values)
        low = values.min(axis=(1, 2))
        width = (values.max(axis=(1, 2)) - low) / STEPS
        place = (values - low[:, None, None]) / np.where(width > 0, width, 1)[:, None, None]
        return cls(place.round().astype(np.uint8), low, width)

    def values(self) -> NDArray[np.float32]:
        """Returns the values, float32 C×h×w."""
        return self.steps * self.width[:, None, None] + self.low[:, None, None]

    def whole(self) -> bool:
        """Returns whether the arrays are of the types and sizes that belong together."""
        of_channels = (self.low, self.width)
        return (
            self.steps.dtype == np.uint8
            and self.steps.ndim == 3
            and all(each.dtype == np.float32 for each in of_channels)
            and all(each.shape == self.steps.shape[:1] for each in of_channels)
        )


FeatureMaps = list[FeatureMap]


class Features:
    """Computes the feature maps of images, or reads them from a cache.

    Args:
        settings: the backbone, its stages, and the size of its input.
        machine: the device, and the file of weights.
        folder: folder of the cache; None computes all anew, by PyTorch.

    Raises:
        ProtoMaskError: the backbone or one of its stages does not exist, or its weights cannot be
            had.

    Attributes:
        backbone: fingerprint of the backbone.
        computed_by: the engine or device that computes them; empty for PyTorch on a CPU.
    """

    def __init__(self, settings: PartsSettings, machine: Machine, folder: Path | None) -> None:
        self._settings, self._machine = settings, machine
        loaded = settings.backbone, weights(settings, machine), machine.device
        self._backbone = _load(*loaded)
        self._backbone.channels(settings.stages)
        self.backbone = _fingerprint(*loaded)
        cache = None if folder is None else folder / "features"
        # A codebook is to be the same on machines with and without OpenVINO; rounding grows in it.
        engine: Wanted = "openvino" if cache and machine.engine == "openvino" else "pytorch"
        self._backbone.use(engine, cache and cache / "converted")
        openvino = self._backbone.engine == "openvino"
        device = torch.device(machine.device).type
        if device == "cuda":
            round_on_gpu()
        self._threads = device == "cpu" and not openvino
        on_device = f"OpenVINO {version()}" if openvino else f"{device}, exactly"
        self.computed_by = "" if self._threads else on_device
        told = f"{self.backbone} {settings.side} {settings.margin} {settings.stages}"
        name = hashlib.sha256((told + self.computed_by).encode()).hexdigest()[:16]
        self._folder = cache and cache / name

    def of_sources(self, sources: Sequence[Source]) -> Iterator[FeatureMaps]:
        """Yields the feature maps of image files, from the cache, which keeps them.

        Args:
            sources: the image files.

        Raises:
            ProtoMaskError: an image is missing, unreadable, or has changed since it was listed.
        """
        for at in range(0, len(sources), AT_ONCE):
            some = sources[at : at + AT_ONCE]
            kept = [self._kept(source) for source in some]
            unknown = [source for source, maps in zip(some, kept, strict=True) if maps is None]
            computed = iter(self.of_images([source.read() for source in unknown]))
            for source, known in zip(some, kept, strict=True):
                maps = next(computed) if known is None else known
                if known is None:
                    self._keep(source, maps)
                yield maps

    def of_images(self, images: Sequence[NDArray[np.uint8]]) -> list[FeatureMaps]:
        """Returns the feature maps of images.

        On a CPU each image has a thread of its own: sums of several threads would depend on how
        many there are, and with them the codebook, and every mask.

        Args:
            images: RGB images, uint8 height×width×3 each.
        """
        if not self._threads:
            with _on_device:
                return [self._of_image(image) for image in images]
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        try:
            with ThreadPoolExecutor(threads) as pool:
                return list(pool.map(self._of_image, images))
        finally:
            torch.set_num_threads(threads)

    @torch.inference_mode()
    def _of_image(self, image: NDArray[np.uint8]) -> FeatureMaps:
        pixels = torch.from_numpy(_continued(image, self._settings.side, self._settings.margin))
        batch = pixels.permute(2, 0, 1)[None].to(self._machine.device) / 255
        maps = self._backbone.feature_maps(batch, self._settings.stages)
        return [FeatureMap.of(self._inner(each[0].float().cpu().numpy())) for each in maps]

    def _inner(self, cells: NDArray[np.float32]) -> NDArray[np.float32]:
        """Cuts the margin off a feature map."""
        side, margin = self._settings.side, self._settings.margin
        rim = round(cells.shape[-1] * margin / (side + 2 * margin))
        return cells[:, rim : cells.shape[1] - rim, rim : cells.shape[2] - rim]

    def taken(self, source: Source) -> FeatureMaps | None:
        """Removes the feature maps of an image file from the cache and returns them, if it has any.

        Args:
            source: the image file.
        """
        maps = self._kept(source)
        if maps is not None:
            self._path(source).unlink(missing_ok=True)
        return maps

    def _kept(self, source: Source) -> FeatureMaps | None:
        if self._folder is None:
            return None
        try:
            with np.load(self._path(source)) as file:
                arrays = [file[f"arr_{number}"] for number in range(len(file.files))]
        except Exception:  # a damaged archive makes NumPy and zipfile raise all kinds of errors
            return None
        maps = [FeatureMap(*arrays[at : at + 3]) for at in range(0, len(arrays) - 2, 3)]
        whole = len(arrays) == 3 * len(self._settings.stages) and all(map(FeatureMap.whole, maps))
        return maps if whole else None

    def _keep(self, source: Source, maps: FeatureMaps) -> None:
        if self._folder is None:
            return
        with atomic_file(self._path(source)) as part, part.open("wb") as file:
            np.savez(
                file, *(array for each in maps for array in (each.steps, each.low, each.width))
            )

    def _path(self, source: Source) -> Path:
        assert self._folder is not None
        return self._folder / source.sha256[:2] / f"{source.sha256}.npz"


_on_device = threading.Lock()


def weights(settings: PartsSettings, machine: Machine) -> str:
    """Returns what `Backbone` takes its weights from: `imagenet`, `none`, or the path of a file.

    Args:
        settings: names the weights, or their SHA-256.
        machine: names the file.

    Raises:
        ProtoMaskError: there is no such file, or it is another one.
    """
    wanted = settings.pretrained
    if wanted in ("imagenet", "none"):
        return wanted
    if machine.weights is None:
        raise ProtoMaskError(
            f"segmenter.pretrained is the SHA-256 of a file with weights, {wanted}: set "
            "runtime.weights to that file"
        )
    found = _hash(machine.weights)
    if found != wanted:
        raise ProtoMaskError(
            f"runtime.weights: {machine.weights} has the SHA-256 {found}, not {wanted}; give the "
            f"other file, or, if this one is meant, set segmenter.pretrained={found}"
        )
    return str(machine.weights)


@lru_cache(maxsize=8)
def _hash(path: Path) -> str:
    try:
        return sha256(path)
    except OSError as error:
        raise ProtoMaskError(f"runtime.weights: {path} cannot be read ({error.strerror})") from None


@lru_cache(maxsize=1)
def _load(name: str, pretrained: str, device: str) -> Backbone:
    """Loads a backbone; random weights are the same in every process, as codebooks need them."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return Backbone(name, pretrained, "segmenter").eval().to(device)


@lru_cache(maxsize=1)
def _fingerprint(name: str, pretrained: str, device: str) -> str:
    return _load(name, pretrained, device).fingerprint()


def _continued(image: NDArray[np.uint8], side: int, margin: int) -> NDArray[np.uint8]:
    """Resizes an image and mirrors it at its border, so that no cell sees where it ends."""
    resized = np.array(Image.fromarray(image).resize((side, side), Image.Resampling.BILINEAR))
    return np.pad(resized, ((margin, margin), (margin, margin), (0, 0)), "reflect")
