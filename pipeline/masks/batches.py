"""Batches as large as memory allows."""

from collections.abc import Callable, Iterator
from typing import TypeVar

import torch

from pipeline.errors import ProtoMaskError

T = TypeVar("T")


class BatchSize:
    """How many of something are computed at a time; halved whenever memory runs out.

    Args:
        what: what is counted, for people.
        value: to start with.
    """

    def __init__(self, what: str, value: int) -> None:
        self.what = what
        self.value = max(1, value)

    def over(self, total: int, work: Callable[[slice], T], width: int = 1) -> Iterator[T]:
        """Yields the results of `work` on consecutive slices of `range(total)`.

        Args:
            total: how many there are.
            work: called with a slice; again with a smaller one where memory ran out.
            width: how many an item of the range counts for.

        Raises:
            ProtoMaskError: memory runs out with a single one.
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


def keep_memory(device: torch.device, fraction: float) -> None:
    """Lets this process have no more than a fraction of a GPU's memory."""
    if device.type == "cuda":
        torch.cuda.set_per_process_memory_fraction(fraction, device)
