"""`protomask predict` on photographs of a small finished run, and on what is none."""

import shutil
from pathlib import Path

import pytest
from PIL import Image

from commands import predict
from pipeline.errors import ProtoMaskError
from stages.workspace import Workspace

workspace, HERE = Workspace(), Path()

OUT = Path("pictures")


def written() -> set[str]:
    return {path.name for path in OUT.iterdir()}


def test_the_ranking_and_the_picture_are_named(
    run_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = Path("photographs/class 1/003.png")
    predict.run(HERE, [path], OUT)
    said = capsys.readouterr().out
    assert said.startswith(f"{path}: class ") and said.endswith(f"-> {OUT / '003.png'}\n")
    with Image.open(OUT / "003.png") as picture:
        picture.load()


def test_what_is_no_photograph_is_named_and_the_others_are_done(
    run_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    good = Path("photographs/class 0/000.png")
    text, cut, folder = Path("notes.png"), Path("cut.png"), Path("photographs")
    text.write_text("not a picture")
    cut.write_bytes(good.read_bytes()[:200])
    with pytest.raises(ProtoMaskError, match="4 of 5 photographs"):
        predict.run(HERE, [Path("gone.jpg"), text, cut, folder, good], OUT)
    errors = capsys.readouterr().err.splitlines()
    assert [line.split(":")[1].strip() for line in errors] == [
        "gone.jpg",
        "notes.png",
        "cut.png",
        "photographs",
    ]
    assert written() == {"000.png"}


def test_equal_names_do_not_overwrite_each_other(run_folder: Path) -> None:
    names = [Path(f"photographs/class {label}/000.png") for label in range(3)]
    predict.run(HERE, names, OUT)
    assert written() == {"000.png", "000-2.png", "000-3.png"}
    before = {name: (OUT / name).read_bytes() for name in written()}
    predict.run(HERE, [names[2]], OUT)
    assert {name: (OUT / name).read_bytes() for name in written()} == before


def test_a_file_that_is_no_explanation_is_never_overwritten(run_folder: Path) -> None:
    OUT.mkdir()
    photograph = OUT / "bird.png"
    shutil.copy("photographs/class 0/000.png", photograph)
    before = photograph.read_bytes()
    predict.run(HERE, [photograph], OUT)
    predict.run(HERE, [photograph], OUT)
    assert photograph.read_bytes() == before
    assert written() == {"bird.png", "bird-2.png"}


def test_odd_names_and_kinds_of_photograph(run_folder: Path) -> None:
    paths = [Path(name) for name in ('Grün specht\'s "best".jpg', "[bold]x.gif", "tiny.png")]
    with Image.open("photographs/class 0/000.png") as image:
        image.save(paths[0])
        image.convert("L").save(paths[1])
    Image.new("RGBA", (1, 1)).save(paths[2])
    predict.run(HERE, paths, OUT)
    assert written() == {'Grün specht\'s "best".png', "[bold]x.png", "tiny.png"}


def test_out_is_a_folder(run_folder: Path) -> None:
    with pytest.raises(ProtoMaskError, match="folder"):
        predict.run(HERE, [Path("photographs/class 0/000.png")], Path("params.yaml"))


@pytest.mark.parametrize("missing", [workspace.crops, workspace.finetune, workspace.index])
def test_what_is_missing_is_named(run_folder: Path, missing: Path) -> None:
    shutil.rmtree(missing) if missing.is_dir() else missing.unlink()
    with pytest.raises(ProtoMaskError, match=str(missing)):
        predict.run(HERE, [Path("photographs/class 0/000.png")], OUT)
    assert not OUT.exists()
