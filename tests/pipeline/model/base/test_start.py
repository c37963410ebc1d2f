"""Linear discriminants and centres: by hand, against definitions, and from too few crops."""

import numpy as np
import pytest
import torch
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

from pipeline.model.base import start
from pipeline.model.base.start import SHRINKAGE, centres, discriminants


def test_mean_and_deviation_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    """1, 2, 6: mean 3, deviations −2, −1, 3, variance 14/3; in two blocks."""
    monkeypatch.setattr(start, "BLOCK", 2)
    mean, deviation = start.mean_and_deviation(torch.tensor([[1.0, 5], [2, 5], [6, 5]]))
    assert mean.tolist() == [3, 5] and mean.dtype == torch.float64
    np.testing.assert_allclose(deviation, [np.sqrt(14 / 3), 0])


def test_discriminant_by_hand() -> None:
    """Class means (∓3, 0); covariance within classes diag(1, 4), shrunk by 0.3 towards 2.5:
    diag(1.45, 3.55). Fisher's direction is Sw⁻¹(μ₁ − μ₀) ∝ (1, 0); projections ±3 ± 1 have a
    standard deviation of √10."""
    features = torch.tensor(
        [[-4.0, -2], [-4, 2], [-2, -2], [-2, 2], [2, -2], [2, 2], [4, -2], [4, 2]]
    )
    found = discriminants(features, torch.tensor([0, 0, 0, 0, 1, 1, 1, 1]), 5)
    assert found.shape == (1, 2)
    np.testing.assert_allclose(found.abs(), [[1 / np.sqrt(10), 0]], atol=1e-6)


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
