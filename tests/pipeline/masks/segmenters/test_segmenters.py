"""What Felzenszwalb and patches find, and the names that tell their caches apart."""

import hashlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from pycocotools import mask as rle
from settings import felzenszwalb, patches
from skimage import segmentation

from pipeline.errors import ProtoMaskError
from pipeline.masks.masks import Masks, Region
from pipeline.masks.segmenter import Segmenter, with_fingerprint
from pipeline.masks.segmenters.felzenszwalb import Felzenszwalb
from pipeline.masks.segmenters.patches import Patches


def _picture(height: int = 60, width: int = 80) -> NDArray[np.uint8]:
    """A disc and two rectangles before a slope, by arithmetic alone."""
    y, x = np.mgrid[:height, :width]
    picture = np.stack([x * 2, y * 3, (x + y)], axis=-1) % 256
    picture[(y - 20) ** 2 + (x - 25) ** 2 < 150] = (250, 240, 20)
    picture[35:55, 45:75] = (20, 30, 220)
    picture[40:50, 50:60] = (230, 30, 40)
    return picture.astype(np.uint8)


def _noise(height: int, width: int, seed: int = 0) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def _box_iou(boxes: NDArray[np.int64]) -> NDArray[np.float64]:
    """Returns the IoU of all pairs of boxes (x0, y0, x1, y1)."""
    low, high = boxes[:, :2], boxes[:, 2:]
    sized = np.hstack([low, high - low]).astype(np.float64)
    return rle.iou(sized, sized, [0] * len(sized))


def _hash(masks: Masks) -> str:
    digest = hashlib.sha256(f"{masks.height} {masks.width}".encode())
    for counts in masks.counts:
        digest.update(counts + b";")
    digest.update(masks.boxes.tobytes() + masks.areas.tobytes() + masks.scores.tobytes())
    return digest.hexdigest()[:16]


SMALL = {"scales": (50.0, 200.0), "min_area": 0.01}


# Made with scikit-image 0.26, NumPy 2.4 and SciPy 1.17 on x86-64. Should they break without a
# change of ours, a library's new version finds other masks: what its users have cached is then of
# another kind as well, and `version` is to be raised all the same.
@pytest.mark.parametrize(
    ("segmenter", "expected"),
    [
        (felzenszwalb(**SMALL), "a1b1d538e319e274"),
        (felzenszwalb(**SMALL, max_side=40), "38eedf4fb3dcee22"),
        (felzenszwalb(**SMALL, max_box_iou=1.0, sigma=0.0), "dca554631d7330cc"),
        (patches(grid=3), "bb666aeccca10da4"),
    ],
    ids=lambda value: value.name if isinstance(value, Segmenter) else "",
)
def test_the_masks_are_those_of_this_version(segmenter: Segmenter, expected: str) -> None:
    found = _hash(segmenter.segment([_picture()])[0])
    assert found == expected, (
        f"{segmenter.name} finds other masks than before: raise its `version` (in its class and in "
        f"conf/segmenter/{segmenter.name}.yaml), or every cache serves masks of the old kind as "
        f"new ones; then store {found} here"
    )


def test_the_regions_of_one_scale_are_scikit_images() -> None:
    """With nothing dropped as a duplicate, and every region at least two pixels wide and high."""
    segmenter = felzenszwalb(scales=(120.0,), sigma=0.6, min_area=0.01, max_box_iou=1.0)
    image = _picture()
    labels = segmentation.felzenszwalb(
        image / 255, 120.0, 0.6, min_size=48, channel_axis=-1
    )  # 0.01·60·80
    masks = segmenter.segment([image])[0]
    assert len(masks) == len(np.unique(labels)) > 2
    found = np.full(labels.shape, -1)
    for number in range(len(masks)):
        inside = masks.full(number)
        assert (found[inside] == -1).all()
        found[inside] = number
        assert len(np.unique(labels[inside])) == 1
    assert (found >= 0).all()


