"""Files and folders appear whole or not at all, and nobody's work in progress is swept away."""

import os
import stat
import time
from pathlib import Path

import pytest

from pipeline.errors import ProtoMaskError
from pipeline.files import STALE, atomic_file, atomic_folder, sweep


def _names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def _age(path: Path, seconds: float) -> None:
    then = time.time() - seconds
    os.utime(path, (then, then))


def test_a_file_appears_when_the_block_ends(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "file"
    with atomic_file(path) as part:
        part.write_text("new")
        assert not path.exists()
    assert path.read_text() == "new"
    assert _names(path.parent) == ["file"]


def test_a_failed_write_leaves_the_file_that_was_there(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("old")
    with pytest.raises(RuntimeError), atomic_file(path) as part:
        part.write_text("half")
        raise RuntimeError
    assert path.read_text() == "old"
    assert _names(tmp_path) == ["file"]


def test_files_and_folders_have_the_permissions_of_any_new_file(tmp_path: Path) -> None:
    old = os.umask(0o027)
    try:
        with atomic_file(tmp_path / "file") as part:
            part.write_text("x")
        with atomic_folder(tmp_path / "folder"):
            pass
    finally:
        os.umask(old)
    assert stat.S_IMODE((tmp_path / "file").stat().st_mode) == 0o640  # 666 without 027
    assert stat.S_IMODE((tmp_path / "folder").stat().st_mode) == 0o750  # 777 without 027


def test_a_folder_replaces_the_one_that_was_there(tmp_path: Path) -> None:
    path = tmp_path / "folder"
    path.mkdir()
    (path / "old").touch()
    with atomic_folder(path) as part:
        (part / "new").touch()
        assert _names(path) == ["old"]
    assert _names(path) == ["new"]
    assert _names(tmp_path) == ["folder"]


def test_a_failed_folder_leaves_the_one_that_was_there(tmp_path: Path) -> None:
    path = tmp_path / "folder"
    path.mkdir()
    (path / "old").touch()
    with pytest.raises(RuntimeError), atomic_folder(path) as part:
        (part / "new").touch()
        raise RuntimeError
    assert _names(path) == ["old"]
    assert _names(tmp_path) == ["folder"]


def test_sweeping_takes_what_a_killed_run_left(tmp_path: Path) -> None:
    (tmp_path / ".a.1.part").touch()
    (tmp_path / ".b.1.part").mkdir()
    (tmp_path / ".b.1.part" / "chunk").touch()
    for path in (tmp_path / ".b.1.part" / "chunk", *tmp_path.iterdir()):
        _age(path, STALE + 60)
    (tmp_path / "kept.part").touch()
    _age(tmp_path / "kept.part", STALE + 60)
    sweep(tmp_path)
    assert _names(tmp_path) == ["kept.part"]


def test_sweeping_spares_what_another_process_is_writing(tmp_path: Path) -> None:
    """Two runs share the folder: the second one's sweep must not take the first one's file."""
    with atomic_file(tmp_path / "file") as part:
        part.write_text("of the first process")
        sweep(tmp_path)
    assert (tmp_path / "file").read_text() == "of the first process"


def test_sweeping_spares_an_old_folder_with_a_new_file_in_it(tmp_path: Path) -> None:
    part = tmp_path / ".crops.zarr.1.part"
    (part / "c" / "0").mkdir(parents=True)
    (part / "c" / "0" / "chunk").touch()
    for path in (part / "c" / "0", part / "c", part):
        _age(path, STALE + 60)
    sweep(tmp_path)
    assert part.exists()


def test_a_new_folder_sweeps_what_killed_runs_left_beside_it(tmp_path: Path) -> None:
    left = tmp_path / ".crops.zarr.1.part"
    left.mkdir()
    _age(left, STALE + 60)
    with atomic_folder(tmp_path / "crops.zarr"):
        pass
    assert _names(tmp_path) == ["crops.zarr"]


def test_sweeping_a_folder_that_is_not_there_does_nothing(tmp_path: Path) -> None:
    sweep(tmp_path / "none")
    assert not (tmp_path / "none").exists()


def test_what_is_no_file_is_never_replaced_by_one(tmp_path: Path) -> None:
    pipe, folder = tmp_path / "pipe", tmp_path / "folder"
    os.mkfifo(pipe)
    folder.mkdir()
    for path, said in ((pipe, "is no file"), (folder, "is a folder")):
        with pytest.raises(ProtoMaskError, match=said), atomic_file(path):
            pass
    assert pipe.is_fifo() and _names(tmp_path) == ["folder", "pipe"]


def test_of_a_link_the_folder_that_it_leads_to_is_replaced(tmp_path: Path) -> None:
    for there in (True, False):
        folder, link = tmp_path / f"folder {there}", tmp_path / f"link {there}"
        if there:
            folder.mkdir()
            (folder / "old").touch()
        link.symlink_to(folder)
        with atomic_folder(link) as part:
            (part / "new").touch()
        assert link.is_symlink() and _names(folder) == ["new"]


@pytest.mark.parametrize("name", ["n" * 255, "ü" * 127])
def test_names_may_be_as_long_as_the_file_system_allows(tmp_path: Path, name: str) -> None:
    with atomic_file(tmp_path / name) as part:
        part.touch()
    assert _names(tmp_path) == [name]
