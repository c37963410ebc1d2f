"""The experiment as its users run it: real DVC, real stages, real processes, in a copy of the
repository with a small folder of drawn photographs."""

import hashlib
import json
import os
import random
import re
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest
from dvc.utils.hydra import compose_and_dump

from pipeline.datasets import demo

pytestmark = pytest.mark.slow

REPOSITORY = Path(__file__).parents[2]
SMALL = [
    "dataset=folder",
    "dataset.num_classes=3",
    "segmenter.scales=[800]",
    "crops.size=48",
    "crops.per_image=3",
    "model.embedding_dim=16",
    "model.prototypes_per_class=2",
    "train.epochs=3",
    "finetune.epochs=2",
]
STAGES = [
    "scan@root",
    "prepare",
    "masks",
    "crops",
    "train",
    "push",
    "finetune",
    "evaluate",
    "explain",
]


@pytest.fixture(scope="session")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of three classes with 14 drawings each."""
    drawn = tmp_path_factory.mktemp("drawn")
    demo.draw(drawn, seed=1, train_per_class=12, test_per_class=2)
    kept = tmp_path_factory.mktemp("photographs")
    for folder in sorted((drawn / "images").iterdir())[:3]:
        shutil.copytree(folder, kept / folder.name)
    return kept


class Clone:
    """A copy of the repository, as a colleague has one."""

    def __init__(self, folder: Path, root: Path | str, *overrides: str) -> None:
        self.folder = folder
        listed = subprocess.run(
            ["git", "ls-files", "-co", "--exclude-standard"],
            cwd=REPOSITORY,
            capture_output=True,
            text=True,
            check=True,
        ).stdout.splitlines()
        for name in listed:
            if not name.startswith("tests/") and (REPOSITORY / name).is_file():
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(REPOSITORY / name, folder / name)
        self.overrides = [*SMALL, f"dataset.root={root}", *overrides]
        compose_and_dump(
            folder / "params.yaml",
            str(folder / "conf"),
            None,
            "config",
            str(folder),
            self.overrides,
        )
        self.git("init", "-q", "-b", "main")
        self.git("add", "-A")
        self.commit("start")

    def git(self, *arguments: str) -> None:
        subprocess.run(["git", *arguments], cwd=self.folder, check=True, capture_output=True)

    def commit(self, message: str) -> None:
        who = ["-c", "user.name=Test", "-c", "user.email=test@example.org"]
        self.git(*who, "commit", "-qm", message)

    def environment(self) -> dict[str, str]:
        names = {"GIT_AUTHOR_NAME": "Test", "GIT_COMMITTER_NAME": "Test"}
        mails = {"GIT_AUTHOR_EMAIL": "t@example.org", "GIT_COMMITTER_EMAIL": "t@example.org"}
        return {**os.environ, **names, **mails}

    def run(self, *command: str, ok: bool = True) -> str:
        """Runs a command and returns what it printed on both channels."""
        done = subprocess.run(
            command,
            cwd=self.folder,
            text=True,
            env=self.environment(),
            timeout=900,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        assert (done.returncode == 0) == ok, done.stdout
        return done.stdout

    def exp_run(self, *arguments: str) -> str:
        overrides = [word for override in self.overrides for word in ("-S", override)]
        return self.run("dvc", "exp", "run", *overrides, *arguments)

    def bytes(self) -> dict[str, str]:
        """Returns the hash of every file that a run has made."""
        files = [self.folder / "metrics.json", *sorted((self.folder / "artifacts").rglob("*"))]
        return {
            str(path.relative_to(self.folder)): hashlib.sha256(path.read_bytes()).hexdigest()
            for path in files
            if path.is_file()
        }

    def lock(self) -> str:
        return (self.folder / "dvc.lock").read_text()


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory, photographs: Path) -> Clone:
    """A clone in which `dvc repro` has run once; not to be changed."""
    clone = Clone(tmp_path_factory.mktemp("finished"), photographs)
    clone.run("dvc", "repro")
    return clone


@pytest.fixture
def clone(tmp_path: Path, finished: Clone) -> Clone:
    """A copy of the finished clone, to do anything with."""
    copy = Clone.__new__(Clone)
    copy.folder, copy.overrides = tmp_path / "clone", finished.overrides
    shutil.copytree(finished.folder, copy.folder, symlinks=True)
    return copy


def ran(output: str) -> list[str]:
    return [stage for stage in STAGES if f"Running stage '{stage}'" in output]


def test_second_run_recomputes_nothing(clone: Clone) -> None:
    assert ran(clone.run("dvc", "repro")) == ["scan@root"]


def test_another_clone_gives_the_same_bytes(
    tmp_path: Path, photographs: Path, finished: Clone
) -> None:
    other = Clone(tmp_path, photographs)
    other.run("dvc", "repro")
    assert other.bytes() == finished.bytes()


def test_training_parameter_leaves_masks_and_crops_alone(clone: Clone) -> None:
    output = clone.exp_run("-S", "train.epochs=4", "train")
    assert "train" in ran(output) and not {"prepare", "masks", "crops"} & set(ran(output))


def test_another_fold_leaves_masks_and_crops_alone(clone: Clone) -> None:
    output = clone.exp_run("-S", "dataset.fold=1", "train")
    assert "prepare" in ran(output) and "train" in ran(output)
    assert not {"masks", "crops"} & set(ran(output))


def test_runtime_is_nobodys_dependency(clone: Clone) -> None:
    assert ran(clone.exp_run("-S", "runtime.workers=1")) == ["scan@root"]


def test_queued_copy_finds_relative_root_and_finished_masks(
    tmp_path: Path, photographs: Path
) -> None:
    shutil.copytree(photographs, tmp_path / "pictures")
    clone = Clone(tmp_path / "clone", "../pictures")
    clone.run("dvc", "repro", "masks")
    output = clone.exp_run("--temp", "-S", "crops.size=32", "crops")
    assert "crops" in ran(output)
    shutil.rmtree(clone.folder / ".dvc" / "cache")
    output = clone.exp_run("--temp", "-S", "crops.size=40", "crops")
    assert "0 images segmented" in output


def test_changed_folder_is_noticed(tmp_path: Path, photographs: Path) -> None:
    folder = tmp_path / "photographs"
    shutil.copytree(photographs, folder)
    clone = Clone(tmp_path / "clone", folder)
    clone.run("dvc", "repro", "masks")
    first, second = sorted(sorted(folder.iterdir())[0].iterdir())[:2]

    def images_segmented() -> int:
        output = clone.run("dvc", "repro", "masks")
        assert ran(output) == ["scan@root", "prepare", "masks"]
        return int(re.search(r"(\d+) images segmented", output)[1])

    first.with_name("new.jpg").write_bytes(first.read_bytes() + b"\0")
    assert images_segmented() == 1
    first.write_bytes(second.read_bytes() + b"\0\0")
    assert images_segmented() == 1
    second.unlink()
    assert images_segmented() == 0


def test_colleague_with_another_root_segments_and_trains_nothing(
    tmp_path: Path, photographs: Path, clone: Clone
) -> None:
    mine = clone
    mine.run("dvc", "remote", "add", "-d", "team", str(tmp_path / "team"))
    mine.run("dvc", "push")
    mine.git("add", "dvc.lock", ".dvc/config", "metrics.json")
    mine.commit("a finished experiment")
    elsewhere = tmp_path / "elsewhere" / "my photographs"
    shutil.copytree(photographs, elsewhere)
    subprocess.run(["git", "clone", "-q", mine.folder, tmp_path / "theirs"], check=True)
    theirs = Clone.__new__(Clone)
    theirs.folder = tmp_path / "theirs"
    params = theirs.folder / "params.yaml"
    params.write_text(params.read_text().replace(str(photographs), str(elsewhere)))
    output = theirs.run("dvc", "repro", "--pull")
    assert ran(output) == ["scan@root"]
    assert theirs.bytes() == mine.bytes()


def test_killed_in_every_stage_ends_with_the_same_bytes(
    tmp_path: Path, photographs: Path, finished: Clone
) -> None:
    clone = Clone(tmp_path, photographs)
    lottery = random.Random(0)
    for stage in STAGES[1:]:
        for _ in range(2):
            process = subprocess.Popen(
                ["dvc", "repro", stage],
                cwd=clone.folder,
                start_new_session=True,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
            time.sleep(lottery.uniform(1.5, 8.0))
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            _remove_torn_lock(clone)
    clone.run("dvc", "repro")
    assert clone.bytes() == finished.bytes()


def _remove_torn_lock(clone: Clone) -> None:
    """Does what docs/segmenters.md says of a kill that hits DVC while it writes its own lock."""
    lock = clone.folder / ".dvc" / "tmp" / "rwlock"
    if lock.exists() and not lock.read_bytes():
        lock.unlink()


def test_metrics_are_strict_json_by_group(finished: Clone) -> None:
    def refuse(constant: str) -> None:
        raise AssertionError(constant)

    text = (finished.folder / "metrics.json").read_text()
    metrics = json.loads(text, parse_constant=refuse)
    intervals = metrics.pop("intervals")
    groups = {"general", "compactness", "contrastivity", "complexity", "segmentation"}
    assert set(metrics) == set(intervals) == groups
    assert 0 <= metrics["general"]["accuracy"] <= 1
    assert "iou" not in metrics["complexity"]


def test_dvc_shows_metrics_and_plots(finished: Clone) -> None:
    assert "general.accuracy" in finished.run("dvc", "metrics", "show")
    said = finished.run("dvc", "plots", "show", "-o", str(finished.folder / "plots"))
    assert "failed" not in said
    page = (finished.folder / "plots" / "index.html").read_text()
    assert "Confusion matrix" in page and "Accuracy" in page
