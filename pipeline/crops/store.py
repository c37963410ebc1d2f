"""The crop store: fixed shapes, read in random order at memory speed.

A Zarr v3 group:

- `crops` (uint8, N×K×S×S×3), uncompressed: a chunk's file is then the array itself, and reading an
  image is copying it out of the page cache.
- `inside` (uint8, N×K×S×⌈S/8⌉): the mask inside each crop, eight pixels a byte, compressed.
- `valid` (bool, N×K), `boxes` (int32, N×K×4), `masks` (int32, N×K).
- `whole` (uint8, N×1×S×S×3), uncompressed: each image resized whole, and `sizes` (int32, N×2), its
  width and height: what models see that do not look at crops.
- attributes: the settings, the data set, and the hash of the mask store.
"""

import copy
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
import zarr
from numpy.typing import NDArray
from zarr.codecs import BytesCodec, ShardingCodec, ZstdCodec

from pipeline.crops.extraction import NO_MASK, Crops, CropSettings, extract_crops, whole_image
from pipeline.datasets.index import Photographs
from pipeline.datasets.listing import refuse_changed
from pipeline.datasets.photograph import read_photograph
from pipeline.errors import ProtoMaskError, rerun
from pipeline.files import whole_folder
from pipeline.masks.masks import Masks
from pipeline.masks.store import MaskStore
from pipeline.progress import track

FORMAT = 3
IMAGES_PER_CHUNK = 128
ZSTD = ZstdCodec(level=9, checksum=True)


ARRAYS = ("crops", "inside", "boxes", "masks", "valid", "whole", "sizes")


class _Pixels(NamedTuple):
    """The chunk files of an array of crops.

    Args:
        shape: of an image's crops.
        per_chunk: images a file.
        files: open.
    """

    shape: tuple[int, ...]
    per_chunk: int
    files: list[BinaryIO]


class CropStore:
    """Reads a store that `write_crops` wrote.

    Args:
        path: the store's folder.

    Raises:
        ProtoMaskError: nothing there, or no crop store, or a file of it is missing or cut short.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        if not path.exists():
            raise ProtoMaskError(f"no crop store at {path}: run `dvc repro crops` first")
        try:
            group = zarr.open_group(path, mode="r", zarr_format=3)
            self.about: dict[str, Any] = dict(group.attrs)
            if self.about["format"] != FORMAT:
                raise ValueError(f"format {self.about['format']}, not {FORMAT}")
            self.settings = CropSettings(**self.about["settings"])
            _refuse_missing_files(path, group)
            self.valid: NDArray[np.bool_] = np.asarray(group["valid"])
            self.boxes: NDArray[np.int32] = np.asarray(group["boxes"])
            self.masks: NDArray[np.int32] = np.asarray(group["masks"])
            self._inside: Any = group["inside"]
            self._pixels, self._whole = (_open(path, group[name]) for name in ("crops", "whole"))
            self.sizes: NDArray[np.int32] = np.asarray(group["sizes"])
        except Exception as error:  # whatever a codec makes of damaged bytes
            raise ProtoMaskError(
                f"{path} is no readable crop store ({error}): remove it and run `dvc repro crops`"
            ) from None

    def __len__(self) -> int:
        return len(self.valid)

    def whole(self) -> "CropStore":
        """Returns the same images, each of them whole as its only crop, which has no mask."""
        whole, N = copy.copy(self), len(self)
        whole.about = {**self.about, "crops": "whole images"}
        whole.settings = self.settings.model_copy(update={"background": "original"})
        whole.valid = np.ones((N, 1), bool)
        whole.boxes = np.concatenate([np.zeros_like(self.sizes), self.sizes], axis=1)[:, None]
        whole.masks = np.full((N, 1), NO_MASK, np.int32)
        whole._pixels, whole._inside = self._whole, None
        return whole

    def cut(self, photograph: NDArray[np.uint8], masks: Masks) -> Crops:
        """Cuts a photograph with these masks as the images of the store were cut."""
        if self._inside is None:
            return whole_image(photograph, 1, self.settings.side)
        return extract_crops(photograph, masks, self.settings)

    def crops(self, images: Sequence[int] | NDArray[np.integer]) -> NDArray[np.uint8]:
        """Returns the crops of some images, in the order asked for: uint8, B×K×S×S×3."""
        shape, per_chunk, files = self._pixels
        pixels = np.empty((len(images), *shape), np.uint8)
        for place, image in enumerate(images):
            chunk, row = divmod(int(image), per_chunk)
            offset = row * pixels[place].nbytes
            if os.preadv(files[chunk].fileno(), [pixels[place]], offset) < pixels[place].nbytes:
                raise ProtoMaskError(f"{self.path} was cut short while it was read")
        return pixels

    def inside(self, image: int) -> NDArray[np.bool_]:
        """Returns the masks inside the crops of one image: bool, K×S×S."""
        if self._inside is None:
            return np.ones(self._pixels.shape[:-1], bool)
        try:
            packed = np.asarray(self._inside[image])
        except Exception as error:  # whatever a codec makes of damaged bytes
            raise ProtoMaskError(
                f"{self.path}/inside is damaged ({error}): remove the store and run "
                "`dvc repro crops`"
            ) from None
        return np.unpackbits(packed, axis=-1, count=self.settings.side).astype(bool)

    def refuse_unless(self, settings: CropSettings, photographs: Photographs) -> None:
        """Checks that the store was cut with these settings from these images.

        Raises:
            ProtoMaskError: it was not; the message names both sides.
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
        if self.about["images"] != photographs.digest():
            raise ProtoMaskError(
                f"{self.path} was cut from other images than those of the index: {rerun('crops')}"
            )


