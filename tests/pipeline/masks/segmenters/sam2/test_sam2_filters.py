"""Filters: stability and its bounds, holes, edges, duplicates, worked out by hand."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from sam2.utils.amg import calculate_stability_score

from pipeline.masks.segmenters.sam2.filters import (
    Crop,
    Proposals,
    distinct,
    distinct_in_crop,
    fill,
    may_be_stable,
    propose,
    regions,
    upsample,
)
from pipeline.masks.segmenters.sam2.segmenter import Sam2

MakeSettings = Callable[..., Sam2]


def smooth(seed: int, count: int, side: int = 16) -> torch.Tensor:
    """Logits like a network's: random, but smooth."""
    generator = torch.Generator().manual_seed(seed)
    return upsample(4 * torch.randn(count, 5, 5, generator=generator), (side, side))


@pytest.mark.parametrize("threshold", [0.2, 0.6, 0.9])
def test_no_stable_mask_is_given_up(make_settings: MakeSettings, threshold: float) -> None:
    settings = make_settings(mask_threshold=0.0, stability_score_thresh=threshold)
    crop, given_up = Crop((0, 0, 130, 90), 130, 90), 0
    for seed in range(3):
        # The flatter the logits, the less stable the masks.
        logits = smooth(seed, 60) * torch.logspace(-2, 1, 60)[:, None, None]
        stability = calculate_stability_score(upsample(logits, crop.size), 0.0, 0.5)
        hopeful = may_be_stable(logits, crop, settings)
        assert hopeful[stability >= threshold].all()
        given_up += int((~hopeful).sum())
    assert given_up > 10, "the bounds must rule something out"


def test_small_crops_are_not_bounded(make_settings: MakeSettings) -> None:
    settings = make_settings(stability_score_thresh=1.0)
    assert may_be_stable(torch.randn(5, 16, 16), Crop((0, 0, 20, 20), 20, 20), settings).all()


def test_holes_and_specks_by_hand() -> None:
    """A hole of 2 pixels, a speck of 1 and a mask of 9; at most 2 pixels are changed."""
    rows = ["#####...", "#..##..#", "#####..."]
    logits = torch.tensor([[[1.0 if sign == "#" else -1.0 for sign in row] for row in rows]])
    filled = fill(logits, 2)
    assert filled[0, 1].tolist() == [1, 10, 10, 1, 1, -1, -1, -10]
    assert torch.equal(filled[0, [0, 2]], logits[0, [0, 2]])
    assert torch.equal(fill(logits, 0), logits)
    assert fill(logits, 1)[0, 1].tolist() == [1, -1, -1, 1, 1, -1, -1, -10]


def square(x0: int, y0: int, x1: int, y1: int, side: int = 100) -> torch.Tensor:
    logits = torch.full((1, side, side), -5.0)
    logits[0, y0:y1, x0:x1] = 5.0
    return logits


def test_a_mask_at_the_edge_of_the_crop_alone_is_dropped(make_settings: MakeSettings) -> None:
    """sam2 calls 20 pixels near. The crop is the right half of the photograph."""
    settings = make_settings(mask_threshold=0.0)
    crop = Crop((100, 0, 200, 100), 200, 100)
    kept = {
        name: len(propose(logits, torch.tensor([0.9]), crop, settings, 2**20))
        for name, logits in {
            "in the middle": square(40, 40, 60, 60),
            "21 from the left": square(21, 40, 60, 60),
            "20 from the left": square(20, 40, 60, 60),
            "at the photograph's edges": square(40, 0, 100, 100),
        }.items()
    }
    assert list(kept.values()) == [1, 1, 0, 1]


def test_boxes_are_in_the_photograph(make_settings: MakeSettings) -> None:
    settings = make_settings(mask_threshold=0.0)
    crop = Crop((100, 30, 200, 130), 200, 130)
    found = propose(square(40, 45, 61, 60), torch.tensor([0.9]), crop, settings, 2**20)
    assert found.boxes.tolist() == [[140, 75, 160, 89]]
    (region,) = regions(found, settings)
    assert (region.x0, region.y0, region.bitmap.shape) == (140, 75, (15, 21))
    assert region.bitmap.all() and region.scores == pytest.approx((0.9, 1.0))


def proposals(boxes: list[list[int]], iou: list[float], crops: list[list[int]]) -> Proposals:
    count = len(boxes)
    return Proposals(
        torch.zeros(count, 4, 4),
        torch.tensor(iou),
        torch.ones(count),
        torch.tensor(boxes),
        torch.tensor(crops),
    )


def test_of_two_alike_the_better_stays(make_settings: MakeSettings) -> None:
    """IoU of the first two boxes: 90/110 = 0.82; the third overlaps the first by 0.5."""
    whole = [[0, 0, 50, 50]] * 3
    found = proposals([[0, 0, 10, 10], [1, 0, 11, 10], [0, 0, 10, 5]], [0.7, 0.9, 0.8], whole)
    assert distinct_in_crop(found, make_settings()).iou.tolist() == pytest.approx([0.9, 0.8])
    both = distinct_in_crop(found, make_settings(box_nms_thresh=0.85))
    assert both.iou.tolist() == pytest.approx([0.9, 0.8, 0.7])


def test_of_two_crops_the_smaller_ones_mask_stays(make_settings: MakeSettings) -> None:
    crops = [[0, 0, 50, 50], [0, 0, 20, 20]]
    found = proposals([[0, 0, 10, 10], [0, 0, 10, 10]], [0.9, 0.8], crops)
    assert distinct(found, make_settings()).iou.tolist() == pytest.approx([0.8])


def test_upsampling_in_parts_is_upsampling_at_once(make_settings: MakeSettings) -> None:
    settings = make_settings(mask_threshold=0.0)
    crop, logits = Crop((0, 0, 90, 60), 90, 60), smooth(5, 12)
    iou = torch.linspace(0.5, 0.9, 12)
    once, parts = (propose(logits, iou, crop, settings, size) for size in (2**20, 1))
    assert len(once) > 3
    for one, other in zip(vars(once).values(), vars(parts).values(), strict=True):
        np.testing.assert_array_equal(one, other)
