"""The terms of the loss, against numbers worked out by hand, and their gradients."""

import math

import numpy as np
import pytest
import torch
from settings import model_settings
from sklearn.utils.class_weight import compute_class_weight
from torch import Tensor

from pipeline.model.base.losses import (
    alignment,
    class_weights,
    diversity,
    off_class_penalty,
    orthogonality,
    presence,
    weighted,
)
from pipeline.model.base.network import Output
from pipeline.model.protomask.model import ProtoMask

from ..backbones import MeanColour


def test_class_weights_by_hand() -> None:
    # N = 6, C = 3: 6/(3·3) = 2/3, 6/(3·1) = 2, 6/(3·2) = 1.
    weights = class_weights(torch.tensor([0, 0, 0, 1, 2, 2]), 3)
    assert weights.tolist() == pytest.approx([2 / 3, 2, 1])


def test_class_weights_agree_with_scikit_learn() -> None:
    labels = np.random.default_rng(0).choice(5, 200, p=[0.4, 0.3, 0.15, 0.1, 0.05])
    expected = compute_class_weight("balanced", classes=np.arange(5), y=labels)
    np.testing.assert_allclose(class_weights(torch.from_numpy(labels), 5), expected, rtol=1e-6)


def test_class_without_images_weighs_nothing() -> None:
    # N = 2, C = 3: 2/(3·1) each.
    assert class_weights(torch.tensor([0, 2]), 3).tolist() == pytest.approx([2 / 3, 0, 2 / 3])


