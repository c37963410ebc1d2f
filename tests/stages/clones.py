"""A copy of the repository with a small experiment in it, driven by real commands."""

import hashlib
import os
import re
import shutil
import subprocess
import time
from pathlib import Path

from dvc.utils.hydra import compose_and_dump

REPOSITORY = Path(__file__).parents[2]
SMALL = [
    "dataset=folder",
    "dataset.num_classes=3",
    "crops.side=48",
    "crops.per_image=3",
    "model.backbone=test_resnet",
    "experiment=frozen",
    "model.pretrained=none",
    "model.embedding_dim=16",
    "model.prototypes_per_class=2",
    "train.epochs=3",
    "finetune.epochs=2",
]
QUICK = ["segmenter=felzenszwalb", "segmenter.scales=[800]", "segmenter.max_side=160"]
STAGE = ("python3", "-m", "stages")
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
NOON = "2026-01-01T12:00:00+00:00"


class Clone:
    """A copy of the repository, as a colleague has one."""

    def __init__(self, folder: Path, root: Path | str, *overrides: str) -> None:
        """Refers to a folder in which there is a clone, or will be; see `make`.

        Args:
            folder: the clone's.
            root: where the photographs are.
            overrides: of parameters, besides those of a small experiment; none: quick masks.
        """
        self.folder = folder
        self.overrides = [*SMALL, f"dataset.root={root}", *(overrides or QUICK)]

    def make(self) -> "Clone":
        """Copies the repository's files into the folder, and commits them."""
        copy_repository(self.folder)
        self.params()
        self.git("init", "-q", "-b", "main")
        self.git("add", "-A")
        self.commit("start")
        return self

    def copy(self, folder: Path) -> "Clone":
        """Returns a copy of the clone in another folder, with all that has run in it."""
        shutil.copytree(self.folder, folder, symlinks=True)
        return self.at(folder)

    def at(self, folder: Path) -> "Clone":
        """Returns a clone or worktree that lies in a folder already."""
        clone = Clone(folder, "")
        clone.overrides = [*self.overrides]
        return clone

    def look_in(self, root: Path | str) -> None:
        """Takes the photographs of another folder."""
        self.overrides.append(f"dataset.root={root}")
        self.params()

    def params(self, *overrides: str) -> None:
        """Composes params.yaml with further overrides."""
        compose_and_dump(
            self.folder / "params.yaml",
            str(self.folder / "conf"),
            None,
            "config",
            str(self.folder),
            [*self.overrides, *overrides],
        )

    def git(self, *arguments: str) -> None:
        """Runs Git at a fixed time: clones of the same files have the same commits."""
        dates = {"GIT_AUTHOR_DATE": NOON, "GIT_COMMITTER_DATE": NOON}
        subprocess.run(
            ["git", *arguments],
            cwd=self.folder,
            env={**os.environ, **dates},
            check=True,
            capture_output=True,
        )

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

    def wait_for_queue(self) -> None:
        """Returns when all queued experiments have ended."""
        for _ in range(600):
            status = self.run("dvc", "queue", "status")
            if not re.search(r"\b(Queued|Running)\b", status):
                assert "Failed" not in status, status
                return
            time.sleep(0.5)
        raise AssertionError(status)

    def bytes(self) -> dict[str, str]:
        """Returns the hash of every file that a run has made."""
        files = sorted((self.folder / "artifacts").rglob("*"))
        return {
            str(path.relative_to(self.folder)): hashlib.sha256(path.read_bytes()).hexdigest()
            for path in files
            if path.is_file()
        }

    def lock(self) -> str:
        return (self.folder / "dvc.lock").read_text()


def copy_repository(folder: Path) -> None:
    """Copies the repository's files, without the tests, and what Python has compiled of them."""
    listed = ["git", "ls-files", "-co", "--exclude-standard"]
    names = subprocess.check_output(listed, cwd=REPOSITORY, text=True).splitlines()
    for source in (REPOSITORY / name for name in names if not name.startswith("tests/")):
        if source.is_file():
            compiled = source.with_name("__pycache__").glob(f"{source.stem}.*.pyc")
            for file in (source, *(compiled if source.suffix == ".py" else ())):
                copy = folder / file.relative_to(REPOSITORY)
                copy.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(file, copy)


def ran(output: str) -> list[str]:
    return [stage for stage in STAGES if f"Running stage '{stage}'" in output]
