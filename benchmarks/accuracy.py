"""Test accuracy beside that of a logistic regression on whole-image features.

Run in a repository in which `dvc repro` has finished: `python benchmarks/accuracy.py`.
"""

import json
from typing import Annotated

import numpy as np
import typer
from rich.console import Console
from rich.table import Table
from whole_images import embed, fit

from pipeline.backbone.backbone import Backbone
from stages.workspace import Workspace

workspace = Workspace()


def main(
    size: Annotated[
        int | None, typer.Option(help="Pixels a side; the crops' size if none.")
    ] = None,
) -> None:
    params = workspace.read_params()
    size = size or params.crops.side
    index, root = workspace.read_index(), workspace.images_root(params)
    backbone = Backbone(params.model.backbone, params.model.pretrained).eval()
    features = embed(backbone, [root / path for path in index.table["path"]], size)
    test = index.rows("test")
    train = np.setdiff1d(np.arange(len(index)), test)
    regression = fit(features[train], index.labels[train])
    ours = json.loads(workspace.metrics.read_text())["general"]["accuracy"]
    table = Table(
        "model", "test accuracy", title=f"{index.dataset}, {len(index.class_names)} classes"
    )
    table.add_row("ProtoMask", f"{ours:.4f}")
    score = regression.score(features[test], index.labels[test])
    table.add_row(f"logistic regression, whole images at {size}×{size}", f"{score:.4f}")
    Console().print(table)


if __name__ == "__main__":
    typer.run(main)
