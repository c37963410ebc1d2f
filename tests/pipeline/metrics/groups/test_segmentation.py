"""Masks alone: coverage, areas and sets of parts on numbers worked out by hand."""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from pipeline.masks.masks import Masks, Region
from pipeline.metrics.evidence import Evidence, Segmented
from pipeline.metrics.groups import segmentation
from pipeline.metrics.judging import Knowledge, Level, part_agreement
from pipeline.metrics.measuring import measure, plots, unavailable

seeds = st.integers(0, 1000)
nan = math.nan

# A strip of 10 pixels, of which the last four are the object.
OBJECT = np.arange(20).reshape(2, 10) % 10 >= 6


class Span(NamedTuple):
    """A mask of columns x0 to x1."""

    x0: int
    x1: int
    part: int = -1
    level: int = 0
    foreground: bool = True


def strip(*spans: Span) -> Masks:
    """Masks in an image of two rows."""
    regions = [
        Region(span.x0, 0, np.ones((2, span.x1 - span.x0), bool), (1.0,), *span[2:])
        for span in spans
    ]
    return Masks.of(2, 10, regions, 1)


@dataclass
class StripTruth:
    """Tail, wing and head are two columns each; the head is hidden in image 2."""

    def part_pixels(self, image: int) -> NDArray[np.uint8]:
        row = [1, 1, 0, 0, 2, 2, 0, 0, *([3, 3] if image < 2 else [0, 0])]
        return np.array([row, row], np.uint8)


@dataclass
class Strips:
    """Images of two rows."""

    masks: list[Masks]
    object_mask: NDArray[np.bool_] | None = None
    parts_NQ2: torch.Tensor | None = None
    cropped: list[list[int]] | None = None
    """The masks that became crops; None for all but a fourth."""

    def segmented(self, image: int) -> Segmented:
        parts_Q2 = None if self.parts_NQ2 is None else self.parts_NQ2[image]
        masks = self.masks[image]
        cropped = range(len(masks))[:3] if self.cropped is None else self.cropped[image]
        return Segmented(masks, cropped, self.object_mask, parts_Q2)


@pytest.fixture
def strips(make_evidence: Callable[..., Evidence]) -> Evidence:
    """Two images of class 0 and one of class 1, three crops each; parts at x = 1, 5 and 9 of 10."""
    masks = [
        # areas 12, 4, 4, 4; the fourth is no crop
        strip(
            Span(0, 2, part=4, level=1, foreground=False),
            Span(4, 10),
            Span(8, 10, part=5, level=1),
            Span(3, 5, part=4, level=1),
        ),
        strip(Span(4, 10)),
        strip(),
    ]
    # the last one is hidden in image 2
    parts_NQ2 = torch.tensor([[[1.0, 1], [5, 1], [9, 1]]]).repeat(3, 1, 1)
    parts_NQ2[2, 2] = nan
    return make_evidence(
        images=3,
        labels_N=torch.tensor([0, 0, 1]),
        crops_per_image=3,
        subject=Strips(masks, OBJECT, parts_NQ2),
        object_masks=torch.ones(3, 4, 4, dtype=torch.bool),
        part_names=["tail", "wing", "head"],
        parts_NQ2=parts_NQ2,
        truth=StripTruth(),
        knowledge=Knowledge(True, Level(1, (4, 5))),
    )


def measured(evidence: Evidence, *batch_size: int) -> dict:
    return measure(evidence, ["segmentation"], *batch_size)["segmentation"]


def test_numbers_and_areas_by_hand(strips: Evidence) -> None:
    values = measured(strips)
    assert values["masks"].tolist() == [4, 1, 0]
    # image 0: the median of 12, 4, 4, 4 of 20 pixels
    torch.testing.assert_close(values["area_median"], torch.tensor([20.0, 60, nan]), equal_nan=True)
    expected = torch.tensor([[60.0, 20, 20], [60, nan, nan], [nan, nan, nan]])
    torch.testing.assert_close(values["rank_area"], expected, equal_nan=True)


def test_object_coverage_by_hand(strips: Evidence) -> None:
    values = measured(strips)
    # the object is columns 6 to 9. Image 0: (4, 10) has all, (0, 2) none, (8, 10) half of it
    expected = torch.tensor([[100.0, 0, 50], [100, nan, nan], [nan, nan, nan]])
    torch.testing.assert_close(values["rank_coverage"], expected, equal_nan=True)
    assert values["rank_union"].tolist() == [[100, 100, 100], [100, 100, 100], [0, 0, 0]]
    assert values["object_coverage"].tolist() == [100, 100, 0]


