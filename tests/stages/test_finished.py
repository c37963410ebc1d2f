"""What the last stages read: all of one run, or an error that says what to run."""

from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from commands import predict
from commands.answer_tables import Tables
from pipeline.errors import ProtoMaskError
from stages import evaluate, explain, masks
from stages.workspace import Workspace

workspace = Workspace()


def run_predict(workspace: Workspace) -> None:
    predict.run(Path(), [Path("photographs/class 0/000.png")], Path("pictures"), Tables())


@pytest.mark.parametrize("stage", [evaluate.run, explain.run])
def test_masks_that_the_crops_were_not_cut_from(
    run_folder: Path, stage: Callable[[Workspace], None]
) -> None:
    params = yaml.safe_load(workspace.params_file.read_text())
    right = workspace.params_file.read_text()
    params["segmenter"]["grid"] = 3
    workspace.params_file.write_text(yaml.safe_dump(params))
    masks.run(workspace)
    workspace.params_file.write_text(right)
    with pytest.raises(ProtoMaskError, match=r"cut from other masks than .*dvc repro crops"):
        stage(workspace)


@pytest.mark.parametrize("stage", [evaluate.run, explain.run, run_predict])
@pytest.mark.parametrize(
    ("path", "match"),
    [
        (workspace.finetune / "model.safetensors", "no model in"),
        (workspace.index, "no index at"),
    ],
)
def test_missing_input(
    run_folder: Path, stage: Callable[[Workspace], None], path: Path, match: str
) -> None:
    path.unlink()
    with pytest.raises(ProtoMaskError, match=match):
        stage(workspace)
