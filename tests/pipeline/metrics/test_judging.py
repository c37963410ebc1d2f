"""Masks judged by labelled objects and parts: by hand, and beside other implementations."""

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from pycocotools import mask as rle
from scipy.ndimage import binary_dilation, gaussian_filter
from skimage.morphology import disk
from sklearn.metrics import adjusted_rand_score, normalized_mutual_info_score

from pipeline.datasets.image_file import read_label_image
from pipeline.datasets.readers.demo.classes import PARTS
from pipeline.datasets.readers.demo.data_set import draw
from pipeline.files import sha256
from pipeline.masks.masks import Masks, Region
from pipeline.masks.segmenter import Machine, Source
from pipeline.masks.segmenters.drawn import Drawn
from pipeline.metrics.judging import (
    Knowledge,
    Known,
    Level,
    Points,
    best_ious,
    boundary_f,
    foreground,
    iou,
    judge,
    mean_part_iou,
    over_images,
    part_agreement,
    part_counts,
    pixels_of,
)

seeds = st.integers(0, 1000)
nan = math.nan


def blob(seed: int, height: int = 40, width: int = 60) -> NDArray[np.bool_]:
    """A region with a smooth outline of a third of an image, in one or several pieces."""
    noise = gaussian_filter(np.random.default_rng(seed).standard_normal((height, width)), 5)
    return noise > np.quantile(noise, 2 / 3)


def box(x0: int, y0: int, x1: int, y1: int, *kind: int) -> Region:
    return Region(x0, y0, np.ones((y1 - y0, x1 - x0), bool), (1.0,), *kind)


def masks_of(*regions: Region, height: int = 10, width: int = 10) -> Masks:
    return Masks.of(height, width, regions, 1)


def known(parts: Sequence[int], levels: Sequence[int], front: Sequence[int], Q: int) -> Knowledge:
    return Knowledge.of(
        np.array(parts, np.int32), np.array(levels, np.int32), np.array(front, bool), Q
    )


def test_a_segmenter_that_says_nothing_of_its_masks_knows_nothing() -> None:
    assert known([-1, -1], [0, 0], [1, 1], 3) == Knowledge(False, None)
    assert known([-1, -1], [0, 0], [1, 0], 3) == Knowledge(True, None)
    assert known([-1, 2], [0, 0], [1, 1], 3) == Knowledge(True, Level(0, (2,)))


def test_parts_are_compared_at_the_level_with_as_many() -> None:
    # level 0: part 9; level 1: 1, 3 and one unknown; level 2: 0, 1, 2, 5
    parts, levels = [9, 1, 3, -1, 3, 0, 1, 2, 5], [0, 1, 1, 1, 1, 2, 2, 2, 2]
    front = [1] * 9
    assert known(parts, levels, front, 1).level == Level(0, (9,))
    assert known(parts, levels, front, 2).level == Level(1, (1, 3))
    assert known(parts, levels, front, 3).level == Level(2, (0, 1, 2, 5))  # 2 and 4 are as near
    assert known(parts, levels, front, 15).level == Level(2, (0, 1, 2, 5))


def test_foreground_is_the_largest_whole_object_or_else_all_foreground_masks() -> None:
    whole, smaller = box(0, 0, 5, 4), box(7, 0, 9, 4)
    background = box(0, 0, 10, 10, 3, 1, False)
    part = box(0, 6, 4, 9, 2, 1, True)
    front = foreground(masks_of(smaller, background, whole, part))
    assert front.sum() == 20 and front[:4, :5].all()
    # without whole objects, and without levels
    front = foreground(masks_of(box(1, 6, 5, 9, 2, 2, True), background, part))
    assert front.sum() == 15 and front[6:9, :5].all()
    assert foreground(masks_of(whole, smaller)).sum() == 28
    # nothing is foreground
    assert not foreground(masks_of(background)).any()
    assert not foreground(masks_of()).any()


def test_iou_by_hand() -> None:
    one, other = np.zeros((2, 4, 5), bool)
    assert iou(one, other) == 0
    one[:2], other[:, :2] = True, True  # 10 and 8 pixels, 4 of them in both
    assert iou(one, other) == pytest.approx(100 * 4 / 14)
    assert iou(one, one) == 100


