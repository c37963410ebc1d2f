"""What keeping crops as JPEG pictures changes: their size, their pixels, and every metric.

`python benchmarks/crop_storage.py demo` runs an experiment for each seed with crops that are kept
exactly, and with the same crops as JPEG pictures, in a temporary folder. Further arguments override
parameters, such as the `dataset.root` of photographs.
"""

import json
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import numpy as np
import pandas as pd
import typer
from dvc.utils.hydra import compose_and_dump
from rich.console import Console
from rich.table import Table

from pipeline.crops.store import CropStore
from pipeline.parameters import flat
from stages import crops, evaluate, finetune, masks, prepare, push, scan, train
from stages.workspace import Workspace

CONF = Path(__file__).parents[1] / "conf"
EXACT, JPEG = "lossless", "jpeg"
UNNOTICED = 99.0
"""Decibels; what a crop counts that is exact."""


def main(
    dataset: Annotated[str, typer.Argument(help="A preset of conf/dataset.")],
    overrides: Annotated[list[str] | None, typer.Argument(help="Such as crops.side=128.")] = None,
    seeds: Annotated[int, typer.Option(help="Runs of each way of keeping crops.")] = 3,
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        experiment = _Experiment(Path(folder), [f"dataset={dataset}", *(overrides or [])])
        found = pd.DataFrame(row for seed in range(seeds) for row in experiment.metrics(seed))
        console = Console()
        console.print(experiment.sizes())
        console.print(_compared(found, dataset, seeds))


class _Experiment:
    """An experiment in a folder, of which each seed's crops are kept in two ways."""

    def __init__(self, folder: Path, overrides: list[str]) -> None:
        self.folder, self.overrides = folder, overrides

    def metrics(self, seed: int) -> Iterator[dict[str, float | str | int]]:
        """Trains and measures a model for each way of keeping crops."""
        self._cut(seed)
        for storage in (EXACT, JPEG):
            workspace = self._workspace(storage, seed)
            workspace.crops.symlink_to(self._store(storage))
            for stage in (train, push, finetune, evaluate):
                stage.run(workspace)
            workspace.crops.unlink()
            written = json.loads(workspace.metrics.read_text())
            yield {"storage": storage, "seed": seed, **flat(written)}

    def sizes(self) -> Table:
        """Returns what the last seed's crops take and what is lost of them."""
        exact, jpeg = (CropStore(self._store(storage)) for storage in (EXACT, JPEG))
        table = Table("crops", "kB a crop", title=f"{int(exact.valid.sum())} crops")
        raw = exact.settings.side**2 * 3
        table.add_row("raw", f"{raw / 1000:.1f}")
        for name, store in ((EXACT, exact), (JPEG, jpeg)):
            files = (store.path / "crops").rglob("*")
            size = sum(file.stat().st_size for file in files if file.is_file())
            table.add_row(name, f"{size / store.valid.sum() / 1000:.1f}")
        quality = [_psnr(exact, jpeg, image) for image in range(len(exact))]
        table.caption = f"JPEG's PSNR, mean: {np.concatenate(quality).mean():.1f} dB"
        return table

    def _cut(self, seed: int) -> None:
        """Finds the masks and cuts the crops; a data set that is drawn is another for each seed."""
        workspace = self._workspace(EXACT, seed)
        if workspace.read_params().dataset.root is not None:
            scan.run(workspace)
        prepare.run(workspace)
        masks.run(workspace)
        for storage in (EXACT, JPEG):
            workspace, store = self._workspace(storage, seed), self._store(storage)
            crops.run(workspace)
            shutil.rmtree(store, ignore_errors=True)
            workspace.crops.rename(store)

    def _store(self, storage: str) -> Path:
        return self.folder / f"{storage}.zarr"

    def _workspace(self, storage: str, seed: int) -> Workspace:
        workspace = Workspace(self.folder)
        changes = [*self.overrides, f"crops.storage={storage}", f"seed={seed}"]
        compose_and_dump(workspace.params_file, str(CONF), None, "config", "", changes)
        return workspace


def _psnr(exact: CropStore, jpeg: CropStore, image: int) -> np.ndarray:
    """Returns the peak signal-to-noise ratio of an image's crops, in decibels."""
    there = exact.valid[image]
    one, other = (store.crops([image])[0][there].astype(float) for store in (exact, jpeg))
    error = ((one - other) ** 2).mean(axis=(1, 2, 3))
    with np.errstate(divide="ignore"):
        return np.minimum(10 * np.log10(255**2 / error), UNNOTICED)


def _compared(found: pd.DataFrame, dataset: str, seeds: int) -> Table:
    """Returns each metric in both ways, and their difference over the seeds' standard deviation.

    A difference of two means of n runs with the standard deviation s has one of s·√(2/n) by chance.
    """
    table = Table(
        "metric",
        EXACT,
        JPEG,
        "difference, in its standard deviations",
        title=f"{dataset}, {seeds} seeds",
    )
    names = [name for name in found.columns if name not in ("storage", "seed")]
    exact, jpeg = (found.loc[found["storage"] == name, names] for name in (EXACT, JPEG))
    for name in names:
        one, other = exact[name].astype(float), jpeg[name].astype(float)
        chance = np.sqrt((one.var() + other.var()) / seeds)
        difference = other.mean() - one.mean()
        said = f"{difference / chance:+.1f}" if chance > 0 else f"{difference:+.3g} (s = 0)"
        table.add_row(name, *(f"{v.mean():.4g} ± {v.std():.2g}" for v in (one, other)), said)
    return table


if __name__ == "__main__":
    typer.run(main)
