"""The crop store: pixels of crops, read in any order faster than a network can look at them.

A Zarr v3 group:

- `crops` (uint8, N×K×S×S×3), each crop encoded for itself, as `CropSettings.storage` says; missing
  crops are left out, and read as zeros.
- `inside` (uint8, N×K×S×⌈S/8⌉): the mask inside each crop, eight pixels in a byte.
- `valid` (bool, N×K), `boxes` (int32, N×K×4), `masks`, `parts` (int32, N×K): see `Crops`.
- `whole` (uint8, N×1×S×S×3): each whole image resized, encoded as the crops are; `sizes` (int32,
  N×2): its width and height in pixels. The input of models that do not use crops.
- attributes: the settings, the data set, the hash of the mask store, its segmenter and the names of
  its parts.

`crops`, `inside` and `whole` lie in files that `pipeline/crops/shards.py` describes.
"""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Protocol

import numpy as np
import zarr
from numpy.typing import NDArray

from pipeline.crops.encoding import LOSSLESS, STORAGE
from pipeline.crops.settings import NO_MASK, NO_PART, CropSettings
from pipeline.crops.shards import Layout, ShardReader
from pipeline.datasets.index import ImageFiles
from pipeline.errors import ProtoMaskError, make, rerun
from pipeline.workers import cores

FORMAT = 5
"""Raised when stores of other code cannot be read any more; DVC tracks it (dvc.yaml, `params`)."""
SHARDED = ("crops", "inside", "whole")
PLAIN = ("boxes", "masks", "parts", "valid", "sizes")


class StoredCrops(Protocol):
    """Crops of images as a model sees them, from wherever they are kept; see `CropStore`."""

    settings: CropSettings
    part_names: dict[int, str]

    @property
    def whole_images(self) -> bool:
        """Whether each image is its own only crop."""
        ...

    def crops(self, images: Sequence[int] | NDArray[np.integer]) -> NDArray[np.uint8]:
        """Returns the crops of some images; see `CropStore.crops`."""
        ...

    def inside(self, image: int) -> NDArray[np.bool_]:
        """Returns the masks inside the crops of one image; see `CropStore.inside`."""
        ...


