"""DVC's queue of experiments, for the benchmarks that run many."""

import shlex
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

DVC = (sys.executable, "-m", "dvc")
SECONDS = 15
"""Between questions to DVC, each of which costs a second of a core."""


def dvc(*words: str, cwd: Path = Path()) -> str:
    """Runs a command of DVC and returns what it prints; ends the script if it fails."""
    done = subprocess.run([*DVC, *words], cwd=cwd, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"dvc {shlex.join(words)}\n{done.stdout}{done.stderr}")
    return done.stdout


def run_queue(
    jobs: int, cwd: Path = Path(), on_left: Callable[[int], None] = lambda left: None
) -> None:
    """Runs what is queued, and returns when nothing is left.

    Args:
        jobs: experiments beside each other.
        cwd: the repository.
        on_left: called with the number of experiments that are left, each time it changes.
    """
    # The workers keep what it prints to open, so nothing may wait for the end of that.
    subprocess.run(
        [*DVC, "queue", "start", "--jobs", str(jobs)],
        cwd=cwd,
        check=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    said = -1
    while left := _left(cwd):
        if left != said:
            on_left(left)
        said = left
        time.sleep(SECONDS)


def _left(cwd: Path) -> int:
    status = dvc("queue", "status", cwd=cwd)
    return sum(status.count(word) for word in ("Queued", "Running"))
