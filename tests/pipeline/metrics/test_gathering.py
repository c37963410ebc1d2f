"""Ground truth at the maps' size."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pycocotools import mask as rle

from pipeline.datasets.index import Image, Index, Part
from pipeline.metrics.gathering import object_masks, part_locations


def index_of(*images: Image, parts: list[str] | None = None) -> Index:
    return Index.of("birds", list(images), ["wren"], parts or [])


def picture(name: str, width: int, height: int, **fields: Any) -> Image:
    return Image(name, f"{name}.jpg", "wren", "test", width=width, height=height, **fields)


def test_parts_are_scaled_to_the_maps() -> None:
    index = index_of(
        picture("a", 200, 100, parts=(Part("beak", 50, 50), Part("tail", 199, 0))),
        picture("b", 64, 128, parts=(Part("tail", 16, 96),)),
        picture("c", 10, 10, parts=()),
        picture("d", 10, 10, parts=None),
        parts=["beak", "tail"],
    )
    parts = part_locations(index, np.arange(4), 32)
    assert parts is not None and parts.shape == (4, 2, 2)
    # x·32/width, y·32/height: 50·32/200 = 8, 50·32/100 = 16, 199·32/200 = 31.84;
    # 16·32/64 = 8, 96·32/128 = 24.
    assert parts[0].flatten().tolist() == pytest.approx([8, 16, 31.84, 0])
    assert parts[1, 1].tolist() == [8, 24] and parts[1, 0].isnan().all()
    assert parts[2:].isnan().all()


def test_parts_survive_the_index_file(tmp_path: Path) -> None:
    index = index_of(
        picture("a", 32, 32, parts=(Part("beak", 3, 4),)),
        picture("b", 32, 32, parts=None),
        parts=["beak"],
    )
    index.write(tmp_path / "index.parquet")
    parts = part_locations(Index.read(tmp_path / "index.parquet"), np.array([1, 0]), 32)
    assert parts is not None
    assert parts[1, 0].tolist() == [3, 4] and parts[0].isnan().all()


def test_data_set_without_parts() -> None:
    assert part_locations(index_of(picture("a", 8, 8)), np.array([0]), 32) is None


def with_mask(name: str, mask: np.ndarray) -> Image:
    counts = rle.encode(np.asfortranarray(mask.astype(np.uint8)))["counts"]
    return picture(name, mask.shape[1], mask.shape[0], object_mask=bytes(counts))


def test_object_masks_are_resized() -> None:
    left, top = np.zeros((40, 80), bool), np.zeros((64, 16), bool)
    left[:, :40] = True
    top[:16] = True
    found = object_masks(index_of(with_mask("a", left), with_mask("b", top)), np.array([1, 0]), 32)
    assert found is not None and found.shape == (2, 32, 32) and found.dtype == torch.bool
    assert found[0, :8].all() and not found[0, 8:].any()
    assert found[1, :, :16].all() and not found[1, :, 16:].any()


def test_one_image_without_object_mask_leaves_them_out() -> None:
    index = index_of(with_mask("a", np.ones((8, 8), bool)), picture("b", 8, 8))
    assert object_masks(index, np.array([0, 1]), 32) is None
    assert object_masks(index, np.array([0]), 32) is not None
