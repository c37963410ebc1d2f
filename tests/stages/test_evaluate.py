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
from pipeline.datasets.index import Image, Index, Part
from pipeline.errors import ProtoMaskError
from pipeline.model.saved import load_model
from stages import evaluate, workspace


def strict(text: str) -> Any:
    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is no JSON")

    return json.loads(text, parse_constant=refuse)


def index_of(*images: Image, parts: list[str] | None = None) -> Index:
    return Index.of("birds", list(images), ["wren"], parts or [])


def picture(name: str, width: int, height: int, **fields: Any) -> Image:
    return Image(name, f"{name}.jpg", "wren", "test", width=width, height=height, **fields)


def test_metrics_are_strict_json(run_folder: Path) -> None:
    metrics = strict(workspace.METRICS.read_text())
    assert set(metrics) == {"general", "compactness", "contrastivity"}
    for values in metrics.values():
        assert values and all(math.isfinite(value) for value in values.values())


def test_accuracy_and_f1_agree_with_scikit_learn(run_folder: Path) -> None:
    predictions = pd.read_csv(workspace.EVALUATE / "predictions.csv")
    general = strict(workspace.METRICS.read_text())["general"]
    actual, predicted = predictions["actual"], predictions["predicted"]
    names = workspace.read_index().class_names
    found = general["accuracy"]
    scale = 100 if found > 1 else 1
    assert found == pytest.approx(scale * accuracy_score(actual, predicted))
    (f1,) = [value for name, value in general.items() if "f1" in name and "balanced" not in name]
    expected = f1_score(actual, predicted, labels=names, average="macro", zero_division=0)
    assert f1 == pytest.approx(scale * expected)


def test_answers_are_those_of_the_model_on_the_test_crops(run_folder: Path) -> None:
    index, store = workspace.read_index(), CropStore(workspace.CROPS)
    network, _ = load_model(workspace.FINETUNE)
    rows = index.rows("test")
    with torch.inference_mode():
        valid = torch.from_numpy(store.valid[rows])
        output = network(torch.from_numpy(store.crops(rows)), valid)
    found = load_file(workspace.EVALUATE / "answers.safetensors")
    torch.testing.assert_close(found["logits_NC"], output.logits, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(
        found["similarity_NP"], network.similarity(output.distance), rtol=1e-3, atol=1e-4
    )
    predictions = pd.read_csv(workspace.EVALUATE / "predictions.csv", dtype=str)
    assert predictions["image"].tolist() == index.table["id"].iloc[rows].tolist()
    names = np.array(index.class_names)
    assert predictions["actual"].tolist() == names[index.labels[rows]].tolist()
    assert predictions["predicted"].tolist() == names[output.logits.argmax(1)].tolist()


def test_parts_are_scaled_to_the_maps() -> None:
    index = index_of(
        picture("a", 200, 100, parts=(Part("beak", 50, 50), Part("tail", 199, 0))),
        picture("b", 64, 128, parts=(Part("tail", 16, 96),)),
        picture("c", 10, 10, parts=()),
        picture("d", 10, 10, parts=None),
        parts=["beak", "tail"],
    )
    parts = evaluate._parts(index, np.arange(4), 32)
    assert parts is not None and parts.shape == (4, 2, 2)
    # x·32/width, y·32/height: 50·32/200 = 8, 50·32/100 = 16, 199·32/200 = 31.84;
    # 16·32/64 = 8, 96·32/128 = 24.
    assert parts[0].flatten().tolist() == pytest.approx([8, 16, 31.84, 0])
    assert parts[1, 1].tolist() == [8, 24] and parts[1, 0].isnan().all()
    assert parts[2:].isnan().all()


def test_parts_survive_the_index_file(tmp_path: Path) -> None:
    index = index_of(
        picture("a", 32, 32, parts=(Part("beak", 3, 4),)),
        picture("b", 32, 32, parts=None),
        parts=["beak"],
    )
    index.write(tmp_path / "index.parquet")
    parts = evaluate._parts(Index.read(tmp_path / "index.parquet"), np.array([1, 0]), 32)
    assert parts is not None
    assert parts[1, 0].tolist() == [3, 4] and parts[0].isnan().all()


def test_data_set_without_parts() -> None:
    assert evaluate._parts(index_of(picture("a", 8, 8)), np.array([0]), 32) is None


def with_mask(name: str, mask: np.ndarray) -> Image:
    counts = rle.encode(np.asfortranarray(mask.astype(np.uint8)))["counts"]
    return picture(name, mask.shape[1], mask.shape[0], object_mask=bytes(counts))


def test_object_masks_are_resized() -> None:
    left, top = np.zeros((40, 80), bool), np.zeros((64, 16), bool)
    left[:, :40] = True
    top[:16] = True
    found = evaluate._object_masks(
        index_of(with_mask("a", left), with_mask("b", top)), np.array([1, 0]), 32
    )
    assert found is not None and found.shape == (2, 32, 32) and found.dtype == torch.bool
    assert found[0, :8].all() and not found[0, 8:].any()
    assert found[1, :, :16].all() and not found[1, :, 16:].any()


def test_one_image_without_object_mask_leaves_them_out() -> None:
    index = index_of(with_mask("a", np.ones((8, 8), bool)), picture("b", 8, 8))
    assert evaluate._object_masks(index, np.array([0, 1]), 32) is None
    assert evaluate._object_masks(index, np.array([0]), 32) is not None


def test_without_ground_truth_its_metrics_are_absent(run_folder: Path) -> None:
    params = yaml.safe_load(workspace.PARAMS.read_text())
    params["evaluate"]["groups"].append("complexity")
    workspace.PARAMS.write_text(yaml.safe_dump(params))
    evaluate.run()
    assert strict(workspace.METRICS.read_text())["complexity"] == {}


def test_more_prototypes_asked_for_than_there_are(run_folder: Path) -> None:
    params = yaml.safe_load(workspace.PARAMS.read_text())
    params["evaluate"]["top_k"] = 500
    workspace.PARAMS.write_text(yaml.safe_dump(params))
    evaluate.run()
    strict(workspace.METRICS.read_text())


def test_evaluated_again_same_bytes(run_folder: Path) -> None:
    names = [workspace.METRICS, *sorted(workspace.EVALUATE.iterdir())]
    before = [path.read_bytes() for path in names]
    evaluate.run()
    assert [path.read_bytes() for path in names] == before


def test_no_test_images(run_folder: Path) -> None:
    index = workspace.read_index()
    index.table["split"] = index.table["split"].replace("test", "val")
    index.write(workspace.INDEX)
    with pytest.raises(ProtoMaskError, match="has no test images to measure on"):
        evaluate.run()
