"""The code that runs is the code that DVC hashes, wherever an experiment runs.

Each test runs an experiment with edited code that cannot be mistaken for the code of the checkout
that was installed.
"""

import io
import os
import re
import shutil
import subprocess
import sys
import venv
from pathlib import Path

import dvc.api
import pandas as pd
import pytest
from clones import QUICK, Clone

from pipeline.masks.store import MaskStore
from stages import launch

pytestmark = pytest.mark.slow

PUSH, RECORDED = "pipeline/training/push.py", "nearest.distance.numpy()"
PROTOTYPES = Path("artifacts/push/prototypes.csv")


@pytest.fixture
def clone(clone: Clone) -> Clone:
    """A copy of the finished clone, with its dvc.lock committed for copies of it."""
    clone.git("add", "dvc.lock")
    clone.commit("finished")
    return clone


def add_a_thousand(folder: Path) -> None:
    """Makes `push` record distances that are too large by a thousand."""
    edit(folder, PUSH, RECORDED, f"{RECORDED} + 1000")


def edit(folder: Path, name: str, old: str, new: str) -> None:
    text = (folder / name).read_text()
    assert text.count(old) == 1
    (folder / name).write_text(text.replace(old, new))


def distances(folder: Path, experiment: str | None = None) -> pd.Series:
    """The distances that lie in a folder, or those of an experiment."""
    if experiment is None:
        return pd.read_csv(folder / PROTOTYPES)["distance"]
    recorded = dvc.api.read(PROTOTYPES.as_posix(), repo=str(folder), rev=experiment)
    return pd.read_csv(io.StringIO(recorded))["distance"]


def test_queued_code_is_what_runs_and_what_is_recorded(clone: Clone) -> None:
    add_a_thousand(clone.folder)
    clone.exp_run("--queue", "--name", "edited", "push")
    clone.git("checkout", PUSH)
    clone.run("dvc", "queue", "start")
    clone.wait_for_queue()
    assert distances(clone.folder, "edited").between(1000, 1001).all()
    clone.run("dvc", "repro", "push")
    assert distances(clone.folder).between(0, 1).all()
    # What the run cache has under the edited code is what the edited code has made.
    add_a_thousand(clone.folder)
    assert "cached" in clone.run("dvc", "repro", "push")
    assert distances(clone.folder).between(1000, 1001).all()


def test_code_of_a_temporary_copy_and_of_a_worktree(clone: Clone, tmp_path: Path) -> None:
    add_a_thousand(clone.folder)
    clone.exp_run("--temp", "--name", "temporary", "push")
    clone.git("checkout", PUSH)
    assert distances(clone.folder, "temporary").between(1000, 1001).all()
    clone.git("worktree", "add", "-q", str(tmp_path / "worktree"))
    worktree = clone.at(tmp_path / "worktree")
    worktree.run("dvc", "cache", "dir", "--local", str(clone.folder / ".dvc" / "cache"))
    edit(worktree.folder, PUSH, RECORDED, f"{RECORDED} + 2000")
    worktree.run("dvc", "checkout", "artifacts/train", "artifacts/crops.zarr", "artifacts/index")
    worktree.run("dvc", "repro", "--single-item", "push")
    assert distances(worktree.folder).between(2000, 2001).all()


@pytest.mark.parametrize("scheduler", ["null", "local:2"])
def test_workers_run_the_code_too(clone: Clone, scheduler: str) -> None:
    shutil.rmtree(clone.folder / ".protomask")
    for word in QUICK:
        clone.overrides.remove(word)
    clone.params(f"runtime.scheduler={scheduler}", "segmenter=patches", "segmenter.grid=3")
    edit(
        clone.folder,
        "pipeline/masks/segmenters/patches.py",
        "product(list(rows),",
        "product(list(rows)[1:],",
    )
    clone.run("dvc", "repro", "--force", "--single-item", "masks")
    assert set(MaskStore(clone.folder / "artifacts/masks.zarr").num_masks()) == {6}


def test_interpreter_of_dvc_runs_the_stage(clone: Clone, tmp_path: Path) -> None:
    """DVC is called by its path, and the `python3` found first has none of the packages."""
    venv.create(tmp_path / "bare", with_pip=False)
    path = f"{tmp_path / 'bare' / 'bin'}:/usr/bin:/bin"
    dvc = Path(sys.executable).parent / "dvc"
    for command in ([str(dvc)], [sys.executable, "-m", "dvc"]):
        words = [*command, "repro", "--force", "--single-item", "push"]
        said = subprocess.run(
            words,
            cwd=clone.folder,
            env={**clone.environment(), "PATH": path},
            capture_output=True,
            text=True,
        )
        assert said.returncode == 0, said.stdout + said.stderr
    alone = [str(tmp_path / "bare" / "bin" / "python3"), "-m", "stages", "push"]
    said = subprocess.run(alone, cwd=clone.folder, capture_output=True, text=True)
    assert said.returncode == 1
    assert re.search(r"bare/bin/python3 lacks the packages dvc, torch, .*activate", said.stderr)


def test_the_command_of_a_person_runs_the_code_of_the_folder(clone: Clone) -> None:
    script = shutil.which("protomask")
    if script is None:
        pytest.skip("protomask is not installed on PATH")
    add_a_thousand(clone.folder)
    clone.run(script, "push")
    assert distances(clone.folder).between(1000, 1001).all()
    environment = {**clone.environment(), "PYTHONSAFEPATH": "1"}
    said = subprocess.run(
        [script, "push"], cwd=clone.folder, env=environment, capture_output=True, text=True
    )
    assert said.returncode == 1
    assert str(clone.folder) in said.stderr and str(launch.CODE.parent) in said.stderr


def test_folders_without_code_of_their_own_take_the_installed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "dvc.yaml").write_text("stages: {}\n")
    monkeypatch.chdir(tmp_path)
    launch.run_code_of_this_folder()
    launch.refuse_other_code()


def test_windows_is_refused_in_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "win32")
    with pytest.raises(SystemExit, match="Linux and macOS: on Windows"):
        launch.settle_surroundings()


def test_a_user_whom_the_system_does_not_know() -> None:
    """As with `docker run --user`: DVC and torch ask for the name, and where the home is."""
    unknown = ["unshare", "--user", "--map-user=54321", "--map-group=54321"]
    if shutil.which("unshare") is None or subprocess.run([*unknown, "true"]).returncode != 0:
        pytest.skip("this system lets nobody be another user")
    script = """
import getpass
from pathlib import Path
from pipeline.download import cache
from stages import launch

launch.name_user()
print(getpass.getuser(), cache("weights").relative_to(Path.home()), Path("~").expanduser())
"""
    said = subprocess.run(
        [*unknown, sys.executable, "-c", script],
        cwd=launch.CODE.parent,
        env={"PATH": os.environ["PATH"], "TMPDIR": "/tmp"},
        capture_output=True,
        text=True,
    )
    assert said.stdout.split() == ["54321", ".cache/protomask/weights", "/tmp/home-of-54321"], said
