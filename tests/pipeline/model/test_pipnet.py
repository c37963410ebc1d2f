"""PIP-Net (Nauta et al., 2023), against numbers worked out by hand."""

import math

import numpy as np
import pytest
import torch
from settings import model_settings
from torch import Tensor

from pipeline.model.base.network import Output
from pipeline.model.pipnet.model import PipNet

from .backbones import FourCells

WEIGHTS = {"cross_entropy": 2.0, "alignment": 5.0, "presence": 2.0}


def make(prototypes: int | None = None, classes: int = 2) -> PipNet:
    torch.manual_seed(0)
    return PipNet(model_settings("pipnet", prototypes=prototypes), classes, FourCells())


def by_hand() -> PipNet:
    network = make()
    with torch.no_grad():
        network.classifier.copy_(torch.tensor([[1.0, 0.0, 2.0], [-1.0, 0.5, 3.0]]))
    return network


def ask(network: PipNet, *images: list[tuple[float, ...]]) -> Output:
    """Asks about images whose cells are so much of each prototype, if W is the identity."""
    features = torch.tensor(images).log()
    return network(features, torch.ones(len(images), 1, dtype=torch.bool))


IMAGE = [(0.75, 0.2, 0.05), (0.06, 0.9, 0.04)]
COPY = [(0.5, 0.4, 0.1), (0.2, 0.6, 0.2)]


def test_the_identity_stands_before_the_softmax_where_sizes_agree() -> None:
    network = make()
    assert torch.equal(network.projection.weight, torch.eye(3))
    assert not network.projection.bias.any()
    z = network.embed(torch.tensor([0.0, math.log(2), math.log(5)]))
    # 1, 2 and 5 of 8.
    assert z.tolist() == pytest.approx([1 / 8, 2 / 8, 5 / 8])


def test_another_number_of_prototypes_is_projected_to() -> None:
    network = make(prototypes=7)
    assert network.projection.weight.shape == (7, 3) and network.classifier.shape == (2, 7)
    z = network.embed(torch.randn(4, 5, 3))
    torch.testing.assert_close(z.sum(-1), torch.ones(4, 5))


def test_weights_start_around_one() -> None:
    weights = make(prototypes=500, classes=20).classifier
    # 10,000 values with a deviation of 0.1: their mean's is 0.001.
    assert weights.mean().item() == pytest.approx(1, abs=0.005)
    assert weights.std().item() == pytest.approx(0.1, abs=0.004)


def test_training_scores_are_of_the_largest_cell() -> None:
    output = ask(by_hand().train(), IMAGE)
    # The best cells have 0.75, 0.9 and 0.05; a negative weight counts as 0.
    # 0.75 + 2·0.05 = 0.85; 0.5·0.9 + 3·0.05 = 0.6.
    assert output.logits[0].tolist() == pytest.approx([0.85, 0.6])
    assert output.distance is None


def test_evaluation_passes_over_what_is_under_a_tenth() -> None:
    output = ask(by_hand().eval(), IMAGE)
    assert output.logits[0].tolist() == pytest.approx([0.75, 0.45])


def test_against_a_loop() -> None:
    network = make(prototypes=6, classes=3).eval()
    with torch.no_grad():
        network.classifier.sub_(0.95)
        network.projection.weight.mul_(4)
    features = np.random.default_rng(0).normal(size=(5, 4, 3)).astype(np.float32)
    with torch.inference_mode():
        found = network(torch.from_numpy(features), torch.ones(5, 1, dtype=torch.bool)).logits
    W, b = network.projection.weight.detach().numpy(), network.projection.bias.detach().numpy()
    V, passed = network.classifier.detach().numpy(), 0
    for image in range(5):
        best = np.zeros(6)
        for cell in features[image]:
            grown = np.exp(W @ cell + b)
            best = np.maximum(best, grown / grown.sum())
        passed += (best < 0.1).sum()
        expected = [
            sum(max(v, 0) * p for v, p in zip(row, best, strict=True) if p >= 0.1) for row in V
        ]
        np.testing.assert_allclose(found[image], expected, rtol=1e-4)
    assert 0 < passed < 30


def test_cross_entropy_is_of_the_logarithm_of_squares() -> None:
    network = by_hand().train()
    terms = network.losses(ask(network, IMAGE), torch.tensor([0]), torch.ones(2))
    assert set(terms) == {"cross_entropy", *network.settings.loss_terms}
    # The exponential of log(y² + 1) is y² + 1: 1.7225 and 1.36.
    assert terms["cross_entropy"].item() == pytest.approx(
        math.log((1.7225 + 1.36) / 1.7225), rel=1e-5
    )


