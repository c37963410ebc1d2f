"""A finished model in a notebook: loaded from any folder, asked about images of any kind."""

import io
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

from pipeline.datasets.image_file import UnreadableImageError
from pipeline.errors import ProtoMaskError
from pipeline.masks.masks import Masks
from pipeline.masks.segmenter import Machine
from pipeline.masks.segmenters.patches import Patches
from pipeline.report.parts import Parts
from pipeline.report.prediction_picture import AGAINST
from protomask import load
from stages.workspace import Workspace


@pytest.fixture
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder, which is the current one."""
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


def test_images_get_the_scores_that_evaluate_gave_them(finished_run: Path, elsewhere: Path) -> None:
    workspace = Workspace(finished_run)
    predictions = pd.read_csv(workspace.evaluate / "predictions.csv")
    logits_NC = load_file(workspace.evaluate / "answers.safetensors")["logits_NC"]
    model = load(finished_run)
    for place, image in enumerate(predictions["image"]):
        answer = model.predict(finished_run / "photographs" / image)
        assert answer.name == Path(image).name and answer.label == predictions["predicted"][place]
        scores = [answer.scores[name] for name in model.class_names]
        assert scores == pytest.approx(logits_NC[place].tolist(), abs=1e-4)
    assert not list(elsewhere.iterdir())


def test_a_file_an_image_and_its_pixels_are_the_same(finished_run: Path, elsewhere: Path) -> None:
    model, path = load(finished_run), finished_run / "photographs" / "class 1" / "003.png"
    with Image.open(path) as image:
        answers = [model.predict(kind) for kind in (path, str(path), image, np.asarray(image))]
    assert [answer.name for answer in answers] == ["003.png"] * 3 + ["image"]
    assert len({tuple(answer.scores.items()) for answer in answers}) == 1
    assert model.predict(path, "a wren").name == "a wren"


def test_what_is_no_image_is_refused(finished_run: Path, elsewhere: Path) -> None:
    model = load(finished_run)
    with pytest.raises(UnreadableImageError, match=r"gone\.png: no such file"):
        model.predict("gone.png")
    for wrong in (np.zeros((4, 4, 3)), np.zeros((4, 4), np.uint8), np.zeros((0, 4, 3), np.uint8)):
        with pytest.raises(ProtoMaskError, match="height×width×3, not"):
            model.predict(wrong)
    with pytest.raises(ProtoMaskError, match="height×width×3, not"):
        model.predict([[1, 2], [3]])  # type: ignore[arg-type]
    with pytest.raises(ProtoMaskError, match="image has none"):
        model.predict(Image.new("RGB", (0, 0)))
    whole = next((finished_run / "photographs").rglob("*.png")).read_bytes()
    with (
        Image.open(io.BytesIO(whole[: len(whole) // 2])) as cut,
        pytest.raises(ProtoMaskError, match="image cannot be read"),
    ):
        model.predict(cut)


def test_a_folder_without_an_experiment_is_refused(elsewhere: Path) -> None:
    with pytest.raises(ProtoMaskError, match="elsewhere holds no model: name"):
        load(elsewhere)
    with pytest.raises(ProtoMaskError, match="gone is no folder: name"):
        load(elsewhere / "gone")


def test_in_a_repository_a_wrong_name_is_said_to_be_wrong(run_folder: Path) -> None:
    with pytest.raises(ProtoMaskError, match="brids is no folder: name"):
        load("brids")
    with pytest.raises(ProtoMaskError, match="photographs holds no model: name"):
        load("photographs")


def test_a_device_that_there_is_none_of_is_refused(finished_run: Path) -> None:
    with pytest.raises(ProtoMaskError, match="there is no device 'tpu'"):
        load(finished_run, device="tpu")


def test_what_is_like_no_prototype_is_said_to_be_so(finished_run: Path) -> None:
    """A similarity is at most log(1/ε) = 9.2, so that none is above a floor of 10."""
    model = load(finished_run)
    model._predictor.network.set_floor(torch.full((6,), 10.0))
    answer = model.predict(finished_run / "photographs" / "class 1" / "003.png")
    assert answer.why == "like none of the prototypes, so that every class has the score 0"
    assert answer.regions == () and answer.margin == 0
    assert answer.figure().width == 1200


def test_images_are_as_typical_as_those_that_the_model_was_validated_with(
    finished_run: Path,
) -> None:
    index, model = Workspace(finished_run).read_index(), load(finished_run)
    rows = index.rows("val")
    paths = index.table["path"].iloc[rows]
    answers = [model.predict(finished_run / "photographs" / path) for path in paths]
    percentiles = model._predictor.typical
    assert len(percentiles) == 101
    largest = sorted(answer.scores[answer.label] for answer in answers)
    assert [percentiles[0], percentiles[-1]] == pytest.approx([largest[0], largest[-1]], abs=1e-4)
    assert sum(not answer.known for answer in answers) <= 1
    assert max(answer.typicality or 0 for answer in answers) > 0.9


def test_what_looks_like_no_class_is_said_to(finished_run: Path, tmp_path: Path) -> None:
    model = load(finished_run)
    plain = model.predict(finished_run / "photographs" / "class 1" / "003.png")
    model._predictor.typical = [plain.scores[plain.label] + 1] * 101
    answer = model.predict(finished_run / "photographs" / "class 1" / "003.png")
    assert (answer.typicality, answer.known) == (0, False)
    said = "looks like no class it knows: 100 % of the images that it was validated with are more"
    assert answer.why.startswith(said) and answer.why.endswith(plain.why)
    answer.write_page(tmp_path / "page.html")
    assert f"It {said}" in (tmp_path / "page.html").read_text(encoding="utf-8")
    head = np.asarray(answer.figure())[:150], np.asarray(plain.figure())[:150]
    assert [(pixels == AGAINST).all(axis=-1).any() for pixels in head] == [True, False]


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
    (run_folder / "parts.yaml").write_text(f"codebook: patches\n{lines}")
    model = load(run_folder)
    model._predictor.segmenter = Parted(version=1, grid=2)
    prototypes = model._predictor.prototypes
    prototypes.part_P = prototypes.crop_P
    answer = model.predict(run_folder / "photographs" / "class 1" / "003.png")
    assert re.search(r"the whole name\d \(", answer.why)
    assert {(region.name, region.part) for region in answer.regions} <= {
        (f"the whole name{part}", part) for part in range(4)
    }
    for region in answer.regions:
        for match in region.matches:
            assert match.part == f"name{prototypes.part_P[match.prototype]}"
    answer.write_page("a.html")
    page = Path("a.html").read_text(encoding="utf-8")
    for number, part in enumerate(prototypes.part_P.tolist()):
        for shown in re.findall(rf"Prototype {number} of class \d(.*?), from", page):
            assert shown in ("", f" (name{part})")
    assert len(re.findall(r"of class \d \(name\d\), from", page)) >= 4


def test_names_of_another_codebook_are_told(run_folder: Path) -> None:
    (run_folder / "parts.yaml").write_text("codebook: 3fa2\n0: wing\n")
    shutil.rmtree(run_folder / "artifacts" / "masks.zarr")  # which a prediction does not need
    model = load(run_folder)
    assert model._predictor.parts == Parts({}, {})
    (remark,) = [remark for remark in model.remarks if "parts.yaml" in remark]
    assert remark.startswith("the names in parts.yaml are of the codebook 3fa2, and the parts of")


def test_a_bad_file_of_names_is_refused(run_folder: Path) -> None:
    (run_folder / "parts.yaml").write_text("0: [wing\n")
    with pytest.raises(ProtoMaskError, match=r"parts\.yaml cannot be read"):
        load(run_folder)
