"""Batches that shrink when memory runs out."""

import pytest
import torch

from pipeline.errors import ProtoMaskError
from pipeline.masks.batch_size import BatchSize


def test_slices_cover_everything_once() -> None:
    assert list(BatchSize("things", 4).over(10, lambda part: (part.start, part.stop))) == [
        (0, 4),
        (4, 8),
        (8, 10),
    ]
    assert list(BatchSize("things", 4).over(0, lambda part: part)) == []


def test_wide_items_count_for_several() -> None:
    sizes = list(BatchSize("things", 8).over(5, lambda part: part.stop - part.start, width=3))
    assert sizes == [2, 2, 1]
    assert list(BatchSize("things", 2).over(2, lambda part: part.start, width=3)) == [0, 1]


def test_halved_until_it_fits_and_nothing_is_lost() -> None:
    tried: list[int] = []

    def work(part: slice) -> list[int]:
        tried.append(part.stop - part.start)
        if part.stop - part.start > 3:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return list(range(part.start, part.stop))

    size = BatchSize("things", 10)
    assert [number for numbers in size.over(11, work) for number in numbers] == list(range(11))
    assert tried == [10, 5, 2, 2, 2, 2, 2, 1] and size.value == 2


def test_not_even_one() -> None:
    def work(part: slice) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    with pytest.raises(ProtoMaskError, match=r"single one of the points.*memory_fraction"):
        list(BatchSize("points", 3).over(5, work))