def test_losses_of_a_pair() -> None:
    network = by_hand().train()
    terms = network.losses(ask(network, IMAGE, COPY), torch.tensor([1]), torch.ones(2))
    # The cells' products: 0.375 + 0.08 + 0.005 = 0.46; 0.012 + 0.54 + 0.008 = 0.56.
    expected = -(math.log(0.46) + math.log(0.56)) / 2
    assert terms["alignment"].item() == pytest.approx(expected, rel=1e-5)
    # The best cells of the copy have 0.5, 0.6 and 0.2.
    seen = [0.75, 0.9, 0.05, 0.5, 0.6, 0.2]
    expected = -sum(math.log(math.tanh(p)) for p in seen) / 6
    assert terms["presence"].item() == pytest.approx(expected, rel=1e-5)
    # Scores of the copy: 0.5 + 2·0.2 = 0.9 and 0.5·0.6 + 3·0.2 = 0.9: even.
    first, second = math.log((1.7225 + 1.36) / 1.36), math.log(2)
    assert terms["cross_entropy"].item() == pytest.approx((first + second) / 2, rel=1e-5)


def test_an_image_without_a_copy_is_its_own() -> None:
    network = by_hand().train()
    terms = network.losses(ask(network, IMAGE), torch.tensor([0]), torch.ones(2))
    # 0.75² + 0.2² + 0.05² = 0.605; 0.06² + 0.9² + 0.04² = 0.8152.
    expected = -(math.log(0.605) + math.log(0.8152)) / 2
    assert terms["alignment"].item() == pytest.approx(expected, rel=1e-5)


def test_alignment_draws_both_copies_but_none_through_the_other() -> None:
    """For each copy the gradient is that of −½·log z·c with the other, c, a constant."""
    network = by_hand().train()
    output = ask(network, IMAGE, COPY)
    embedding = output.embedding.detach().requires_grad_()
    labels = torch.tensor([0])
    terms = network.losses(output._replace(embedding=embedding), labels, torch.ones(2))
    terms["alignment"].backward()
    first, second = torch.tensor(IMAGE), torch.tensor(COPY)
    product = torch.tensor([0.46, 0.56])[:, None]
    assert embedding.grad is not None
    # ½ of two cells: ¼.
    torch.testing.assert_close(embedding.grad[0], -second / product / 4)
    torch.testing.assert_close(embedding.grad[1], -first / product / 4)


@pytest.mark.parametrize(("epoch", "alignment"), [(0, 0.25), (1, 0.5), (3, 1.0)])
def test_pretraining_weighs_otherwise(epoch: int, alignment: float) -> None:
    network = make()
    network.begin_epoch(epoch, warmup_epochs=4)
    expected = {"cross_entropy": 0.0, "alignment": alignment, "presence": 5.0}
    assert network.weights_of(WEIGHTS) == expected


@pytest.mark.parametrize(("epoch", "warmup_epochs"), [(4, 4), (0, 0), (9, 4)])
def test_after_pretraining_the_parameters_weights_count(epoch: int, warmup_epochs: int) -> None:
    network = make()
    network.begin_epoch(0, 4)
    network.begin_epoch(epoch, warmup_epochs)
    assert network.weights_of(WEIGHTS) == WEIGHTS


def classifier_after_step(epoch: int) -> Tensor:
    network = make()
    with torch.no_grad():
        network.classifier.copy_(torch.tensor([[0.5, 0.0005, -0.2], [0.001, 0.0, 3.0]]))
    network.begin_epoch(epoch, warmup_epochs=1)
    network.after_step()
    return network.classifier.detach()


def test_weights_shrink_and_are_never_negative() -> None:
    expected = torch.tensor([[0.499, 0, 0], [0, 0, 2.999]])
    torch.testing.assert_close(classifier_after_step(epoch=1), expected)


def test_weights_stand_still_while_pretraining() -> None:
    expected = torch.tensor([[0.5, 0.0005, -0.2], [0.001, 0.0, 3.0]])
    assert torch.equal(classifier_after_step(epoch=0), expected)


def test_a_prototypes_class_is_the_one_it_says_most_for() -> None:
    network = by_hand()
    network.finish()
    assert network.class_of.tolist() == [0, 1, 1]
    assert network.own_CP.all()
