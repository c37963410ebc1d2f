"""What a revision's outputs say of themselves, against its parameters."""

import json
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml
from dvc.repo import Repo
from fsspec.implementations.dirfs import DirFileSystem
from fsspec.implementations.local import LocalFileSystem

from commands.experiments import IN_REPOSITORY, contradicted, states
from pipeline.errors import ProtoMaskError

LEARNED = "22369c60"


@pytest.mark.parametrize(
    ("asked", "wrong"), [(None, []), (LEARNED, []), ("0", ["segmenter.codebook"])]
)
def test_masks_of_a_segmenter_that_learns_are_those_asked_for(
    tmp_path: Path, asked: str | None, wrong: list[str]
) -> None:
    params = {"segmenter": {"name": "parts", "codebook": asked}}
    stage = {
        "params": {"params.yaml": params},
        "outs": [{"path": IN_REPOSITORY.masks.as_posix(), "md5": "0"}],
    }
    (tmp_path / "dvc.lock").write_text(yaml.safe_dump({"stages": {"masks": stage}}))
    store = tmp_path / IN_REPOSITORY.masks
    store.mkdir(parents=True)
    fingerprint = {"name": "parts", "codebook": LEARNED}
    (store / "zarr.json").write_text(json.dumps({"attributes": {"segmenter": fingerprint}}))
    files = DirFileSystem(str(tmp_path), LocalFileSystem())
    assert [found.name for found in contradicted(files, params)] == wrong


def test_an_experiment_that_the_queue_has_lost_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker that is killed leaves its task among those that are taken, without a result."""
    (tmp_path / "dvc.yaml").write_text("stages: {done: {cmd: 'true', params: [seed]}}\n")
    (tmp_path / "params.yaml").write_text("seed: 0\n")
    monkeypatch.chdir(tmp_path)
    for name in ("AUTHOR", "COMMITTER"):
        monkeypatch.setenv(f"GIT_{name}_NAME", "Test")
        monkeypatch.setenv(f"GIT_{name}_EMAIL", "test@example.org")
    for command in ("git init -q", "dvc init -q", "git add -A", "git commit -qm start"):
        subprocess.run(command.split(), check=True)
    subprocess.run(["dvc", "exp", "run", "--queue"], check=True, capture_output=True)
    broker = tmp_path / ".dvc" / "tmp" / "exps" / "celery" / "broker"
    (task,) = (broker / "in").iterdir()
    with Repo() as repo:
        assert [kind for _, kind in states(repo)] == ["commit", "queued"]
        (broker / "processed").mkdir(exist_ok=True)
        task.rename(broker / "processed" / task.name)
        with pytest.raises(ProtoMaskError, match=r"has lost.*`rm -r .*celery` forgets"):
            list(states(repo))
    shutil.rmtree(broker.parent)
    with Repo() as repo:
        assert [kind for _, kind in states(repo)] == ["commit"]
