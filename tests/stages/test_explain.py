"""`protomask explain` on a small finished run."""

import json
import shutil
from pathlib import Path

import pytest
import yaml

from pipeline.errors import ProtoMaskError
from pipeline.metrics.group import note_on
from stages import explain
from stages.workspace import Workspace

workspace = Workspace()

PAGE = workspace.report / "index.html"


def test_the_page_says_what_was_run(run_folder: Path) -> None:
    explain.run(workspace)
    page = PAGE.read_text(encoding="utf-8")
    for said in (
        "folder, 3 classes",
        "24: ",
        "none in two splits or under two classes",
        "patches (version 1, grid 2)",
        "96, 4.0 an image",
        "at most 3 an image, 32×32 pixels, background original",
        "test_resnet, weights none, frozen",
        "6, not pruned",
        "0 warm-up, 1 joint, 1 fine-tuning",
    ):
        assert said in page
    assert str(run_folder) not in page
    assert page.count('<li id="class-') == 3
    pages = sorted(path.name for path in (workspace.report / "classes").glob("*.html"))
    assert pages == ["0.html", "1.html", "2.html"]


def test_a_path_of_weights_is_not_shown(run_folder: Path) -> None:
    params = yaml.safe_load(workspace.params_file.read_text())
    params["model"]["pretrained"] = "/home/someone/secret/resnet.pth"
    workspace.params_file.write_text(yaml.safe_dump(params))
    for path in (workspace.finetune / "model.json", workspace.made_with):
        described = path.read_text().replace(
            '"model.pretrained": "none"', '"model.pretrained": "/home/someone/secret/resnet.pth"'
        )
        path.write_text(described)
    explain.run(workspace)
    page = PAGE.read_text(encoding="utf-8")
    assert "resnet.pth" in page and "secret" not in page


def test_every_metric_that_is_measured_has_a_meaning(finished_run: Path) -> None:
    metrics = json.loads((finished_run / workspace.metrics).read_text())
    described = [note_on(group, name) for group, names in metrics.items() for name in names]
    assert len(described) > 15
    assert all(note.meaning for note in described)


def test_two_runs_give_the_same_bytes(run_folder: Path) -> None:
    explain.run(workspace)
    pages = {path: path.read_bytes() for path in workspace.report.rglob("*.*")}
    assert len(pages) == 10
    explain.run(workspace)
    assert {path: path.read_bytes() for path in workspace.report.rglob("*.*")} == pages


def test_without_photographs_the_crops_are_shown(
    run_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.rmtree(run_folder / "photographs")
    explain.run(workspace)
    assert "the pages show only the crops" in capsys.readouterr().out
    assert "not on the machine that wrote this page" in PAGE.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("missing", "command"),
    [
        (workspace.evaluate / "answers.safetensors", "dvc repro evaluate"),
        (workspace.evaluate / "notes.json", "dvc repro evaluate"),
        (workspace.metrics, "dvc repro evaluate"),
        (workspace.finetune / "prototypes.csv", "dvc repro"),
        (workspace.finetune / "model.json", "dvc repro"),
        (workspace.crops, "dvc repro crops"),
        (workspace.masks, "dvc repro masks"),
        (workspace.index, "dvc repro prepare"),
    ],
)
def test_what_is_missing_is_named_with_the_stage_that_makes_it(
    run_folder: Path, missing: Path, command: str
) -> None:
    shutil.rmtree(missing) if missing.is_dir() else missing.unlink()
    with pytest.raises(ProtoMaskError, match=command) as error:
        explain.run(workspace)
    assert str(missing if missing.suffix != ".json" else missing.name) in str(error.value)
    assert not workspace.report.exists()


def test_a_truncated_file_of_answers_is_named(run_folder: Path) -> None:
    path = workspace.evaluate / "answers.safetensors"
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(ProtoMaskError, match=r"answers\.safetensors cannot be read"):
        explain.run(workspace)
