"""Whether two experiments beside each other are as fast as one after the other.

`python benchmarks/queued.py` queues the same small experiments in two new copies of the repository,
and runs them with `dvc queue start --jobs 1` and with `--jobs 2`, taking turns.
"""

import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from dvc_queue import dvc, run_queue

REPOSITORY = Path(__file__).parents[1]
SMALL = (
    "dataset.num_classes=4",
    "segmenter=felzenszwalb",
    "crops.choose=largest",
    "crops.side=96",
    "crops.per_image=4",
)
"""Of the demo's parameters; the seed, in which the experiments differ, changes every stage."""


def main(
    rounds: int = 2,
    set_param: Annotated[
        list[str] | None, typer.Option("-S", "--set-param", help="As of `dvc exp run`.")
    ] = None,
) -> None:
    overrides = [word for value in (*SMALL, *(set_param or [])) for word in ("-S", value)]
    seconds: dict[int, list[float]] = {1: [], 2: []}
    for number in range(rounds):
        for jobs in (1, 2) if number % 2 == 0 else (2, 1):
            with tempfile.TemporaryDirectory() as folder:
                seconds[jobs].append(seconds_of(Path(folder) / "repository", jobs, overrides))
            print(f"--jobs {jobs}: {seconds[jobs][-1]:.0f} s", flush=True)
    ratio = np.median(seconds[1]) / np.median(seconds[2])
    print(f"two beside each other are {ratio:.2f} times as fast as one after the other")


def seconds_of(folder: Path, jobs: int, overrides: list[str]) -> float:
    """Runs two experiments in a new copy of the repository; returns the seconds it took."""
    subprocess.run(["git", "clone", "-q", str(REPOSITORY), str(folder)], check=True)
    dvc("exp", "run", "--queue", *overrides, "-S", "seed=1,2", cwd=folder)
    start = time.perf_counter()
    run_queue(jobs, folder)
    taken = time.perf_counter() - start
    status = dvc("queue", "status", cwd=folder)
    if status.count("Success") != 2:
        sys.exit(f"not all experiments succeeded:\n{status}")
    dvc("queue", "stop", cwd=folder)
    return taken


if __name__ == "__main__":
    typer.run(main)
