"""Batches of crops, read ahead while the device works on the batch before."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pipeline.crops.store import CropStore


class Batch(NamedTuple):
    """Some images' crops.

    Args:
        rows: int64 B, which images.
        crops_BKSS3: uint8.
        valid_BK: bool.
    """

    rows: NDArray[np.int64]
    crops_BKSS3: Tensor
    valid_BK: Tensor


def read_batches(
    store: CropStore, rows: NDArray[np.int64], size: int, device: torch.device
) -> Iterator[Batch]:
    """Yields batches of at most `size` images, in the order of `rows`, on a device."""
    parts = [rows[at : at + size] for at in range(0, len(rows), size)]
    pinned = device.type == "cuda"

    def read(part: NDArray[np.int64]) -> tuple[Tensor, Tensor]:
        found = torch.from_numpy(store.crops(part)), torch.from_numpy(store.valid[part])
        # From other memory a GPU cannot copy while it computes.
        return (found[0].pin_memory(), found[1].pin_memory()) if pinned else found

    with ThreadPoolExecutor(1) as pool:
        ahead = pool.submit(read, parts[0]) if parts else None
        for number, part in enumerate(parts):
            assert ahead is not None
            crops, valid = (found.to(device, non_blocking=pinned) for found in ahead.result())
            if number + 1 < len(parts):
                ahead = pool.submit(read, parts[number + 1])
            yield Batch(part, crops, valid)
