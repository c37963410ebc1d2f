"""Test accuracy beside that of a logistic regression on whole-image features.

Run in a repository in which `dvc repro` has finished: `python benchmarks/accuracy.py`. The
regression sees every image once, whole, through the same frozen ImageNet backbone, its features
standardised; its penalty is chosen by cross-validation on the training images.
"""

import json
from typing import Annotated

import numpy as np
import torch
import typer
from PIL import Image
from rich.console import Console
from rich.table import Table
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from pipeline.datasets.photograph import read_photograph
from pipeline.model.backbone import Backbone
from pipeline.progress import track
from stages import workspace
from stages.params import read_params


def main(
    size: Annotated[
        int | None, typer.Option(help="Pixels a side; the crops' size if none.")
    ] = None,
) -> None:
    params = read_params(workspace.PARAMS)
    size = size or params.crops.size
    index, root = workspace.read_index(), workspace.root_of(params)
    backbone = Backbone(params.model.backbone, params.model.pretrained).eval()
    paths = [root / path for path in index.table["path"]]
    features = np.concatenate(
        [
            _features(backbone, paths[at : at + 32], size)
            for at in track(range(0, len(paths), 32), "Embedding whole images")
        ]
    )
    test = index.rows("test")
    train = np.setdiff1d(np.arange(len(index)), test)
    regression = make_pipeline(StandardScaler(), LogisticRegression(max_iter=2000))
    search = GridSearchCV(regression, {"logisticregression__C": [1e-3, 1e-2, 1e-1, 1.0]}, cv=3)
    search.fit(features[train], index.labels[train])
    ours = json.loads(workspace.METRICS.read_text())["general"]["accuracy"]
    table = Table(
        "model", "test accuracy", title=f"{index.dataset}, {len(index.class_names)} classes"
    )
    table.add_row("ProtoMask", f"{ours:.4f}")
    score = search.score(features[test], index.labels[test])
    table.add_row(f"logistic regression, whole images at {size}×{size}", f"{score:.4f}")
    Console().print(table)


@torch.inference_mode()
def _features(backbone: Backbone, paths: list, size: int) -> np.ndarray:
    images = [
        Image.fromarray(read_photograph(path)).resize((size, size), Image.Resampling.BILINEAR)
        for path in paths
    ]
    pixels = torch.from_numpy(np.stack([np.asarray(image) for image in images]))
    return backbone(pixels.permute(0, 3, 1, 2).float() / 255).numpy()


if __name__ == "__main__":
    typer.run(main)
