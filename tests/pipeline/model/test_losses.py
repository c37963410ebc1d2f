"""The terms of the loss, against numbers worked out by hand, and their gradients."""

import math

import numpy as np
import pytest
import torch
from sklearn.utils.class_weight import compute_class_weight
from torch import Tensor

from pipeline.model.losses import (
    Terms,
    class_weights,
    diversity,
    loss_terms,
    off_class_penalty,
)

CLASS_OF = torch.tensor([0, 0, 1, 1])


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


def terms_by_hand() -> Terms:
    prototypes = torch.tensor([[0.0, 0.0], [3.0, 4.0], [1.0, 1.0], [1.0, 1.0]])
    distance = torch.tensor([[1.0, 2.0, 0.5, 4.0], [0.25, 3.0, 6.0, 5.0], [7.0, 8.0, 0.0, 9.0]])
    logits = torch.tensor([[0.0, 0.0], [math.log(3), 0.0], [0.0, math.log(3)]])
    labels = torch.tensor([0, 1, 1])
    return loss_terms(logits, distance, labels, prototypes, CLASS_OF, torch.tensor([2.0, 0.5]))


def test_cross_entropy_by_hand() -> None:
    # −ln ½ (weight 2), −ln ¼ (½), −ln ¾ (½): the weighted mean divides by 2 + ½ + ½ = 3.
    expected = (2 * math.log(2) + 0.5 * math.log(4) + 0.5 * math.log(4 / 3)) / 3
    assert terms_by_hand().cross_entropy.item() == pytest.approx(expected)


def test_cluster_by_hand() -> None:
    # Smallest of the own class: 1 (of 1, 2); 5 (of 6, 5); 0 (of 0, 9).
    assert terms_by_hand().cluster.item() == pytest.approx((1 + 5 + 0) / 3)


def test_separation_by_hand() -> None:
    # Smallest of the other class: 0.5, 0.25, 7.
    assert terms_by_hand().separation.item() == pytest.approx((0.5 + 0.25 + 7) / 3)


def test_diversity_by_hand() -> None:
    # Class 0: two ordered pairs at distance 5, exp(−0.001·10); class 1: coinciding, exp(0) = 1.
    assert terms_by_hand().diversity.item() == pytest.approx((math.exp(-0.01) + 1 + 1) / 3)


def test_total_by_hand() -> None:
    terms = Terms(*(torch.tensor(value) for value in (1.0, 10.0, 100.0, 1000.0)))
    # 1 + 0.8·10 − 0.2·100 + 0.2·1000 = 189.
    assert terms.total(0.8, 0.2, 0.2).item() == pytest.approx(189)


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
    terms = loss_terms(
        torch.zeros(B, C, dtype=torch.float64),
        torch.from_numpy(distance),
        torch.from_numpy(labels),
        torch.from_numpy(prototypes),
        torch.arange(C).repeat_interleave(M),
        torch.ones(C, dtype=torch.float64),
    )
    found = [float(term) for term in terms]
    assert found == pytest.approx([math.log(C), cluster, separation, spread])


def test_gradients_are_right() -> None:
    torch.manual_seed(2)
    logits = torch.randn(3, 2, dtype=torch.float64, requires_grad=True)
    distance = torch.rand(3, 4, dtype=torch.float64, requires_grad=True)
    prototypes = torch.rand(4, 5, dtype=torch.float64, requires_grad=True)
    weights = torch.tensor([0.3, 1.7], dtype=torch.float64)

    def terms(logits: Tensor, distance: Tensor, prototypes: Tensor) -> Terms:
        labels = torch.tensor([0, 1, 1])
        return loss_terms(logits, distance, labels, prototypes, CLASS_OF, weights)

    assert torch.autograd.gradcheck(terms, (logits, distance, prototypes))


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
    penalty = off_class_penalty(V, CLASS_OF)
    # 0.5 + 1 + 2 + 0.25; the nines are weights of a prototype's own class.
    assert penalty.item() == pytest.approx(3.75)
    penalty.backward()
    assert V.grad is not None
    assert V.grad.tolist() == [[0, 0, 1, -1], [-1, 1, 0, 0]]
