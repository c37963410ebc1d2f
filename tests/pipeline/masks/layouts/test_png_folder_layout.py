"""Folders of PNG files: which are named after a photograph, and the scores beside them."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipeline.errors import ProtoMaskError
from pipeline.masks.layout import Place
from pipeline.masks.layouts.png_folder import FolderMasks

HEADER = "id,area,bbox_x0,bbox_y0,bbox_w,bbox_h,predicted_iou,stability_score"


def _opened(folder: Path) -> FolderMasks:
    return FolderMasks(folder, FolderMasks.reads(Place(folder)), "mask")


def _png(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((5, 6), 255, np.uint8)).save(path, "PNG")


@pytest.mark.parametrize(
    ("files", "photograph", "levels"),
    [
        (["c/1/0.png", "c/1/1.png"], "c/1.jpg", [[], ["c/1"]]),
        (["c/1.jpg/0.png"], "c/1.jpg", [["c/1.jpg"], []]),
        (["c/1.png"], "c/1.png", [["c/1.png"], []]),
        (["c/1.png"], "c/1.jpg", [[], ["c/1.png"]]),
        (["c/1.jpg.png"], "c/1.jpg", [[], ["c/1.jpg.png"]]),
        (["c/1.png", "c/1/0.png"], "c/1.jpg", [[], ["c/1", "c/1.png"]]),
        (["C/1.PNG"], "c/1.JPG", [[], []]),
        (["d/1.png", "e/1/0.png", "c/11.png", "c/1_mask.png"], "c/1.jpg", [[], []]),
    ],
)
def test_what_is_named_after_a_photograph(
    tmp_path: Path, files: list[str], photograph: str, levels: list[list[str]]
) -> None:
    for file in files:
        _png(tmp_path / file)
    *exact, loose, ends = _opened(tmp_path).related(photograph)
    assert exact == levels
    assert loose == (["C/1.PNG"] if files == ["C/1.PNG"] else [*levels[0], *levels[1]])
    assert ends == []


@pytest.mark.parametrize(
    ("file", "name"), [("1/0.png", "1"), ("1.png", "1.png"), ("c/1.JPG/0.png", "c/1.JPG")]
)
def test_the_end_of_a_path_is_enough(tmp_path: Path, file: str, name: str) -> None:
    _png(tmp_path / file)
    assert _opened(tmp_path).related("b/c/1.jpg") == [[], [], [], [name]]


def test_scores_stand_in_the_table_beside_masks(tmp_path: Path) -> None:
    for file in ("c/1/0.png", "c/1/1.png", "c/1/extra.png", "c/2/0.png"):
        _png(tmp_path / file)
    (tmp_path / "c/1/metadata.csv").write_text(f"{HEADER}\n0,30,0,0,6,5,0.75,1\n1,30,0,0,6,5,.5,1")
    masks = _opened(tmp_path)
    assert [region.scores for region in masks.regions("c/1", 5, 6)] == [(0.75,), (0.5,), (1.0,)]
    assert [region.scores for region in masks.regions("c/2", 5, 6)] == [(1.0,)]
    assert len(masks) == 4
    assert masks.remarks() == []


def test_a_score_that_is_no_number_is_named(tmp_path: Path) -> None:
    _png(tmp_path / "c/1/0.png")
    (tmp_path / "c/1/metadata.csv").write_text(f"{HEADER}\n0,30,0,0,6,5,high,1\n")
    with pytest.raises(ProtoMaskError, match=r"metadata\.csv, line 2: predicted_iou is no number"):
        _opened(tmp_path)
