"""Writing a crop store: the crops of all images of an index, cut along their masks."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from zarr.codecs import BytesCodec, ShardingCodec, ZstdCodec

from pipeline.crops.extraction import Crops, extract_crops, whole_image
from pipeline.crops.settings import NO_MASK, CropSettings
from pipeline.crops.store import FORMAT
from pipeline.datasets.image_file import read_image
from pipeline.datasets.index import ImageFiles
from pipeline.datasets.listing import refuse_changed
from pipeline.files import atomic_folder
from pipeline.masks.store import MaskStore
from pipeline.progress import track

IMAGES_PER_CHUNK = 128
ZSTD = ZstdCodec(level=9, checksum=True)


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
        settings: how the crops are cut.
        threads: how many images are worked on at a time.

    Returns:
        The ids of the images that have no mask to crop, and therefore themselves as their one crop.

    Raises:
        ProtoMaskError: the masks are of other images, or an image is missing or has changed.
    """
    masks.refuse_other_images(image_files)
    paths = [root / relative for relative in image_files.table["path"]]
    digests = image_files.table["sha256"].tolist()

    def crops_of(image: int) -> tuple[Crops, Crops]:
        refuse_changed(paths[image], digests[image])
        pixels = read_image(paths[image])
        cut = extract_crops(pixels, masks.masks(image), settings)
        return cut, whole_image(pixels, 1, settings.side)

    with atomic_folder(path) as part, ThreadPoolExecutor(threads) as pool:
        group = zarr.create_group(part, zarr_format=3)
        arrays = _create_arrays(group, len(image_files), settings)
        for at, block in _blocks(
            track(_eager(pool, crops_of, len(image_files)), "Cutting crops", len(image_files))
        ):
            _write_block(arrays, at, block)
        group.attrs.update(
            {
                "format": FORMAT,
                "settings": settings.model_dump(mode="json"),
                "dataset": image_files.dataset,
                "images": image_files.digest(),
                "masks": masks.about["sha256"],
                "segmenter": masks.about["segmenter"],
                "part_names": masks.about["part_names"],
            }
        )
        whole = np.asarray(arrays["masks"])[:, 0] == NO_MASK
    return image_files.table["id"][whole].tolist()


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
    for name in ("boxes", "masks", "parts", "valid"):
        arrays[name][rows] = np.stack([getattr(crops, name) for crops in cut])
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
        "parts": group.create_array("parts", shape=(N, K), dtype="int32", chunks=(N, K), **small),
        "valid": group.create_array("valid", shape=(N, K), dtype="bool", chunks=(N, K), **small),
    }
