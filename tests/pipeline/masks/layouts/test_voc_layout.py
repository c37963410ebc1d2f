"""Instance maps: a mask of each colour, with the class of most of its pixels."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipeline.errors import ProtoMaskError
from pipeline.masks.layout import Place
from pipeline.masks.layouts.voc import VocMasks

RED, GREEN, BORDER = (200, 0, 0), (0, 200, 0), (224, 224, 192)
LABELS = "# label:color_rgb:parts:actions\nbackground:0,0,0::\nwing:200,0,0::\nvoid:224,224,192::\n"


def _map(path: Path, left: tuple[int, int, int], right: tuple[int, int, int]) -> None:
    """Writes a map of 6×4 pixels: three columns of a colour, two of another, one of a border."""
    pixels = np.zeros((4, 6, 3), np.uint8)
    pixels[:, :3], pixels[:, 3:5], pixels[:, 5] = left, right, BORDER
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def _opened(folder: Path) -> VocMasks:
    return VocMasks(folder, VocMasks.reads(Place(folder)), "mask")


def test_instances_have_the_part_of_their_class(tmp_path: Path) -> None:
    (tmp_path / "labelmap.txt").write_text(LABELS)
    _map(tmp_path / "SegmentationObject/c/1.png", (1, 0, 0), (2, 0, 0))
    _map(tmp_path / "SegmentationClass/c/1.png", RED, GREEN)
    masks = _opened(tmp_path)
    assert masks.part_names == {0: "wing"}
    regions = masks.regions("c/1", 4, 6)
    assert [(region.part, region.bitmap.sum()) for region in regions] == [(0, 12), (-1, 8)]
    assert masks.related("c/1.jpg")[0] == ["c/1"]
    assert masks.unused(set()) == ["c/1"]
    assert masks.unused({"c/1"}) == []


def test_without_classes_parts_are_unknown(tmp_path: Path) -> None:
    _map(tmp_path / "VOC/SegmentationObject/1.png", RED, (0, 0, 0))
    masks = _opened(tmp_path)
    assert masks.part_names == {}
    assert [region.part for region in masks.regions("1", 4, 6)] == [-1]


def test_another_size_is_named(tmp_path: Path) -> None:
    _map(tmp_path / "SegmentationObject/1.png", RED, GREEN)
    with pytest.raises(ProtoMaskError, match=r"SegmentationObject/1\.png has 6×4 pixels, .* 4×6"):
        _opened(tmp_path).regions("1", 6, 4)


@pytest.mark.parametrize("line", ["wing:red::", "wing:1,2::", "wing:1,-2,3::"])
def test_a_line_that_is_no_colour_is_named(tmp_path: Path, line: str) -> None:
    _map(tmp_path / "SegmentationObject/1.png", RED, GREEN)
    (tmp_path / "labelmap.txt").write_text(f"# colours\n{line}\n")
    with pytest.raises(ProtoMaskError, match=r"labelmap\.txt, line 2: 'wing:.*' is not such as"):
        _opened(tmp_path)
