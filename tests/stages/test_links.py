"""Outputs and DVC's cache are the same files: what that means for disks, reruns and edits."""

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest
from clones import STAGE, Clone
from test_remedies import WRITABLE, follow

from pipeline.crops.store import CropStore
from stages.workspace import Workspace

pytestmark = pytest.mark.slow

READ_ONLY = 0o444


@pytest.fixture
def linked(clone: Clone, monkeypatch: pytest.MonkeyPatch) -> Clone:
    """A finished clone; its copying has cut the links."""
    clone.run("dvc", "checkout", "--relink")
    monkeypatch.chdir(clone.folder)
    return clone


def files(folder: Path) -> Iterator[os.stat_result]:
    return (path.stat() for path in folder.rglob("*") if path.is_file())


def taken(*folders: Path) -> int:
    """Returns the bytes that files take on disk, of which links count once."""
    sizes = {found.st_ino: found.st_blocks * 512 for at in folders for found in files(at)}
    return sum(sizes.values())


def assert_nothing_is_kept_twice(clone: Clone) -> None:
    artifacts, cache = clone.folder / "artifacts", clone.folder / ".dvc" / "cache"
    assert taken(artifacts, cache) <= 1.05 * max(taken(artifacts), taken(cache))
    assert all(found.st_nlink > 1 for found in files(artifacts))


def test_after_a_run(finished: Clone) -> None:
    assert_nothing_is_kept_twice(finished)
    modes = {stat.S_IMODE(found.st_mode) for found in files(finished.folder / "artifacts")}
    assert modes == {READ_ONLY}


def test_after_runs_that_make_the_same_again(linked: Clone) -> None:
    """By DVC, and by hand, which replaces links and leaves the cache as it is."""
    made = linked.bytes()
    for stage in ("crops", "train", "evaluate"):
        linked.run("dvc", "repro", "--force", "--single-item", stage)
    assert_nothing_is_kept_twice(linked)
    assert linked.bytes() == made
    linked.params("crops.side=40")
    linked.run(*STAGE, "crops")
    linked.params()
    linked.run("dvc", "checkout", "--force")
    assert linked.bytes() == made


def test_an_edit_of_what_was_made_writable(linked: Clone) -> None:
    """It damages the cache, too; DVC sees that, since the file is writable, and runs the stage."""
    predictions = Path("artifacts/evaluate/predictions.csv")
    right = predictions.read_bytes()
    predictions.chmod(0o644)
    predictions.write_bytes(right[:-10])
    assert "Running stage 'evaluate'" in linked.run("dvc", "repro", "evaluate")
    assert predictions.read_bytes() == right
    assert_nothing_is_kept_twice(linked)


def test_an_edit_after_unprotect_leaves_the_cache_as_it_is(linked: Clone) -> None:
    predictions = Path("artifacts/evaluate/predictions.csv")
    right = predictions.read_bytes()
    linked.run("dvc", "unprotect", "artifacts/evaluate")
    predictions.write_bytes(right[:-10])
    assert "Running stage" not in linked.run("dvc", "checkout", "--force", "evaluate")
    assert predictions.read_bytes() == right


def test_the_remedy_for_damage_that_leaves_no_trace(linked: Clone) -> None:
    """As by a failing disk, or an administrator, who may write what is read-only."""
    path = Workspace().crops / "crops/c/0/0/0/0/0"
    right = path.read_bytes()
    path.chmod(0o644)
    with path.open("r+b") as file:
        file.truncate(len(right) // 2)
    path.chmod(READ_ONLY)
    done = follow(linked, lambda: CropStore(Workspace().crops))
    assert done == ["dvc repro crops", WRITABLE, "dvc repro --force --single-item crops"]
    assert path.read_bytes() == right
    assert_nothing_is_kept_twice(linked)