def test_boundary_f_by_hand() -> None:
    # A diagonal of 100 pixels: boundaries match at a distance of 1.
    found, truth = np.zeros((2, 60, 80), bool)
    found[10:20, 10:20], truth[10:20, 10:20] = True, True
    assert boundary_f(found, truth) == 100
    # The right edge moves by 5. Of the true boundary's 36 pixels, only 6 of the old edge are more
    # than a pixel away; of the found one's 46, two rows of 4 and the new edge's 8.
    found[10:20, 20:25] = True
    recall, precision = 30 / 36, 30 / 46
    assert boundary_f(found, truth) == pytest.approx(
        200 * precision * recall / (precision + recall)
    )
    # within the tolerance all is found; the image's border is no boundary
    assert boundary_f(np.roll(truth, 1, axis=0), truth) == 100
    half = np.zeros((60, 80), bool)
    half[:, :40] = True
    assert boundary_f(half, np.roll(half, 1, axis=1) | half) == 100


def test_a_region_without_boundary_matches_only_another_without() -> None:
    empty, full = np.zeros((6, 8), bool), np.ones((6, 8), bool)
    square = empty.copy()
    square[2:4, 2:4] = True
    assert boundary_f(empty, full) == 100
    assert boundary_f(square, full) == boundary_f(empty, square) == 0


def outline(region: NDArray[np.bool_]) -> NDArray[np.bool_]:
    return region & binary_dilation(~region)


@given(seed=seeds)
def test_boundary_f_is_that_of_dilated_boundaries(seed: int) -> None:
    found, truth = blob(seed, 200, 300), blob(seed + 1, 200, 300)
    reach = disk(3)  # 0.008 of a diagonal of 361 pixels is 2.9
    one, other = outline(found), outline(truth)
    precision = (one & binary_dilation(other, reach)).sum() / one.sum()
    recall = (other & binary_dilation(one, reach)).sum() / other.sum()
    expected = 200 * precision * recall / (precision + recall)
    assert 5 < expected < 95
    assert boundary_f(found, truth) == pytest.approx(expected)
    assert boundary_f(truth, found) == pytest.approx(expected)


@given(seed=seeds)
def test_best_ious_are_those_of_pycocotools(seed: int) -> None:
    found = masks_of(*(Region(0, 0, blob(seed + n), (1.0,)) for n in range(5)), height=40, width=60)
    labels = np.zeros((40, 60), np.uint8)
    for part in range(3):
        labels[blob(seed + 10 + part)] = part + 1
    regions = [rle.encode(np.asfortranarray(labels == part + 1, np.uint8)) for part in range(3)]
    each = rle.iou([found.coco(mask) for mask in range(5)], regions, [0] * 3)
    best_Q = best_ious(found, labels, 4)
    assert best_Q[:3] == pytest.approx(100 * np.asarray(each).max(axis=0))
    assert np.isnan(best_Q[3])  # no pixel shows it
    assert best_ious(masks_of(height=40, width=60), labels, 3).tolist() == [0, 0, 0]


def test_locations_on_a_border_lie_on_the_last_pixel() -> None:
    locations_Q2 = np.array([[0, 0], [3.9, 1.2], [4, 3], [nan, nan], [4.1, 0], [-0.1, 0]])
    points = pixels_of(locations_Q2, height=3, width=4)
    assert points.part.tolist() == [0, 1, 2]
    assert points.row.tolist() == [0, 1, 2]
    assert points.column.tolist() == [0, 3, 3]


def test_points_are_counted_by_the_smallest_mask_of_the_level() -> None:
    found = masks_of(
        box(0, 0, 10, 10, 7, 0),  # another level
        box(0, 0, 6, 10, 4, 1),
        box(2, 2, 6, 6, 5, 1, False),  # background masks are parts, too
        box(7, 0, 9, 9, -1, 1),  # of no known part
    )
    row = np.array([0, 3, 4, 9, 1, 9])
    column = np.array([0, 3, 4, 5, 8, 9])
    points = Points(row, column, np.array([0, 0, 1, 1, 2, 2]))
    counts_QP = part_counts(found, Level(1, (4, 5)), points, 4)
    assert counts_QP.tolist() == [[1, 1, 0], [1, 1, 0], [0, 0, 2], [0, 0, 0]]


def test_agreement_by_hand() -> None:
    # Each side has one bit of entropy. p = 3/8, 1/8: MI = 3/4·log 3/2 + 1/4·log 1/2
    mutual = (0.75 * math.log(1.5) + 0.25 * math.log(0.5)) / math.log(2)
    # pairs alike in both 3 + 3, in each 2·6, of 28: expected 12·12/28, at most 12
    rand = (6 - 144 / 28) / (12 - 144 / 28)
    counts_QP = np.array([[3, 1], [1, 3]])
    assert part_agreement(counts_QP) == pytest.approx((100 * mutual, 100 * rand))
    assert part_agreement(np.array([[0, 5, 0], [7, 0, 0]])) == pytest.approx((100, 100))
    assert part_agreement(np.array([[2, 2], [2, 2]]))[0] == pytest.approx(0)
    assert np.isnan(part_agreement(np.zeros((3, 2), int))).all()