def test_the_masks_that_became_crops_count_in_the_order_of_the_crops(strips: Evidence) -> None:
    strips.subject.cropped = [[2, 1], [], []]
    values = measured(strips)
    # Image 0: (8, 10) has half of the object, (0, 2) nothing; the other masks are no crops.
    expected = torch.tensor([[20.0, 20, nan], [nan, nan, nan], [nan, nan, nan]])
    torch.testing.assert_close(values["rank_area"], expected, equal_nan=True)
    assert values["rank_union"].tolist() == [[50, 50, 50], [0, 0, 0], [0, 0, 0]]
    assert values["part_sets"].tolist() == [[4, 1, 0], [0, 0, 0], [0, 0, 0]]
    # Numbers and areas are those of all masks.
    assert values["masks"].tolist() == [4, 1, 0]
    assert values["area_median"][1] == 60


def test_the_object_is_covered_by_all_crops_together(strips: Evidence) -> None:
    # of the object's columns 6 to 9, (4, 7) has one and (8, 10) two: 25 and 50, together 75
    strips.subject.masks[1] = strip(Span(4, 7), Span(8, 10))
    assert measured(strips)["object_coverage"].tolist() == [100, 75, 0]


def test_coverage_grows_with_each_mask_by_what_is_new() -> None:
    # the object's five pixels: two under the first mask, three under the second, one of them new
    object_HW = torch.tensor([[1, 1, 1, 1, 1, 0]], dtype=torch.bool)
    masks_KHW = torch.tensor([[[1, 1, 0, 0, 0, 1]], [[1, 1, 1, 0, 0, 0]]], dtype=torch.bool)
    alone_K, union_K = segmentation.coverage(masks_KHW, object_HW)
    assert alone_K.tolist() == [40, 60]
    assert union_K.tolist() == [40, 60]
    assert segmentation.coverage(masks_KHW, ~object_HW)[1].tolist() == [100, 100]


def test_coverage_of_an_empty_object_is_undefined() -> None:
    masks_KHW = torch.ones(2, 3, 3, dtype=torch.bool)
    for covered_K in segmentation.coverage(masks_KHW, torch.zeros(3, 3, dtype=torch.bool)):
        assert covered_K.isnan().all()


@given(seed=seeds)
def test_coverage_is_a_percentage_that_only_grows(seed: int) -> None:
    random = torch.Generator().manual_seed(seed)
    masks_KHW = torch.rand(4, 5, 6, generator=random) < 0.3
    object_HW = torch.rand(5, 6, generator=random) < 0.5
    object_HW[0, 0] = True
    alone_K, union_K = segmentation.coverage(masks_KHW, object_HW)
    assert (union_K.diff() >= 0).all()
    assert (union_K >= alone_K).all() and (alone_K >= 0).all() and (union_K <= 100).all()
    whole_K = segmentation.coverage(masks_KHW | object_HW, object_HW)[1]
    assert whole_K.tolist() == [100] * 4


def test_sets_of_parts_by_hand(strips: Evidence) -> None:
    values = measured(strips)
    # image 0: (4, 10) has wing and head, 2 + 4; (0, 2) the tail, 1; (8, 10) the head, 4
    assert values["part_sets"].tolist() == [[6, 1, 4], [6, 0, 0], [0, 0, 0]]
    assert values["part_sets"].dtype == torch.int64
    # class 0: {6} in both images, {1} and {4} in one of two: (100 + 50 + 50)/3; class 1: none
    assert values["mask_consistency"] == pytest.approx((200 / 3 + 0) / 2)


def test_part_sets_have_room_for_63_parts() -> None:
    parts_Q2 = torch.full((63, 2), nan)
    parts_Q2[62] = 0.5
    assert segmentation.part_sets(torch.ones(1, 2, 2) > 0, parts_Q2).tolist() == [2**62]


