"""The experiment as its users run it: real DVC, real stages, real processes, in a copy of the
repository with a small folder of drawn photographs."""

import json
from types import ModuleType

import pytest
from clones import STAGES, Clone, ran

from pipeline.errors import ProtoMaskError
from stages import evaluate, explain, finetune, provenance, push, train
from stages.params import read_params
from stages.workspace import Workspace

pytestmark = pytest.mark.slow


def test_second_run_recomputes_nothing(clone: Clone) -> None:
    """Not with other parameters of `runtime` either, which is nobody's dependency."""
    assert ran(clone.exp_run("-S", "runtime.workers=1")) == ["scan@root"]


def changed(clone: Clone) -> list[str]:
    """Returns the stages of which DVC says that something of theirs is changed."""
    status = clone.run("dvc", "status")
    return [stage for stage in STAGES if f"{stage}:\n" in status]


def test_training_parameter_leaves_masks_and_crops_alone(clone: Clone) -> None:
    clone.params("train.epochs=4")
    assert changed(clone) == ["scan@root", "train", "explain"]


def test_another_fold_leaves_masks_and_crops_alone(clone: Clone) -> None:
    output = clone.exp_run("-S", "dataset.fold=1", "train")
    assert ran(output) == ["scan@root", "prepare", "train"]


@pytest.mark.parametrize(
    ("override", "stage", "blamed"),
    [
        ("dataset.fold=1", train, "prepare"),
        ("segmenter.sigma=0.5", train, "crops"),
        ("train.epochs=4", push, "train"),
        ("model.epsilon=0.01", finetune, "push"),
        ("finetune.lr=0.1", evaluate, "finetune"),
        ("evaluate.top_k=3", explain, "evaluate"),
    ],
)
def test_a_stage_refuses_what_was_made_with_other_parameters(
    clone: Clone, override: str, stage: ModuleType, blamed: str
) -> None:
    clone.params(override)
    name, _, value = override.partition("=")
    wrong = rf"{name}.*instead of {value}: run `dvc repro {blamed}`"
    with pytest.raises(ProtoMaskError, match=wrong):
        stage.run(Workspace(clone.folder))


def test_every_output_says_what_it_was_made_with(clone: Clone) -> None:
    made_with = json.loads((clone.folder / "artifacts/evaluate/made_with.json").read_text())
    params = read_params(clone.folder / "params.yaml")
    assert made_with == {stage: provenance.tracked(stage, params) for stage in provenance.TRACKED}


@pytest.mark.parametrize(
    ("file", "comment", "rerun"),
    [
        ("pipeline/model/pipnet/model.py", "# a comment", []),
        (
            "pipeline/model/protomask/model.py",
            "# a comment",
            ["train", "push", "finetune", "evaluate", "explain"],
        ),
        ("pipeline/report/templates/report.html.jinja", "{# a comment #}", ["explain"]),
        ("pipeline/datasets/readers/demo/bird.py", "# a comment", ["evaluate"]),
        ("commands/predict.py", "# a comment", []),
        ("parts.yaml", "# a comment", ["explain"]),
    ],
)
def test_an_edit_reruns_what_it_can_change(
    clone: Clone, file: str, comment: str, rerun: list[str]
) -> None:
    with (clone.folder / file).open("a") as text:
        text.write(f"{comment}\n")
    assert changed(clone) == ["scan@root", *rerun]


def test_metrics_are_strict_json_by_group(finished: Clone) -> None:
    def refuse(constant: str) -> None:
        raise AssertionError(constant)

    text = (finished.folder / "artifacts/evaluate/metrics.json").read_text()
    metrics = json.loads(text, parse_constant=refuse)
    intervals = json.loads((finished.folder / "artifacts/evaluate/intervals.json").read_text())
    groups = {"general", "compactness", "contrastivity", "complexity", "segmentation"}
    assert set(metrics) == set(intervals) == groups
    assert 0 <= metrics["general"]["accuracy"] <= 1
    assert "iou" not in metrics["complexity"]


def test_dvc_shows_metrics_and_plots(finished: Clone) -> None:
    assert "general.accuracy" in finished.run("dvc", "metrics", "show")
    said = finished.run("dvc", "plots", "show", "-o", str(finished.folder / "plots"))
    assert "failed" not in said
    page = (finished.folder / "plots" / "index.html").read_text()
    assert "Confusion matrix" in page and "Accuracy" in page
