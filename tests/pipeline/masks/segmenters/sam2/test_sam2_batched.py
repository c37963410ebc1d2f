"""The batched engine against `SAM2AutomaticMaskGenerator`: the same masks, matched one to one."""

from collections.abc import Callable, Sequence

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

from pipeline.masks.masks import Region
from pipeline.masks.segmenter import Machine
from pipeline.masks.segmenters.sam2 import batched
from pipeline.masks.segmenters.sam2.batched import BatchedGenerator
from pipeline.masks.segmenters.sam2.reference import ReferenceGenerator
from pipeline.masks.segmenters.sam2.segmenter import Sam2

MakeModel = Callable[[int], torch.nn.Module]
MakeSettings = Callable[..., Sam2]
Draw = Callable[..., NDArray[np.uint8]]


def pixels(regions: Sequence[Region], image: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Returns the masks at the image's resolution, m×(height·width); sam2 gives empty ones, too."""
    regions = [region for region in regions if region.bitmap.any()]
    found = np.zeros((len(regions), *image.shape[:2]), np.float32)
    for mask, region in zip(found, regions, strict=True):
        height, width = region.bitmap.shape
        mask[region.y0 : region.y0 + height, region.x0 : region.x0 + width] = region.bitmap
    return found.reshape(len(regions), -1)


def share_matched(
    ours: Sequence[Region], theirs: Sequence[Region], image: NDArray[np.uint8]
) -> float:
    """Matches masks one to one; returns the share of theirs with an IoU of at least 0.99."""
    one, other = pixels(ours, image), pixels(theirs, image)
    common = one @ other.T
    iou = common / (one.sum(1)[:, None] + other.sum(1)[None] - common)
    matches = iou[linear_sum_assignment(-iou)]
    return float((matches >= 0.99).sum() / max(len(one), len(other)))


# Found by trial: seeds and thresholds with which a random network finds masks, small and large.
CASES = [
    (2, {}),
    (4, {}),
    (5, {}),
    (2, {"mask_threshold": 0.0}),
    (4, {"min_mask_region_area": 0}),
    (4, {"crop_n_layers": 1, "crop_n_points_downscale_factor": 2}),
    (2, {"crop_n_layers": 0, "pred_iou_thresh": 0.0, "stability_score_thresh": 0.0}),
    (5, {"box_nms_thresh": 0.95, "crop_nms_thresh": 0.95, "crop_overlap_ratio": 0.1}),
]


@pytest.mark.slow
@pytest.mark.parametrize(("seed", "changed"), CASES)
def test_the_same_masks(
    make_model: MakeModel, make_settings: MakeSettings, blobs: Draw, seed: int, changed: dict
) -> None:
    model, settings, image = make_model(seed), make_settings(**changed), blobs(seed)
    (theirs,) = ReferenceGenerator(model, settings)([image])
    (ours,) = BatchedGenerator(model, settings, Machine())([image])
    assert len(theirs) >= 3
    assert share_matched(ours, theirs, image) >= 0.995


@pytest.mark.slow
def test_the_same_masks_of_a_portrait_and_a_large_photograph(
    make_model: MakeModel, make_settings: MakeSettings, blobs: Draw
) -> None:
    for seed, size, layers in ((2, (400, 170), 1), (4, (900, 1200), 0)):
        model, settings = make_model(seed), make_settings(crop_n_layers=layers)
        image = blobs(1 if layers else 3, *size)
        (theirs,) = ReferenceGenerator(model, settings)([image])
        (ours,) = BatchedGenerator(model, settings, Machine())([image])
        assert len(theirs) >= 3
        assert share_matched(ours, theirs, image) >= 0.995


def test_scores_are_the_same(
    make_model: MakeModel, make_settings: MakeSettings, blobs: Draw
) -> None:
    model, settings, image = make_model(2), make_settings(crop_n_layers=0), blobs(2)
    (theirs,) = ReferenceGenerator(model, settings)([image])
    (ours,) = BatchedGenerator(model, settings, Machine())([image])
    np.testing.assert_allclose(
        sorted(region.scores for region in ours),
        sorted(region.scores for region in theirs),
        atol=1e-3,
    )


def test_together_as_alone_whatever_the_batches(
    make_model: MakeModel,
    make_settings: MakeSettings,
    blobs: Draw,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model, settings = make_model(2), make_settings(crop_n_layers=1)
    images = [blobs(2), blobs(3, 170, 210)]
    alone = [BatchedGenerator(model, settings, Machine())([image])[0] for image in images]
    assert all(alone)
    for points, crops, upsampled in ((100, 3, 2**26), (7, 2, 100_000)):
        monkeypatch.setattr(batched, "MOST_POINTS", {"cpu": points})
        monkeypatch.setattr(batched, "MOST_CROPS", {"cpu": crops})
        monkeypatch.setattr(batched, "MOST_PIXELS", upsampled)
        together = BatchedGenerator(model, settings, Machine())(images)
        for ours, single, image in zip(together, alone, images, strict=True):
            assert len(ours) == len(single)
            assert share_matched(ours, single, image) == 1


def test_the_same_bytes_twice(
    make_model: MakeModel, make_settings: MakeSettings, blobs: Draw
) -> None:
    generator = BatchedGenerator(make_model(4), make_settings(crop_n_layers=1), Machine())
    first, second = (generator([blobs(4)])[0] for _ in range(2))
    assert len(first) == len(second) > 0
    for one, other in zip(first, second, strict=True):
        assert one[:2] == other[:2] and one.scores == other.scores
        assert np.array_equal(one.bitmap, other.bitmap)


@pytest.mark.parametrize("engine", [BatchedGenerator, ReferenceGenerator])
def test_no_mask_at_all(
    make_model: MakeModel, make_settings: MakeSettings, blobs: Draw, engine: type
) -> None:
    settings = make_settings(mask_threshold=1e6, crop_n_layers=1)
    machine = (Machine(),) if engine is BatchedGenerator else ()
    assert engine(make_model(0), settings, *machine)([blobs(0)]) == [[]]


def test_bfloat16_finds_most_of_them(
    make_model: MakeModel, make_settings: MakeSettings, blobs: Draw
) -> None:
    model, image = make_model(2), blobs(2)
    (exact,) = BatchedGenerator(model, make_settings(crop_n_layers=0), Machine())([image])
    coarse_settings = make_settings(crop_n_layers=0, precision="bfloat16")
    (coarse,) = BatchedGenerator(model, coarse_settings, Machine())([image])
    assert coarse and abs(len(coarse) - len(exact)) <= max(3, len(exact) // 2)


@pytest.mark.parametrize("size", [(1, 1), (1, 7), (2, 1), (3, 200), (200, 3)])
def test_a_tiny_photograph(
    make_model: MakeModel, make_settings: MakeSettings, size: tuple[int, int]
) -> None:
    """Most crops of the second layer are empty."""
    model, image = make_model(0), np.full((*size, 3), 128, np.uint8)
    settings = make_settings(points_per_side=2, mask_threshold=0.0)
    (ours,) = BatchedGenerator(model, settings, Machine())([image])
    assert all(region.bitmap.shape <= size for region in ours)
    (theirs,) = ReferenceGenerator(model, settings)([image])
    assert len(pixels(theirs, image)) >= 1
    assert share_matched(ours, theirs, image) == 1
