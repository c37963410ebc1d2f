"""From embeddings to scores: each kind of head, against numbers worked out by hand."""

import math

import pytest
import torch

from pipeline.model.base.distances import crop_distances, similarity, smallest_distance
from pipeline.model.base.head import (
    DistanceHead,
    Head,
    LinearHead,
    PresenceHead,
    best_view,
    largest_score,
    mean_score,
    on_cpu,
)

VALID = torch.tensor([[True, True, False], [False, True, True]])


def test_distance_by_hand() -> None:
    z = torch.tensor([[0.5, 0.5], [1.0, 0.0]])
    p = torch.tensor([[0.5, 0.25], [0.0, 0.0], [1.0, 0.0]])
    # (0, .25) → 1/16; (.5, .5) → 1/2; (−.5, .5) → 1/2; (.5, −.25) → 5/16; (1, 0) → 1; 0.
    expected = [1 / 16, 1 / 2, 1 / 2, 5 / 16, 1, 0]
    assert crop_distances(z, p).flatten().tolist() == pytest.approx(expected)


@pytest.mark.parametrize("D", [1, 7, 1280])
def test_distance_agrees_with_cdist(D: int) -> None:
    numbers = torch.Generator().manual_seed(1)
    z = torch.rand(3, 5, D, generator=numbers, dtype=torch.float64)
    p = torch.rand(6, D, generator=numbers, dtype=torch.float64)
    mode = "donot_use_mm_for_euclid_dist"
    expected = torch.cdist(z, p.expand(3, -1, -1), compute_mode=mode).square()
    torch.testing.assert_close(crop_distances(z, p), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("gap", [0.0, 1e-6, 1e-4])
def test_tiny_distances_survive_rounding_in_float64(gap: float) -> None:
    z = torch.rand(20, 1280, generator=torch.Generator().manual_seed(2)).double()
    p = z.clone()
    p[:, 0] += gap
    # One coordinate differs by `gap`. Rounding is that of squares near 1280/12 ≈ 107, some 1e-12:
    # nothing against ε = 1e-4.
    assert crop_distances(z, p).diagonal().tolist() == pytest.approx([gap**2] * 20, abs=2e-11)


def test_distance_is_never_negative() -> None:
    z = torch.rand(200, 1280, generator=torch.Generator().manual_seed(3))
    assert (crop_distances(z, z) >= 0).all()


def test_similarity_by_hand() -> None:
    s = similarity(torch.tensor([0.0, 1.0, 9.0], dtype=torch.float64), 1e-4)
    # log(1/1e-4); log(2/1.0001); log(10/9.0001).
    expected = [math.log(1e4), math.log(2 / 1.0001), math.log(10 / 9.0001)]
    assert s.tolist() == pytest.approx(expected)


def test_similarity_with_the_published_epsilon_is_finite_at_zero() -> None:
    # 14·ln 10 = 32.236.
    assert similarity(torch.zeros(1), 1e-14).item() == pytest.approx(32.236, abs=1e-3)


def test_smallest_distance() -> None:
    distance_BVP = torch.tensor([[[3.0, 1.0], [2.0, 1.0], [0.5, 0.0]]])
    valid_BV = torch.tensor([[True, True, False]])
    # The third view is missing.
    assert smallest_distance(distance_BVP, valid_BV).tolist() == [[2.0, 1.0]]


def test_largest_and_mean_score_and_the_best_view() -> None:
    scores_BVP = torch.tensor([[[3.0, 1.0], [4.0, 1.0], [9.0, 7.0]]])
    valid_BV = torch.tensor([[True, True, False]])
    assert largest_score(scores_BVP, valid_BV).tolist() == [[4.0, 1.0]]
    # (3 + 4)/2; (1 + 1)/2.
    assert mean_score(scores_BVP, valid_BV).tolist() == [[3.5, 1.0]]
    # Views 0 and 1 are equally similar to prototype 1.
    assert best_view(scores_BVP, valid_BV).tolist() == [[1, 0]]


def test_score_of_minus_infinity_of_a_valid_view_still_names_a_valid_view() -> None:
    scores_BVP = torch.full((1, 2, 1), -torch.inf)
    assert best_view(scores_BVP, torch.tensor([[False, True]])).tolist() == [[1]]


def by_distance(focal: bool) -> DistanceHead:
    prototypes = torch.tensor([[0.5, 0.5], [1.0, 0.0]])
    return DistanceHead(
        prototypes, torch.tensor([[1.0, -0.5], [-0.5, 1.0]]), 0.01, torch.zeros(2), focal
    )


EMBEDDING = torch.tensor(
    [[[0.5, 0.5], [1.0, 1.0], [1.0, 0.0]], [[0.5, 0.5], [0.0, 0.0], [1.0, 0.0]]]
)


def test_similarity_to_the_nearest_view() -> None:
    scores_BVP = by_distance(focal=False).scores(EMBEDDING)
    assert scores_BVP.dtype == torch.float64
    # Squared distances to prototype 0: 0, ½, ½ and 0, ½, ½; to prototype 1: ½, 1, 0 and ½, 1, 0.
    at = {d: math.log((d + 1) / (d + 0.01)) for d in (0, 0.5, 1)}
    first = [[at[0], at[0.5]], [at[0.5], at[1]], [at[0.5], at[0]]]
    assert scores_BVP[0].tolist() == [pytest.approx(row, rel=1e-6) for row in first]
    # The third view of the first image and the first one of the second are missing.
    pooled = by_distance(focal=False).pooled(scores_BVP, VALID)
    assert pooled[0].tolist() == pytest.approx([at[0], at[0.5]], rel=1e-6)
    assert pooled[1].tolist() == pytest.approx([at[0.5], at[0]], rel=1e-6)


def test_what_is_below_a_floor_counts_for_nothing() -> None:
    """Similarities log(2/1.01) = 0.6832 and log(1.5/0.51) = 1.0788 where views are not equal."""
    head = by_distance(focal=False)._replace(floor_P=torch.tensor([1.0, 0.75]))
    scores_BVP = head.scores(EMBEDDING)
    # Of views 0 and 1, prototype 0 is equal to the first (log 100 = 4.6052).
    assert head.pooled(scores_BVP, VALID)[0].tolist() == pytest.approx([3.6052, 0.3288], abs=1e-4)
    assert head.counted(torch.tensor([[4.6, 0.75]]))[0].tolist() == pytest.approx([3.6, 0])
    # Of view 1 alone: 0.0788 is left, and nothing.
    only = torch.tensor([[False, True, False]])
    assert head.pooled(scores_BVP[:1], only)[0].tolist() == pytest.approx([0.0788, 0], abs=1e-4)
    # Where a view is found does not depend on it.
    assert torch.equal(scores_BVP, by_distance(focal=False).scores(EMBEDDING))


def test_focal_similarity_is_the_largest_minus_the_mean() -> None:
    head = by_distance(focal=True)
    pooled = head.pooled(head.scores(EMBEDDING), VALID)
    at = {d: math.log((d + 1) / (d + 0.01)) for d in (0, 0.5, 1)}
    # Of two views the largest minus the mean is half of their difference.
    first = [(at[0] - at[0.5]) / 2, (at[0.5] - at[1]) / 2]
    second = [0, (at[0] - at[1]) / 2]
    assert pooled[0].tolist() == pytest.approx(first, rel=1e-6)
    assert pooled[1].tolist() == pytest.approx(second, rel=1e-6)


def test_presence_under_a_tenth_is_passed_over() -> None:
    head = PresenceHead(torch.ones(2, 3))
    scores_BVP = torch.tensor([[[0.05, 0.2, 0.75], [0.09, 0.5, 0.41], [0.9, 0.1, 0.0]]])
    assert torch.equal(head.scores(scores_BVP), scores_BVP.double())
    pooled = head.pooled(scores_BVP, VALID[:1])
    # Largest of the first two views: 0.09, 0.5, 0.75.
    assert pooled[0].tolist() == pytest.approx([0, 0.5, 0.75])
    assert torch.equal(head.prototypes_PD, torch.eye(3))
    # A tenth itself is not below a tenth.
    tenth = torch.full((1, 1, 3), 0.1, dtype=torch.float64)
    assert torch.equal(head.pooled(tenth, VALID[:1, :1]), tenth[0])


def test_linear_scores_are_logits() -> None:
    head = LinearHead(
        torch.tensor([[1.0, 2.0], [0.0, -1.0], [3.0, 0.0]]), torch.tensor([0.5, 0, -1])
    )
    scores_BVP = head.scores(torch.tensor([[[2.0, 1.0]]]))
    # 2 + 2 + ½; −1; 6 − 1.
    assert scores_BVP.tolist() == [[[4.5, -1.0, 5.0]]]
    assert head.pooled(scores_BVP, VALID[:1, :1]).tolist() == [[4.5, -1.0, 5.0]]
    assert torch.equal(head.weights_CP, torch.eye(3))


@pytest.mark.parametrize(
    "head",
    [
        by_distance(True),
        PresenceHead(torch.rand(2, 3)),
        LinearHead(torch.rand(2, 3), torch.rand(2)),
    ],
)
def test_on_cpu_is_the_same_head(head: Head) -> None:
    same = on_cpu(head)
    assert type(same) is type(head)
    assert torch.equal(same.weights_CP, head.weights_CP)
    assert torch.equal(same.prototypes_PD, head.prototypes_PD)
