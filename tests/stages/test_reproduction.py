"""What the report says of how it is made again."""

import shlex
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from pipeline.parameters import flat
from stages import reproduction
from stages.overrides import composed_of
from stages.params import read_params
from stages.workspace import Workspace

REPOSITORY = Path(__file__).parents[2]


def workspace_with(folder: Path, *overrides: str) -> Workspace:
    shutil.copytree(REPOSITORY / "conf", folder / "conf")
    values = composed_of(overrides, folder / "conf")
    (folder / "params.yaml").write_text(yaml.safe_dump(values))
    return Workspace(folder)


@pytest.mark.parametrize(
    "overrides",
    [
        (),
        ("segmenter=felzenszwalb", "train.epochs=7", "segmenter.scales=[10,20]"),
        ("dataset=pets", "dataset.root=/somewhere/photographs", "model=pipnet", "seed=3"),
    ],
)
def test_the_command_composes_the_same_parameters(
    tmp_path: Path, overrides: tuple[str, ...]
) -> None:
    workspace = workspace_with(tmp_path, *overrides)
    params = read_params(workspace.params_file)
    command = reproduction.command(workspace, params)
    words = shlex.split(command)
    assert words[:3] == ["dvc", "exp", "run"] and set(words[3::2]) == {"-S"}
    again = flat(composed_of(words[4::2], tmp_path / "conf"))
    wanted = flat(yaml.safe_load(workspace.params_file.read_text()))
    differing = {name for name in wanted if again[name] != wanted[name]}
    assert differing <= {"dataset.root", "dataset.scanned"}
    assert "/somewhere" not in command and len(words) < 25


def test_without_presets_there_is_no_command(tmp_path: Path) -> None:
    workspace = workspace_with(tmp_path)
    params = read_params(workspace.params_file)
    shutil.rmtree(tmp_path / "conf")
    assert reproduction.command(workspace, params) == ""


def test_the_code_is_its_last_commit_whatever_else_is_committed(tmp_path: Path) -> None:
    def git(*words: str) -> None:
        who = ["-c", "user.name=a", "-c", "user.email=a@b.c", "-c", "commit.gpgsign=false"]
        subprocess.run(["git", "-C", str(tmp_path), *who, *words], check=True, capture_output=True)

    workspace = Workspace(tmp_path)
    assert reproduction.code(workspace) == ""
    git("init")
    for file in ("pipeline/a.py", "stages/b.py"):
        (tmp_path / file).parent.mkdir()
        (tmp_path / file).write_text("1")
    git("add", "-A")
    git("commit", "-m", "code", "--date", "2024-05-06T12:00:00+00:00")
    first = reproduction.code(workspace)
    assert first.endswith(" of 2024-05-06") and len(first.split()[0]) == 12
    (tmp_path / "params.yaml").write_text("seed: 1")
    git("add", "-A")
    git("commit", "-m", "something else")
    assert reproduction.code(workspace) == first
    (tmp_path / "stages/b.py").write_text("2")
    assert reproduction.code(workspace) == f"{first}, with changes that are not committed"