def write_crops(
    path: Path,
    photographs: Photographs,
    root: Path,
    masks: MaskStore,
    settings: CropSettings,
    threads: int = 2,
) -> int:
    """Cuts the crops of all images of an index and writes the store whole.

    Args:
        path: the folder to write; what is there is replaced.
        photographs: the images.
        root: the folder their paths are relative to.
        masks: their masks.
        settings: how the crops are cut.
        threads: how many images are worked on at a time.

    Returns:
        How many images have no mask, and therefore themselves as their one crop.

    Raises:
        ProtoMaskError: the masks are of other images, or a photograph is missing or has changed.
    """
    masks.refuse_other_images(photographs)
    paths = [root / relative for relative in photographs.table["path"]]
    digests = photographs.table["sha256"].tolist()

    def crops_of(image: int) -> tuple[Crops, Crops]:
        refuse_changed(paths[image], digests[image])
        photograph = read_photograph(paths[image])
        cut = extract_crops(photograph, masks.masks(image), settings)
        return cut, whole_image(photograph, 1, settings.side)

    with whole_folder(path) as part, ThreadPoolExecutor(threads) as pool:
        group = zarr.create_group(part, zarr_format=3)
        arrays = _create_arrays(group, len(photographs), settings)
        for at, block in _blocks(
            track(_eager(pool, crops_of, len(photographs)), "Cutting crops", len(photographs))
        ):
            _write_block(arrays, at, block)
        group.attrs.update(
            {
                "format": FORMAT,
                "settings": settings.model_dump(mode="json"),
                "dataset": photographs.dataset,
                "images": photographs.digest(),
                "masks": masks.about["sha256"],
                "segmenter": masks.about["segmenter"],
            }
        )
        whole = np.asarray(arrays["masks"])[:, 0] == NO_MASK
    return int(whole.sum())


def _eager(pool: ThreadPoolExecutor, work: Any, count: int) -> Iterator[tuple[Crops, Crops]]:
    """Maps in order, a chunk's worth ahead, so that memory stays bounded."""
    for at in range(0, count, IMAGES_PER_CHUNK):
        yield from pool.map(work, range(at, min(at + IMAGES_PER_CHUNK, count)))


