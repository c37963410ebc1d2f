"""Killed at any moment and started again, an experiment ends as if nothing had happened."""

import os
import random
import signal
import subprocess
import time
from pathlib import Path

import pytest
from clones import STAGES, Clone
from test_links import assert_nothing_is_kept_twice

pytestmark = pytest.mark.slow


def test_another_clone_killed_in_every_stage_ends_with_the_same_bytes(
    tmp_path: Path, photographs: Path, finished: Clone
) -> None:
    clone = Clone(tmp_path, photographs).make()
    lottery = random.Random(0)
    for stage in STAGES[1:]:
        process = subprocess.Popen(
            ["dvc", "repro", stage],
            cwd=clone.folder,
            start_new_session=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        started = f"Running stage '{stage}'"
        assert process.stdout and any(started in line for line in process.stdout)
        time.sleep(lottery.uniform(0, 8))
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        _remove_torn_lock(clone)
    clone.run("dvc", "repro")
    assert clone.bytes() == finished.bytes()
    assert_nothing_is_kept_twice(clone)


def _remove_torn_lock(clone: Clone) -> None:
    """Does what docs/segmenters.md says of a kill that hits DVC while it writes its own lock."""
    lock = clone.folder / ".dvc" / "tmp" / "rwlock"
    if lock.exists() and not lock.read_bytes():
        lock.unlink()
