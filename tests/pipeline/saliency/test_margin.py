"""The margin of two classes, split up by region: all of it, and nothing else."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from pipeline.model.base.head import DistanceHead, Head, LinearHead, PresenceHead
from pipeline.model.base.inference import outputs_of
from pipeline.saliency.margin import (
    Margin,
    Region,
    margin_of,
    prototype_points,
    region_points,
    signed,
)
from pipeline.saliency.prototypes import Points, Prototypes
from pipeline.saliency.views import Kind, Views


def test_points_by_hand() -> None:
    # V for the classes 0 and 2: differences 1 − 0 = 1, 0 − 3 = −3, 2 − 0.5 = 1.5
    weights_CP = torch.tensor([[1.0, 0, 2], [9, 9, 9], [0, 3, 0.5]])
    similarity_BP = torch.tensor([[2.0, 1, 4], [2, 1, 4]])
    first_B, second_B = torch.tensor([0, 2]), torch.tensor([2, 0])
    points_BP = prototype_points(similarity_BP, weights_CP, first_B, second_B)
    assert points_BP.tolist() == [[2, -3, 6], [-2, 3, -6]]
    view_BP = torch.tensor([[3, 0, 3], [1, 1, 1]])
    assert region_points(points_BP, view_BP, 4).tolist() == [[-3, 0, 0, 8], [0, -5, 0, 0]]


def heads(rand: torch.Generator) -> dict[str, Head]:
    def numbers(*shape: int) -> Tensor:
        return torch.rand(*shape, generator=rand)

    prototypes, weights = numbers(7, 5), numbers(4, 7) - 0.4
    floor = numbers(7)
    return {
        "crops or cells": DistanceHead(prototypes, weights, 1e-4, floor),
        "focal": DistanceHead(prototypes, weights, 1e-4, floor, focal=True),
        "presence": PresenceHead(numbers(4, 5)),
        "black box": LinearHead(numbers(4, 5) - 0.5, numbers(4) - 0.5),
    }


@pytest.mark.parametrize("kind", ["crops or cells", "focal", "presence", "black box"])
@settings(deadline=None, max_examples=20)
@given(seed=st.integers(0, 1000))
def test_regions_add_up_to_the_margin_of_every_model(kind: str, seed: int) -> None:
    rand = torch.Generator().manual_seed(seed)
    views = 1 if kind == "black box" else 6
    valid_BV = torch.rand(3, views, generator=rand) < 0.6
    valid_BV[:, 0] = True
    head = heads(rand)[kind]
    outputs = outputs_of(head, torch.rand(3, views, 5, generator=rand), valid_BV)
    first_B, second_B = outputs.logits_NC.topk(2).indices.unbind(1)
    points_BP = prototype_points(outputs.similarity_NP, head.weights_CP, first_B, second_B)
    points_BV = region_points(points_BP, outputs.view_NP, views)
    lead_B = outputs.logits_NC.gather(1, first_B[:, None]) - outputs.logits_NC.gather(
        1, second_B[:, None]
    )
    largest = outputs.similarity_NP.abs().max().item()
    torch.testing.assert_close(
        points_BV.sum(1), lead_B[:, 0].double(), rtol=0, atol=1e-5 * max(1, largest)
    )
    torch.testing.assert_close(points_BV.sum(1), points_BP.sum(1), rtol=0, atol=1e-12 * largest)
    assert (points_BV[~valid_BV] == 0).all()


def prototypes_of(weights_CP: list[list[float]], kind: Kind = "crops") -> Prototypes:
    """Prototypes 0 and 1 of the wren are the same view; 2 is a wren's, 3 and 4 a crow's."""
    P = len(weights_CP[0])
    return Prototypes(
        ["wren", "crow", "owl"],
        np.array([0, 0, 0, 1, 1])[:P],
        np.array(weights_CP),
        np.array([7, 7, 4, 9, 9])[:P],
        np.array([1, 1, 0, 1, 2])[:P],
        np.zeros(P, np.int64),
        np.zeros(P),
        Views(kind, (2, 4) if kind == "cells" else (1, 1)),
    )


WEIGHTS = [[1.0, 0.5, 2.0, 0.0, -1.0], [0.0, 0.5, -1.0, 2.0, 1.0], [0.0] * 5]
SIMILARITY = np.array([2.0, 2.0, 0.5, 0.75, 0.25])
VIEW = np.array([3, 3, 0, 3, 5])
# prototypes add 2·1, 2·0, 0.5·3, 0.75·−2, 0.25·−2
REGIONS = (
    Region(0, "its tail", 1.5, Points((2,), 0, 0.5, 3.0, 1.5), None),
    Region(
        3,
        "region 3",
        0.5,
        Points((0, 1), 3, 2.0, 1.0, 2.0),
        Points((3,), 3, 0.75, 2.0, 1.5),
    ),
    Region(5, "region 5", -0.5, None, Points((4,), 5, 0.25, 2.0, 0.5)),
)


def test_a_margin_by_hand() -> None:
    found = margin_of(prototypes_of(WEIGHTS), (0, 1), SIMILARITY, VIEW, 5, {0: "its tail"})
    assert found == Margin((0, 1), ("wren", "crow"), (3.75, 2.25), 1.5, REGIONS, 0.0, 0)
    assert found.sentence == (
        "wren rather than crow (+1.50): by its tail (+1.50), region 3 (+0.50); "
        "against it: region 5 (−0.50)"
    )


def test_the_others_in_a_region_are_what_its_two_best_leave() -> None:
    assert [region.others for region in REGIONS] == [0, 0, 0]
    # 0.51 − 2.0 + 1.5, and −0.75 + 0.5 of the second class alone
    assert replace(REGIONS[1], points=0.514).others == 0.01
    assert replace(REGIONS[2], points=-0.75).others == -0.25


def test_the_regions_with_the_most_points_are_listed_and_the_rest_is_added_up() -> None:
    found = margin_of(prototypes_of(WEIGHTS), (0, 1), SIMILARITY, VIEW, 1)
    assert [region.view for region in found.regions] == [0]
    assert (found.rest, found.num_rest) == (0.0, 2)
    other = margin_of(prototypes_of(WEIGHTS), (1, 0), SIMILARITY * [1, 1, 1, 1, 5], VIEW, 1)
    assert [(region.view, region.points) for region in other.regions] == [(5, 2.5)]
    assert (other.rest, other.num_rest, other.points) == (-2.0, 2, 0.5)
    assert other.sentence == (
        "crow rather than wren (+0.50): by region 5 (+2.50); other regions: −2.00"
    )


def test_prototypes_of_no_weight_for_a_class_do_not_stand_for_it() -> None:
    # an owl's prototype, which speaks against the crow more than against the wren
    weights = [[-0.5, 1.0], [-2.0, 0.0], [3.0, 0.0]]
    found = margin_of(prototypes_of(weights), (0, 1), np.array([2.0, 1.0]), np.array([4, 4]), 5)
    (region,) = found.regions
    # both are one training view here, but only the second is shown
    assert region.points == 4.0 and region.con is None
    assert region.pro == Points((1,), 4, 1.0, 1.0, 1.0)


def test_a_cell_and_the_whole_image_are_regions() -> None:
    cells = margin_of(prototypes_of(WEIGHTS, "cells"), (0, 1), SIMILARITY, VIEW, 2)
    assert cells.sentence.startswith("wren rather than crow (+1.50): by cell (0, 0) (+1.50), cell")
    logits = [np.array([4.0, 1.0, 2.5])]
    black_box = prototypes_of(np.eye(3).tolist(), "image")
    found = margin_of(black_box, (0, 2), *logits, np.zeros(3, int), 2)
    assert found.sentence == "wren rather than owl (+1.50): by the whole image (+1.50)"


def test_points_have_their_sign() -> None:
    assert [signed(value) for value in (1.9, -0.2, 0.001, -0.001)] == [
        "+1.90",
        "−0.20",
        "0.00",
        "0.00",
    ]


def test_rounded_regions_add_up_to_the_difference_of_rounded_scores() -> None:
    # 1.004 and 0.336 are shown as 1.00 and 0.34; the regions have 0.334, 0.331 and 0.003
    regions = tuple(
        replace(region, points=points)
        for region, points in zip(REGIONS, (0.334, 0.331, 0.003), strict=True)
    )
    margin = Margin((0, 1), ("wren", "crow"), (1.004, 0.336), 0.668, regions, 0.0, 0)
    shown = margin.rounded()
    assert (shown.scores, shown.points) == ((1.0, 0.34), 0.66)
    assert [region.points for region in shown.regions] == [0.33, 0.33]
    assert (shown.rest, shown.num_rest) == (0.0, 1)
    whole = replace(margin, regions=regions[:2], points=0.665).rounded()
    assert [region.points for region in whole.regions] == [0.33, 0.33]
    assert whole.rest == 0
    rest = replace(margin, rest=0.1, num_rest=4, scores=(1.104, 0.336)).rounded()
    assert (rest.points, rest.rest, rest.num_rest) == (0.76, 0.1, 5)


@settings(deadline=None)
@given(
    st.lists(st.tuples(st.floats(-5, 5), st.floats(-5, 5)), min_size=2, max_size=5),
    st.integers(1, 5),
    st.integers(0, 1000),
)
def test_what_is_shown_always_adds_up(
    weights: list[tuple[float, float]], top: int, seed: int
) -> None:
    first, second = map(list, zip(*weights, strict=True))
    view_P = np.random.default_rng(seed).integers(0, 4, len(weights))
    prototypes = prototypes_of([first, second, [0.0] * len(weights)])
    found = margin_of(prototypes, (0, 1), np.ones(len(weights)), view_P, top)
    assert found.points == pytest.approx(found.scores[0] - found.scores[1], abs=1e-9)
    total = sum(region.points for region in found.regions) + found.rest
    assert found.points == pytest.approx(total, abs=1e-9)
    shown = found.rounded()
    cents = [round(100 * region.points) for region in shown.regions] + [round(100 * shown.rest)]
    scores = [round(100 * score) for score in shown.scores]
    assert sum(cents) == round(100 * shown.points) == scores[0] - scores[1]
