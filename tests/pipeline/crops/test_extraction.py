"""Cutting crops: boxes, backgrounds and sizes, by hand and against Pillow."""

import hashlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image as Pillow
from pydantic import ValidationError
from settings import crop_settings

from pipeline.crops.extraction import extract_crops, fill_background, grow_box, whole_image
from pipeline.crops.settings import NO_MASK
from pipeline.masks.masks import Masks, Region

BILINEAR = Pillow.Resampling.BILINEAR


def _picture(height: int = 30, width: int = 40) -> NDArray[np.uint8]:
    """Colours by arithmetic alone, another at every pixel."""
    y, x = np.mgrid[:height, :width]
    return np.stack([(x * 6) % 256, (y * 8) % 256, (x * y) % 256], axis=-1).astype(np.uint8)


def _masks(*regions: Region, height: int = 30, width: int = 40) -> Masks:
    return Masks.of(height, width, regions, 1)


def _disc(radius: int) -> NDArray[np.bool_]:
    y, x = np.mgrid[-radius : radius + 1, -radius : radius + 1]
    return x**2 + y**2 <= radius**2


DISC = Region(20, 10, _disc(7), (1.0,))  # 15×15, from (20, 10)
BAR = Region(2, 3, np.ones((4, 10), bool), (1.0,))


@pytest.mark.parametrize(
    ("box", "size", "fraction", "expected"),
    [
        # Large enough: 4·4 = 16 of 100 pixels.
        ((2, 3, 6, 7), (10, 10), 0.16, (2, 3, 6, 7)),
        ((2, 3, 6, 7), (10, 10), 0.0, (2, 3, 6, 7)),
        # Wanted 64 = 8·8 around (5, 5).
        ((4, 4, 6, 6), (10, 10), 0.64, (1, 1, 9, 9)),
        # The same from the corner (0, 0), moved back into the image.
        ((0, 0, 2, 2), (10, 10), 0.64, (0, 0, 8, 8)),
        ((8, 8, 10, 10), (10, 10), 0.64, (2, 2, 10, 10)),
        # All of it.
        ((4, 4, 6, 6), (10, 10), 1.0, (0, 0, 10, 10)),
        # 16·1 in an image 20 wide and 5 high, wanted 50: the shape asks for 28.3·1.8, so the
        # width is 20 and the height 50/20 = 2.5, up to 3, around y = 2.5.
        ((2, 2, 18, 3), (5, 20), 0.5, (0, 1, 20, 4)),
        # 2·8 in an image 30 wide and 10 high, wanted 75: the shape asks for 4.3·17.3, so the
        # height is 10 and the width 7.5, up to 8, around x = 11: 7 to 15.
        ((10, 1, 12, 9), (10, 30), 0.25, (7, 0, 15, 10)),
    ],
)
def test_boxes_grow_by_hand(
    box: tuple[int, int, int, int],
    size: tuple[int, int],
    fraction: float,
    expected: tuple[int, int, int, int],
) -> None:
    assert grow_box(np.array(box), *size, fraction) == expected


@given(st.integers(1, 300), st.integers(1, 300), st.floats(0, 1), st.data())
def test_grown_boxes(height: int, width: int, fraction: float, data: st.DataObject) -> None:
    x0, y0 = data.draw(st.integers(0, width - 1)), data.draw(st.integers(0, height - 1))
    x1, y1 = data.draw(st.integers(x0 + 1, width)), data.draw(st.integers(y0 + 1, height))
    left, top, right, bottom = grow_box(np.array([x0, y0, x1, y1]), height, width, fraction)
    # Within the image, and around the box.
    assert 0 <= left <= x0 < x1 <= right <= width
    assert 0 <= top <= y0 < y1 <= bottom <= height
    wanted, area = fraction * height * width, (right - left) * (bottom - top)
    assert area >= wanted * (1 - 1e-9)
    if (x1 - x0) * (y1 - y0) >= wanted:
        assert (left, top, right, bottom) == (x0, y0, x1, y1)
    else:
        # Each side is rounded up, and may be stretched by one to keep the box in it.
        assert (right - left - 2) * (bottom - top - 2) < max(wanted, 1)


