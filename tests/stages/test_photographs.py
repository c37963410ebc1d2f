"""Photographs that change, lie elsewhere, or are somebody else's: real DVC and real stages."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest
from clones import Clone, ran

pytestmark = pytest.mark.slow


def test_queued_copy_finds_relative_root_and_finished_masks(
    tmp_path: Path, photographs: Path, clone: Clone
) -> None:
    shutil.copytree(photographs, tmp_path / "pictures")
    clone.look_in("../pictures")
    output = clone.exp_run("--temp", "-S", "crops.side=32", "crops")
    assert "crops" in ran(output) and "masks" not in ran(output)
    shutil.rmtree(clone.folder / ".dvc" / "cache")
    output = clone.exp_run("--temp", "-S", "crops.side=40", "crops")
    assert "0 images segmented" in output


def test_changed_folder_is_noticed(tmp_path: Path, photographs: Path, clone: Clone) -> None:
    folder = tmp_path / "photographs"
    shutil.copytree(photographs, folder)
    clone.look_in(folder)
    first, second = sorted(sorted(folder.iterdir())[0].iterdir())[:2]

    def images_segmented() -> int:
        output = clone.run("dvc", "repro", "masks")
        assert ran(output) == ["scan@root", "prepare", "masks"]
        return int(re.search(r"(\d+) images segmented", output)[1])

    first.with_name("new.jpg").write_bytes(first.read_bytes() + b"\0")
    first.write_bytes(second.read_bytes() + b"\0\0")
    assert images_segmented() == 2
    second.unlink()
    assert images_segmented() == 0


def test_colleague_with_another_root_segments_and_trains_nothing(
    tmp_path: Path, photographs: Path, clone: Clone
) -> None:
    mine = clone
    mine.run("dvc", "remote", "add", "-d", "team", str(tmp_path / "team"))
    mine.run("dvc", "push")
    mine.git("add", "dvc.lock", ".dvc/config")
    mine.commit("a finished experiment")
    elsewhere = tmp_path / "elsewhere" / "my photographs"
    shutil.copytree(photographs, elsewhere)
    subprocess.run(["git", "clone", "-q", mine.folder, tmp_path / "theirs"], check=True)
    theirs = mine.at(tmp_path / "theirs")
    params = theirs.folder / "params.yaml"
    params.write_text(params.read_text().replace(str(photographs), str(elsewhere)))
    output = theirs.run("dvc", "repro", "--pull")
    assert ran(output) == ["scan@root"]
    assert theirs.bytes() == mine.bytes()