def terms(
    logits: Tensor, distance: Tensor, labels: Tensor, prototypes: Tensor, weights: Tensor
) -> dict[str, Tensor]:
    """Returns the terms of a ProtoMask with these prototypes, as many for each class."""
    C, (P, D) = logits.shape[1], prototypes.shape
    settings = model_settings("protomask", embedding_dim=D, prototypes_per_class=P // C)
    network = ProtoMask(settings, C, MeanColour())
    del network.prototypes
    network.prototypes = prototypes
    return network.losses(Output(logits, distance, torch.empty(0)), labels, weights)


def terms_by_hand() -> dict[str, Tensor]:
    prototypes = torch.tensor([[0.0, 0.0], [3.0, 4.0], [1.0, 1.0], [1.0, 1.0]])
    distance = torch.tensor([[1.0, 2.0, 0.5, 4.0], [0.25, 3.0, 6.0, 5.0], [7.0, 8.0, 0.0, 9.0]])
    logits = torch.tensor([[0.0, 0.0], [math.log(3), 0.0], [0.0, math.log(3)]])
    labels = torch.tensor([0, 1, 1])
    return terms(logits, distance, labels, prototypes, torch.tensor([2.0, 0.5]))


def test_cross_entropy_by_hand() -> None:
    # −ln ½ (weight 2), −ln ¼ (½), −ln ¾ (½): the weighted mean divides by 2 + ½ + ½ = 3.
    expected = (2 * math.log(2) + 0.5 * math.log(4) + 0.5 * math.log(4 / 3)) / 3
    assert terms_by_hand()["cross_entropy"].item() == pytest.approx(expected)


def test_cluster_by_hand() -> None:
    # Smallest of the own class: 1 (of 1, 2); 5 (of 6, 5); 0 (of 0, 9).
    assert terms_by_hand()["cluster"].item() == pytest.approx((1 + 5 + 0) / 3)


def test_separation_by_hand() -> None:
    # Smallest of the other class: 0.5, 0.25, 7.
    assert terms_by_hand()["separation"].item() == pytest.approx((0.5 + 0.25 + 7) / 3)


def test_diversity_by_hand() -> None:
    # Class 0: two ordered pairs at distance 5, exp(−0.001·10); class 1: coinciding, exp(0) = 1.
    assert terms_by_hand()["diversity"].item() == pytest.approx((math.exp(-0.01) + 1 + 1) / 3)


def test_total_by_hand() -> None:
    names = ("cross_entropy", "cluster", "separation", "diversity")
    values = (1.0, 10.0, 100.0, 1000.0)
    found = {name: torch.tensor(value) for name, value in zip(names, values, strict=True)}
    # 1 + 0.8·10 − 0.2·100 + 0.2·1000 = 189.
    weights = {"cluster": 0.8, "separation": 0.2, "diversity": 0.2}
    assert weighted(found, weights).item() == pytest.approx(189)
    # 2·1 + 0.8·10 − 0.2·100 + 0·1000 = −10.
    weights = {"cross_entropy": 2.0, "cluster": 0.8, "separation": 0.2, "diversity": 0.0}
    assert weighted(found, weights).item() == pytest.approx(-10)


def test_terms_against_a_loop() -> None:
    numbers = np.random.default_rng(1)
    C, M, B, D = 4, 3, 5, 6
    prototypes, distance = numbers.random((C * M, D)), numbers.random((B, C * M))
    labels = numbers.integers(0, C, B)
    cluster = separation = spread = 0.0
    for image, y in enumerate(labels):
        own = [j for j in range(C * M) if j // M == y]
        others = [j for j in range(C * M) if j // M != y]
        cluster += min(distance[image, j] for j in own) / B
        separation += min(distance[image, j] for j in others) / B
        pairs = sum(np.linalg.norm(prototypes[j] - prototypes[k]) for j in own for k in own)
        spread += np.exp(-0.001 * pairs) / B
    found = terms(
        torch.zeros(B, C, dtype=torch.float64),
        torch.from_numpy(distance),
        torch.from_numpy(labels),
        torch.from_numpy(prototypes),
        torch.ones(C, dtype=torch.float64),
    )
    assert {name: float(term) for name, term in found.items()} == pytest.approx(
        {
            "cross_entropy": math.log(C),
            "cluster": cluster,
            "separation": separation,
            "diversity": spread,
        }
    )


def test_gradients_are_right() -> None:
    torch.manual_seed(2)
    logits = torch.randn(3, 2, dtype=torch.float64, requires_grad=True)
    distance = torch.rand(3, 4, dtype=torch.float64, requires_grad=True)
    prototypes = torch.rand(4, 5, dtype=torch.float64, requires_grad=True)
    weights = torch.tensor([0.3, 1.7], dtype=torch.float64)

    def values(logits: Tensor, distance: Tensor, prototypes: Tensor) -> tuple[Tensor, ...]:
        labels = torch.tensor([0, 1, 1])
        return tuple(terms(logits, distance, labels, prototypes, weights).values())

    assert torch.autograd.gradcheck(values, (logits, distance, prototypes))


def test_diversity_drives_prototypes_apart() -> None:
    prototypes = torch.tensor([[[0.4, 0.5], [0.6, 0.5]]], requires_grad=True)
    diversity(prototypes).sum().backward()
    assert prototypes.grad is not None
    # A step against the gradient moves the left one left and the right one right.
    assert prototypes.grad[0, 0, 0] > 0 > prototypes.grad[0, 1, 0]


def test_diversity_of_coinciding_prototypes_has_a_finite_gradient() -> None:
    prototypes = torch.tensor([[[0.5, 0.5], [0.5, 0.5], [0.5, 0.9]]], requires_grad=True)
    values = diversity(prototypes)
    # Pairs (0, 2), (2, 0), (1, 2), (2, 1) at 0.4 each.
    assert values.tolist() == pytest.approx([math.exp(-0.0016)])
    values.sum().backward()
    assert prototypes.grad is not None and prototypes.grad.isfinite().all()
    assert torch.equal(prototypes.grad[0, 0], prototypes.grad[0, 1])


def test_off_class_penalty_by_hand() -> None:
    V = torch.tensor([[9.0, -9.0, 0.5, -1.0], [-2.0, 0.25, 9.0, 9.0]], requires_grad=True)
    own = torch.tensor([[True, True, False, False], [False, False, True, True]])
    penalty = off_class_penalty(V, own)
    # 0.5 + 1 + 2 + 0.25; the nines are weights of a prototype's own class.
    assert penalty.item() == pytest.approx(3.75)
    penalty.backward()
    assert V.grad is not None
    assert V.grad.tolist() == [[0, 0, 1, -1], [-1, 1, 0, 0]]


def test_orthogonality_by_hand() -> None:
    """Class 0's slots choose the same; class 1's two different ones; class 2's are at 60°: the
    ordered pairs' cosines 2·1, 2·0 and 2·½ over all 3·2 slots."""
    slots_CKP = torch.tensor(
        [
            [[1.0, 0, 0], [0.5, 0, 0]],
            [[0.0, 1, 0], [0, 0, 1]],
            [[1.0, 0, 0], [0.5, math.sqrt(3) / 2, 0]],
        ]
    )
    assert orthogonality(slots_CKP).item() == pytest.approx(3 / 6)
    # K − 1 where all three choose the same.
    assert orthogonality(slots_CKP[:1, :1].expand(2, 3, 3)).item() == pytest.approx(2)


def test_alignment_by_hand() -> None:
    """Two cells: z·z' = ½·1 + ½·0 = ½ and 0.2·0.5 + 0.8·0.5 = ½, then the first one at 1."""
    one = torch.tensor([[[0.5, 0.5], [0.2, 0.8]]])
    other = torch.tensor([[[1.0, 0.0], [0.5, 0.5]]])
    assert alignment(one, other).item() == pytest.approx(math.log(2))
    same = torch.tensor([[[1.0, 0.0], [0.2, 0.8]]])
    assert alignment(same, other).item() == pytest.approx(math.log(2) / 2)


def test_either_side_of_the_alignment_is_held_while_the_other_learns() -> None:
    one = torch.tensor([[[0.25, 0.75]]], requires_grad=True)
    other = torch.tensor([[[0.5, 0.5]]], requires_grad=True)
    alignment(one, other).backward()
    # −log z·z' has the gradient −z'/(z·z'), here z·z' = ½; each side is in one of the two terms.
    assert one.grad is not None and other.grad is not None
    assert one.grad.flatten().tolist() == pytest.approx([-0.5, -0.5])
    assert other.grad.flatten().tolist() == pytest.approx([-0.25, -0.75])


def test_presence_by_hand() -> None:
    score_BD = torch.tensor([[0.5, 0.25], [0.5, 0.0]])
    # Sums over the batch 1 and ¼.
    expected = -(math.log(math.tanh(1)) + math.log(math.tanh(0.25))) / 2
    assert presence(score_BD).item() == pytest.approx(expected)
    # A prototype that is nowhere costs much, but not infinitely much: −log 1e-8 = 18.42.
    assert presence(torch.zeros(2, 1)).item() == pytest.approx(18.42, abs=0.01)