def test_shares_count_an_image_once() -> None:
    # set 3 on two masks of image 0; image 1 has 1 and 3; image 2, of another class, 1
    part_sets_NK = torch.tensor([[3, 3, 0], [1, 3, 0], [1, 0, 0]])
    shares = segmentation.set_shares(part_sets_NK, torch.tensor([5, 5, 2]))
    assert shares.to_dict("records") == [
        {"label": 2, "parts": 1, "share": 100},
        {"label": 5, "parts": 1, "share": 50},
        {"label": 5, "parts": 3, "share": 100},
    ]
    # class 2: 100; class 5: (50 + 100)/2
    consistency = segmentation.mask_consistency(part_sets_NK, torch.tensor([5, 5, 2]))
    assert consistency == pytest.approx((100 + 75) / 2)


def test_images_cut_alike_are_consistent_and_images_without_parts_are_not() -> None:
    labels_N = torch.tensor([0, 1, 0, 1])
    alike = torch.tensor([[1, 6], [2, 0], [6, 1], [2, 0]])
    assert segmentation.mask_consistency(alike, labels_N) == 100
    assert segmentation.mask_consistency(torch.zeros_like(alike), labels_N) == 0
    # every image its own set: each in one of two
    own = torch.tensor([[1], [1], [2], [2]])
    assert segmentation.mask_consistency(own, labels_N) == 50


@given(seed=seeds)
def test_consistency_needs_no_order(seed: int) -> None:
    random = torch.Generator().manual_seed(seed)
    part_sets_NK = torch.randint(0, 4, (9, 3), generator=random)
    labels_N = torch.randint(0, 3, (9,), generator=random)
    consistency = segmentation.mask_consistency(part_sets_NK, labels_N)
    assert 0 <= consistency <= 100
    order_N, order_K = torch.randperm(9, generator=random), torch.randperm(3, generator=random)
    again = segmentation.mask_consistency(part_sets_NK[order_N][:, order_K], labels_N[order_N])
    assert again == pytest.approx(consistency)


def test_agreement_with_the_object_by_hand(strips: Evidence) -> None:
    values = measured(strips)
    # Foreground is (4, 10), of which the object has columns 6 to 9; image 2 has none. The
    # boundaries, columns 4 and 6, are further apart than a pixel.
    assert values["foreground_area"].tolist() == [60, 60, 0]
    assert values["object_iou"].tolist() == pytest.approx([400 / 6, 400 / 6, 0])
    assert values["best_object_iou"].tolist() == pytest.approx([400 / 6, 400 / 6, 0])
    assert values["boundary_f"].tolist() == [0, 0, 0]
    # wing and head of images 0 and 1, of three parts; none of two in image 2
    assert values["parts_on_foreground"] == 50


def test_agreement_with_parts_by_hand(strips: Evidence) -> None:
    values = measured(strips)
    third = 100 / 3
    # the wing has a third of (4, 10) or (3, 5); in image 1, tail and head are in none or in (4, 10)
    part_iou = torch.tensor([[100, third, 100], [0, third, third], [0, 0, nan]])
    torch.testing.assert_close(values["part_iou"], part_iou.double(), equal_nan=True)
    assert values["best_part_iou"] == pytest.approx((100 / 3 + 2 * third / 3 + 400 / 6) / 3)
    table = plots(strips, {"segmentation": values})["part_iou"]
    assert table["part"].tolist() == ["tail", "wing", "head"]
    assert table["iou"].tolist() == pytest.approx([100 / 3, 2 * third / 3, 400 / 6])
    # Pixels of tail, wing and head on masks of part 4, of part 5, and on none of level 1
    counts_QP = np.array([[4, 0, 8], [2, 0, 10], [0, 4, 4]])
    agreement = part_agreement(counts_QP)
    assert (values["part_nmi"], values["part_ari"]) == agreement
    assert agreement[0] > 20


def test_a_segmenter_that_knows_neither_parts_nor_foreground(strips: Evidence) -> None:
    ignorant = replace(strips, knowledge=Knowledge(False, None))
    missing = unavailable(ignorant, ["segmentation"])["segmentation"]
    assert missing == {
        **dict.fromkeys(segmentation.OF_FOREGROUND, missing["object_iou"]),
        **dict.fromkeys(["part_nmi", "part_ari"], missing["part_nmi"]),
    }
    assert "background" in missing["object_iou"] and "no parts" in missing["part_nmi"]
    complete, values = measured(strips), measured(ignorant)
    assert complete.keys() - values.keys() == missing.keys()
    assert values["best_part_iou"] == complete["best_part_iou"]