def test_backgrounds_by_hand() -> None:
    pixels = np.array([[(10, 0, 5), (20, 1, 5)], [(92, 2, 5), (99, 9, 9)]], np.uint8)
    inside = np.array([[True, True], [True, False]])
    assert fill_background(pixels, inside, "original") is pixels
    assert fill_background(pixels, inside, "zero")[1, 1].tolist() == [0, 0, 0]
    # (10 + 20 + 92)/3 = 40⅔, rounded 41; (0 + 1 + 2)/3 = 1; 5.
    assert fill_background(pixels, inside, "mean")[1, 1].tolist() == [41, 1, 5]
    for background in ("zero", "mean"):
        assert np.array_equal(fill_background(pixels, inside, background)[inside], pixels[inside])
    assert pixels[1, 1].tolist() == [99, 9, 9]


def test_crops_are_the_boxes_resized_by_pillow() -> None:
    picture = _picture()
    crops = extract_crops(picture, _masks(DISC, BAR), crop_settings(side=24, per_image=2))
    assert crops.valid.tolist() == [True, True]
    assert crops.masks.tolist() == [0, 1]
    assert crops.boxes.tolist() == [[20, 10, 35, 25], [2, 3, 12, 7]]
    for number, box in enumerate(crops.boxes.tolist()):
        expected = Pillow.fromarray(picture).crop(tuple(box)).resize((24, 24), BILINEAR)
        assert np.array_equal(crops.pixels[number], np.asarray(expected))


def test_the_mask_inside_its_crop() -> None:
    """Twice as large, a mask keeps its shape but for the rim; a full box is full."""
    crops = extract_crops(_picture(), _masks(DISC, BAR), crop_settings(side=30, per_image=2))
    shape = _disc(7).repeat(2, axis=0).repeat(2, axis=1)
    assert (crops.inside[0] != shape).mean() < 0.05
    assert crops.inside[0][15, 15]
    assert not crops.inside[0][0, 0]
    assert crops.inside[1].all()


@pytest.mark.parametrize("background", ["mean", "zero"])
def test_the_background_of_a_crop(background: str) -> None:
    crops = extract_crops(
        _picture(), _masks(DISC), crop_settings(side=16, per_image=1, background=background)
    )
    corner = [0, 0, 0]
    if background == "mean":
        corner = _picture()[10:25, 20:35][_disc(7)].mean(axis=0).round().astype(int).tolist()
    assert crops.pixels[0][0, 0].tolist() == corner


def test_a_grown_box_holds_its_mask_in_the_middle() -> None:
    settings = crop_settings(side=32, per_image=1, min_box_area=0.48)
    region = Region(18, 13, np.ones((4, 4), bool), (1.0,))
    crops = extract_crops(_picture(), _masks(region), settings)
    # 0.48·30·40 = 576 = 24², around (20, 15).
    assert crops.boxes.tolist() == [[8, 3, 32, 27]]
    y, x = np.nonzero(crops.inside[0])
    # 4 of 24 pixels are 5⅓ of 32, from 13⅓ to 18⅔.
    assert (x.min(), x.max(), y.min(), y.max()) == (13, 18, 13, 18)


def test_more_masks_than_crops_and_more_crops_than_masks() -> None:
    few = extract_crops(_picture(), _masks(DISC, BAR), crop_settings(side=16, per_image=1))
    assert few.pixels.shape == (1, 16, 16, 3)
    assert few.boxes.tolist() == [[20, 10, 35, 25]]
    many = extract_crops(_picture(), _masks(DISC, BAR), crop_settings(side=16, per_image=4))
    assert many.valid.tolist() == [True, True, False, False]
    assert many.masks.tolist() == [0, 1, NO_MASK, NO_MASK]
    assert not many.pixels[2:].any()
    assert not many.inside[2:].any()
    assert not many.boxes[2:].any()
    assert np.array_equal(many.pixels[0], few.pixels[0])


def test_a_crop_knows_the_part_of_its_mask() -> None:
    masks = _masks(DISC._replace(part=7), BAR._replace(part=3, foreground=False))
    settings = crop_settings(side=16, per_image=3)
    assert extract_crops(_picture(), masks, settings).parts.tolist() == [7, 3, -1]
    settings = crop_settings(side=16, per_image=3, choose="parts")
    crops = extract_crops(_picture(), masks, settings)
    assert crops.parts.tolist() == [7, -1, -1]
    assert crops.valid.tolist() == [True, False, False]


