"""Every model through every stage, on a small drawing that knows what its images show."""

import json
import math
import shutil
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml
from safetensors.numpy import load_file
from settings import model_settings

from commands import predict
from commands.answer_tables import Tables
from pipeline.datasets.readers.demo import data_set as demo
from pipeline.metrics.group import METRIC_GROUPS
from stages import (
    crops,
    evaluate,
    explain,
    finetune,
    masks,
    prepare,
    push,
    train,
)
from stages.workspace import Workspace

workspace = Workspace()

pytestmark = pytest.mark.slow

PARAMS = """
seed: 0
dataset: {name: demo, code: pipeline/datasets/readers/demo,
  root: null, num_classes: null, fold: 0, folds: 3,
  max_bad_fraction: 0.01, source: artifacts/listing.json, scanned: []}
segmenter: {name: patches, version: 1, grid: 2}
crops: {version: 3, choose: largest, side: 64, per_image: 3, background: original,
  min_box_area: 0.0, max_box_area: 1.0, storage: jpeg}
train: {precision: float32,
  epochs: 1, warmup_epochs: 1, freeze_backbone: true, freeze_until: 0, drop_crops: 0.0,
  batch_norm: batch, augment: false, batch_size: 16, accumulate: 1, lr_backbone: 0.0,
  lr_projection: 0.001, lr_prototypes: 0.003, step_size: 1, start: random}
finetune: {merge: false, reach: 1.0, epochs: 1, lr: 0.0003, batch_size: 16, sparsity: penalty,
  penalty: 0.001}
prune: {enabled: false, nearest: 6, threshold: 3}
evaluate: {top_k: 2, explanations: [mask, prp]}
explain: {only_mask: false, images: 4}
runtime: {device: cpu, engine: pytorch, devices: 1, workers: 1, weights: null, masks: null,
  codebook: null, memory_fraction: 0.9, compile: false, scheduler: null}
"""
OWN = {"embedding_dim": 16, "prototypes_per_class": 1, "epsilon": 1e-4}
POOL = {"embedding_dim": 16, "prototypes": 16, "slots": 2, "gumbel_epochs": 1, "epsilon": 1e-4}
MODELS: dict[str, tuple[dict[str, Any], dict[str, float]]] = {
    "protomask": (
        OWN | {"pooling": "mask", "stages": [-2, -1]},
        {"cluster": 0.8, "separation": 0.2, "diversity": 0.2},
    ),
    "protopnet": (OWN, {"cluster": 0.8, "separation": 0.08}),
    "protopool": (POOL, {"cluster": 0.8, "separation": 0.08, "orthogonality": 1.0}),
    "pipnet": ({"prototypes": 16}, {"alignment": 5.0, "presence": 2.0}),
    "blackbox": ({}, {}),
}
"""Model → its settings, and the weights of its loss."""
BY_MAPS = {
    "contrastivity": {"vlc", "vac"},
    "complexity": set(METRIC_GROUPS["complexity"].notes),
    "continuity": {"vlc", "vac", "stability"},
    "completeness": set(METRIC_GROUPS["completeness"].notes),
    "truth": set(METRIC_GROUPS["truth"].notes),
}
"""What is measured once for each explanation."""


