"""`protomask predict` on photographs of a small finished run, and on what is none."""

import re
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from safetensors.numpy import load_file

from commands import predict
from pipeline.errors import ProtoMaskError
from pipeline.masks.masks import Masks
from pipeline.masks.segmenter import Machine
from pipeline.masks.segmenters.patches import Patches
from pipeline.report.image_page import write_image_page
from pipeline.report.parts import Parts
from stages.workspace import Workspace

workspace = Workspace()

OUT = Path("pictures")


def written() -> set[str]:
    return {path.name for path in OUT.iterdir()}


def test_a_photograph_gets_the_scores_that_evaluate_gave_it(run_folder: Path) -> None:
    predictions = pd.read_csv(workspace.evaluate / "predictions.csv")
    logits_NC = load_file(workspace.evaluate / "answers.safetensors")["logits_NC"]
    predictor = predict.load_predictor(workspace, workspace.read_params())
    for place, image in enumerate(predictions["image"]):
        photograph = np.asarray(Image.open(run_folder / "photographs" / image))
        prediction = predictor.predict(image, photograph)
        assert prediction.ranking[0][0] == predictions["predicted"][place]
        expected = np.sort(logits_NC[place])[::-1]
        assert [score for _, score in prediction.ranking] == pytest.approx(
            expected.tolist(), abs=1e-4
        )
        assert predictor.picture(prediction).width == 1200


def test_what_is_like_no_prototype_is_said_to_be_so(run_folder: Path) -> None:
    """A similarity is at most log(1/ε) = 9.2, so that none is above a floor of 10."""
    predictor = predict.load_predictor(workspace, workspace.read_params())
    predictor.network.set_floor(torch.full((6,), 10.0))
    photograph = np.asarray(Image.open(run_folder / "photographs" / "class 1" / "003.png"))
    prediction = predictor.predict("003.png", photograph)
    assert prediction.why == "like none of the prototypes, so that every class has the score 0"
    assert predictor.picture(prediction).width == 1200


def test_the_ranking_and_the_picture_are_named(
    run_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = Path("photographs/class 1/003.png")
    predict.run(workspace, [path], OUT)
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
        predict.run(workspace, [Path("gone.jpg"), text, cut, folder, good], OUT)
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
    predict.run(workspace, names, OUT)
    assert written() == {"000.png", "000-2.png", "000-3.png"}
    before = {name: (OUT / name).read_bytes() for name in written()}
    predict.run(workspace, [names[2]], OUT)
    assert {name: (OUT / name).read_bytes() for name in written()} == before


def test_a_file_that_is_no_explanation_is_never_overwritten(run_folder: Path) -> None:
    OUT.mkdir()
    photograph = OUT / "bird.png"
    shutil.copy("photographs/class 0/000.png", photograph)
    before = photograph.read_bytes()
    predict.run(workspace, [photograph], OUT)
    predict.run(workspace, [photograph], OUT)
    assert photograph.read_bytes() == before
    assert written() == {"bird.png", "bird-2.png"}


def test_odd_names_and_kinds_of_photograph(run_folder: Path) -> None:
    paths = [Path(name) for name in ('Grün specht\'s "best".jpg', "[bold]x.gif", "tiny.png")]
    with Image.open("photographs/class 0/000.png") as image:
        image.save(paths[0])
        image.convert("L").save(paths[1])
    Image.new("RGBA", (1, 1)).save(paths[2])
    predict.run(workspace, paths, OUT)
    assert written() == {'Grün specht\'s "best".png', "[bold]x.png", "tiny.png"}


def test_out_is_a_folder(run_folder: Path) -> None:
    with pytest.raises(ProtoMaskError, match="folder"):
        predict.run(workspace, [Path("photographs/class 0/000.png")], Path("params.yaml"))


@pytest.mark.parametrize("missing", [workspace.crops, workspace.finetune, workspace.index])
def test_what_is_missing_is_named(run_folder: Path, missing: Path) -> None:
    shutil.rmtree(missing) if missing.is_dir() else missing.unlink()
    with pytest.raises(ProtoMaskError, match=str(missing)):
        predict.run(workspace, [Path("photographs/class 0/000.png")], OUT)
    assert not OUT.exists()


class Parted(Patches):
    """Patches of which each is a part of its own."""

    def segment(
        self, images: Sequence[NDArray[np.uint8]], machine: Machine = Machine()
    ) -> list[Masks]:
        return [
            replace(masks, parts=np.arange(len(masks), dtype=np.int32))
            for masks in super().segment(images, machine)
        ]


def test_parts_have_the_names_that_people_gave(run_folder: Path) -> None:
    lines = "".join(f"{part}: name{part}\n" for part in range(4))
    workspace.part_names.write_text(f"codebook: patches\n{lines}")
    predictor = predict.load_predictor(workspace, workspace.read_params())
    predictor.segmenter = Parted(version=1, grid=2)
    prototypes = predictor.prototypes
    prototypes.part_P = prototypes.crop_P
    image = np.asarray(Image.open(run_folder / "photographs" / "class 1" / "003.png"))
    prediction = predictor.predict("a.png", image)
    assert re.search(r"the whole name\d \(", prediction.why)
    write_image_page(Path("a.html"), prediction, predictor.explainer())
    page = Path("a.html").read_text(encoding="utf-8")
    for number, part in enumerate(prototypes.part_P.tolist()):
        for shown in re.findall(rf"Prototype {number} of class \d(.*?), from", page):
            assert shown in ("", f" (name{part})")
    assert len(re.findall(r"of class \d \(name\d\), from", page)) >= 4


def test_names_of_another_codebook_are_told(
    run_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    workspace.part_names.write_text("codebook: 3fa2\n0: wing\n")
    shutil.rmtree(workspace.masks)  # which a prediction does not need
    predictor = predict.load_predictor(workspace, workspace.read_params())
    assert predictor.parts == Parts({}, {})
    assert (
        "Warning: the names in parts.yaml are of the codebook 3fa2, and the parts of patches"
        in capsys.readouterr().err
    )


def test_a_bad_file_of_names_is_refused(run_folder: Path) -> None:
    workspace.part_names.write_text("0: [wing\n")
    with pytest.raises(ProtoMaskError, match=r"parts\.yaml cannot be read"):
        predict.load_predictor(workspace, workspace.read_params())
