"""What measuring costs, as a multiple of one forward pass over the test crops.

`python benchmarks/evaluate.py` measures the finished model of the repository it is run in. Every
line takes the pass over the crops and what it names; nothing is remembered from line to line.
"""

import time
from collections.abc import Callable, Sequence
from typing import Annotated

import numpy as np
import torch
import typer
from rich.console import Console
from rich.table import Table

from pipeline.crops.loading import load_batches
from pipeline.datasets.dataset import DATASETS
from pipeline.metrics.drawn_truth import DrawnTruth
from pipeline.metrics.gathering import ExplanationName, gather_evidence
from pipeline.metrics.group import METRIC_GROUPS
from pipeline.metrics.measuring import measure
from pipeline.metrics.summary import intervals, summarise
from pipeline.training.fabric import make_fabric
from pipeline.training.features import IMAGES_PER_BLOCK, in_passes, stored_embeddings
from stages.finished import Finished
from stages.workspace import Workspace

workspace = Workspace()

PLAIN = ("general", "compactness", "contrastivity", "complexity", "segmentation")


def main(
    rounds: int = 3,
    changed: Annotated[bool, typer.Option(help="Measure changed copies and relevance, too.")] = (
        False
    ),
) -> None:
    params, finished = workspace.read_params(), Finished.read(workspace)
    index, crops, masks = finished.index, finished.crops, finished.masks()
    rows, fabric = index.rows("test"), make_fabric(params.runtime, finished.about.precision)
    network = finished.network.to(fabric.device)
    truth = None
    if DATASETS[index.dataset].knows_truth:
        truth = DrawnTruth(workspace.index_folder, index, rows, masks, crops)

    @torch.inference_mode()
    def one_pass() -> None:
        masks = network.settings.pools_inside
        for batch in load_batches(crops, rows, IMAGES_PER_BLOCK, fabric.device, masks):
            with fabric.autocast():
                in_passes(network, *batch[1:]).float().cpu()

    def suite(groups: Sequence[str], explanations: Sequence[ExplanationName]) -> None:
        evidence = gather_evidence(
            network,
            stored_embeddings(network, crops, rows, fabric),
            index,
            rows,
            crops,
            masks,
            fabric,
            top_k=params.evaluate.top_k,
            explanations=explanations,
            truth=truth,
        )
        values = measure(evidence, groups)
        summarise(values)
        intervals(values, params.seed)

    work: dict[str, Callable[[], None]] = {
        "one pass over the test crops": one_pass,
        "all without changed copies and relevance": lambda: suite(PLAIN, ["mask"]),
    }
    if changed:
        groups = METRIC_GROUPS.own()
        others = [name for name in groups if name not in PLAIN and (truth or name != "truth")]
        work |= {
            f"{name}, by mask": lambda name=name: suite([name], ["mask"])  # type: ignore[misc]
            for name in others
        }
        work["contrastivity and complexity, by prp"] = lambda: suite(
            ["contrastivity", "complexity"], ["prp"]
        )
        work["all groups, by mask and prp"] = lambda: suite(groups, ["mask", "prp"])
    seconds: dict[str, list[float]] = {name: [] for name in work}
    for _ in range(rounds):
        for name, run in work.items():
            start = time.perf_counter()
            run()
            seconds[name].append(time.perf_counter() - start)
    first = np.median(next(iter(seconds.values())))
    table = Table(
        "what", "seconds (median)", "passes", title=f"{int(crops.valid[rows].sum())} crops"
    )
    for name, taken in seconds.items():
        table.add_row(name, f"{np.median(taken):.1f}", f"{np.median(taken) / first:.2f}")
    Console().print(table)


if __name__ == "__main__":
    typer.run(main)
