"""Writing a crop store: the crops of all images of an index, cut along their masks."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import zarr
from numpy.typing import NDArray
from zarr.codecs import Crc32cCodec, ZstdCodec

from pipeline.crops.encoding import LOSSLESS, STORAGE, Encoding
from pipeline.crops.extraction import Crops, extract_crops, whole_image
from pipeline.crops.settings import NO_MASK, CropSettings
from pipeline.crops.shards import Layout, ShardWriter
from pipeline.crops.store import FORMAT, SHARDED
from pipeline.datasets.image_file import read_image
from pipeline.datasets.index import ImageFiles
from pipeline.datasets.listing import refuse_changed
from pipeline.files import atomic_folder
from pipeline.masks.store import MaskStore
from pipeline.progress import track

IMAGES_PER_SHARD = 1024
AHEAD = 128


class _Encoded(NamedTuple):
    """What is written of an image.

    Args:
        chunks: of the sharded arrays, by name.
        rows: of the others, by name.
    """

    chunks: dict[str, list[bytes | None]]
    rows: dict[str, NDArray]


def write_crops(
    path: Path,
    image_files: ImageFiles,
    root: Path,
    masks: MaskStore,
    settings: CropSettings,
    threads: int = 2,
) -> list[str]:
    """Cuts the crops of all images of an index and writes the store whole.

    Args:
        path: the folder to write; what is there is replaced.
        image_files: the N images of the index, in its order.
        root: the folder their paths are relative to.
        masks: store of the masks of these images, in the same order.
        settings: how the crops are cut and kept.
        threads: how many images are worked on at a time.

    Returns:
        The ids of the images that have no mask to crop, and therefore themselves as their one crop.

    Raises:
        ProtoMaskError: the masks are of other images, or an image is missing or has changed.
    """
    masks.refuse_other_images(image_files)
    paths = image_files.table["path"].tolist()
    digests = image_files.table["sha256"].tolist()

    def cut(image: int) -> tuple[Crops, Crops]:
        file = root / paths[image]
        refuse_changed(file, digests[image])
        pixels = read_image(file)
        crops = extract_crops(pixels, masks.masks(image), settings)
        return crops, whole_image(pixels, 1, settings.side)

    about = {
        "dataset": image_files.dataset,
        "images": image_files.digest(),
        "masks": masks.about["sha256"],
        "segmenter": masks.about["segmenter"],
        "part_names": masks.about["part_names"],
    }
    rows = write_store(path, len(image_files), settings, cut, about, threads)
    return image_files.table["id"][rows["masks"][:, 0] == NO_MASK].tolist()


def write_store(
    path: Path,
    N: int,
    settings: CropSettings,
    cut: Callable[[int], tuple[Crops, Crops]],
    about: dict[str, Any],
    threads: int,
) -> dict[str, NDArray]:
    """Writes a store of crops that are cut meanwhile; the same crops give the same bytes.

    Args:
        path: the folder to write; what is there is replaced.
        N: number of images.
        settings: how the crops are cut and kept.
        cut: gives an image's crops, and the whole image as its only crop; called in threads.
        about: attributes of the store, beside its format and settings.
        threads: how many images are worked on at a time.

    Returns:
        What the store says of crops, `boxes`, `masks`, `parts` and `valid`, and of images, `sizes`.
    """

    def encoded(image: int) -> _Encoded:
        return _encode(*cut(image), STORAGE[settings.storage])

    stacked: dict[str, NDArray] = {}
    with atomic_folder(path) as part, ThreadPoolExecutor(threads) as pool, ExitStack() as files:
        group = zarr.create_group(part, zarr_format=3)
        arrays = _sharded_arrays(group, N, settings)
        layouts = {name: Layout.of(part, arrays[name]) for name in SHARDED}
        writers = {name: files.enter_context(ShardWriter(layouts[name])) for name in SHARDED}
        for row, image in enumerate(track(_eager(pool, encoded, N), "Cutting crops", N)):
            for name, writer in writers.items():
                writer.add(image.chunks[name])
            for name, value in image.rows.items():
                if name not in stacked:
                    stacked[name] = np.empty((N, *value.shape), value.dtype)
                stacked[name][row] = value
        for name, values in stacked.items():
            _write_whole(group, name, values)
        group.attrs.update(
            {"format": FORMAT, "settings": settings.model_dump(mode="json"), **about}
        )
    return stacked


def _encode(crops: Crops, whole: Crops, encoding: Encoding) -> _Encoded:
    pixels = zip(crops.pixels, crops.valid, strict=True)
    chunks: dict[str, list[bytes | None]] = {
        "crops": [encoding.encode(crop) if valid else None for crop, valid in pixels],
        "inside": [LOSSLESS.encode(np.packbits(crops.inside, axis=-1))],
        "whole": [encoding.encode(whole.pixels[0])],
    }
    rows = {name: getattr(crops, name) for name in ("boxes", "masks", "parts", "valid")}
    return _Encoded(chunks, {**rows, "sizes": whole.boxes[0, 2:]})


def _eager(
    pool: ThreadPoolExecutor, work: Callable[[int], _Encoded], count: int
) -> Iterator[_Encoded]:
    """Maps in order, some images ahead, so that memory stays bounded."""
    for at in range(0, count, AHEAD):
        yield from pool.map(work, range(at, min(at + AHEAD, count)))


def _sharded_arrays(group: zarr.Group, N: int, settings: CropSettings) -> dict[str, zarr.Array]:
    K, S = settings.per_image, settings.side
    packed, pixels = (K, S, -(-S // 8)), STORAGE[settings.storage]
    return {
        "crops": _sharded(group, "crops", (N, K, S, S, 3), (1, 1, S, S, 3), pixels),
        "inside": _sharded(group, "inside", (N, *packed), (1, *packed), LOSSLESS),
        "whole": _sharded(group, "whole", (N, 1, S, S, 3), (1, 1, S, S, 3), pixels),
    }


def _sharded(
    group: zarr.Group,
    name: str,
    shape: tuple[int, ...],
    chunk: tuple[int, ...],
    encoding: Encoding,
) -> zarr.Array:
    return group.create_array(
        name,
        shape=shape,
        dtype="uint8",
        chunks=chunk,
        shards=(min(IMAGES_PER_SHARD, shape[0]), *shape[1:]),
        serializer=encoding.serializer,
        compressors=(*encoding.compressors, Crc32cCodec()),
        filters=None,
    )


def _write_whole(group: zarr.Group, name: str, values: NDArray) -> None:
    array = group.create_array(
        name,
        shape=values.shape,
        dtype=values.dtype,
        chunks=values.shape,
        compressors=ZstdCodec(level=9, checksum=True),
        # Or Zarr leaves out a file of zeros.
        config={"write_empty_chunks": True},
    )
    array[...] = values
