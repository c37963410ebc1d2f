"""The train stage: interrupted runs, what counts as the same run, and what it writes."""

from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file

from pipeline.crops.store import CropStore
from pipeline.errors import ProtoMaskError
from pipeline.model.base.models import build
from pipeline.model.base.saved import load_model
from pipeline.training.fabric import make_fabric
from pipeline.training.train import Training
from stages import crops, evaluate, finetune, push, train
from stages.params import read_params
from stages.workspace import Workspace

workspace = Workspace()

JOINT = {
    "train.freeze_backbone": False,
    "train.augment": True,
    "train.epochs": 2,
    "train.warmup_epochs": 1,
    "train.lr_backbone": 1e-4,
}


def change(**values: Any) -> None:
    """Sets parameters by their dotted names."""
    params = yaml.safe_load(workspace.params_file.read_text())
    for name, value in values.items():
        section, _, key = name.partition(".")
        if key:
            params[section][key] = value
        else:
            params[section] = value
    workspace.params_file.write_text(yaml.safe_dump(params))


def contents(*folders: Path) -> dict[str, bytes]:
    return {
        str(path): path.read_bytes()
        for folder in folders
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def kill_after(epochs: int, monkeypatch: pytest.MonkeyPatch) -> None:
    epoch = Training._epoch

    def killed(self: Training, number: int) -> dict[str, float]:
        if number == epochs:
            raise KeyboardInterrupt
        return epoch(self, number)

    monkeypatch.setattr(Training, "_epoch", killed)


def checkpoints() -> list[Path]:
    return sorted((workspace.cache / "training").glob("*/last.pt"))


def test_model_says_what_it_was_made_from(run_folder: Path) -> None:
    network, about = load_model(workspace.train)
    params, index = workspace.read_params(), workspace.read_index()
    assert about.class_names == index.class_names
    assert about.crops == params.crops
    assert about.segmenter["name"] == "patches"
    assert about.images == index.image_files.digest()
    assert network.settings == params.model


def test_trained_again_same_bytes(run_folder: Path) -> None:
    before = contents(workspace.train)
    torch.rand(17)
    train.run(workspace)
    assert contents(workspace.train) == before


@pytest.mark.parametrize("settings", [{"train.epochs": 3}, JOINT], ids=["frozen", "joint"])
def test_killed_run_is_continued(
    run_folder: Path, monkeypatch: pytest.MonkeyPatch, settings: dict[str, Any]
) -> None:
    change(**settings)
    train.run(workspace)
    expected = contents(workspace.train)
    change(**{"train.step_size": 2})
    train.run(workspace)
    change(**{"train.step_size": 1})
    before = contents(workspace.train)
    assert before != expected
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        kill_after(1, patch)
        train.run(workspace)
    assert contents(workspace.train) == before and len(checkpoints()) == 1
    epochs: list[int] = []
    epoch = Training._epoch
    monkeypatch.setattr(
        Training, "_epoch", lambda self, number: (epochs.append(number), epoch(self, number))[1]
    )
    train.run(workspace)
    assert epochs == [1, 2]
    assert contents(workspace.train) == expected
    assert checkpoints() == []


def key() -> str:
    params = workspace.read_params()
    torch.manual_seed(params.seed)
    network = build(params.model, 3)
    fabric = make_fabric(params.runtime, params.train.precision)
    return train._key(workspace, params, CropStore(workspace.crops), network, fabric)


@pytest.mark.parametrize(
    "changes",
    [
        {"seed": 1},
        {"train.epochs": 7},
        {"train.precision": "bfloat16"},
        {"train.lr_prototypes": 0.5},
        {"model.embedding_dim": 9},
        {"model.backbone": "test_resnet.r160_in1k"},
        {"runtime.engine": "auto"},
    ],
)
def test_another_run_is_not_continued(run_folder: Path, changes: dict[str, Any]) -> None:
    before = key()
    change(**changes)
    assert key() != before


@pytest.mark.parametrize("changes", [{"runtime.workers": 2}, {"finetune.lr": 0.5}])
def test_the_same_run_is_continued(run_folder: Path, changes: dict[str, Any]) -> None:
    before = key()
    assert key() == before
    change(**changes)
    assert key() == before


def test_run_of_other_code_is_not_continued(
    run_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code = train._code(workspace.read_params())
    names = {path.name for path in code}
    assert {"losses.py", "network.py", "backbone.py", "train.py", "augmentation.py"} <= names
    before = key()
    edited = run_folder / "losses.py"
    edited.write_text("# another loss\n")
    monkeypatch.setattr(train, "_code", lambda _: [edited, *code[1:]])
    assert key() != before


def test_run_from_another_weights_file_is_not_continued(run_folder: Path) -> None:
    def write_weights(seed: int) -> None:
        torch.manual_seed(seed)
        network = build(read_params(Path("none.yaml")).model, 3)
        torch.save(network.backbone.network.state_dict(), "weights.pth")

    Path("none.yaml").write_text(workspace.params_file.read_text())
    change(**{"model.pretrained": "weights.pth"})
    write_weights(0)
    before = key()
    write_weights(1)
    assert key() != before


def test_crops_of_other_settings_are_refused(run_folder: Path) -> None:
    change(**{"crops.side": 48})
    with pytest.raises(ProtoMaskError, match=r"side=32 instead of 48.*dvc repro crops"):
        train.run(workspace)
    change(**{"crops.side": 32, "crops.per_image": 2})
    crops.run(workspace)
    train.run(workspace)


def test_divergence_leaves_the_model_there_was(run_folder: Path) -> None:
    before = contents(workspace.train)
    change(**{"train.lr_prototypes": 1e30, "train.epochs": 9})
    with pytest.raises(ProtoMaskError, match="no longer a finite number"):
        train.run(workspace)
    assert contents(workspace.train) == before
    assert not list(workspace.artifacts.glob(".*.part"))


def test_backbone_that_does_not_exist(run_folder: Path) -> None:
    change(**{"model.backbone": "efficientnet_lite"})
    with pytest.raises(ProtoMaskError, match="efficientnet_lite0"):
        train.run(workspace)


def test_train_to_evaluate_twice_same_bytes(run_folder: Path) -> None:
    """With and without what the first run left behind, and a backbone that is trained."""
    change(**{**JOINT, "model.backbone": "efficientnet_lite0", "prune.enabled": True})
    made = workspace.train, workspace.push, workspace.finetune, workspace.evaluate
    first: dict[str, bytes] = {}
    for _ in range(2):
        for stage in (train, push, finetune, evaluate):
            stage.run(workspace)
        found = {**contents(*made), "metrics": workspace.metrics.read_bytes()}
        assert len(found) > 10
        first = first or found
        assert found == first


def test_frozen_or_not_shows_in_the_weights(run_folder: Path) -> None:
    params = workspace.read_params()
    torch.manual_seed(params.seed)
    start = build(params.model, 3).state_dict()
    found = load_file(workspace.train / "backbone.safetensors")
    assert all(torch.equal(found[name], start[name]) for name in start if "backbone" in name)
    change(**{**JOINT, "train.warmup_epochs": 0})
    train.run(workspace)
    found = load_file(workspace.train / "backbone.safetensors")
    assert not all(torch.equal(found[name], start[name]) for name in start if "backbone" in name)