def test_the_larger_of_two_that_look_alike_is_kept() -> None:
    image = _picture()
    every = felzenszwalb(**SMALL, max_box_iou=1.0).segment([image])[0]
    kept = felzenszwalb(**SMALL, max_box_iou=0.6).segment([image])[0]
    assert 0 < len(kept) < len(every)
    apart = _box_iou(kept.boxes) - np.eye(len(kept))
    assert apart.max() <= 0.6
    for box, area in zip(every.boxes, every.areas, strict=True):
        overlap = _box_iou(np.concatenate([box[None], kept.boxes]))[0, 1:]
        assert (kept.areas[overlap > 0.6] >= area).any() or box.tolist() in kept.boxes.tolist()


def test_a_score_is_the_share_of_the_scales_that_found_a_region() -> None:
    """Two regions of one scale with nearly one box, a ring and what it holds, count once."""
    ring = np.ones((40, 40), bool)
    ring[1:-1, 1:-1] = False
    segmenter = felzenszwalb(scales=(1.0, 2.0, 3.0, 4.0))
    found = segmenter._distinct(
        [
            Region(0, 0, ring, (0.0,)),
            Region(1, 1, np.ones((38, 38), bool), (0.0,)),  # 38²/40² = 0.9025 of the ring's box
            Region(0, 0, np.ones((40, 40), bool), (2.0,)),
            Region(50, 50, np.ones((9, 9), bool), (3.0,)),
        ]
    )
    assert [(region.x0, region.scores) for region in found] == [(0, (0.5,)), (50, (0.25,))]


def test_what_every_scale_finds_scores_one() -> None:
    image = np.zeros((40, 60, 3), np.uint8)
    image[10:30, 20:50] = 255
    masks = felzenszwalb(scales=(20.0, 40.0), sigma=0.0).segment([image])[0]
    assert masks.boxes.tolist() == [[0, 0, 60, 40], [20, 10, 50, 30]]
    assert masks.scores.tolist() == [[1.0], [1.0]]


def test_max_side_does_nothing_to_a_smaller_image() -> None:
    found = {_hash(felzenszwalb(max_side=side).segment([_picture()])[0]) for side in (80, 81, 5000)}
    assert len(found) == 1


def test_a_larger_copy_of_an_image_has_larger_copies_of_its_masks() -> None:
    """Doubling the sides and looking at the same number of pixels finds the same regions."""
    image = _picture(48, 64)
    segmenter = felzenszwalb(**SMALL, max_side=64)
    small = segmenter.segment([image])[0]
    large = segmenter.segment([image.repeat(2, axis=0).repeat(2, axis=1)])[0]
    assert (large.height, large.width) == (96, 128)
    for box in small.boxes[: min(3, len(small))]:
        overlap = _box_iou(np.concatenate([2 * box[None], large.boxes]))[0, 1:]
        assert overlap.max() > 0.85


def test_masks_are_at_the_images_own_resolution() -> None:
    image = _noise(300, 500)
    image[50:250, 100:400] = 255
    masks = felzenszwalb(scales=(100.0, 900.0), max_side=100).segment([image])[0]
    assert (masks.height, masks.width) == (300, 500)
    assert masks.boxes[:, 2].max() <= 500
    best = _box_iou(np.concatenate([[[100, 50, 400, 250]], masks.boxes]))[0, 1:].max()
    assert best > 0.9


@pytest.mark.parametrize("segmenter", [felzenszwalb(), felzenszwalb(max_side=16), patches(grid=5)])
def test_images_do_not_depend_on_the_batch(segmenter: Segmenter) -> None:
    images = [_noise(30, 40, 1), _picture(), _noise(7, 90, 2)]
    together = [_hash(masks) for masks in segmenter.segment(images)]
    assert together == [_hash(segmenter.segment([image])[0]) for image in images]
    assert segmenter.segment([]) == []


