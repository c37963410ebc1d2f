"""The crop store: fixed shapes, read in random order at memory speed.

A Zarr v3 group:

- `crops` (uint8, N×K×S×S×3), uncompressed: a chunk's file is then the array itself, and reading an
  image is copying it out of the page cache.
- `inside` (uint8, N×K×S×⌈S/8⌉): the mask inside each crop, eight pixels a byte, compressed.
- `valid` (bool, N×K), `boxes` (int32, N×K×4), `masks` (int32, N×K).
- attributes: the settings, the data set, and the hash of the mask store.
"""

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import zarr
from numpy.typing import NDArray
from zarr.codecs import BytesCodec, ShardingCodec, ZstdCodec

from pipeline.crops.extraction import NO_MASK, Crops, CropSettings, extract_crops
from pipeline.datasets.index import Photographs
from pipeline.datasets.listing import refuse_changed
from pipeline.datasets.photograph import read_photograph
from pipeline.errors import ProtoMaskError
from pipeline.files import whole_folder
from pipeline.masks.store import MaskStore
from pipeline.progress import track

FORMAT = 1
IMAGES_PER_CHUNK = 128
ZSTD = ZstdCodec(level=9, checksum=True)


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
            crops: Any = group["crops"]
            self._shape: tuple[int, ...] = crops.shape[1:]
            self._per_chunk: int = crops.chunks[0]
            self._chunks = _open_chunks(path, crops)
        except Exception as error:  # whatever a codec makes of damaged bytes
            raise ProtoMaskError(
                f"{path} is no readable crop store ({error}): remove it and run `dvc repro crops`"
            ) from None

    def __len__(self) -> int:
        return len(self.valid)

    def crops(self, images: Sequence[int] | NDArray[np.integer]) -> NDArray[np.uint8]:
        """Returns the crops of some images, in the order asked for: uint8, B×K×S×S×3."""
        pixels = np.empty((len(images), *self._shape), np.uint8)
        for place, image in enumerate(images):
            chunk, row = divmod(int(image), self._per_chunk)
            offset = row * pixels[place].nbytes
            if (
                os.preadv(self._chunks[chunk].fileno(), [pixels[place]], offset)
                < pixels[place].nbytes
            ):
                raise ProtoMaskError(f"{self.path} was cut short while it was read")
        return pixels

    def inside(self, image: int) -> NDArray[np.bool_]:
        """Returns the masks inside the crops of one image: bool, K×S×S."""
        try:
            packed = np.asarray(self._inside[image])
        except Exception as error:  # whatever a codec makes of damaged bytes
            raise ProtoMaskError(
                f"{self.path}/inside is damaged ({error}): remove the store and run "
                "`dvc repro crops`"
            ) from None
        return np.unpackbits(packed, axis=-1, count=self.settings.size).astype(bool)

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
                f"{self.path} was cut with {', '.join(differing)}; run `dvc repro crops`"
            )
        if self.about["images"] != photographs.digest():
            raise ProtoMaskError(
                f"{self.path} was cut from other images than those of the index; "
                "run `dvc repro crops`"
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

    def crops_of(image: int) -> Crops:
        refuse_changed(paths[image], digests[image])
        photograph = read_photograph(paths[image])
        return extract_crops(photograph, masks.masks(image), settings)

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


def _eager(pool: ThreadPoolExecutor, work: Any, count: int) -> Iterator[Crops]:
    """Maps in order, a chunk's worth ahead, so that memory stays bounded."""
    for at in range(0, count, IMAGES_PER_CHUNK):
        yield from pool.map(work, range(at, min(at + IMAGES_PER_CHUNK, count)))


def _blocks(crops: Iterator[Crops]) -> Iterator[tuple[int, list[Crops]]]:
    block: list[Crops] = []
    at = 0
    for found in crops:
        block.append(found)
        if len(block) == IMAGES_PER_CHUNK:
            yield at, block
            at, block = at + len(block), []
    if block:
        yield at, block


def _write_block(arrays: dict[str, zarr.Array], at: int, block: list[Crops]) -> None:
    rows = slice(at, at + len(block))
    arrays["crops"][rows] = np.stack([crops.pixels for crops in block])
    arrays["inside"][rows] = np.packbits(np.stack([crops.inside for crops in block]), axis=-1)
    arrays["boxes"][rows] = np.stack([crops.boxes for crops in block])
    arrays["masks"][rows] = np.stack([crops.masks for crops in block])
    arrays["valid"][rows] = np.stack([crops.valid for crops in block])


def _create_arrays(group: zarr.Group, N: int, settings: CropSettings) -> dict[str, zarr.Array]:
    K, S = settings.per_image, settings.size
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


def _open_chunks(path: Path, crops: Any) -> list[BinaryIO]:
    """Opens the chunk files of `crops`; each is an n×K×S×S×3 array as it stands.

    They are read by offset and not mapped into memory: a page fault for every 4 kB would cost more
    than the copy.
    """
    chunks: list[BinaryIO] = []
    for file in _chunk_files(path, crops):
        if file.stat().st_size != int(np.prod(crops.chunks)):
            raise ValueError(f"{file.relative_to(path)} is missing or cut short")
        chunks.append(file.open("rb", buffering=0))
    return chunks


def _refuse_missing_files(path: Path, group: zarr.Group) -> None:
    """Zarr would read a file that is missing or empty as zeros."""
    for name in ("crops", "inside", "boxes", "masks", "valid"):
        for file in _chunk_files(path, group[name]):
            if not file.is_file() or file.stat().st_size == 0:
                raise ValueError(f"{file.relative_to(path)} is missing or cut short")


def _chunk_files(path: Path, array: Any) -> Iterator[Path]:
    per_file = (array.shards or array.chunks)[0]
    for number in range(-(-array.shape[0] // per_file)):
        yield path / array.basename / "c" / "/".join([str(number), *"0" * (array.ndim - 1)])
