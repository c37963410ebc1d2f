"""The crop store: arrays of fixed shape, read in random order at memory speed.

A Zarr v3 group:

- `crops` (uint8, N×K×S×S×3), uncompressed: a chunk's file is the array itself, and reading an image
  copies it from the page cache.
- `inside` (uint8, N×K×S×⌈S/8⌉): the mask inside each crop, eight pixels in a byte, compressed.
- `valid` (bool, N×K), `boxes` (int32, N×K×4), `masks`, `parts` (int32, N×K): see `Crops`.
- `whole` (uint8, N×1×S×S×3), uncompressed: each whole image resized, and `sizes` (int32, N×2), its
  width and height in pixels: the input of models that do not use crops.
- attributes: the settings, the data set, the hash of the mask store, its segmenter and the names of
  its parts.
"""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO, ClassVar, NamedTuple

import numpy as np
import zarr
from numpy.typing import NDArray

from pipeline.crops.settings import NO_MASK, NO_PART, CropSettings
from pipeline.datasets.index import ImageFiles
from pipeline.errors import ProtoMaskError, make, rerun

FORMAT = 4
"""Raised when stores of other code cannot be read any more; DVC tracks it (dvc.yaml, `params`)."""
ARRAYS = ("crops", "inside", "boxes", "masks", "parts", "valid", "whole", "sizes")


class _Pixels(NamedTuple):
    """The chunk files of an array of crops.

    Args:
        shape: shape of one image's crops, K×S×S×3.
        per_chunk: number of images in a file.
        files: the open files, in order.
    """

    shape: tuple[int, ...]
    per_chunk: int
    files: list[BinaryIO]


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
            opened = {name: _open(path, group[name]) for name in ("crops", "whole")}
            self._pixels = opened[self.pixels]
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
        self._inside: Any = group["inside"]

    def __len__(self) -> int:
        return len(self.valid)

    def whole(self) -> "WholeImageStore":
        """Returns the same images, each of them whole as its only crop, which has no mask."""
        return WholeImageStore(self.path)

    def crops(self, images: Sequence[int] | NDArray[np.integer]) -> NDArray[np.uint8]:
        """Returns the crops of some images in the order of `images`: uint8 B×K×S×S×3.

        Args:
            images: int B, rows of the store.

        Raises:
            ProtoMaskError: the store was truncated while it was read.
        """
        shape, per_chunk, files = self._pixels
        pixels = np.empty((len(images), *shape), np.uint8)
        for place, image in enumerate(images):
            chunk, row = divmod(int(image), per_chunk)
            offset = row * pixels[place].nbytes
            if os.preadv(files[chunk].fileno(), [pixels[place]], offset) < pixels[place].nbytes:
                raise ProtoMaskError(
                    f"{self.path} was cut short while it was read: {rerun('crops')}"
                )
        return pixels

    def inside(self, image: int) -> NDArray[np.bool_]:
        """Returns the masks inside the crops of one image: bool, K×S×S."""
        try:
            packed = np.asarray(self._inside[image])
        except Exception as error:  # codecs raise all kinds of errors at damaged bytes
            raise ProtoMaskError(
                f"{self.path}/inside is damaged ({error}): {rerun('crops')}"
            ) from None
        return np.unpackbits(packed, axis=-1, count=self.settings.side).astype(bool)

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
        self.about["crops"] = "whole images"
        self.settings = self.settings.model_copy(update={"background": "original"})
        self.valid = np.ones((N, 1), bool)
        self.boxes = np.concatenate([np.zeros_like(self.sizes), self.sizes], axis=1)[:, None]
        self.masks = np.full((N, 1), NO_MASK, np.int32)
        self.parts = np.full((N, 1), NO_PART, np.int32)

    def inside(self, image: int) -> NDArray[np.bool_]:
        """Returns the mask inside the only crop of an image, which is all true: bool, 1×S×S."""
        return np.ones(self._pixels.shape[:-1], bool)


def _open(path: Path, crops: Any) -> _Pixels:
    """Opens the chunk files of an array of crops; each holds an n×K×S×S×3 array without a header.

    They are read by offset and not memory-mapped: a page fault for every 4 kB would cost more than
    the copy.
    """
    chunks: list[BinaryIO] = []
    for file in _chunk_files(path, crops):
        if file.stat().st_size != int(np.prod(crops.chunks)):
            raise ValueError(f"{file.relative_to(path)} is missing or cut short")
        chunks.append(file.open("rb", buffering=0))
    return _Pixels(crops.shape[1:], crops.chunks[0], chunks)


def _refuse_missing_files(path: Path, group: zarr.Group) -> None:
    """Raises if a file is missing or empty, which Zarr would read as zeros."""
    for name in ARRAYS:
        for file in _chunk_files(path, group[name]):
            if not file.is_file() or file.stat().st_size == 0:
                raise ValueError(f"{file.relative_to(path)} is missing or cut short")


def _chunk_files(path: Path, array: Any) -> Iterator[Path]:
    per_file = (array.shards or array.chunks)[0]
    for number in range(-(-array.shape[0] // per_file)):
        yield path / array.basename / "c" / "/".join([str(number), *"0" * (array.ndim - 1)])
