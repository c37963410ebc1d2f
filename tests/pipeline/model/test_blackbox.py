"""The black box: a linear classifier, by hand and against scikit-learn."""

import numpy as np
import pytest
import torch
from settings import model_settings
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss
from sklearn.preprocessing import StandardScaler

from pipeline.model.base.inference import infer
from pipeline.model.base.losses import class_weights
from pipeline.model.blackbox.model import BlackBox

from .backbones import MeanColour


def make(classes: int = 2, **settings: bool) -> BlackBox:
    return BlackBox(model_settings("blackbox", **settings), classes, MeanColour())


def valid(count: int) -> torch.Tensor:
    return torch.ones(count, 1, dtype=torch.bool)


def test_start() -> None:
    network = make(classes=3)
    output = network(torch.rand(4, 1, 3), valid(4))
    assert output.logits.tolist() == [[0, 0, 0]] * 4 and output.distance is None
    assert network.class_of.tolist() == [0, 1, 2]
    assert torch.equal(network.own_CP, torch.eye(3, dtype=torch.bool))


def test_logits_by_hand() -> None:
    network = make()
    network.standardise(torch.tensor([[1.0, 0.0, 3.0], [3.0, 8.0, 3.0]]))
    with torch.no_grad():
        network.classifier.weight.copy_(torch.tensor([[1.0, 2.0, 0.0], [0.0, -1.0, 4.0]]))
        network.classifier.bias.copy_(torch.tensor([0.5, 0.0]))
    output = network(torch.tensor([[[4.0, 6.0, 5.0]]]), valid(1))
    # Means 2, 4, 3 and deviations 1, 4, none: the third is centred only. So 2, ½, 2.
    assert output.embedding.flatten().tolist() == [2, 0.5, 2]
    # 2 + 1 + ½; −½ + 8.
    assert output.logits.tolist() == [[3.5, 7.5]]
    found = infer(network, output.embedding, valid(1))
    assert found.logits_NC.tolist() == found.similarity_NP.tolist() == [[3.5, 7.5]]


def test_the_only_loss_is_cross_entropy() -> None:
    network = make(classes=4)
    output = network(torch.rand(2, 1, 3), valid(2))
    terms = network.losses(output, torch.tensor([0, 3]), torch.ones(4))
    assert {name: term.item() for name, term in terms.items()} == {
        "cross_entropy": pytest.approx(np.log(4))
    }
    assert network.settings.loss_terms == ()


def test_trained_to_the_end_it_is_a_logistic_regression() -> None:
    """Three classes that overlap, so that there is a best, and of uneven sizes, so that their
    weights matter."""
    generator = np.random.default_rng(0)
    labels = np.repeat([0, 1, 2], [60, 30, 15])
    features = generator.normal([5, -100, 0.5], [2, 30, 0.1], (105, 3))
    features[:, 0] += 2 * labels
    features[:, 1] += 30 * (labels == 1)
    sklearn = LogisticRegression(C=np.inf, class_weight="balanced", tol=1e-8, max_iter=1000)
    standard = StandardScaler().fit_transform(features)
    probabilities = sklearn.fit(standard, labels).predict_proba(standard)
    weights = len(labels) / (3 * np.bincount(labels))
    expected = log_loss(labels, probabilities, sample_weight=weights[labels])

    network = make(classes=3).double()
    features_NVF = torch.from_numpy(features)[:, None]
    labels_N = torch.from_numpy(labels)
    weights_C = class_weights(labels_N, 3).double()
    network.standardise(features_NVF[:, 0])
    groups = network.parameter_groups()
    optimizer = torch.optim.Adam([*groups["projection"], *groups["prototypes"]], lr=0.05)
    for _ in range(600):
        terms = network.losses(network(features_NVF, valid(105)), labels_N, weights_C)
        optimizer.zero_grad()
        terms["cross_entropy"].backward()
        optimizer.step()
    assert 0.1 < expected < 0.9
    assert terms["cross_entropy"].item() == pytest.approx(expected, rel=1e-3)
    found = network(features_NVF, valid(105)).logits.softmax(1).detach()
    np.testing.assert_allclose(found, probabilities, atol=0.02)
