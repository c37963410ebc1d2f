"""`protomask explain PHOTOGRAPH --out PAGE` on a small finished run, and on what is none."""

import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from safetensors.numpy import load_file
from typer.testing import CliRunner

from commands import predict
from commands.app import app
from pipeline.errors import ProtoMaskError
from stages.workspace import Workspace

workspace = Workspace()

PHOTOGRAPH = Path("photographs/class 1/003.png")
PAGE = Path("pages/why.html")


def test_a_test_image_gets_the_scores_that_evaluate_gave_it(run_folder: Path) -> None:
    predictions = pd.read_csv(workspace.evaluate / "predictions.csv")
    logits_C = load_file(workspace.evaluate / "answers.safetensors")["logits_NC"][0]
    predict.write_page(Path(), Path("photographs", predictions["image"][0]), PAGE)
    page = PAGE.read_text(encoding="utf-8")
    assert f"<h1>{predictions['predicted'][0]}</h1>" in page
    for score in np.sort(logits_C)[:-3:-1]:
        assert f'<b class="score">{score:.2f}</b>'.replace("-", "−") in page


def test_the_command_says_the_class_and_writes_the_same_page_again(run_folder: Path) -> None:
    arguments = ["explain", str(PHOTOGRAPH), "--out", str(PAGE)]
    first = CliRunner().invoke(app, arguments)
    assert first.exit_code == 0
    assert first.stdout.startswith(f"{PHOTOGRAPH}: class ")
    assert first.stdout.endswith(f"-> {PAGE}\n")
    before = PAGE.read_bytes()
    assert CliRunner().invoke(app, arguments).exit_code == 0
    assert PAGE.read_bytes() == before
    assert not workspace.report.exists()
    assert str(run_folder) not in before.decode()


def test_an_image_of_the_index_is_named_by_its_id(run_folder: Path) -> None:
    image = pd.read_csv(workspace.evaluate / "predictions.csv")["image"][0]
    assert not Path(image).exists()
    result = CliRunner().invoke(app, ["explain", image, "--out", str(PAGE)])
    assert result.exit_code == 0 and PAGE.exists()


@pytest.mark.parametrize("arguments", [[str(PHOTOGRAPH)], ["--out", str(PAGE)]])
def test_a_photograph_and_a_page_go_together(run_folder: Path, arguments: list[str]) -> None:
    result = CliRunner().invoke(app, ["explain", *arguments])
    assert result.exit_code == 2 and "go together" in result.output
    assert not PAGE.exists() and not workspace.report.exists()


def test_what_is_no_photograph_is_named(run_folder: Path) -> None:
    text, cut = Path("notes.png"), Path("cut.png")
    text.write_text("not a picture")
    cut.write_bytes(PHOTOGRAPH.read_bytes()[:200])
    for path in (Path("gone.jpg"), text, cut, Path("photographs")):
        with pytest.raises(ProtoMaskError, match=path.name):
            predict.write_page(Path(), path, PAGE)
    assert not PAGE.exists()
    PAGE.parent.mkdir(exist_ok=True)
    PAGE.touch()
    with pytest.raises(ProtoMaskError, match=r"gone\.jpg: no such file"):
        predict.write_page(Path(), Path("gone.jpg"), PAGE)


def test_neither_the_photograph_nor_a_folder_is_written_over(run_folder: Path) -> None:
    before = PHOTOGRAPH.read_bytes()
    with pytest.raises(ProtoMaskError, match="the photograph itself"):
        predict.write_page(Path(), PHOTOGRAPH, PHOTOGRAPH)
    with pytest.raises(ProtoMaskError, match="folder"):
        predict.write_page(Path(), PHOTOGRAPH, Path("photographs"))
    assert PHOTOGRAPH.read_bytes() == before


@pytest.mark.parametrize("missing", [workspace.crops, workspace.finetune, workspace.index])
def test_what_is_missing_is_named(run_folder: Path, missing: Path) -> None:
    shutil.rmtree(missing) if missing.is_dir() else missing.unlink()
    with pytest.raises(ProtoMaskError, match=str(missing)):
        predict.write_page(Path(), PHOTOGRAPH, PAGE)
    assert not PAGE.exists()


def test_odd_names_and_kinds_of_photograph(run_folder: Path) -> None:
    name = 'Grün <b>"specht"</b>.gif'.replace("/", "∕")
    with Image.open(PHOTOGRAPH) as image:
        image.convert("L").save(name)
    predict.write_page(Path(), Path(name), PAGE)
    assert "Grün &lt;b&gt;&#34;specht&#34;&lt;∕b&gt;.gif" in PAGE.read_text(encoding="utf-8")
    Image.new("RGBA", (1, 1)).save("tiny.png")
    predict.write_page(Path(), Path("tiny.png"), PAGE)
    assert "1 crop, of 0 masks" in PAGE.read_text(encoding="utf-8")
