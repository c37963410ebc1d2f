"""Settings that need no data are judged before anything is computed."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from finished_runs import PARAMS

from pipeline.errors import ProtoMaskError
from stages.checks import refuse_unusable_backbone
from stages.params import read_params
from stages.workspace import Workspace

REPOSITORY = Path(__file__).parents[2]


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return Workspace(tmp_path)


def write(workspace: Workspace, **changes: dict[str, object]) -> None:
    params = yaml.safe_load(PARAMS)
    for section, values in changes.items():
        params[section] |= values
    workspace.params_file.write_text(yaml.safe_dump(params))


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"model": {"backbone": "test_resnett"}}, "no model 'test_resnett'; .*test_resnet"),
        ({"model": {"pretrained": "gone.safetensors"}}, "gone.safetensors' is neither"),
        ({"model": {"backbone": "cait_xxs24_224"}}, "crops.side=224"),
    ],
)
def test_a_backbone_that_cannot_be_used(
    workspace: Workspace, changes: dict[str, dict[str, object]], match: str
) -> None:
    write(workspace, **changes)
    with pytest.raises(ProtoMaskError, match=match):
        refuse_unusable_backbone(workspace)
    with pytest.raises(ProtoMaskError, match=match):
        refuse_unusable_backbone(workspace)


def test_weights_that_do_not_fit(workspace: Workspace) -> None:
    write(workspace, model={"pretrained": "weights.pth"})
    (workspace.root / "weights.pth").write_text("none")
    with pytest.raises(ProtoMaskError, match="holds no weights"):
        refuse_unusable_backbone(workspace)


def test_more_processes_than_batches_of_a_step(workspace: Workspace) -> None:
    write(workspace, runtime={"devices": 4})
    with pytest.raises(ProtoMaskError, match=r"runtime.devices is 4.*train.accumulate=1"):
        read_params(workspace.params_file)


@pytest.mark.parametrize("stage", ["scan", "prepare", "masks", "crops"])
def test_stages_ask_before_they_compute(workspace: Workspace, stage: str) -> None:
    """The folder has no photographs, index or masks: what is said first is about the backbone."""
    write(workspace, model={"backbone": "test_resnett"})
    done = subprocess.run(
        [sys.executable, "-m", "stages", stage],
        cwd=workspace.root,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    assert done.stderr.startswith("Error: model.backbone: timm") and "Traceback" not in done.stderr
    assert not workspace.artifacts.exists()


def test_what_was_found_good_is_not_built_again(workspace: Workspace) -> None:
    write(workspace)
    script = (
        "import sys; from pathlib import Path; from stages import checks, workspace; "
        "checks.refuse_unusable_backbone(workspace.Workspace(Path(sys.argv[1]))); "
        "print('timm' in sys.modules)"
    )
    built = [
        subprocess.run(
            [sys.executable, "-c", script, workspace.root],
            cwd=REPOSITORY,
            check=True,
            capture_output=True,
            text=True,
        ).stdout
        for _ in range(2)
    ]
    assert built == ["True\n", "False\n"]
    write(workspace, crops={"side": 48})
    refuse_unusable_backbone(workspace)
    assert len(list((workspace.cache / "checked").iterdir())) == 2
