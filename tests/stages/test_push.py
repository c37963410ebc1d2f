"""The push stage: what it records is what it did, to real embeddings of the crops on disk."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from safetensors.torch import load_file
from settings import model_settings, runtime

from pipeline.crops.store import CropStore
from pipeline.errors import ProtoMaskError
from pipeline.masks.segmenters.patches import Patches
from pipeline.masks.store import MaskStore, write_store
from pipeline.model.base.inference import infer
from pipeline.model.base.saved import load_model
from pipeline.training.fabric import make_fabric
from pipeline.training.features import stored_features
from pipeline.training.prototype_sources import read_sources
from stages import crops, finetune, push, train
from stages.workspace import Workspace

workspace = Workspace()


def test_sources_against_a_loop_over_the_crops_on_disk(run_folder: Path) -> None:
    trained, _ = load_model(workspace.train)
    pushed, _ = load_model(workspace.push)
    index, store = workspace.read_index(), CropStore(workspace.crops)
    sources = read_sources(workspace.push / "prototypes.csv")
    rows = index.rows("train")
    with torch.inference_mode():
        pixels = torch.from_numpy(store.crops(rows))
        z = trained.embed(trained.features(pixels, torch.from_numpy(store.valid[rows])))
    assert sources["prototype"].tolist() == list(range(6))
    for j, p in enumerate(trained.prototypes.detach()):
        label = j // 2
        candidates = {
            (image, crop): float((z[image, crop] - p).double().square().sum())
            for image, row in enumerate(rows)
            for crop in range(3)
            if index.labels[row] == label and store.valid[row, crop]
        }
        (image, crop), distance = min(candidates.items(), key=lambda item: item[1])
        found = sources.iloc[j]
        assert found["image"] == index.ids[rows[image]]
        assert found["crop"] == crop and found["cell"] == 0
        assert found["mask"] == store.masks[rows[image], crop]
        assert found["class_name"] == index.class_names[label]
        assert found["distance"] == pytest.approx(distance, rel=1e-3, abs=1e-6)
        torch.testing.assert_close(pushed.prototypes[j].detach(), z[image, crop], rtol=0, atol=1e-5)


class NamedParts(Patches):
    @property
    def part_names(self) -> dict[int, str]:
        return {4: "wing", 5: "tail"}


def test_prototypes_have_the_parts_of_their_masks(run_folder: Path) -> None:
    before, masks = read_sources(workspace.push / "prototypes.csv"), MaskStore(workspace.masks)
    assert before["part"].tolist() == [-1] * 6 and before["part_name"].tolist() == [""] * 6
    numbered = [
        replace(masks.masks(image), parts=np.array([4, 5, 6, 7], np.int32))
        for image in range(len(masks))
    ]
    segmenter = NamedParts(version=1, grid=2)
    write_store(workspace.masks, workspace.read_image_files(), segmenter, numbered)
    crops.run(workspace)
    push.run(workspace)
    finetune.run(workspace)
    for stage in (workspace.push, workspace.finetune):
        sources = read_sources(stage / "prototypes.csv")
        pd.testing.assert_frame_equal(
            sources.drop(columns=["part", "part_name"]), before.drop(columns=["part", "part_name"])
        )
        assert sources["part"].tolist() == [4 + mask for mask in sources["mask"]]
        names = {4: "wing", 5: "tail", 6: ""}
        assert sources["part_name"].tolist() == [names[part] for part in sources["part"]]


def test_embeds_in_the_precision_that_the_model_was_trained_in(run_folder: Path) -> None:
    params = yaml.safe_load(workspace.params_file.read_text())
    params["train"]["precision"] = "bfloat16"
    workspace.params_file.write_text(yaml.safe_dump(params))
    train.run(workspace)
    push.run(workspace)
    (network, about), store = load_model(workspace.push), CropStore(workspace.crops)
    assert about.precision == "bfloat16"
    rows = workspace.read_index().rows("train")
    found = load_file(workspace.push / "similarities.safetensors")["similarity"]
    same = {}
    for precision in ("bfloat16", "float32"):
        fabric = make_fabric(runtime(device="cpu"), precision)  # type: ignore[arg-type]
        features = stored_features(network, store, rows, fabric)
        valid = torch.from_numpy(store.valid[rows])
        same[precision] = torch.equal(
            infer(network, network.embed(features), valid).similarity_NP, found
        )
    assert same == {"bfloat16": True, "float32": False}


OTHERS: dict[str, tuple[dict[str, int], dict[str, float]]] = {
    "protopnet": ({"embedding_dim": 8, "prototypes_per_class": 2}, {"cluster": 1, "separation": 1}),
    "protopool": (
        {"embedding_dim": 8, "prototypes": 7, "slots": 2},
        {"cluster": 1, "separation": 1, "orthogonality": 1},
    ),
    "pipnet": ({"prototypes": 9}, {"alignment": 1, "presence": 1}),
    "blackbox": ({}, {}),
}


@pytest.mark.parametrize("name", OTHERS)
def test_models_of_whole_images_record_the_cell(run_folder: Path, name: str) -> None:
    """Of 2×2, and of the black box the image; the most similar of the classes it may be from."""
    params = yaml.safe_load(workspace.params_file.read_text())
    settings, loss = OTHERS[name]
    params["crops"]["side"] = 64
    about = model_settings(name, backbone="test_resnet", pretrained="none", **settings)
    params["model"] = about.model_dump()
    params["train"]["loss"] = loss
    workspace.params_file.write_text(yaml.safe_dump(params))
    for stage in (crops, train, push, finetune):
        stage.run(workspace)
    trained, _ = load_model(workspace.train)
    index, store = workspace.read_index(), CropStore(workspace.crops).whole()
    rows = index.rows("train")
    with torch.inference_mode():
        valid = torch.ones(len(rows), 1, dtype=torch.bool)
        z = trained.embed(trained.features(torch.from_numpy(store.crops(rows)), valid))
        scores_NVP = trained.head().scores(z)
    assert scores_NVP.shape[1] == (1 if name == "blackbox" else 4)
    own_PN = trained.own_CP[torch.from_numpy(index.labels[rows])].T
    sources = read_sources(workspace.push / "prototypes.csv")
    assert len(sources) == trained.num_prototypes
    places = {row: place for place, row in enumerate(rows)}
    for j, found in enumerate(sources.itertuples()):
        image = places[index.ids.index(found.image)]
        assert (found.crop, found.mask) == (0, -1) and own_PN[j, image]
        best = scores_NVP[own_PN[j], :, j].max().item()
        assert scores_NVP[image, found.cell, j].item() == pytest.approx(best, rel=1e-4)
        assert np.isnan(found.distance) == (not trained.pushes)
    finished, _ = load_model(workspace.finetune)
    assert type(finished) is type(trained) and finished.num_prototypes == len(sources)
    assert torch.equal(finished.class_of, trained.class_of)


def test_only_prototypes_change(run_folder: Path) -> None:
    before = load_file(workspace.train / "model.safetensors")
    after = load_file(workspace.push / "model.safetensors")
    assert before.keys() == after.keys()
    assert {name for name in before if not torch.equal(before[name], after[name])} == {"prototypes"}
    same = "backbone.safetensors"
    assert (workspace.push / same).read_bytes() == (workspace.train / same).read_bytes()


def test_similarities_are_those_of_the_pushed_prototypes(run_folder: Path) -> None:
    pushed, _ = load_model(workspace.push)
    index, store = workspace.read_index(), CropStore(workspace.crops)
    rows = index.rows("train")
    valid = torch.from_numpy(store.valid[rows])
    with torch.inference_mode():
        features = pushed.features(torch.from_numpy(store.crops(rows)), valid)
    similarities = load_file(workspace.push / "similarities.safetensors")["similarity"]
    expected = infer(pushed, pushed.embed(features), valid).similarity_NP
    torch.testing.assert_close(similarities, expected, rtol=1e-3, atol=1e-4)
    sources = read_sources(workspace.push / "prototypes.csv")
    places = {row: place for place, row in enumerate(rows)}
    for j, image in enumerate(sources["image"]):
        # log(1 / ε) = 9.2103; a distance of 1e-6 takes log(1.01) = 0.01 off.
        assert similarities[places[index.ids.index(image)], j] > 9.2


def test_frozen_features_are_those_that_training_remembered(
    run_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def read(self: CropStore, images: np.ndarray) -> np.ndarray:
        raise AssertionError("a crop was embedded again")

    monkeypatch.setattr(CropStore, "crops", read)
    push.run(workspace)


def test_features_of_a_trained_backbone_are_not_kept(run_folder: Path) -> None:
    text = workspace.params_file.read_text()
    workspace.params_file.write_text(
        text.replace("freeze_backbone: true", "freeze_backbone: false")
    )
    assert workspace.feature_cache(workspace.read_params()) is None


def test_without_training(run_folder: Path) -> None:
    (workspace.train / "model.json").unlink()
    with pytest.raises(ProtoMaskError, match=r"no model in .*train.*dvc repro"):
        push.run(workspace)


def test_crops_cut_otherwise_since_training_are_refused(run_folder: Path) -> None:
    params = yaml.safe_load(workspace.params_file.read_text())
    params["crops"]["background"] = "zero"
    workspace.params_file.write_text(yaml.safe_dump(params))
    crops.run(workspace)
    with pytest.raises(ProtoMaskError, match="background=original instead of zero"):
        push.run(workspace)


def test_failed_push_leaves_what_was_there(
    run_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = (workspace.push / "prototypes.csv").read_bytes()

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(push, "write_sources", full)
    with pytest.raises(OSError, match="No space"):
        push.run(workspace)
    assert (workspace.push / "prototypes.csv").read_bytes() == before
    assert (workspace.push / "model.safetensors").exists()