def test_an_image_of_background_gives_itself() -> None:
    masks = _masks(DISC._replace(part=7, foreground=False))
    crops = extract_crops(_picture(), masks, crop_settings(side=16, per_image=2, choose="parts"))
    for one, other in zip(crops, whole_image(_picture(), 2, 16), strict=True):
        assert np.array_equal(one, other)
    assert crops.parts.tolist() == [-1, -1]


def test_masks_with_too_large_a_box_give_no_crop() -> None:
    # of 30·40 pixels the frame's box has all, the disc's 225 = 0.1875, the bar's 40
    frame = Region(0, 0, np.pad(np.zeros((28, 38), bool), 1, constant_values=True), (1.0,))
    masks = _masks(frame, DISC, BAR)
    assert masks.areas.tolist() == [149, 136, 40]  # the disc, the frame, the bar
    for limit, numbers in (
        (1.0, [0, 1, 2]),
        (0.99, [0, 2, NO_MASK]),
        (0.1875, [0, 2, NO_MASK]),
        (0.18, [2, NO_MASK, NO_MASK]),
    ):
        settings = crop_settings(side=16, per_image=3, max_box_area=limit)
        crops = extract_crops(_picture(), masks, settings)
        assert crops.masks.tolist() == numbers
        assert crops.valid.tolist() == [number != NO_MASK for number in numbers]


def test_an_image_with_too_large_boxes_only_gives_itself() -> None:
    masks = _masks(Region(0, 0, np.ones((30, 40), bool), (1.0,)))
    settings = crop_settings(side=16, per_image=2, max_box_area=0.5)
    crops = extract_crops(_picture(), masks, settings)
    assert crops.masks.tolist() == [NO_MASK, NO_MASK] and crops.valid.tolist() == [True, False]
    assert crops.boxes[0].tolist() == [0, 0, 40, 30]


def test_boxes_cannot_be_both_too_small_and_too_large() -> None:
    with pytest.raises(ValidationError, match="no crop could be both"):
        crop_settings(min_box_area=0.5, max_box_area=0.4)


@pytest.mark.parametrize("size", [(30, 40), (1, 1), (1, 200), (200, 1)])
def test_an_image_without_masks_gives_itself(size: tuple[int, int]) -> None:
    picture = _picture(*size)
    crops = extract_crops(picture, _masks(height=size[0], width=size[1]), crop_settings(side=16))
    assert crops.valid.tolist() == [True] + [False] * 10
    assert crops.masks.tolist() == [NO_MASK] * 11
    assert crops.boxes[0].tolist() == [0, 0, size[1], size[0]]
    assert crops.inside[0].all()
    expected = Pillow.fromarray(picture).resize((16, 16), BILINEAR)
    assert np.array_equal(crops.pixels[0], np.asarray(expected))
    for one, other in zip(crops, whole_image(picture, 11, 16), strict=True):
        assert np.array_equal(one, other)


def test_shapes_and_types() -> None:
    crops = extract_crops(_picture(), _masks(DISC), crop_settings(side=17, per_image=3))
    assert [(field.shape, field.dtype.name) for field in crops] == [
        ((3, 17, 17, 3), "uint8"),
        ((3, 17, 17), "bool"),
        ((3, 4), "int32"),
        ((3,), "int32"),
        ((3,), "int32"),
        ((3,), "bool"),
    ]


# Made with Pillow 13 and NumPy 2.4. Should they break without a change of ours, a new Pillow
# resizes otherwise: cached crops are then of another kind, and `version` is to be raised all the
# same.
@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, "125da5f5393974c4"),
        ({"background": "mean"}, "25d433c02fc5eb15"),
        ({"background": "zero"}, "617fef6fae1839f0"),
        ({"min_box_area": 0.3}, "973fa7fbb7566be2"),
        ({"choose": "parts"}, "68c1d40393e83cd9"),
    ],
)
def test_the_crops_are_those_of_this_version(options: dict, expected: str) -> None:
    settings = crop_settings(side=20, per_image=3, **options)
    crops = extract_crops(_picture(), _masks(DISC._replace(level=1), BAR), settings)
    found = hashlib.sha256(b"".join(field.tobytes() for field in crops)).hexdigest()[:16]
    assert found == expected, (
        "the same masks give other crops than before: raise `version` of CropSettings (and "
        "crops.version in conf/config.yaml and params.yaml), or every cache serves crops of the "
        f"old kind as new ones; then store {found} here"
    )
