"""docs/extending.md, done as it says: its files, put where it says, and its commands."""

import json
import re
import shlex
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from clones import QUICK, REPOSITORY, Clone
from safetensors.numpy import load_file

from pipeline.crops.store import CropStore
from pipeline.datasets.index import Index
from pipeline.masks.store import MaskStore

pytestmark = pytest.mark.slow

PAGE = (REPOSITORY / "docs" / "extending.md").read_text(encoding="utf-8")
FILE = re.compile(r"^`([\w/.-]+)`:\n\n```\w+\n(.*?)^```$", re.DOTALL | re.MULTILINE)
FILES: dict[str, str] = dict(FILE.findall(PAGE))
COMMANDS = re.findall(r"^```\ndvc exp run (.*?)\n```$", PAGE, re.MULTILINE)
ENTRY_POINTS = "\n".join(
    line.replace("project.entry-points.", "").replace('"', "")
    for line in re.findall(r"^```toml\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)[0].splitlines()
)
THE_REST = """
from stages import evaluate, finetune, push
from stages.workspace import Workspace

for stage in (push, finetune, evaluate):
    stage.run(Workspace())
"""
"""The stages after the training, in one process."""


def test_every_example_is_short_and_has_its_preset() -> None:
    assert len(FILES) == 2 * len(COMMANDS) == 8
    assert all(len(text.splitlines()) <= 60 for text in FILES.values())


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory, photographs: Path) -> Clone:
    """A clone in which the page's commands have run together, one experiment with them all."""
    listed = shutil.copytree(photographs, tmp_path_factory.mktemp("listed") / "photographs")
    rows = [
        {
            "file": path.relative_to(listed).as_posix(),
            "class": path.parent.name,
            "test": number % 2,
        }
        for number, path in enumerate(sorted(listed.glob("*/*.jpg")))
    ]
    pd.DataFrame(rows).to_csv(listed / "labels.csv", index=False)
    clone = Clone(tmp_path_factory.mktemp("extended"), listed).make()
    for word in ("dataset=folder", *QUICK):
        clone.overrides.remove(word)
    for name, text in FILES.items():
        (clone.folder / name).write_text(text, encoding="utf-8")
    run(clone, "evaluate")
    return clone


def test_the_examples_of_the_page(clone: Clone) -> None:
    check(clone)


def test_from_a_package_outside_the_repository(
    clone: Clone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clone = clone.copy(tmp_path / "clone")
    shutil.rmtree(clone.folder / "artifacts" / "evaluate")
    package = tmp_path / "installed" / "birdlab"
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    for name, text in FILES.items():
        if name.endswith(".py"):
            (clone.folder / name).rename(package / Path(name).name)
        else:
            code = re.sub("code: .*", f"code: {name}", text)
            (clone.folder / name).write_text(code, encoding="utf-8")
    about = tmp_path / "installed" / "birdlab-1.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: birdlab\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text(ENTRY_POINTS)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "installed"))
    run(clone, "train")
    clone.run("python3", "-c", THE_REST)
    check(clone)
    assert "Margin (columns)" in clone.run("python3", "-m", "commands", "study", "table")


def run(clone: Clone, stage: str) -> None:
    """Runs the page's commands together, up to a stage; the photographs are the clone's."""
    words = [word for command in COMMANDS for word in shlex.split(command)]
    place = words.index("dataset.root=$HOME/photographs")
    clone.exp_run(*words[: place - 1], *words[place + 1 :], stage)


def check(clone: Clone) -> None:
    """Checks that each of the components was used."""
    artifacts = clone.folder / "artifacts"
    index = Index.read(artifacts / "index" / "index.parquet")
    assert (index.dataset, len(index.rows("test"))) == ("table", 21)
    assert set(MaskStore(artifacts / "masks.zarr").num_masks()) == {4}
    assert CropStore(artifacts / "crops.zarr").about["segmenter"]["name"] == "columns"
    made_with = json.loads((artifacts / "train" / "model.json").read_text())["made_with"]
    assert made_with["train"]["model.name"] == "margin"
    assert made_with["train"]["train.loss.margin"] == 0.5
    metrics = json.loads((artifacts / "evaluate" / "metrics.json").read_text())
    assert set(metrics) == {"general", "certainty"}
    logits_NC = load_file(artifacts / "evaluate" / "answers.safetensors")["logits_NC"]
    first_N, second_N = np.sort(logits_NC, axis=1)[:, :-3:-1].T
    assert metrics["certainty"]["lead"] == pytest.approx((first_N - second_N).mean(), rel=1e-5)
    assert "certainty.lead" in pd.read_parquet(artifacts / "evaluate" / "images.parquet")
