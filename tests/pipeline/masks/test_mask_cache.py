"""The cache's files are whole and undamaged, or absent."""

import errno
import os
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from pipeline.files import STALE
from pipeline.masks import mask_cache as module
from pipeline.masks.mask_cache import MaskCache
from pipeline.masks.masks import Masks, Region

Make = Callable[..., Masks]
Same = Callable[[Masks, Masks], bool]


@pytest.fixture
def mask_cache(tmp_path: Path) -> MaskCache:
    return MaskCache(tmp_path / "cache", 1)


def test_round_trip(mask_cache: MaskCache, make_masks: Make, same_masks: Same) -> None:
    masks = {"aa": make_masks(0), "bb": make_masks(1, count=0), "cc": make_masks(2, count=9)}
    path = mask_cache.write(masks)
    assert mask_cache.images() == {"aa": path, "bb": path, "cc": path}
    found = mask_cache.read(path, ["cc", "bb"])
    assert set(found) == {"bb", "cc"}
    assert all(same_masks(found[image], masks[image]) for image in found)


def test_several_scores(tmp_path: Path) -> None:
    mask_cache = MaskCache(tmp_path, 3)
    regions = [Region(0, 0, np.ones((2, 2), bool), tuple(scores)) for scores in np.eye(3)[:2]]
    masks = Masks.of(4, 4, regions, 3)
    path = mask_cache.write({"x": masks})
    assert mask_cache.read(path, ["x"])["x"].scores.tolist() == [[1, 0, 0], [0, 1, 0]]


def test_how_many_were_dropped_is_remembered(mask_cache: MaskCache, make_masks: Make) -> None:
    masks = {"aa": replace(make_masks(0), dropped=7), "bb": make_masks(1)}
    found = mask_cache.read(mask_cache.write(masks), masks)
    assert [found[image].dropped for image in masks] == [7, 0]


def test_files_of_version_0_2_0_are_read(
    mask_cache: MaskCache, make_masks: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    masks = {"aa": replace(make_masks(0), dropped=7), "bb": make_masks(1, count=0)}
    columns = "image height width counts boxes areas scores".split()
    with monkeypatch.context() as patch:
        schema = pa.schema([module.SCHEMA.field(name) for name in columns])
        patch.setattr(module, "SCHEMA", schema)
        earlier = mask_cache.write(masks)
    found = mask_cache.read(earlier, masks)
    assert list(found["aa"].counts) == list(masks["aa"].counts)
    assert len(found["bb"]) == found["aa"].dropped == 0
    assert found["aa"].parts.tolist() == [-1] * 5
    assert found["aa"].levels.tolist() == [0] * 5
    assert found["aa"].foreground.tolist() == [True] * 5


def test_no_folder_yet(mask_cache: MaskCache) -> None:
    assert mask_cache.images() == {}


def test_the_order_of_images_does_not_matter(tmp_path: Path, make_masks: Make) -> None:
    masks = {name: make_masks(number) for number, name in enumerate("abc")}
    first = MaskCache(tmp_path / "1", 1).write(masks)
    second = MaskCache(tmp_path / "2", 1).write(dict(reversed(masks.items())))
    assert first.name == second.name
    assert first.read_bytes() == second.read_bytes()


def test_every_damaged_byte_is_noticed(
    mask_cache: MaskCache, make_masks: Make, same_masks: Same
) -> None:
    """Parquet's own checksums leave the headers of its pages out."""
    masks = {"aa": make_masks(0, count=2)}
    path = mask_cache.write(masks)
    whole = path.read_bytes()
    for place in range(0, len(whole), 7):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 0x20]) + whole[place + 1 :])
        assert mask_cache.images() == {}, place
        assert not path.exists()
    path.write_bytes(whole)
    assert same_masks(mask_cache.read(mask_cache.images()["aa"], ["aa"])["aa"], masks["aa"])


@pytest.mark.parametrize("content", [b"", b"PAR1", b"half"])
def test_a_cut_file_is_dropped_and_the_others_stay(
    mask_cache: MaskCache, make_masks: Make, content: bytes
) -> None:
    good = mask_cache.write({"aa": make_masks(0)})
    mask_cache.write({"bb": make_masks(1)}).write_bytes(content)
    assert mask_cache.images() == {"aa": good}


def test_a_disk_that_fails_costs_no_file(
    mask_cache: MaskCache, make_masks: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """GPU-hours are not deleted because a network disk hiccups or a permission is missing."""

    def fail(path: Path) -> str:
        raise OSError(errno.EIO, "Input/output error", str(path))

    path = mask_cache.write({"aa": make_masks(0)})
    monkeypatch.setattr(module, "sha256", fail)
    with pytest.raises(OSError, match="Input/output"):
        mask_cache.images()
    assert path.exists()


def test_what_a_killed_run_left_goes_and_what_another_run_writes_stays(
    mask_cache: MaskCache, make_masks: Make
) -> None:
    mask_cache.write({"aa": make_masks(0)})
    old, new = mask_cache.folder / ".x.parquet.1.part", mask_cache.folder / ".y.parquet.2.part"
    old.touch()
    new.touch()
    os.utime(old, (time.time() - STALE - 60,) * 2)
    assert list(mask_cache.images()) == ["aa"]
    assert not old.exists()
    assert new.exists()


def test_a_folder_that_looks_like_a_partition(tmp_path: Path, make_masks: Make) -> None:
    mask_cache = MaskCache(tmp_path / "image=3" / "run=4", 1)
    path = mask_cache.write({"aa": make_masks(0)})
    assert mask_cache.images() == {"aa": path}
    assert len(mask_cache.read(path, ["aa"])["aa"]) == len(make_masks(0))