@pytest.mark.parametrize("size", [(1, 1), (1, 2), (2, 1), (2, 2), (3, 400), (400, 3), (1, 400)])
@pytest.mark.parametrize(
    "segmenter", [felzenszwalb(), felzenszwalb(max_side=16, sigma=0.0), patches(grid=3)]
)
def test_tiny_images(segmenter: Segmenter, size: tuple[int, int]) -> None:
    masks = segmenter.segment([_noise(*size)])[0]
    assert (masks.height, masks.width) == size
    assert masks.scores.shape == (len(masks), 1)
    for number in range(len(masks)):
        assert masks.full(number).sum() == masks.areas[number]
        assert (masks.boxes[number, 2:] - masks.boxes[number, :2]).min() >= 2


def test_an_image_of_one_colour_is_one_region() -> None:
    masks = felzenszwalb().segment([np.full((30, 40, 3), 77, np.uint8)])[0]
    assert masks.boxes.tolist() == [[0, 0, 40, 30]]
    assert masks.scores.tolist() == [[1.0]]


@given(st.integers(1, 70), st.integers(1, 70), st.integers(1, 32))
def test_patches_partition_the_image(height: int, width: int, grid: int) -> None:
    masks = patches(grid=grid)._segment_one(height, width)
    covered = np.zeros((height, width), int)
    for number in range(len(masks)):
        covered += masks.full(number)
    if min(height, width) >= 2 * grid:  # no patch is one pixel wide, and dropped for it
        assert len(masks) == grid * grid
        assert (covered == 1).all()
        sides = masks.boxes[:, 2:] - masks.boxes[:, :2]
        assert np.ptp(sides, axis=0).max() <= 1
    assert covered.max(initial=0) <= 1


def test_two_by_two_patches_by_hand() -> None:
    masks = patches().segment([np.zeros((5, 8, 3), np.uint8)])[0]
    # Rows 0–2–5, columns 0–4–8: the lower two are larger and come first.
    assert masks.boxes.tolist() == [[0, 2, 4, 5], [4, 2, 8, 5], [0, 0, 4, 2], [4, 0, 8, 2]]
    assert masks.areas.tolist() == [12, 12, 8, 8]


OTHER = {
    "scales": (123.0, 456.0),
    "sigma": 0.123,
    "min_area": 0.00123,
    "max_side": 1234,
    "max_box_iou": 0.123,
}


def test_another_parameter_is_another_key() -> None:
    assert set(OTHER) == set(Felzenszwalb.model_fields) - {"name", "version"}
    segmenters = [felzenszwalb(), patches(), patches(grid=3)]
    segmenters += [felzenszwalb(**{key: value}) for key, value in OTHER.items()]
    assert len({segmenter.key() for segmenter in segmenters}) == len(segmenters)
    assert len({str(segmenter.fingerprint()) for segmenter in segmenters}) == len(segmenters)


def test_another_version_is_another_key() -> None:
    assert patches().key() != Patches.model_construct(version=2).key()


def test_the_same_parameters_are_the_same_key() -> None:
    """However they were written in YAML: an integer for a float, a list for a tuple."""
    written = felzenszwalb(scales=[100, 300], sigma=1)
    assert written.key() == felzenszwalb(scales=(100.0, 300.0), sigma=1.0).key()
    assert patches().key() == "patches-" + patches().key()[-16:]


def test_a_segmenter_is_rebuilt_from_its_fingerprint() -> None:
    for segmenter in (patches(grid=3), felzenszwalb(scales=(50.0,), sigma=0.5)):
        assert with_fingerprint(segmenter.fingerprint()) == segmenter


def test_an_unknown_segmenter_is_refused() -> None:
    for wrong in ({"name": "sam9"}, {"grid": -1}, {"scales": [1]}):
        with pytest.raises(ProtoMaskError, match="does not have"):
            with_fingerprint({**patches().fingerprint(), **wrong})
