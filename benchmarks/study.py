"""The tables of docs/study.md: `python benchmarks/study.py demo` (or `pets`, `cub200`).

Queues the experiments of a table that have not been run yet, for each seed, runs them with DVC's
queue and prints the table. It can be stopped and started again; what is there is not run again.
"""

import subprocess
import sys
import time
from collections.abc import Iterator
from enum import StrEnum
from typing import Annotated, NamedTuple

import typer
from dvc.repo import Repo
from dvc_queue import dvc, run_queue

from commands.experiments import read_runs
from commands.study_table import presets
from pipeline.study.commands import differences

TRUTH = "evaluate.groups=[general,compactness,contrastivity,complexity,segmentation,truth]"
SEGMENTERS = {
    "parts": (),
    "felzenszwalb": ("segmenter=felzenszwalb", "crops.choose=largest"),
    "patches": ("segmenter=patches", "crops.choose=largest", "crops.per_image=4"),
}
OTHERS = ("blackbox", "protopnet", "pipnet", "protopool")


class Study(NamedTuple):
    """A table: what all its experiments share, its rows of ProtoMask, and the metrics shown."""

    shared: tuple[str, ...]
    segmenters: dict[str, tuple[str, ...]]
    metrics: tuple[str, ...]

    def experiments(self, seeds: int) -> Iterator[list[str]]:
        """Yields the overrides of each experiment, seed by seed."""
        models = [(f"model={name}",) for name in OTHERS]
        for seed in range(seeds):
            for row in (*self.segmenters.values(), *models):
                yield [*self.shared, *row, f"seed={seed}"]


class Table(StrEnum):
    DEMO = "demo"
    PETS = "pets"
    CUB = "cub200"


STUDIES = {
    Table.DEMO: Study(
        (TRUTH,),
        {**SEGMENTERS, "drawn": ("segmenter=drawn",)},
        (
            "accuracy",
            "best_part_iou",
            "background_overlap",
            "consistency",
            "purity",
            "part_agreement",
            "discrimination_nearest",
            "decisive_nearest",
            "decisive_region",
            "deletion_auc",
            "sparsity",
            "local_size",
        ),
    ),
    Table.PETS: Study(
        ("dataset=pets", "dataset.root=../shared/data/oxford-iiit-pet", "crops.side=128"),
        SEGMENTERS,
        (
            "accuracy",
            "background_overlap",
            "iou",
            "object_overlap",
            "sparsity",
            "local_size",
            "contrastivity.vlc",
        ),
    ),
    Table.CUB: Study(
        (
            "experiment=frozen",
            "dataset=cub200",
            "dataset.root=../shared/data/CUB_200_2011",
            "crops.side=128",
        ),
        SEGMENTERS,
        (
            "accuracy",
            "consistency",
            "part_nmi",
            "sparsity",
            "local_size",
            "contrastivity.vlc",
            "contrastivity.vac",
        ),
    ),
}


def main(
    table: Table,
    seeds: Annotated[int, typer.Option(min=1, help="Runs of each row.")] = 3,
    jobs: Annotated[int, typer.Option(min=1, help="Experiments beside each other.")] = 1,
    set_param: Annotated[
        list[str] | None, typer.Option("-S", "--set-param", help="As of `dvc exp run`.")
    ] = None,
) -> None:
    study = STUDIES[table]
    wanted = [[*overrides, *(set_param or [])] for overrides in study.experiments(seeds)]
    missing = list(not_run(wanted))
    print(f"{len(wanted) - len(missing)} of {len(wanted)} experiments are there", flush=True)
    for overrides in missing:
        sets = [word for override in overrides for word in ("-S", override)]
        dvc("exp", "run", "--queue", "evaluate", *sets)
    if missing:
        run_queue(jobs, on_left=say)
    shown = [word for metric in study.metrics for word in ("--metrics", metric)]
    subprocess.run([sys.executable, "-m", "commands", "study", "table", *shown], check=True)


def not_run(wanted: list[list[str]]) -> Iterator[list[str]]:
    """Yields the experiments that have no finished run with the same parameters."""
    with Repo() as repo:
        composed, _ = presets(repo)
        finished = [run.params for run in read_runs(repo) if run.state == "finished"]
        for overrides in wanted:
            params = composed(overrides)
            if all(differences(params, there) for there in finished):
                yield overrides


def say(left: int) -> None:
    print(f"{time.strftime('%H:%M')} {left} experiments left", flush=True)


if __name__ == "__main__":
    typer.run(main)