@given(seed=seeds)
def test_agreement_is_scikit_learns_of_the_points(seed: int) -> None:
    random = np.random.default_rng(seed)
    labelled, found = random.integers(0, 4, 200), random.integers(0, 6, 200)
    found[labelled == 2] = 1
    counts_QP = pd.crosstab(labelled, found).to_numpy()
    assert part_agreement(counts_QP) == pytest.approx(
        (
            100 * normalized_mutual_info_score(labelled, found),
            100 * adjusted_rand_score(labelled, found),
        )
    )


def test_leaving_out_what_is_unsure_gains_nothing() -> None:
    # two parts half right: cut away where they are wrong, the rest is one more part
    all_QP, sure_QP = np.array([[6, 2, 0], [2, 6, 0]]), np.array([[4, 0, 4], [0, 4, 4]])
    few_QP = np.array([[1, 0, 7], [0, 1, 7]])
    assert part_agreement(few_QP)[1] < part_agreement(all_QP)[1]
    assert part_agreement(few_QP)[0] < part_agreement(sure_QP)[0]


def test_means_over_images_and_parts() -> None:
    part_iou_NQ = np.array([[80.0, nan, nan], [40, 10, nan]])
    np.testing.assert_equal(mean_part_iou(part_iou_NQ).to_numpy(), [60, 10, nan])
    counts_NQP = np.array([[[1, 0], [0, 1]], [[2, 0], [0, 0]]])
    judged = {
        "part_iou": part_iou_NQ,
        "part_counts": counts_NQP,
        "on_foreground": np.array([[2.0, 4], [3, 3]]),
    }
    metrics = over_images(judged)
    assert metrics == {
        "best_part_iou": 35,
        "part_nmi": 100,
        "part_ari": 100,
        "parts_on_foreground": pytest.approx(500 / 7),
    }
    assert over_images({"object_iou": np.array([1.0])}) == {}
    nothing = {"part_iou": np.full((2, 3), nan), "on_foreground": np.zeros((2, 2))}
    assert np.isnan(list(over_images(nothing).values())).all()


def test_only_what_is_known_is_judged() -> None:
    found = masks_of(box(0, 0, 5, 10, 1, 1))
    nothing = Known(None, None, None, 2)
    assert judge(found, nothing, Knowledge(False, None)) == {}
    assert judge(found, nothing, Knowledge(True, Level(1, (1,)))) == {"foreground_area": 50}
    located = nothing._replace(locations_Q2=np.array([[1.0, 1], [8, 8]], np.float32))
    judged = judge(found, located, Knowledge(True, Level(1, (1,))))
    assert judged["on_foreground"].tolist() == [1, 2]
    assert judged["part_counts"].tolist() == [[1, 0], [0, 1]]
    assert judged.keys() == {"foreground_area", "on_foreground", "part_counts"}
    assert judge(found, located, Knowledge(False, None)) == {}


def test_the_drawn_parts_agree_with_themselves(tmp_path: Path) -> None:
    draw(tmp_path, seed=0, train_per_class=1, test_per_class=0)
    names = [path.relative_to(tmp_path).as_posix() for path in sorted(tmp_path.rglob("*.jpg"))]
    sources = [Source(tmp_path, name, sha256(tmp_path / name)) for name in names]
    masks = Drawn(version=2).segment_sources(sources, Machine())
    columns = [
        np.concatenate([getattr(found, name) for found in masks])
        for name in ("parts", "levels", "foreground")
    ]
    knowledge = Knowledge.of(*columns, len(PARTS))
    assert knowledge == Knowledge(True, Level(2, tuple(range(len(PARTS)))))
    rows = []
    for found, name in zip(masks, names, strict=True):
        labels = read_label_image(tmp_path / name.replace("images", "parts").replace("jpg", "png"))
        rows.append(judge(found, Known(labels > 0, None, labels, len(PARTS)), knowledge))
    judged = {name: np.stack([row[name] for row in rows]) for name in rows[0]}
    for name in ("object_iou", "best_object_iou", "boundary_f"):
        assert (judged[name] == 100).all()
    # Only parts of one pixel's width have no mask.
    metrics = over_images(judged)
    assert metrics["part_nmi"] > 99.5 and metrics["part_ari"] > 99.5
    assert metrics["best_part_iou"] > 95
