"""Batches as large as the device's memory allows."""

from collections.abc import Callable, Iterator
from typing import TypeVar

import torch

from pipeline.errors import ProtoMaskError

T = TypeVar("T")


class BatchSize:
    """A batch size that is halved whenever memory runs out.

    Args:
        what: the name of what is counted, for error messages.
        value: the batch size to start with.
    """

    def __init__(self, what: str, value: int) -> None:
        self.what = what
        self.value = max(1, value)

    def over(self, total: int, work: Callable[[slice], T], width: int = 1) -> Iterator[T]:
        """Yields the results of `work` on consecutive slices of `range(total)`.

        Args:
            total: number of items in the range.
            work: called with each slice; again with a smaller one if memory runs out.
            width: number that each item counts for in the batch size.

        Raises:
            ProtoMaskError: memory runs out with a batch size of 1.
        """
        done = 0
        while done < total:
            part = slice(done, min(total, done + max(1, self.value // width)))
            try:
                result = work(part)
            except torch.OutOfMemoryError:
                result = None
            if result is None:
                self._halve()
                continue
            yield result
            done = part.stop

    def _halve(self) -> None:
        torch.cuda.empty_cache()
        if self.value == 1:
            raise ProtoMaskError(
                f"the device's memory does not suffice for a single one of the {self.what}: raise "
                "runtime.memory_fraction, end other programs on the device, or set "
                "runtime.device=cpu"
            )
        self.value //= 2


def limit_memory(device: torch.device, fraction: float) -> None:
    """Limits this process to a fraction of a GPU's memory.

    Args:
        device: the device; a CPU has no limit.
        fraction: the fraction of the device's memory, in (0, 1].
    """
    if device.type == "cuda":
        torch.cuda.set_per_process_memory_fraction(fraction, device)