class CropStore:
    """The crops of a store that `write_crops` wrote.

    Args:
        path: path of the store's folder.

    Attributes:
        about: what the store says of itself.
        settings: how its crops were cut.
        valid: bool N×K, which crops there are.
        boxes: int32 N×K×4, what was cut out: half-open (x0, y0, x1, y1) in the image's pixels.
        masks: int32 N×K, each crop's mask in the mask store, −1 where there is none.
        cut_along: the same, also where each image is its own only crop: the masks that the store's
            crops were cut along.
        parts: int32 N×K, the number of the part that each crop's mask shows, −1 where none is
            known.
        part_names: names of the parts by their numbers; empty if they have none.
        sizes: int32 N×2, width and height of the images, in pixels.
        whole_images: whether each image is its own only crop.

    Raises:
        ProtoMaskError: there is no crop store, or one of its files is missing, truncated or
            damaged.
    """

    whole_images: ClassVar[bool] = False
    pixels: ClassVar[str] = "crops"

    def __init__(self, path: Path) -> None:
        self.path = path
        if not path.exists():
            raise ProtoMaskError(f"no crop store at {path}: {make('crops')}")
        try:
            group = zarr.open_group(path, mode="r", zarr_format=3)
            self.about: dict[str, Any] = dict(group.attrs)
            if self.about["format"] != FORMAT:
                raise ValueError(f"format {self.about['format']}, not {FORMAT}")
            self.settings = CropSettings(**self.about["settings"])
            _refuse_missing_files(path, group)
            self.part_names: dict[int, str] = {
                int(part): name for part, name in self.about["part_names"].items()
            }
            self.cut_along: NDArray[np.int32] = np.asarray(group["masks"])
            self.sizes: NDArray[np.int32] = np.asarray(group["sizes"])
            arrays: dict[str, Any] = {name: group[name] for name in SHARDED}
            readers = {name: ShardReader(Layout.of(path, arrays[name])) for name in SHARDED}
            self._crops, self._inside = readers[self.pixels], readers["inside"]
            self._shape: tuple[int, ...] = arrays[self.pixels].shape[1:]
            self._read_regions(group)
        except Exception as error:  # whatever a codec makes of damaged bytes
            raise ProtoMaskError(
                f"{path} is no readable crop store ({error}): {rerun('crops')}"
            ) from None

    def _read_regions(self, group: zarr.Group) -> None:
        self.valid: NDArray[np.bool_] = np.asarray(group["valid"])
        self.boxes: NDArray[np.int32] = np.asarray(group["boxes"])
        self.masks: NDArray[np.int32] = self.cut_along
        self.parts: NDArray[np.int32] = np.asarray(group["parts"])

    def __len__(self) -> int:
        return len(self.valid)

    @property
    def pixels_from(self) -> dict[str, Any]:
        """All that the pixels of its crops, and the masks inside them, follow from."""
        return self.about

    def whole(self) -> "WholeImageStore":
        """Returns the same images, each of them whole as its only crop, which has no mask."""
        return WholeImageStore(self.path)

    def crops(self, images: Sequence[int] | NDArray[np.integer]) -> NDArray[np.uint8]:
        """Returns the crops of some images in the order of `images`: uint8 B×K×S×S×3.

        Args:
            images: int B, rows of the store.

        Raises:
            ProtoMaskError: the store is damaged there.
        """
        pixels = np.zeros((len(images), *self._shape), np.uint8)
        decode = STORAGE[self.settings.storage].decode

        def read(place: int) -> None:
            chunks = self._chunks(self._crops, int(images[place]))
            for crop, chunk in zip(pixels[place], chunks, strict=True):
                if chunk is not None:
                    decode(chunk, crop)

        list(self._threads.map(read, range(len(images))))
        return pixels

    def inside(self, image: int) -> NDArray[np.bool_]:
        """Returns the masks inside the crops of one image: bool, K×S×S.

        Raises:
            ProtoMaskError: the store is damaged there.
        """
        K, S = self._shape[:2]
        packed = np.zeros((K, S, -(-S // 8)), np.uint8)
        (chunk,) = self._chunks(self._inside, image)
        assert chunk is not None
        LOSSLESS.decode(chunk, packed)
        return np.unpackbits(packed, axis=-1, count=S).astype(bool)

    def _chunks(self, reader: ShardReader, image: int) -> list[NDArray[np.uint8] | None]:
        try:
            return reader.chunks(image)
        except ValueError as error:
            raise ProtoMaskError(f"{error}: {rerun('crops')}") from None

    @cached_property
    def _threads(self) -> ThreadPoolExecutor:
        return ThreadPoolExecutor(cores(), "crops")

    def refuse_unless(self, settings: CropSettings, image_files: ImageFiles) -> None:
        """Checks that the store was made with these settings from these images.

        Args:
            settings: the parameters of cropping that are expected.
            image_files: the images that are expected.

        Raises:
            ProtoMaskError: it was not; the message names the differences.
        """
        made, wanted = (found.model_dump(mode="json") for found in (self.settings, settings))
        differing = [
            f"{key}={made[key]} instead of {wanted[key]}"
            for key in wanted
            if made[key] != wanted[key]
        ]
        if differing:
            raise ProtoMaskError(
                f"{self.path} was cut with {', '.join(differing)}: {rerun('crops')}"
            )
        if self.about["images"] != image_files.digest():
            raise ProtoMaskError(
                f"{self.path} was cut from other images than those of the index: {rerun('crops')}"
            )


class WholeImageStore(CropStore):
    """The images of a crop store, each of them whole as its only crop, which has no mask.

    Args:
        path: the store's folder.
    """

    whole_images = True
    pixels = "whole"

    def _read_regions(self, group: zarr.Group) -> None:
        N = len(self.sizes)
        self.settings = self.settings.of_whole_images()
        self.valid = np.ones((N, 1), bool)
        self.boxes = np.concatenate([np.zeros_like(self.sizes), self.sizes], axis=1)[:, None]
        self.masks = np.full((N, 1), NO_MASK, np.int32)
        self.parts = np.full((N, 1), NO_PART, np.int32)

    @property
    def pixels_from(self) -> dict[str, Any]:
        """All that the images' pixels follow from: not the masks, nor how these were cut."""
        settings = self.about["settings"]
        decisive = {name: settings[name] for name in ("version", "side", "storage")}
        images = {name: self.about[name] for name in ("format", "images")}
        return {"crops": "whole images", **images, **decisive}

    def inside(self, image: int) -> NDArray[np.bool_]:
        """Returns the mask inside the only crop of an image, which is all true: bool, 1×S×S."""
        return np.ones(self._shape[:-1], bool)


def _refuse_missing_files(path: Path, group: zarr.Group) -> None:
    """Raises if a file of an array is missing, which Zarr would read as zeros."""
    for name in PLAIN:
        array: Any = group[name]
        file = path / name / "c" / "/".join("0" * array.ndim)
        if not file.is_file():
            raise ValueError(f"{file} is missing")
