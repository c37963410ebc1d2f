"""Linear discriminants and centres: by hand, against definitions, and from too few crops."""

import numpy as np
import pytest
import torch
from sklearn.decomposition import PCA
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

from pipeline.model.base import start
from pipeline.model.base.start import (
    SHRINKAGE,
    centres,
    discriminants,
    kinds,
    principal_axes,
    sample,
)


def test_mean_and_deviation_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    """1, 2, 6: mean 3, deviations −2, −1, 3, variance 14/3; in two blocks."""
    monkeypatch.setattr(start, "BLOCK", 2)
    mean, deviation = start.mean_and_deviation(torch.tensor([[1.0, 5], [2, 5], [6, 5]]))
    assert mean.tolist() == [3, 5] and mean.dtype == torch.float64
    np.testing.assert_allclose(deviation, [np.sqrt(14 / 3), 0])


def test_discriminant_by_hand() -> None:
    """Class means (∓3, 0); covariance within classes diag(1, 4), shrunk by 0.6 towards 2.5:
    diag(1.9, 3.1). Fisher's direction is Sw⁻¹(μ₁ − μ₀) ∝ (1, 0); projections ±3 ± 1 have a
    standard deviation of √10."""
    features = torch.tensor(
        [[-4.0, -2], [-4, 2], [-2, -2], [-2, 2], [2, -2], [2, 2], [4, -2], [4, 2]]
    )
    found = discriminants(features, torch.tensor([0, 0, 0, 0, 1, 1, 1, 1]), 5)
    assert found.shape == (1, 2)
    np.testing.assert_allclose(found.abs(), [[1 / np.sqrt(10), 0]], atol=1e-6)


def test_both_covariances_are_shrunk_by_hand() -> None:
    """Class means ±(1, 1); covariance within classes diag(12, 4)/6. Shrunk by 0.6, that between
    classes is [[1, 0.4], [0.4, 1]] and that within diag(9.6, 6.4)/6, and v = (1, 2) solves
    Sb·v = λ·Sw·v: (1.8, 2.4) = 1.125·(1.6, 2.1333)."""
    around = torch.tensor([[1.0, 1], [1, -1], [-1, 1], [-1, -1], [2, 0], [-2, 0]])
    features = torch.cat([around - 1, around + 1])
    (found,) = discriminants(features, torch.arange(2).repeat_interleave(6), 1)
    np.testing.assert_allclose(found / found[0], [1, 2], atol=1e-5)


def shrunk(covariance: np.ndarray) -> np.ndarray:
    sphere = np.eye(len(covariance)) * np.trace(covariance) / len(covariance)
    return (1 - SHRINKAGE) * covariance + SHRINKAGE * sphere


def test_directions_solve_the_generalised_eigenproblem() -> None:
    """Sb·v = λ·Sw·v with λ falling, both shrunk: computed here from the definition."""
    generator = np.random.default_rng(0)
    labels = np.repeat(np.arange(4), 30)
    features = generator.normal(size=(120, 6)) + 2 * generator.normal(size=(4, 6))[labels]
    means = np.stack([features[labels == label].mean(0) for label in range(4)])
    within = shrunk(np.cov((features - means[labels]).T, bias=True))
    between = shrunk(np.cov(means.T, bias=True))
    found = discriminants(torch.from_numpy(features).float(), torch.from_numpy(labels), 6).numpy()
    assert found.shape == (3, 6)
    ratio = [(v @ between @ v) / (v @ within @ v) for v in found]
    assert ratio == sorted(ratio, reverse=True)
    for vector, value in zip(found, ratio, strict=True):
        np.testing.assert_allclose(between @ vector, value * within @ vector, atol=1e-5)


