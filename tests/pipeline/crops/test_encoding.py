"""What a crop's pixels become on disk."""

import hashlib

import numpy as np
import pytest
from numpy.typing import NDArray
from settings import crop_settings

from pipeline.crops.encoding import LOSSLESS, STORAGE, decode_jpeg, encode_jpeg
from pipeline.crops.extraction import extract_crops
from pipeline.masks.masks import Masks, Region


def _picture(side: int = 40) -> NDArray[np.uint8]:
    """Smooth in two channels, with a sharp edge in the third."""
    y, x = np.mgrid[:side, :side]
    return np.stack([x * 6, y * 5, np.where(x < side // 2, 20, 230)], axis=-1).astype(np.uint8)


def _decoded(content: bytes, side: int = 40) -> NDArray[np.uint8]:
    pixels = np.empty((side, side, 3), np.uint8)
    decode_jpeg(content, pixels)
    return pixels


def test_jpeg_bytes_and_pixels_are_those_of_earlier_versions() -> None:
    """Where they are not, features change and `crops.version` must."""
    content = encode_jpeg(_picture())
    assert hashlib.sha256(content).hexdigest()[:16] == "ad9600a1344884eb"
    assert hashlib.sha256(_decoded(content).tobytes()).hexdigest()[:16] == "753e16e490cb9af2"


def test_jpeg_keeps_colour_at_full_resolution() -> None:
    """Columns of red and cyan by turns: with colours of half the resolution they would be grey."""
    pixels = np.zeros((32, 32, 3), np.uint8)
    pixels[:, ::2], pixels[:, 1::2] = (255, 0, 0), (0, 255, 255)
    assert np.abs(_decoded(encode_jpeg(pixels), 32).astype(int) - pixels).max() < 12


def test_a_picture_of_another_size_is_refused() -> None:
    with pytest.raises(ValueError, match=r"\(32, 32, 3\) instead of \(40, 40, 3\)"):
        decode_jpeg(encode_jpeg(_picture(32)), np.empty((40, 40, 3), np.uint8))


def test_lossless_is_exact() -> None:
    values = np.random.default_rng(0).integers(0, 256, (7, 5, 3), np.uint8)
    for given in (values, values[::-1], np.zeros_like(values)):
        found = np.empty_like(values)
        LOSSLESS.decode(LOSSLESS.encode(given), found)
        assert np.array_equal(found, given)


def test_pixels_that_are_not_contiguous() -> None:
    mirrored = _picture()[:, ::-1]
    for encoding in STORAGE.values():
        assert encoding.encode(mirrored) == encoding.encode(mirrored.copy())


@pytest.mark.parametrize("background", ["mean", "zero", "original"])
def test_with_a_replaced_background_nothing_outside_the_mask_is_in_a_jpeg_picture(
    background: str,
) -> None:
    """Pixels bleed into their neighbours in JPEG; so the background is replaced before."""
    y, x = np.mgrid[-9:10, -9:10]
    masks = Masks.of(40, 40, [Region(8, 12, x**2 + y**2 <= 81, (1.0,))], 1)
    settings = crop_settings(side=24, per_image=1, background=background)
    noise = np.random.default_rng(0).integers(0, 256, (40, 40, 3), np.uint8)
    elsewhere = np.where(masks.full(0)[..., None], _picture(), noise)
    one, other = (
        encode_jpeg(extract_crops(image, masks, settings).pixels[0])
        for image in (_picture(), elsewhere)
    )
    assert (one == other) == (background != "original")
