"""The masks of one image: trimmed, sorted, encoded, and as pycocotools has them."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from numpy.typing import NDArray
from pycocotools import mask as rle

from pipeline.errors import ProtoMaskError
from pipeline.masks.masks import Masks, Region, decode, encode


def _region(x0: int, y0: int, *rows: str, score: float = 1.0) -> Region:
    """Draws a region: "#" is inside."""
    return Region(x0, y0, np.array([[sign == "#" for sign in row] for row in rows]), (score,))


def test_regions_are_trimmed_to_tight_boxes() -> None:
    masks = Masks.of(10, 20, [_region(3, 2, "....", ".##.", ".#..", "....")], 1)
    # Two columns from x = 3 + 1, two rows from y = 2 + 1.
    assert masks.boxes.tolist() == [[4, 3, 6, 5]]
    assert masks.areas.tolist() == [3]
    assert masks.inside(0).tolist() == [[True, True], [True, False]]


@pytest.mark.parametrize(
    "rows", [("#",), ("####",), ("#", "#", "#"), ("....", ".##."), ("....", "....")]
)
def test_boxes_one_pixel_wide_or_high_are_dropped(rows: tuple[str, ...]) -> None:
    masks = Masks.of(10, 20, [_region(0, 0, *rows)], 1)
    assert len(masks) == 0
    assert masks.boxes.shape == (0, 4)
    assert masks.scores.shape == (0, 1)
    assert masks.areas.shape == (0,)


def test_two_pixels_at_a_diagonal_stay() -> None:
    assert len(Masks.of(10, 20, [_region(0, 0, "#.", ".#")], 1)) == 1


def test_largest_first_and_equal_ones_in_the_order_they_came() -> None:
    regions = [
        _region(0, 0, "##", "##", score=0.1),
        _region(5, 0, "###", "##.", score=0.2),
        _region(2, 0, "##", "##", score=0.3),
        _region(9, 0, "##", "#.", score=0.4),
        _region(1, 5, "##", "##", score=0.5),
    ]
    masks = Masks.of(10, 20, regions, 1)
    assert masks.areas.tolist() == [5, 4, 4, 4, 3]
    assert masks.scores[:, 0].tolist() == pytest.approx([0.2, 0.1, 0.3, 0.5, 0.4])
    assert masks.boxes[:, 0].tolist() == [5, 0, 2, 1, 9]
    assert masks.dropped == 0


def test_parts_levels_and_foreground_go_with_their_masks() -> None:
    small, large = _region(0, 0, "##", "##"), _region(5, 5, "###", "###")
    regions = [small._replace(part=7, level=2, foreground=False), _region(0, 0, "#"), large]
    masks = Masks.of(10, 20, regions, 1)
    assert masks.areas.tolist() == [6, 4]
    assert masks.parts.tolist() == [-1, 7]
    assert masks.levels.tolist() == [0, 2]
    assert masks.foreground.tolist() == [True, False]


def test_no_region() -> None:
    masks = Masks.of(10, 20, [], 3)
    assert len(masks) == 0
    assert masks.scores.shape == (0, 3)
    kinds = (masks.parts, masks.levels, masks.foreground)
    assert [(kind.shape, kind.dtype.name) for kind in kinds] == [
        ((0,), "int32"),
        ((0,), "int32"),
        ((0,), "bool"),
    ]


@given(arrays(bool, array_shapes(min_dims=2, max_dims=2, max_side=40)))
def test_coding_round_trip(bitmap: NDArray[np.bool_]) -> None:
    assert np.array_equal(decode(encode(bitmap), *bitmap.shape), bitmap)


@given(arrays(bool, array_shapes(min_dims=2, max_dims=2, min_side=2, max_side=20)), st.data())
def test_a_mask_is_put_back_where_it_was(bitmap: NDArray[np.bool_], data: st.DataObject) -> None:
    height, width = bitmap.shape
    x0, y0 = data.draw(st.integers(0, 9)), data.draw(st.integers(0, 9))
    image = np.zeros((y0 + height + 3, x0 + width + 2), bool)
    image[y0 : y0 + height, x0 : x0 + width] = bitmap
    masks = Masks.of(*image.shape, [Region(x0, y0, bitmap, (0.5,))], 1)
    y, x = np.nonzero(image)
    if len(x) == 0 or np.ptp(x) == 0 or np.ptp(y) == 0:
        assert len(masks) == 0
        return
    assert masks.boxes.tolist() == [[x.min(), y.min(), x.max() + 1, y.max() + 1]]
    assert masks.areas.tolist() == [image.sum()]
    assert np.array_equal(masks.full(0), image)
    expected = rle.encode(np.asfortranarray(image, np.uint8))
    assert masks.coco(0) == expected
    assert rle.area(masks.coco(0)) == image.sum()


@pytest.mark.parametrize(
    ("x0", "y0", "scores", "said"),
    [
        (19, 0, (1.0,), r"columns 19 to 21 and rows 0 to 2 of an image of 20×10 pixels"),
        (0, -1, (1.0,), "rows -1 to 1"),
        (0, 0, (1.0, 2.0), "2 scores, and names 1"),
    ],
)
def test_what_a_segmenter_cannot_have_found_is_refused(
    x0: int, y0: int, scores: tuple[float, ...], said: str
) -> None:
    with pytest.raises(ProtoMaskError, match=said):
        Masks.of(10, 20, [Region(x0, y0, np.ones((2, 2), bool), scores)], 1)