def test_part_locations_do_where_no_pixels_are_labelled(strips: Evidence) -> None:
    values = measured(replace(strips, truth=None))
    # Locations of tail, wing and head on part 4, on part 5, and on no mask of level 1
    counts_QP = np.array([[1, 0, 2], [0, 0, 3], [0, 1, 1]])
    assert (values["part_nmi"], values["part_ari"]) == part_agreement(counts_QP)
    assert "part_iou" not in values
    assert set(unavailable(replace(strips, truth=None), ["segmentation"])["segmentation"]) == {
        "best_part_iou"
    }


def test_tables_by_rank_leave_out_nan_and_ranks_without_masks(strips: Evidence) -> None:
    strips.subject.cropped = [[0, 1, 2, 3], [0], []]
    wider = replace(strips, crops_per_image=5)
    tables = plots(wider, {"segmentation": measured(wider)})
    # rank 1: 60 and 60; ranks 2 to 4 in image 0 only; no image has a fifth mask
    expected = pd.DataFrame({"rank": [1, 2, 3, 4], "area": [60.0, 20, 20, 20]})
    pd.testing.assert_frame_equal(tables["mask_areas"], expected, check_dtype=False)
    # coverage of rank 1: 100 and 100; the union: 100, 100 and 0
    third = 200 / 3
    expected = pd.DataFrame(
        {"rank": [1, 2, 3, 4], "coverage": [100.0, 0, 50, 0], "union": [third] * 4}
    )
    pd.testing.assert_frame_equal(tables["object_coverage"], expected, check_dtype=False)


def test_the_table_of_sets_shows_the_most_frequent_by_name(strips: Evidence) -> None:
    table = plots(strips, {"segmentation": measured(strips)})["mask_consistency"]
    assert table.to_dict("records") == [
        {"label": 0, "parts": "wing + head", "share": 100},
        {"label": 0, "parts": "tail", "share": 50},
        {"label": 0, "parts": "head", "share": 50},
    ]


def test_the_table_of_sets_is_cut_at_ten_a_class(strips: Evidence) -> None:
    part_sets_NK = torch.arange(1, 37).reshape(3, 12)
    part_sets_NK[1, 0] = 12  # the one set of class 0 that two images have
    values = {"segmentation": {"part_sets": part_sets_NK}}
    evidence = replace(strips, part_names=list("abcdef"))
    table = plots(evidence, values)["mask_consistency"]
    assert table["label"].tolist() == [0] * 10 + [1] * 10
    assert table["parts"][:3].tolist() == ["c + d", "a", "b"]
    assert table["share"][:10].tolist() == [100] + [50] * 9


def test_sets_of_more_parts_than_a_number_has_bits_are_not_counted(strips: Evidence) -> None:
    assert strips.parts_NQ2 is not None
    many = replace(
        strips,
        part_names=[f"part {q}" for q in range(64)],
        parts_NQ2=strips.parts_NQ2[:, :1].expand(-1, 64, -1),
    )
    assert unavailable(many, ["segmentation"])["segmentation"] == {
        "mask_consistency": "the data set has more than 63 parts"
    }
    assert "mask_consistency" not in measured(many)


def test_what_is_not_known_is_named_and_absent(strips: Evidence) -> None:
    bare = replace(
        strips,
        object_masks=None,
        parts_NQ2=None,
        subject=Strips(strips.subject.masks),
        truth=None,
        knowledge=Knowledge(False, None),
    )
    values = measured(bare)
    assert set(values) == {"masks", "area_median", "rank_area"}
    missing = unavailable(bare, ["segmentation"])["segmentation"]
    assert set(missing) == set(segmentation.Segmentation.notes) - {"masks", "area_median"}
    assert unavailable(strips, ["segmentation"]) == {"segmentation": {}}
    tables = plots(bare, {"segmentation": values})
    assert {name: len(table) for name, table in tables.items()} == {
        "mask_areas": 3,
        "object_coverage": 0,
        "mask_consistency": 0,
        "part_iou": 0,
    }
    assert not any(len(table) for table in plots(strips, {}).values())


def test_batch_size_changes_nothing(strips: Evidence) -> None:
    whole = measured(strips)
    parts = measured(strips, 1)
    assert whole.keys() == parts.keys()
    for name, value in whole.items():
        torch.testing.assert_close(
            torch.as_tensor(parts[name]), torch.as_tensor(value), equal_nan=True
        )
