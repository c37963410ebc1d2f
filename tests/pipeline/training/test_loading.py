"""Batches come whole, in order, and leave no thread behind."""

import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from pipeline.crops.loading import load_batches

CPU = torch.device("cpu")


@pytest.fixture
def store(make_store: Callable[..., Any], make_index: Callable[..., Any]) -> Any:
    return make_store(make_index())


@pytest.mark.parametrize("size", [1, 2, 4, 5, 100])
def test_all_rows_in_order(store: Any, size: int) -> None:
    rows = np.array([7, 3, 20, 0, 3])
    batches = list(load_batches(store, rows, size, CPU))
    assert [len(batch.rows) for batch in batches[:-1]] == [size] * (len(batches) - 1)
    assert np.concatenate([batch.rows for batch in batches]).tolist() == rows.tolist()
    assert np.array_equal(torch.cat([b.crops_BKSS3 for b in batches]), store.pixels[rows])
    assert np.array_equal(torch.cat([b.valid_BK for b in batches]), store.valid[rows])
    assert all(batch.inside_BKSS is None for batch in batches)
    with_masks = load_batches(store, rows, size, CPU, masks=True)
    inside = torch.cat([batch.inside_BKSS for batch in with_masks])
    assert np.array_equal(inside, np.stack([store.inside(row) for row in rows]))


def test_no_rows(store: Any) -> None:
    assert list(load_batches(store, np.zeros(0, np.int64), 4, CPU)) == []


def test_stopping_early_leaves_no_thread(store: Any) -> None:
    before = threading.active_count()
    batches = load_batches(store, np.arange(12), 2, CPU)
    next(batches)
    batches.close()  # type: ignore[attr-defined]
    assert threading.active_count() == before


def test_error_while_reading_arrives(store: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    crops, asked = store.crops, []

    def broken(rows: np.ndarray) -> np.ndarray:
        asked.append(rows)
        if len(asked) == 3:
            raise OSError("disk gone")
        return crops(rows)

    monkeypatch.setattr(store, "crops", broken)
    with pytest.raises(OSError, match="disk gone"):
        list(load_batches(store, np.arange(12), 2, CPU))