@pytest.fixture(scope="module")
def cut(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the crops of 12 classes of 4 training images and a test image."""
    folder = tmp_path_factory.mktemp("cut")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr(demo, "draw", partial(demo.draw, train_per_class=4, test_per_class=1))
        _write("protomask")
        for stage in (prepare, masks, crops):
            stage.run(workspace)
    return folder


def _write(model: str) -> None:
    params = yaml.safe_load(PARAMS)
    own, loss = MODELS[model]
    params["model"] = model_settings(model, pretrained="none", **own).model_dump()
    params["train"]["loss"] = loss
    params["evaluate"]["groups"] = METRIC_GROUPS.own()
    workspace.params_file.write_text(yaml.safe_dump(params))


@pytest.fixture(params=MODELS)
def model(
    request: pytest.FixtureRequest, cut: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> str:
    """A model that was trained and measured; its run is the current folder."""
    shutil.copytree(cut, tmp_path / "run")
    monkeypatch.chdir(tmp_path / "run")
    _write(request.param)
    for stage in (train, push, finetune, evaluate):
        stage.run(workspace)
    return request.param


def _refuse(constant: str) -> None:
    raise AssertionError(f"{constant} is no JSON")


def test_every_model_goes_through_all_stages(model: str) -> None:
    _check_metrics(model)
    _check_prototypes(model)
    explain.run(workspace)
    _check_pages(model)
    _check_a_photograph(model)


def _check_metrics(model: str) -> None:
    metrics = json.loads(workspace.metrics.read_text(), parse_constant=_refuse)
    notes = json.loads((workspace.evaluate / "notes.json").read_text())
    for group in METRIC_GROUPS.own():
        missing = set(notes["unavailable"].get(group, {}))
        found = {name.removesuffix("_undefined") for name in metrics[group]}
        wanted = set(METRIC_GROUPS[group].notes) - missing
        assert wanted <= found and not missing & found, group
        by_prp = {f"{name}_prp" for name in BY_MAPS.get(group, set()) - missing}
        assert by_prp <= found, group
        assert all(math.isfinite(value) for value in metrics[group].values())
    missing = {group: names for group, names in notes["unavailable"].items() if names}
    black = {"compactness", "contrastivity", "continuity", "completeness"}
    # Patches know neither objects nor parts.
    assert set(missing) == {"segmentation"} | (black if model == "blackbox" else set())
    distances = model in ("protomask", "protopnet", "protopool")
    controls = {"random_weights"} | ({"random_prototypes"} if distances else set())
    assert set(notes["no_better"]) == controls
    assert notes["remarks"] == {}


def _check_prototypes(model: str) -> None:
    sources = pd.read_csv(workspace.finetune / "prototypes.csv")
    found = load_file(workspace.evaluate / "answers.safetensors")
    views = {"protomask": 3, "blackbox": 1}.get(model, 4)
    assert found["view_NP"].shape == (12, len(sources)) and found["view_NP"].max() < views
    assert sources["cell"].max() < 4 and sources["crop"].max() < 3
    if model != "protomask":
        assert (sources["crop"] == 0).all() and (sources["mask"] == -1).all()
    assert sources["distance"].isna().all() == (model in ("pipnet", "blackbox"))


def _check_pages(model: str) -> None:
    page = (workspace.report / "index.html").read_text(encoding="utf-8")
    classes = [
        (workspace.report / "classes" / f"{label}.html").read_text(encoding="utf-8")
        for label in range(12)
    ]
    pages = [page, *classes]
    assert ("This looks like that" in page) == (model != "blackbox")
    assert ("Map of prototypes" in page) == (model not in ("pipnet", "blackbox"))
    assert not any(">nan<" in text for text in pages)
    in_cells = model in ("protopnet", "protopool", "pipnet")
    assert ("whole, 64×64 pixels, in 2×2 cells" in page) == in_cells
    assert ("cell (" in page) == in_cells and any("cell (" in text for text in classes) == in_cells
    assert ("crop 0" in "".join(pages).lower()) == (model == "protomask")
    assert any("Pushed by" in text for text in classes) == (model not in ("pipnet", "blackbox"))
    if model == "blackbox":
        assert "It has no prototypes" in page and "prototypes.csv" not in page
        assert all("A black box has no prototypes." in text for text in classes)
        assert page.count("Logit of") >= 12


def _check_a_photograph(model: str) -> None:
    index = workspace.read_index()
    row = int(index.rows("test")[0])
    photograph = workspace.index_folder / index.table["path"][row]
    predict.write_page(Path(), photograph, Path("why.html"))
    predict.run(Path(), [photograph], Path("pictures"), Tables())
    page = Path("why.html").read_text(encoding="utf-8")
    named = pd.read_csv(workspace.evaluate / "predictions.csv")["predicted"][0]
    assert f"<h1>{named}</h1>" in page
    assert ("All crops" in page) == (model == "protomask")
    assert ("seen whole" in page) == (model != "protomask")
    assert len(list(Path("pictures").iterdir())) == 1
