"""Batches of crops, prefetched while the device works on the previous batch."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pipeline.crops.store import CropStore


class CropBatch(NamedTuple):
    """The crops of B images.

    Args:
        rows: int64 B, the images, as rows of the store.
        crops_BKSS3: RGB crops, uint8 B×K×S×S×3, on the device.
        valid_BK: bool B×K, false for missing crops, on the device.
        inside_BKSS: bool B×K×S×S, the masks inside the crops, on the device; None if they were not
            asked for.
    """

    rows: NDArray[np.int64]
    crops_BKSS3: Tensor
    valid_BK: Tensor
    inside_BKSS: Tensor | None


def load_batches(
    store: CropStore, rows: NDArray[np.int64], size: int, device: torch.device, masks: bool = False
) -> Iterator[CropBatch]:
    """Yields batches of at most `size` images, in the order of `rows`.

    Args:
        store: the crop store to read from.
        rows: int64, the images, as rows of the store.
        size: number of images in a batch; the last one may be smaller.
        device: the device that the tensors are copied to.
        masks: whether the masks inside the crops are read, too.

    Raises:
        ProtoMaskError: the store was truncated while it was read.
    """
    parts = [rows[at : at + size] for at in range(0, len(rows), size)]
    pinned = device.type == "cuda"

    def read(part: NDArray[np.int64]) -> list[Tensor]:
        arrays = [store.crops(part), store.valid[part]]
        if masks:
            arrays.append(np.stack([store.inside(row) for row in part.tolist()]))
        found = map(torch.from_numpy, arrays)
        # Only copies from pinned memory overlap with computation on a GPU.
        return [tensor.pin_memory() if pinned else tensor for tensor in found]

    with ThreadPoolExecutor(1) as pool:
        ahead = pool.submit(read, parts[0]) if parts else None
        for number, part in enumerate(parts):
            assert ahead is not None
            crops, valid, *inside = (
                found.to(device, non_blocking=pinned) for found in ahead.result()
            )
            if number + 1 < len(parts):
                ahead = pool.submit(read, parts[number + 1])
            yield CropBatch(part, crops, valid, inside[0] if masks else None)