def test_discriminants_are_those_of_scikit_learn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of classes of 10, 40 and 70 crops, in blocks of which the last is not full."""
    monkeypatch.setattr(start, "BLOCK", 50)
    generator = np.random.default_rng(4)
    labels = generator.permutation(np.repeat([3, 5, 9], [10, 40, 70]))
    features = generator.normal(size=(120, 7)) + generator.normal(size=(10, 7))[labels]
    analysis = LinearDiscriminantAnalysis(solver="eigen", shrinkage=SHRINKAGE)
    expected = analysis.fit(features, labels).scalings_.T[:2]
    expected /= (features @ expected.T).std()
    found = discriminants(torch.from_numpy(features), torch.from_numpy(labels), 9).numpy()
    sign = np.sign((found * expected).sum(axis=1, keepdims=True))
    np.testing.assert_allclose(found, sign * expected, atol=1e-5)


def test_discriminant_among_crops_of_a_kind_by_hand() -> None:
    """Kinds lie at x = ∓10; within each, class means differ by 2 in y, and crops by ±1 in x. So the
    kinds, however far apart, tell nothing of classes, and the direction is y: projections ±1."""
    x = torch.tensor([-11.0, -9, 9, 11]).repeat(2)
    y = torch.tensor([-1.0, 1]).repeat_interleave(4)
    labels, kind = (y > 0).long(), (x > 0).long()
    found = discriminants(torch.stack([x, y], 1), labels, 5, kind)
    # two kinds, of two classes each, would allow a second direction, in which nothing differs
    np.testing.assert_allclose(found[0].abs() / found[0].norm(), [0, 1], atol=1e-6)


def test_discriminants_among_kinds_are_those_of_features_around_the_kinds_mean() -> None:
    generator = torch.Generator().manual_seed(3)
    labels, kind = torch.arange(4).repeat(30), torch.arange(3).repeat_interleave(40)
    features = torch.randn(120, 6, generator=generator)
    features += 9 * torch.randn(3, 6, generator=generator)[kind]
    features += torch.randn(12, 6, generator=generator)[4 * kind + labels]
    means = torch.stack([features[kind == k].mean(0) for k in range(3)])
    of_both = 4 * kind + labels  # Around its kind's mean, a class of a kind is a class of its own.
    expected = discriminants(features - means[kind], of_both, 6)
    found = discriminants(features, labels, 6, kind)
    sign = (found * expected).sum(1, keepdim=True).sign()
    direction = found / found.norm(dim=1, keepdim=True)
    torch.testing.assert_close(
        direction, sign * expected / expected.norm(dim=1, keepdim=True), rtol=1e-3, atol=1e-4
    )


def test_each_kind_of_one_class_has_no_discriminant() -> None:
    features = torch.rand(8, 3, generator=torch.Generator().manual_seed(0))
    labels = torch.tensor([0, 0, 0, 0, 1, 1, 1, 1])
    assert discriminants(features, labels, 3, labels).shape == (0, 3)


def test_principal_axes_by_hand() -> None:
    """±3 in x, ±1 in y, nothing in z: x, then y. The 8 projections ±3, ±3, 0, … and their like have
    a mean square of (2·9 + 2·1) / 8 = 2.5."""
    features = torch.tensor([[3.0, 0, 5], [-3, 0, 5], [0, 1, 5], [0, -1, 5]])
    found = principal_axes(features, 3)
    one = 1 / np.sqrt(2.5)
    np.testing.assert_allclose(found.abs(), [[one, 0, 0], [0, one, 0]], atol=1e-6)
    assert principal_axes(features, 1).shape == (1, 3)
    assert principal_axes(features[:1], 2).shape == (0, 3)
    assert principal_axes(features, 0).shape == (0, 3)


def test_principal_axes_are_those_of_scikit_learn() -> None:
    features = torch.randn(60, 7, generator=torch.Generator().manual_seed(4)) * torch.arange(1, 8)
    expected = PCA(3).fit(features.numpy()).components_
    found = principal_axes(features, 3).numpy()
    found /= np.linalg.norm(found, axis=1, keepdims=True)
    sign = np.sign((found * expected).sum(axis=1, keepdims=True))
    np.testing.assert_allclose(found, sign * expected, atol=1e-4)


def test_kinds_are_clusters() -> None:
    projections = torch.tensor([[0.0], [9.1], [0.1], [9], [0.2]])
    found = kinds(projections, 2, seed=0)
    assert found.tolist() in ([0, 1, 0, 1, 0], [1, 0, 1, 0, 1])
    assert kinds(projections, 1, seed=0).tolist() == [0] * 5
    assert kinds(torch.zeros(3, 0), 2, seed=0).tolist() == [0] * 3


def test_discriminants_are_scaled_together_to_one() -> None:
    generator = torch.Generator().manual_seed(1)
    labels = torch.arange(5).repeat_interleave(20)
    features = torch.randn(100, 8, generator=generator) + labels[:, None]
    found = discriminants(features, labels, 3)
    assert found.shape == (3, 8)
    assert (features @ found.T).std(correction=0) == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize(
    ("features", "labels"),
    [(torch.rand(6, 3), torch.zeros(6)), (torch.ones(6, 3), torch.tensor([0, 0, 0, 1, 1, 1]))],
    ids=["one class", "no feature varies"],
)
def test_no_discriminant(features: torch.Tensor, labels: torch.Tensor) -> None:
    assert discriminants(features, labels.long(), 3).shape == (0, 3)


def test_discriminants_of_fewer_crops_than_features() -> None:
    features = torch.randn(6, 50, generator=torch.Generator().manual_seed(2))
    found = discriminants(features, torch.tensor([0, 0, 1, 1, 2, 2]), 9)
    assert found.shape == (2, 50) and found.isfinite().all()


@pytest.mark.parametrize("times", [1, 3], ids=["one crop a class", "copies of it"])
def test_discriminants_of_classes_that_do_not_vary(times: int) -> None:
    """Class means (0, ±3, 0.1) and (±4, 0, 0.1): the axes are x, then y. The 8 projections are
    ±4, 0, 0, 0, 0, ±3, with a standard deviation of √(50 / 8) = 2.5."""
    means = torch.tensor([[0.0, 3, 0.1], [0, -3, 0.1], [4, 0, 0.1], [-4, 0, 0.1]])
    labels = torch.arange(4).repeat_interleave(times)
    found = discriminants(means[labels], labels, 2)
    np.testing.assert_allclose(found.abs(), [[0.4, 0, 0], [0, 0.4, 0]], atol=1e-6)


def test_centres_by_hand() -> None:
    """Two groups of three around (1, 0) and (9, 5)."""
    embeddings = torch.tensor([[0.0, 0], [1, 0], [2, 0], [9, 4], [9, 5], [9, 6]])
    found = centres(embeddings, 2, seed=0)
    assert sorted(found.tolist()) == [[1, 0], [9, 5]] and found.dtype == torch.float32


def test_centres_follow_the_seed() -> None:
    embeddings = torch.rand(200, 5, generator=torch.Generator().manual_seed(3))
    assert torch.equal(centres(embeddings, 9, seed=1), centres(embeddings, 9, seed=1))
    assert not torch.equal(centres(embeddings, 9, seed=1), centres(embeddings, 9, seed=2))


def test_centres_of_few_embeddings_are_these_in_turn() -> None:
    embeddings = torch.tensor([[0.5, 1], [0.25, 0], [0.5, 1]])
    assert centres(embeddings, 3, seed=0).tolist() == [[0.25, 0], [0.5, 1], [0.25, 0]]


def test_a_sample_has_its_number_and_some_of_each_class() -> None:
    labels = np.repeat([0, 1, 2], [1000, 20, 3])
    kept = sample(labels, 100, 5, 0)
    counts = np.bincount(labels[kept])
    assert counts[1] >= 5 and counts[2] == 3 and 90 <= counts[0] <= 100
    assert 100 <= len(kept) <= 108 and (np.diff(kept) > 0).all()
    assert (kept == sample(labels, 100, 5, 0)).all()
    assert not np.array_equal(kept, sample(labels, 100, 5, 1))
    # Of views in a fixed order, such as an image's crops, it prefers none.
    of_kind = np.bincount(sample(np.zeros(40_000, np.int64), 10_000, 0, 0) % 4)
    assert of_kind.min() > 2_350
