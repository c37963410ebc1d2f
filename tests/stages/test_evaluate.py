"""The evaluation stage: its numbers, its files, and ground truth at the maps' size."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from pycocotools import mask as rle
from safetensors.torch import load_file
from sklearn.metrics import accuracy_score, f1_score

from pipeline.crops.store import CropStore
from pipeline.errors import ProtoMaskError
from pipeline.metrics.group import METRIC_GROUPS
from pipeline.model.base.distances import similarity
from pipeline.model.base.saved import load_model
from stages import evaluate, explain, finetune, push, train
from stages.workspace import Workspace

workspace = Workspace()


def strict(text: str) -> Any:
    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is no JSON")

    return json.loads(text, parse_constant=refuse)


def test_metrics_are_strict_json(run_folder: Path) -> None:
    metrics = strict(workspace.metrics.read_text())
    intervals = strict(workspace.intervals.read_text())
    assert set(metrics) == {"general", "compactness", "contrastivity", "segmentation"}
    assert set(intervals) == set(metrics)
    for group, values in metrics.items():
        assert values and all(math.isfinite(value) for value in values.values())
        for name, interval in intervals[group].items():
            assert interval["low"] <= values[name] <= interval["high"]


def test_the_table_of_images_has_the_means_of_the_metrics(run_folder: Path) -> None:
    metrics = strict(workspace.metrics.read_text())
    table = pd.read_parquet(workspace.evaluate / "images.parquet")
    predictions = pd.read_csv(workspace.evaluate / "predictions.csv", dtype=str)
    assert table["image"].tolist() == predictions["image"].tolist()
    for name in table.columns[1:]:
        group, metric = name.split(".")
        assert table[name].mean() == pytest.approx(metrics[group][metric])
    right = predictions["actual"] == predictions["predicted"]
    assert table["general.accuracy"].tolist() == right.astype(float).tolist()


def test_every_group_and_explanation(run_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _set(groups=METRIC_GROUPS.own(), explanations=["mask", "prp", "grad"])
    evaluate.run(workspace)
    metrics = strict(workspace.metrics.read_text())
    assert {"vlc", "vlc_prp", "vlc_grad"} <= set(metrics["contrastivity"])
    assert {"vlc", "vac_prp", "psc", "crc"} <= set(metrics["continuity"])
    assert {"plc", "pac_grad"} <= set(metrics["completeness"])
    assert metrics["complexity"] == metrics["truth"] == {}
    said = capsys.readouterr().out
    assert "complexity: not measured, not every test image has an object mask" in said
    assert "truth: not measured" in said
    notes = json.loads((workspace.evaluate / "notes.json").read_text())
    assert "consistency" in notes["unavailable"]["complexity"]
    for group in METRIC_GROUPS.own():
        assert (workspace.evaluate / "plots" / f"{group}.csv").is_file()


def test_what_relevance_has_no_rule_for_is_not_measured(
    run_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A backbone of a family that `prp` does not know: all else is measured, and the page drawn."""
    _set(groups=["general", "contrastivity"], explanations=["mask", "prp", "grad"])
    params = yaml.safe_load(workspace.params_file.read_text())
    params["model"]["backbone"] = "test_byobnet"
    workspace.params_file.write_text(yaml.safe_dump(params))
    for stage in (train, push, finetune, evaluate, explain):
        stage.run(workspace)
    metrics = strict(workspace.metrics.read_text())
    assert "accuracy" in metrics["general"]
    assert {"vlc", "vlc_grad"} <= set(metrics["contrastivity"])
    assert not any(name.endswith("_prp") for name in metrics["contrastivity"])
    notes = json.loads((workspace.evaluate / "notes.json").read_text())
    assert "no rule for ByobNet of test_byobnet" in notes["unavailable"]["contrastivity"]["by prp"]
    assert "contrastivity: not measured, relevance propagation has no" in capsys.readouterr().out
    page = (workspace.report / "index.html").read_text(encoding="utf-8")
    assert "no rule for ByobNet of test_byobnet" in page


def _set(**changes: Any) -> None:
    params = yaml.safe_load(workspace.params_file.read_text())
    params["evaluate"] |= changes
    workspace.params_file.write_text(yaml.safe_dump(params))


def test_accuracy_and_f1_agree_with_scikit_learn(run_folder: Path) -> None:
    predictions = pd.read_csv(workspace.evaluate / "predictions.csv")
    general = strict(workspace.metrics.read_text())["general"]
    actual, predicted = predictions["actual"], predictions["predicted"]
    names = workspace.read_index().class_names
    found = general["accuracy"]
    scale = 100 if found > 1 else 1
    assert found == pytest.approx(scale * accuracy_score(actual, predicted))
    (f1,) = [value for name, value in general.items() if "f1" in name and "balanced" not in name]
    expected = f1_score(actual, predicted, labels=names, average="macro", zero_division=0)
    assert f1 == pytest.approx(scale * expected)


def test_answers_are_those_of_the_model_on_the_test_crops(run_folder: Path) -> None:
    index, store = workspace.read_index(), CropStore(workspace.crops)
    network, _ = load_model(workspace.finetune)
    rows = index.rows("test")
    with torch.inference_mode():
        valid = torch.from_numpy(store.valid[rows])
        output = network(torch.from_numpy(store.crops(rows)), valid)
    found = load_file(workspace.evaluate / "answers.safetensors")
    torch.testing.assert_close(found["logits_NC"], output.logits, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(
        found["similarity_NP"], similarity(output.distance, 1e-4), rtol=1e-3, atol=1e-4
    )
    predictions = pd.read_csv(workspace.evaluate / "predictions.csv", dtype=str)
    assert predictions["image"].tolist() == index.table["id"].iloc[rows].tolist()
    names = np.array(index.class_names)
    assert predictions["actual"].tolist() == names[index.labels[rows]].tolist()
    assert predictions["predicted"].tolist() == names[output.logits.argmax(1)].tolist()


def test_more_prototypes_asked_for_than_there_are(run_folder: Path) -> None:
    _set(top_k=500)
    evaluate.run(workspace)
    strict(workspace.metrics.read_text())


def test_evaluated_again_same_bytes(run_folder: Path) -> None:
    names = [workspace.metrics, *sorted(workspace.evaluate.rglob("*.*"))]
    before = [path.read_bytes() for path in names]
    evaluate.run(workspace)
    assert [path.read_bytes() for path in names] == before


def test_boxes_that_stand_in_for_object_masks_are_named(
    run_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    index = workspace.read_index()
    box = np.zeros((40, 60), np.uint8)
    box[10:30, 20:50] = 1
    counts = bytes(rle.encode(np.asfortranarray(box))["counts"])
    index.table["object_mask"] = [counts] * len(index)
    index.write(workspace.index)
    assert workspace.read_index().object_masks_from == "box"
    _set(groups=["general", "complexity", "segmentation"])
    evaluate.run(workspace)
    why = "folder has no object masks: boxes stand in for them"
    notes = json.loads((workspace.evaluate / "notes.json").read_text())
    assert notes["remarks"] == {"complexity": why, "segmentation": why}
    assert f"complexity: {why}" in capsys.readouterr().out
    explain.run(workspace)
    page = (workspace.report / "index.html").read_text(encoding="utf-8")
    assert page.count("Folder has no object masks: boxes stand in for them.") == 2


def test_no_test_images(run_folder: Path) -> None:
    index = workspace.read_index()
    index.table["split"] = index.table["split"].replace("test", "val")
    index.write(workspace.index)
    with pytest.raises(ProtoMaskError, match="has no test images to measure on"):
        evaluate.run(workspace)
