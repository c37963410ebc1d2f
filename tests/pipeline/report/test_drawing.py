"""Outlines, labels, data URIs, letters."""

import base64
from io import BytesIO

import numpy as np
import pytest
from PIL import Image

from pipeline.report import drawing as pictures
from pipeline.report.drawing import CASING, Outline, data_uri, outlined, resized, writable

GREY, RED = 100, (255, 0, 0)


def square(mask: tuple[slice, slice], height: int = 40, width: int = 60) -> np.ndarray:
    pixels = np.zeros((height, width), bool)
    pixels[mask] = True
    return pixels


def test_an_outline_lies_on_the_masks_own_edge() -> None:
    photograph = np.full((40, 60, 3), GREY, np.uint8)
    mask = square((slice(10, 30), slice(20, 50)))
    drawn = np.asarray(outlined(photograph, [Outline(mask, RED)], side=60, dim=0))
    assert (drawn[10, 20:50] == RED).all() and (drawn[11, 20:50] == RED).all()
    assert (drawn[29, 20:50] == RED).all() and (drawn[10:30, 49] == RED).all()
    assert (drawn[9, 20:50] == CASING).all()
    assert (drawn[15:25, 25:45] == GREY).all()
    assert (drawn[:9] == GREY).all()


def test_what_no_mask_covers_is_dimmed() -> None:
    photograph = np.full((40, 60, 3), GREY, np.uint8)
    mask = square((slice(10, 30), slice(20, 50)))
    drawn = np.asarray(outlined(photograph, [Outline(mask, RED)], side=60, dim=0.25))
    assert (drawn[:5] == 75).all()
    assert (drawn[15:25, 25:45] == GREY).all()


def redness(picture: Image.Image, place: tuple[slice, slice]) -> float:
    drawn = np.asarray(picture).astype(int)[place]
    return float((drawn[..., 0] - drawn[..., 2]).mean())


def test_the_side_of_an_outline_that_a_mask_lies_on_can_be_seen() -> None:
    photograph = np.full((90, 90, 3), GREY, np.uint8)
    hole = square((slice(30, 60), slice(30, 60)), 90, 90)
    inside, outside = (slice(33, 35), slice(40, 50)), (slice(25, 27), slice(40, 50))
    everything_but, part = (outlined(photograph, [Outline(m, RED)], 90) for m in (~hole, hole))
    assert redness(everything_but, outside) > 5 and redness(everything_but, inside) == 0
    assert redness(part, inside) > 5 and redness(part, outside) == 0
    assert np.asarray(everything_but)[45, 45, 0] < GREY / 2 < np.asarray(part)[45, 45, 0]


def test_where_masks_cover_everything_their_edges_are_tinted_inside() -> None:
    photograph = np.full((90, 90, 3), GREY, np.uint8)
    hole = square((slice(30, 60), slice(30, 60)), 90, 90)
    drawn = outlined(photograph, [Outline(~hole, (0, 0, 255)), Outline(hole, RED)], 90)
    assert redness(drawn, (slice(33, 35), slice(40, 50))) > 5
    assert redness(drawn, (slice(25, 27), slice(40, 50))) < -5
    assert (np.asarray(drawn)[45, 45] == GREY).all()


def test_the_smallest_mask_leaves_a_trace_on_a_small_picture() -> None:
    photograph = np.full((1000, 1500, 3), GREY, np.uint8)
    mask = square((slice(500, 502), slice(700, 702)), 1000, 1500)
    drawn = np.asarray(outlined(photograph, [Outline(mask, RED)], side=60))
    assert (drawn == RED).all(axis=2).any()


def test_labels_of_equal_masks_do_not_cover_each_other() -> None:
    photograph = np.full((200, 200, 3), GREY, np.uint8)
    mask = square((slice(20, 180), slice(20, 180)), 200, 200)
    blue = (0, 0, 255)
    both = [Outline(mask, RED, "0"), Outline(mask, blue, "0")]
    drawn = np.asarray(outlined(photograph, both, side=200))[25:175, 25:175]
    discs = [(drawn == colour).all(axis=2).sum() for colour in (RED, blue)]
    assert discs[0] == discs[1] > 100


def test_a_photograph_keeps_its_shape() -> None:
    assert resized(np.zeros((300, 400, 3), np.uint8), 160).size == (160, 120)
    assert resized(np.zeros((1, 4000, 3), np.uint8), 160).size == (160, 1)


def test_a_data_uri_is_the_picture_and_always_the_same() -> None:
    picture = Image.new("RGB", (30, 20), (200, 100, 50))
    uri = data_uri(picture)
    assert uri == data_uri(picture)
    head, _, code = uri.partition(",")
    assert head == "data:image/webp;base64"
    with Image.open(BytesIO(base64.b64decode(code))) as read:
        assert (read.format, read.size) == ("WEBP", (30, 20))
        assert np.abs(np.asarray(read).astype(int) - (200, 100, 50)).max() < 8


def test_without_a_font_letters_fall_back_to_those_that_pillow_has(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(pictures, "_font_name", lambda: None)
    assert writable("Grünspecht 0.5 × −2 鳥") == "Grunspecht 0.5 x -2 ?"
