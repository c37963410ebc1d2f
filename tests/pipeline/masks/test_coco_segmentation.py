"""Run lengths: every form gives the pixels, what is damaged is refused."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from numpy.typing import NDArray
from pycocotools import mask as rle

from pipeline.masks.segmentation import RunLengths, _runs, _tight


@given(arrays(np.uint8, array_shapes(min_dims=2, max_dims=2, max_side=40), elements=st.booleans()))
def test_compressed_run_lengths_of_any_mask(pixels: NDArray[np.uint8]) -> None:
    _same_pixels(rle.encode(np.asfortranarray(pixels))["counts"].decode(), pixels)


def test_run_lengths_of_large_images() -> None:
    """Numbers of up to six digits, and negative differences."""
    pixels = np.zeros((3000, 2000), np.uint8, order="F")
    pixels[100:2900, 700:703] = 1
    pixels[5, 1800] = pixels[2999, 1999] = 1
    _same_pixels(rle.encode(pixels)["counts"].decode(), pixels)


@given(st.lists(st.integers(0, 9), max_size=20), st.integers(1, 7))
def test_uncompressed_run_lengths_may_be_zero(counts: list[int], height: int) -> None:
    counts.append(-sum(counts) % height)
    width = sum(counts) // height
    ends = np.cumsum(counts)
    flat = [np.searchsorted(ends, place, "right") % 2 for place in range(height * width)]
    pixels = np.array(flat, np.uint8).reshape(width, height).T
    if width:
        _same_pixels(counts, pixels)


def _same_pixels(counts: str | list[int], pixels: NDArray[np.uint8]) -> None:
    height, width = pixels.shape
    region = _tight(_runs(RunLengths((height, width), counts), height, width), height, 1.0)
    found = np.zeros((height, width), bool)
    rows, columns = region.bitmap.shape
    found[region.y0 : region.y0 + rows, region.x0 : region.x0 + columns] = region.bitmap
    assert np.array_equal(found, pixels.astype(bool))


@given(st.text(st.characters(max_codepoint=127), max_size=12))
def test_any_text_is_a_mask_that_pycocotools_reads_or_is_refused(counts: str) -> None:
    try:
        runs = _runs(RunLengths((3, 4), counts), 3, 4)
    except ValueError as error:
        assert "damaged" in str(error)
    else:
        expected = rle.decode({"size": [3, 4], "counts": counts})
        _same_pixels(runs.tolist(), expected)
