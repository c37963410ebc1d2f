"""`protomask predict` on photographs of a small finished run, and on what is none."""

import errno
import io
import json
import os
import shutil
from pathlib import Path

import pandas as pd
import pytest
from PIL import Image

from commands import predict
from commands.answer_tables import Tables
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
    predict.run(HERE, [path], OUT, Tables())
    said = capsys.readouterr().out
    assert said.startswith(f"{path}: class ") and said.endswith(f"-> {OUT / '003.png'}\n")
    with Image.open(OUT / "003.png") as picture:
        picture.load()


def test_what_is_no_photograph_is_named_and_the_others_are_done(
    run_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    good = Path("photographs/class 0/000.png")
    text, cut = Path("notes.png"), Path("cut.png")
    text.write_text("not a picture")
    cut.write_bytes(good.read_bytes()[:200])
    with pytest.raises(ProtoMaskError, match="3 of 4 photographs"):
        predict.run(HERE, [Path("gone.jpg"), text, cut, good], OUT, Tables())
    errors = capsys.readouterr().err.splitlines()
    assert [line.split(":")[1].strip() for line in errors] == [
        "gone.jpg",
        "notes.png",
        "cut.png",
    ]
    assert written() == {"000.png"}


def test_equal_names_do_not_overwrite_each_other(run_folder: Path) -> None:
    names = [Path(f"photographs/class {label}/000.png") for label in range(3)]
    predict.run(HERE, names, OUT, Tables())
    assert written() == {"000.png", "000-2.png", "000-3.png"}
    before = {name: (OUT / name).read_bytes() for name in written()}
    predict.run(HERE, [names[2]], OUT, Tables())
    assert {name: (OUT / name).read_bytes() for name in written()} == before


def test_a_file_that_is_no_explanation_is_never_overwritten(run_folder: Path) -> None:
    OUT.mkdir()
    photograph = OUT / "bird.png"
    shutil.copy("photographs/class 0/000.png", photograph)
    before = photograph.read_bytes()
    predict.run(HERE, [photograph], OUT, Tables())
    predict.run(HERE, [photograph], OUT, Tables())
    assert photograph.read_bytes() == before
    assert written() == {"bird.png", "bird-2.png"}


def test_odd_names_and_kinds_of_photograph(run_folder: Path) -> None:
    paths = [Path(name) for name in ('Grün specht\'s "best".jpg', "[bold]x.gif", "tiny.png")]
    with Image.open("photographs/class 0/000.png") as image:
        image.save(paths[0])
        image.convert("L").save(paths[1])
    Image.new("RGBA", (1, 1)).save(paths[2])
    predict.run(HERE, paths, OUT, Tables())
    assert written() == {'Grün specht\'s "best".png', "[bold]x.png", "tiny.png"}


def test_out_is_a_folder(run_folder: Path) -> None:
    with pytest.raises(ProtoMaskError, match="folder"):
        predict.run(HERE, [Path("photographs/class 0/000.png")], Path("params.yaml"), Tables())


@pytest.mark.parametrize("missing", [workspace.crops, workspace.finetune, workspace.index])
def test_what_is_missing_is_named(run_folder: Path, missing: Path) -> None:
    shutil.rmtree(missing) if missing.is_dir() else missing.unlink()
    with pytest.raises(ProtoMaskError, match=str(missing)):
        predict.run(HERE, [Path("photographs/class 0/000.png")], OUT, Tables())
    assert not OUT.exists()


def test_nothing_is_drawn_unless_asked_for(
    run_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = sorted(run_folder.iterdir())
    predict.run(HERE, [Path("photographs/class 0/000.png")], None, Tables())
    assert sorted(run_folder.iterdir()) == before
    assert "->" not in capsys.readouterr().out


def test_bad_images_of_a_folder_are_counted_and_named(
    run_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, tables = Path("new"), Tables(Path("a.json"), Path("a.csv"), Path("a.parquet"))
    shutil.copytree("photographs/class 0", folder / "class 0")
    (folder / "cut.png").write_bytes(b"x")
    (folder / "notes.txt").write_text("no photograph")
    predict.run(HERE, [folder], None, tables)
    said = capsys.readouterr()
    assert said.out.count(" rather than ") == 8
    assert "1 could not be read: 'new/cut.png'" in said.err
    assert "1 other files were passed over: 'new/notes.txt'" in said.err
    answers = json.loads(Path("a.json").read_text(encoding="utf-8"))
    rows, same = pd.read_csv("a.csv"), pd.read_parquet("a.parquet")
    assert [answer["image"] for answer in answers] == rows["image"].tolist()
    assert rows["image"].tolist() == same["image"].tolist() == sorted(rows["image"])
    assert rows["error"].notna().tolist() == [False] * 8 + [True]
    for answer, row, also in zip(answers[:8], rows.iloc, same.iloc, strict=False):
        assert answer["scores"][row["label"]] == row["score"] == also["score"]
        assert answer["margin"] == row["margin"] == pytest.approx(row.score - row.second_score)
        assert sum(region["points"] for region in answer["regions"]) == pytest.approx(
            answer["margin"], abs=1e-5
        )
    assert answers[8]["error"] == rows["error"][8] == same["error"][8]


def test_a_table_in_the_terminal_is_all_that_is_printed(
    run_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    predict.run(HERE, [Path("photographs/class 0/00[01].png")], None, Tables(csv=Path("-")))
    rows = pd.read_csv(io.StringIO(capsys.readouterr().out))
    assert rows["image"].tolist() == [f"photographs/class 0/00{number}.png" for number in (0, 1)]


def test_tables_that_cannot_be_written_are_refused_at_once(run_folder: Path) -> None:
    photograph = Path("photographs/class 0/000.png")
    before = photograph.read_bytes()
    os.mkfifo("pipe")
    for tables, said in (
        (Tables(json=Path("photographs")), "is a folder"),
        (Tables(parquet=Path("-")), "Parquet is no text"),
        (Tables(csv=photograph), "is the photograph"),
        (Tables(csv=photograph / "a.csv"), "is no folder"),
        (Tables(json=Path("a"), csv=Path("a")), "is the file of --json already"),
        (Tables(csv=Path("pipe")), "is no file"),
        (Tables(json=Path("-"), csv=Path("-")), "cannot both be"),
    ):
        with pytest.raises(ProtoMaskError, match=said):
            predict.run(Path("nowhere"), [Path("photographs")], None, tables)
    assert photograph.read_bytes() == before


def test_a_name_that_is_not_utf8_is_in_the_tables(run_folder: Path) -> None:
    path = Path(os.fsdecode(b"gr\xfcn.png"))
    try:
        shutil.copy("photographs/class 0/000.png", path)
    except OSError:
        pytest.skip("this file system takes only names in UTF-8")
    tables = Tables(Path("a.json"), Path("a.csv"), Path("a.parquet"))
    predict.run(HERE, [path], None, tables)
    for table in (pd.read_json("a.json"), pd.read_csv("a.csv"), pd.read_parquet("a.parquet")):
        assert table["image"].tolist() == ["gr\\xfcn.png"]


def test_a_name_that_is_not_utf8_is_no_reason_to_refuse_its_folder(run_folder: Path) -> None:
    Path("new").mkdir()
    try:
        shutil.copy("photographs/class 0/000.png", Path("new", os.fsdecode(b"gr\xfcn.png")))
    except OSError:
        pytest.skip("this file system takes only names in UTF-8")
    shutil.copy("photographs/class 0/001.png", Path("new/line\nbreak.png"))
    predict.run(HERE, [Path("new")], None, Tables(csv=Path("a.csv")))
    assert set(pd.read_csv("a.csv")["image"]) == {"new/gr\\xfcn.png", "new/line\nbreak.png"}


def test_what_was_done_before_an_error_is_kept(
    run_folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[Path] = []

    def full_after_two(picture: Image.Image, image: Path, out: Path) -> Path:
        if len(drawn) == 2:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        drawn.append(image)
        return out / "picture.png"

    monkeypatch.setattr(predict, "_write", full_after_two)
    paths = sorted(Path("photographs/class 0").iterdir())[:4]
    with pytest.raises(OSError, match="No space"):
        predict.run(HERE, paths, OUT, Tables(csv=Path("a.csv")))
    assert pd.read_csv("a.csv")["image"].tolist() == list(map(str, paths[:2]))
    assert "2 of 4 photographs were done, in a.csv" in capsys.readouterr().err


def test_a_folder_for_pictures_that_cannot_be_made_is_refused_at_once(run_folder: Path) -> None:
    with pytest.raises(ProtoMaskError, match=r"params\.yaml is no folder"):
        predict.run(Path("nowhere"), [Path("photographs")], Path("params.yaml/a"), Tables())


def test_pictures_of_an_earlier_run_are_no_photographs(
    run_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("new").mkdir()
    shutil.copy("photographs/class 0/000.png", "new/bird.png")
    for _ in range(2):
        predict.run(HERE, [Path("new")], Path("new/why"), Tables(csv=Path("a.csv")))
        assert pd.read_csv("a.csv")["image"].tolist() == ["new/bird.png"]
    assert "1 other files were passed over: 'new/why/bird.png'" in capsys.readouterr().err
    with pytest.raises(ProtoMaskError, match="only pictures that"):
        predict.run(HERE, [Path("new/why")], None, Tables())


def test_a_folder_of_bad_images_alone_is_an_error(run_folder: Path) -> None:
    Path("new").mkdir()
    Path("new/cut.png").write_bytes(b"x")
    with pytest.raises(ProtoMaskError, match="1 of 1 photographs"):
        predict.run(HERE, [Path("new")], None, Tables())
