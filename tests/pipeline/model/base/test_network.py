"""ProtoMask, and what all models share, against numbers worked out by hand."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from settings import model_settings
from torch import Tensor

from pipeline.model.protomask.model import ProtoMask

from ..backbones import MeanColour


def make_network(classes: int = 2, per_class: int = 2, **settings: object) -> ProtoMask:
    torch.manual_seed(0)
    values = {"embedding_dim": 4, "prototypes_per_class": per_class, **settings}
    return ProtoMask(model_settings("protomask", **values), classes, MeanColour())


def test_start() -> None:
    network = make_network(classes=3, per_class=2)
    assert network.class_of.tolist() == [0, 0, 1, 1, 2, 2]
    assert network.classifier.tolist() == [
        [1, 1, 0, 0, 0, 0],
        [0, 0, 1, 1, 0, 0],
        [0, 0, 0, 0, 1, 1],
    ]
    assert network.prototypes.shape == (6, 4)


def test_prototypes_start_uniform_in_0_1() -> None:
    prototypes = make_network(classes=50, per_class=10, embedding_dim=16).prototypes
    assert prototypes.min() > 0 and prototypes.max() < 1
    # Uniform in (0, 1): mean 1/2, variance 1/12; 8000 values.
    assert prototypes.mean().item() == pytest.approx(1 / 2, abs=0.01)
    assert prototypes.var().item() == pytest.approx(1 / 12, abs=0.003)


def test_embedding_by_hand() -> None:
    network = make_network(embedding_dim=2)
    with torch.no_grad():
        network.projection.weight.copy_(torch.tensor([[1.0, 0.0, 0.0], [1.0, -1.0, 2.0]]))
        network.projection.bias.copy_(torch.tensor([0.0, 1.0]))
    z = network.embed(torch.tensor([math.log(3), 2.0, 0.5]))
    # sigmoid(ln 3) = 1 / (1 + 1/3) = 3/4; ln 3 − 2 + 1 + 1 = ln 3 again.
    assert z.tolist() == pytest.approx([0.75, 0.75])


@given(st.lists(st.floats(-80, 80, width=32), min_size=3, max_size=3))
def test_embedding_lies_in_0_1(values: list[float]) -> None:
    z = make_network().double().embed(torch.tensor(values).double())
    assert (z >= 0).all() and (z <= 1).all()


def test_logits_by_hand() -> None:
    network = make_network(classes=2, per_class=2)
    with torch.no_grad():
        network.classifier.copy_(torch.tensor([[1.0, 2.0, 0.0, -1.0], [0.0, 0.5, 1.0, 1.0]]))
    logits = network.logits(torch.tensor([[1.0, 2.0, 3.0, 4.0]]))
    # 1 + 4 − 4 = 1; 1 + 3 + 4 = 8.
    assert logits.tolist() == [[1.0, 8.0]]


def test_forward_against_a_loop() -> None:
    network = make_network(classes=3, per_class=2, epsilon=0.01).double()
    numbers = np.random.default_rng(4)
    features = numbers.normal(size=(4, 5, 3))
    valid = numbers.random((4, 5)) < 0.6
    valid[:, 0] = True
    W, b = network.projection.weight.detach().numpy(), network.projection.bias.detach().numpy()
    p, V = network.prototypes.detach().numpy(), network.classifier.detach().numpy()
    logits, distance = np.zeros((4, 3)), np.full((4, 6), np.inf)
    for image in range(4):
        for crop in range(5):
            if valid[image, crop]:
                z = 1 / (1 + np.exp(-(W @ features[image, crop] + b)))
                for j in range(6):
                    distance[image, j] = min(distance[image, j], ((z - p[j]) ** 2).sum())
        for c in range(3):
            for j in range(6):
                s = np.log((distance[image, j] + 1) / (distance[image, j] + 0.01))
                logits[image, c] += V[c, j] * s
    output = network(torch.from_numpy(features), torch.from_numpy(valid))
    np.testing.assert_allclose(output.distance.detach(), distance, rtol=1e-10)
    np.testing.assert_allclose(output.logits.detach(), logits, rtol=1e-10)


@given(st.integers(0, 10_000), st.sampled_from([0.0, 1.0, -50.0, 1e6]))
def test_missing_crops_influence_nothing(seed: int, garbage: float) -> None:
    numbers = torch.Generator().manual_seed(seed)
    valid = torch.rand(3, 4, generator=numbers) < 0.5
    valid[:, 1] = True
    clean = torch.randn(3, 4, 3, generator=numbers)
    dirty = torch.where(valid.unsqueeze(-1), clean, garbage)

    def outcome(features: Tensor) -> list[Tensor]:
        network = make_network()
        features = features.clone().requires_grad_()
        output = network(features, valid)
        (output.logits.sum() + output.distance.square().sum()).backward()
        weight = network.projection.weight
        assert features.grad is not None and (features.grad[~valid] == 0).all()
        return [
            output.logits,
            output.distance,
            output.embedding[valid],
            features.grad[valid],
            weight.grad,
            network.prototypes.grad,
        ]

    for one, other in zip(outcome(clean), outcome(dirty), strict=True):
        assert torch.equal(one, other)


def test_backbone_sees_valid_crops_only() -> None:
    network = make_network()
    crops = torch.randint(0, 256, (2, 3, 8, 8, 3), dtype=torch.uint8)
    valid = torch.tensor([[True, False, True], [False, True, False]])
    features = network.features(crops, valid)
    (seen,) = network.backbone.seen
    assert seen.shape == (3, 3, 8, 8)
    assert (features[~valid] == 0).all()
    for place in valid.nonzero().tolist():
        colour = crops[tuple(place)].float().mean((0, 1)) / 255
        torch.testing.assert_close(features[tuple(place)], colour)


def test_crops_and_their_features_give_the_same_output() -> None:
    network = make_network()
    crops = torch.randint(0, 256, (2, 3, 8, 8, 3), dtype=torch.uint8)
    valid = torch.tensor([[True, True, True], [True, False, False]])
    by_features = network(network.features(crops, valid), valid)
    for inputs in (crops, crops.float() / 255):
        for one, other in zip(network(inputs, valid), by_features, strict=True):
            torch.testing.assert_close(one, other)


def test_half_precision_of_the_backbone_leaves_distances_exact() -> None:
    network = make_network(classes=2, per_class=5, embedding_dim=512)
    features = torch.randn(6, 4, 3)
    valid = torch.ones(6, 4, dtype=torch.bool)
    with torch.no_grad():
        network.prototypes.copy_(network.embed(features).flatten(0, 1)[:10])
        exact = network(features, valid)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            mixed = network(features, valid)
    # Prototype 0 is image 0's embedding: d = 0, and bfloat16 products would make it about 1.
    assert mixed.distance[0, 0] < 1e-4
    torch.testing.assert_close(mixed.distance, exact.distance)
    torch.testing.assert_close(mixed.logits, exact.logits)


def test_standardise_against_numpy() -> None:
    network = make_network(standardise=True)
    features = np.random.default_rng(5).normal([5, -100, 0.7], [2, 30, 0], (400, 3))
    features = features.astype(np.float32)
    network.standardise(torch.from_numpy(features))
    np.testing.assert_allclose(network.feature_mean, features.mean(0, np.float64), rtol=1e-6)
    # The third feature never changes: it is centred, not divided by nearly nothing.
    expected = [*features[:, :2].std(0, np.float64), 1.0]
    np.testing.assert_allclose(network.feature_std, expected, rtol=1e-6)
    with torch.no_grad():
        network.projection.weight.copy_(torch.eye(4, 3))
        network.projection.bias.zero_()
    logit = torch.logit(network.embed(torch.from_numpy(features)).double()).detach().numpy()
    np.testing.assert_allclose(logit.mean(0)[:2], 0, atol=1e-4)
    np.testing.assert_allclose(logit.std(0)[:2], 1, atol=1e-4)


def test_standardise_can_be_off() -> None:
    network = make_network(standardise=False)
    network.standardise(torch.rand(10, 3))
    assert network.feature_mean.tolist() == [0, 0, 0]
    assert network.feature_std.tolist() == [1, 1, 1]


def test_keep_drops_rows_columns_and_classes() -> None:
    network = make_network(classes=3, per_class=2)
    with torch.no_grad():
        network.classifier.copy_(torch.arange(18.0).view(3, 6))
    prototypes = network.prototypes.detach().clone()
    network.keep(torch.tensor([1, 2, 5]))
    assert torch.equal(network.prototypes, prototypes[[1, 2, 5]])
    assert network.classifier.tolist() == [[1, 2, 5], [7, 8, 11], [13, 14, 17]]
    assert network.class_of.tolist() == [0, 1, 2]
    assert {"prototypes", "classifier"} <= dict(network.named_parameters()).keys()
    output = network(torch.rand(2, 4, 3), torch.ones(2, 4, dtype=torch.bool))
    assert output.logits.shape == (2, 3) and output.distance.shape == (2, 3)


def test_start_from_crops() -> None:
    network = make_network(standardise=True)
    features = torch.tensor([[0.0, 3, 1], [2, 5, 1], [10, 3, 1], [12, 5, 1]])
    labels = torch.tensor([0, 0, 1, 1])
    before = network.projection.weight.clone(), network.projection.bias.clone()
    network.standardise(features)
    network.start_from(features, labels, views=1, seed=0)
    # D = 4: two rows for discriminants, of which two classes have one, and two for axes. Of the
    # standardised features, two are correlated and one is constant: (1, ±1, 0) / √2.
    assert torch.equal(network.projection.weight[1], before[0][1])
    assert torch.equal(network.projection.bias[1], before[1][1])
    half = math.sqrt(0.5)
    axes = network.projection.weight[2:].detach().abs()
    torch.testing.assert_close(axes, torch.tensor([[half, half, 0], [half, half, 0]]))
    embedded = network.embed(features)
    logit = torch.logit(embedded)[:, 0]
    # Class means ∓5 and a spread of 1 within: the one discriminant parts the classes around 0.
    assert logit.mean().item() == pytest.approx(0, abs=1e-5)
    assert logit[:2].sign().unique().numel() == 1 and (logit[:2] * logit[2:] < 0).all()
    # Two prototypes a class, two crops a class: the centres are the crops.
    for label in (0, 1):
        own = network.prototypes[network.class_of == label]
        distance = torch.cdist(own, embedded[labels == label]).min(1).values
        torch.testing.assert_close(distance, torch.zeros(2), atol=1e-6, rtol=0)


@pytest.mark.parametrize(
    ("each", "views", "expected"), [(50, 16, 10), (50, 4, 4), (9, 16, 1), (1, 16, 1)]
)
def test_there_are_as_many_kinds_as_views_of_which_classes_have_five(
    each: int, views: int, expected: int
) -> None:
    labels = torch.arange(3).repeat(each)
    assert make_network()._num_kinds(labels, views) == expected


def test_start_from_crops_without_any_of_a_class() -> None:
    network = make_network(classes=3)
    before = network.prototypes.clone()
    network.start_from(torch.rand(6, 3), torch.tensor([0, 0, 0, 2, 2, 2]), views=1, seed=0)
    assert torch.equal(network.prototypes[2:4], before[2:4])
    assert not torch.isclose(network.prototypes, before)[[0, 1, 4, 5]].any()