def _blocks(
    crops: Iterator[tuple[Crops, Crops]],
) -> Iterator[tuple[int, list[tuple[Crops, Crops]]]]:
    block: list[tuple[Crops, Crops]] = []
    at = 0
    for found in crops:
        block.append(found)
        if len(block) == IMAGES_PER_CHUNK:
            yield at, block
            at, block = at + len(block), []
    if block:
        yield at, block


def _write_block(arrays: dict[str, zarr.Array], at: int, block: list[tuple[Crops, Crops]]) -> None:
    rows = slice(at, at + len(block))
    cut, whole = zip(*block, strict=True)
    arrays["crops"][rows] = np.stack([crops.pixels for crops in cut])
    arrays["inside"][rows] = np.packbits(np.stack([crops.inside for crops in cut]), axis=-1)
    arrays["boxes"][rows] = np.stack([crops.boxes for crops in cut])
    arrays["masks"][rows] = np.stack([crops.masks for crops in cut])
    arrays["valid"][rows] = np.stack([crops.valid for crops in cut])
    arrays["whole"][rows] = np.stack([crops.pixels for crops in whole])
    arrays["sizes"][rows] = np.stack([crops.boxes[0, 2:] for crops in whole])


def _create_arrays(group: zarr.Group, N: int, settings: CropSettings) -> dict[str, zarr.Array]:
    K, S = settings.per_image, settings.side
    n = min(IMAGES_PER_CHUNK, N)
    packed = (K, S, -(-S // 8))
    one_image = ShardingCodec(chunk_shape=(1, *packed), codecs=[BytesCodec(), ZSTD])
    # Without empty chunks zarr leaves out a file of zeros, such as the crops of black images.
    plain: dict[str, Any] = {"filters": None, "config": {"write_empty_chunks": True}}
    raw, small = {**plain, "compressors": None}, {**plain, "compressors": [ZSTD]}
    return {
        "crops": group.create_array(
            "crops", shape=(N, K, S, S, 3), dtype="uint8", chunks=(n, K, S, S, 3), **raw
        ),
        "whole": group.create_array(
            "whole", shape=(N, 1, S, S, 3), dtype="uint8", chunks=(n, 1, S, S, 3), **raw
        ),
        "sizes": group.create_array("sizes", shape=(N, 2), dtype="int32", chunks=(N, 2), **small),
        "inside": group.create_array(
            "inside",
            shape=(N, *packed),
            dtype="uint8",
            chunks=(n, *packed),
            serializer=one_image,
            **raw,
        ),
        "boxes": group.create_array(
            "boxes", shape=(N, K, 4), dtype="int32", chunks=(N, K, 4), **small
        ),
        "masks": group.create_array("masks", shape=(N, K), dtype="int32", chunks=(N, K), **small),
        "valid": group.create_array("valid", shape=(N, K), dtype="bool", chunks=(N, K), **small),
    }


def _open(path: Path, crops: Any) -> _Pixels:
    """Opens the chunk files of an array of crops; each is an n×K×S×S×3 array as it stands.

    They are read by offset and not mapped into memory: a page fault for every 4 kB would cost more
    than the copy.
    """
    chunks: list[BinaryIO] = []
    for file in _chunk_files(path, crops):
        if file.stat().st_size != int(np.prod(crops.chunks)):
            raise ValueError(f"{file.relative_to(path)} is missing or cut short")
        chunks.append(file.open("rb", buffering=0))
    return _Pixels(crops.shape[1:], crops.chunks[0], chunks)


def _refuse_missing_files(path: Path, group: zarr.Group) -> None:
    """Zarr would read a file that is missing or empty as zeros."""
    for name in ARRAYS:
        for file in _chunk_files(path, group[name]):
            if not file.is_file() or file.stat().st_size == 0:
                raise ValueError(f"{file.relative_to(path)} is missing or cut short")


def _chunk_files(path: Path, array: Any) -> Iterator[Path]:
    per_file = (array.shards or array.chunks)[0]
    for number in range(-(-array.shape[0] // per_file)):
        yield path / array.basename / "c" / "/".join([str(number), *"0" * (array.ndim - 1)])
