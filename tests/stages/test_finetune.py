"""The fine-tuning stage, with and without pruning, and inputs that do not belong together."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file

from pipeline.errors import ProtoMaskError
from pipeline.model.base.saved import load_model
from pipeline.training.prototype_sources import read_sources
from stages import evaluate, finetune
from stages.workspace import Workspace

workspace = Workspace()


def set_section(name: str, **values: Any) -> None:
    params = yaml.safe_load(workspace.params_file.read_text())
    params[name].update(values)
    workspace.params_file.write_text(yaml.safe_dump(params))


def test_only_the_classifier_changes(run_folder: Path) -> None:
    before = load_file(workspace.push / "model.safetensors")
    after = load_file(workspace.finetune / "model.safetensors")
    assert {name for name in before if not torch.equal(before[name], after[name])} == {"classifier"}
    for same in ("prototypes.csv", "backbone.safetensors"):
        assert (workspace.finetune / same).read_bytes() == (workspace.push / same).read_bytes()


def test_same_bytes_again(run_folder: Path) -> None:
    before = (workspace.finetune / "model.safetensors").read_bytes()
    finetune.run(workspace)
    assert (workspace.finetune / "model.safetensors").read_bytes() == before


def write_similarities(similarity: torch.Tensor) -> None:
    """Replaces what the push wrote of the training images."""
    path = workspace.push / "similarities.safetensors"
    save_file({**load_file(path), "similarity": similarity}, path)


def test_pruning_renumbers_the_sources_and_its_model_can_be_measured(
    run_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Prototype 1's and 4's nearest images are made to be of other classes."""
    index = workspace.read_index()
    labels = torch.from_numpy(index.labels[index.rows("train")])
    near = torch.where(labels[:, None] == torch.arange(6) // 2, 2.0, 1.0)
    near[:, [1, 4]] = 3 - near[:, [1, 4]]
    write_similarities(near)
    set_section("prune", enabled=True, nearest=3, threshold=2)
    finetune.run(workspace)
    assert "4 of 6 prototypes kept" in capsys.readouterr().out
    pushed, (network, _) = load_model(workspace.push)[0], load_model(workspace.finetune)
    kept = [0, 2, 3, 5]
    assert torch.equal(network.prototypes, pushed.prototypes[kept])
    assert network.class_of.tolist() == [0, 1, 1, 2]
    before = read_sources(workspace.push / "prototypes.csv")
    after = read_sources(workspace.finetune / "prototypes.csv")
    assert after["prototype"].tolist() == [0, 1, 2, 3]
    columns = ["class_name", "image", "crop", "cell", "mask", "distance"]
    assert after[columns].values.tolist() == before[columns].iloc[kept].values.tolist()
    evaluate.run(workspace)
    assert load_file(workspace.evaluate / "answers.safetensors")["similarity_NP"].shape[1] == 4


def test_pruning_that_drops_nothing(run_folder: Path) -> None:
    set_section("prune", enabled=True, threshold=0)
    finetune.run(workspace)
    assert len(read_sources(workspace.finetune / "prototypes.csv")) == 6


def test_a_class_of_too_few_images_is_named(
    run_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    index = workspace.read_index()
    counts = np.bincount(index.labels[index.rows("train")])
    set_section("prune", enabled=True, nearest=12, threshold=int(counts[0]))
    finetune.run(workspace)
    assert "fewer" not in capsys.readouterr().out
    set_section("prune", enabled=True, nearest=12, threshold=int(counts[0]) + 1)
    finetune.run(workspace)
    said = capsys.readouterr().out
    for label in range(3):
        threshold = counts[0] + 1
        named = f"class {label} has fewer training images than prune.threshold, {threshold}:"
        assert (named in said) == (counts[label] < threshold)


def test_training_accuracy_is_that_of_the_written_model(
    run_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    set_section("prune", enabled=True, nearest=2, threshold=2)
    finetune.run(workspace)
    said = float(capsys.readouterr().out.split()[-1])
    network, _ = load_model(workspace.finetune)
    sources = read_sources(workspace.push / "prototypes.csv")
    kept_sources = read_sources(workspace.finetune / "prototypes.csv")
    kept = [
        place for place, d in enumerate(sources["distance"]) if d in set(kept_sources["distance"])
    ]
    similarity = load_file(workspace.push / "similarities.safetensors")["similarity"][:, kept]
    index = workspace.read_index()
    labels = torch.from_numpy(index.labels[index.rows("train")])
    right = network.logits(similarity).argmax(1) == labels
    assert said == pytest.approx(right.float().mean().item(), abs=1e-4)


def test_a_model_that_has_not_learned_is_named(
    run_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """With similarities of other classes' prototypes alone, no training image is named right."""
    index = workspace.read_index()
    labels = torch.from_numpy(index.labels[index.rows("train")])
    wrong = torch.where((labels[:, None] + 1) % 3 == torch.arange(6) // 2, 2.0, 1.0)
    write_similarities(wrong)
    finetune.run(workspace)
    assert "this model has not learned: it names 0.0% of" in capsys.readouterr().out
    (why,) = load_model(workspace.finetune)[1].not_learned
    assert why.startswith("it names 0.0% of the training images right, and guessing 33.3%")
    write_similarities(wrong.roll(-2, 1))
    finetune.run(workspace)
    assert "has not learned" not in capsys.readouterr().out
    assert load_model(workspace.finetune)[1].not_learned == []


@pytest.mark.parametrize("content", [b"", b"garbage", None])
def test_similarities_that_cannot_be_read(run_folder: Path, content: bytes | None) -> None:
    path = workspace.push / "similarities.safetensors"
    path.unlink()
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ProtoMaskError, match=r"similarities\.safetensors cannot be read.*repro"):
        finetune.run(workspace)


@pytest.mark.parametrize("shape", [(3, 6), (12, 5), (6,)])
def test_similarities_of_another_push(run_folder: Path, shape: tuple[int, ...]) -> None:
    write_similarities(torch.rand(shape))
    with pytest.raises(ProtoMaskError, match=r"shape .* instead of"):
        finetune.run(workspace)


def test_sources_of_another_push(run_folder: Path) -> None:
    path = workspace.push / "prototypes.csv"
    path.write_text("\n".join(path.read_text().splitlines()[:-1]) + "\n")
    with pytest.raises(ProtoMaskError, match="lists 5 prototypes, and the model has 6"):
        finetune.run(workspace)


def test_model_of_other_images(run_folder: Path) -> None:
    path = workspace.push / "model.json"
    description = yaml.safe_load(path.read_text())
    path.write_text(path.read_text().replace(description["images"], "0" * 64))
    with pytest.raises(ProtoMaskError, match="trained on other images"):
        finetune.run(workspace)
