"""docs/extending.md, done as it says: its files, put where it says, and its commands."""

import json
import re
import shlex
from pathlib import Path

import pytest
from clones import REPOSITORY, Clone

from pipeline.crops.store import CropStore
from pipeline.masks.store import MaskStore

pytestmark = pytest.mark.slow

PAGE = (REPOSITORY / "docs" / "extending.md").read_text(encoding="utf-8")
FILE = re.compile(r"^`([\w/.-]+)`:\n\n```\w+\n(.*?)^```$", re.DOTALL | re.MULTILINE)
FILES: dict[str, str] = dict(FILE.findall(PAGE))
COMMANDS = re.findall(r"^```\ndvc exp run (.*?)\n```$", PAGE, re.MULTILINE)
ENTRY_POINTS = """[protomask.segmenters]
columns = birdlab.columns

[protomask.models]
margin = birdlab.margin
"""


def test_every_example_is_short_and_has_its_preset() -> None:
    assert len(FILES) == 2 * len(COMMANDS) == 4
    assert all(len(text.splitlines()) <= 60 for text in FILES.values())


def test_a_segmenter_and_a_model_of_the_page(tmp_path: Path, photographs: Path) -> None:
    clone = Clone(tmp_path / "clone", photographs)
    for name, text in FILES.items():
        (clone.folder / name).write_text(text, encoding="utf-8")
    run(clone, "train")


def test_from_a_package_outside_the_repository(
    tmp_path: Path, photographs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clone = Clone(tmp_path / "clone", photographs)
    package = tmp_path / "installed" / "birdlab"
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    for name, text in FILES.items():
        if name.endswith(".py"):
            (package / Path(name).name).write_text(text, encoding="utf-8")
        else:
            text = text.replace("code: pipeline/model/margin.py", "code: conf/model/margin.yaml")
            (clone.folder / name).write_text(text, encoding="utf-8")
    about = tmp_path / "installed" / "birdlab-1.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: birdlab\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text(ENTRY_POINTS)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "installed"))
    run(clone, "evaluate")
    assert "Margin (columns)" in clone.run("python3", "-m", "commands", "study", "table")


def run(clone: Clone, stage: str) -> None:
    """Runs the page's commands together, one experiment with both components, up to a stage."""
    clone.overrides.remove("segmenter.scales=[800]")
    words = [word for command in COMMANDS for word in shlex.split(command)]
    clone.exp_run(*words, stage)
    artifacts = clone.folder / "artifacts"
    assert set(MaskStore(artifacts / "masks.zarr").num_masks()) == {4}
    assert CropStore(artifacts / "crops.zarr").about["segmenter"]["name"] == "columns"
    made_with = json.loads((artifacts / "train" / "model.json").read_text())["made_with"]
    assert made_with["train"]["model.name"] == "margin"
    assert made_with["train"]["train.loss.margin"] == 0.5
