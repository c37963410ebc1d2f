"""ProtoPNet (Chen et al., 2019), against numbers worked out by hand."""

import math

import numpy as np
import pytest
import torch
from settings import model_settings

from pipeline.model.base.losses import off_class_penalty
from pipeline.model.base.network import Output
from pipeline.model.protopnet.model import ProtoPNet

from .backbones import FourCells


def make(classes: int = 2, per_class: int = 1, D: int = 2) -> ProtoPNet:
    torch.manual_seed(0)
    settings = model_settings("protopnet", embedding_dim=D, prototypes_per_class=per_class)
    return ProtoPNet(settings, classes, FourCells())


def logit(z: float) -> float:
    return math.log(z / (1 - z))


def by_hand() -> tuple[ProtoPNet, Output]:
    """Two prototypes, (½, ½) and (¾, ¼), and one image of four cells."""
    network = make()
    with torch.no_grad():
        network.projection.weight.copy_(torch.eye(2, 3))
        network.projection.bias.zero_()
        network.prototypes.copy_(torch.tensor([[0.5, 0.5], [0.75, 0.25]]))
    cells = [(0.75, 0.75), (0.5, 0.75), (0.25, 0.25), (0.9, 0.1)]
    features = torch.tensor([[[logit(x), logit(y), 5.0] for x, y in cells]])
    return network, network(features, torch.ones(1, 1, dtype=torch.bool))


def test_start() -> None:
    """1 for a prototype's own class, −½ elsewhere."""
    network = make(classes=3, per_class=2)
    assert network.class_of.tolist() == [0, 0, 1, 1, 2, 2]
    assert network.classifier.tolist() == [
        [1, 1, -0.5, -0.5, -0.5, -0.5],
        [-0.5, -0.5, 1, 1, -0.5, -0.5],
        [-0.5, -0.5, -0.5, -0.5, 1, 1],
    ]
    # Six prototypes, each with −½ for two classes.
    assert off_class_penalty(network.classifier, network.own_CP).item() == pytest.approx(6)


def test_views_are_the_cells_of_the_map_row_by_row() -> None:
    colours = torch.arange(1, 13, dtype=torch.uint8).view(4, 3)
    image = torch.empty(4, 4, 3, dtype=torch.uint8)
    image[:2, :2], image[:2, 2:], image[2:, :2], image[2:, 2:] = colours
    features = make().features(image[None, None], torch.ones(1, 1, dtype=torch.bool))
    torch.testing.assert_close(features, colours[None] / 255)


def test_the_nearest_cell_counts() -> None:
    _, output = by_hand()
    # To (½, ½): 1/8, 1/16, 1/8, 0.16 + 0.16; to (¾, ¼): 1/4, 1/16 + 1/4, 1/4, 0.15² + 0.15².
    assert output.distance is not None
    assert output.distance[0].tolist() == pytest.approx([0.0625, 0.045], rel=1e-5)


def test_scores() -> None:
    _, output = by_hand()
    s = [math.log((d + 1) / (d + 1e-4)) for d in (0.0625, 0.045)]
    expected = [s[0] - 0.5 * s[1], s[1] - 0.5 * s[0]]
    assert output.logits[0].tolist() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(
    ("label", "cluster", "separation"), [(0, 0.0625, 0.045), (1, 0.045, 0.0625)]
)
def test_losses(label: int, cluster: float, separation: float) -> None:
    network, output = by_hand()
    terms = network.losses(output, torch.tensor([label]), torch.ones(2))
    assert set(terms) == {"cross_entropy", *network.settings.loss_terms}
    assert terms["cluster"].item() == pytest.approx(cluster, rel=1e-5)
    assert terms["separation"].item() == pytest.approx(separation, rel=1e-5)
    y = output.logits[0].tolist()
    expected = math.log(math.exp(y[0]) + math.exp(y[1])) - y[label]
    assert terms["cross_entropy"].item() == pytest.approx(expected, rel=1e-5)


def test_against_a_loop_over_the_cells_of_images() -> None:
    network = make(classes=3, per_class=2, D=5)
    images = torch.randint(0, 256, (4, 1, 6, 6, 3), dtype=torch.uint8)
    with torch.inference_mode():
        output = network(images, torch.ones(4, 1, dtype=torch.bool))
    W, b = network.projection.weight.detach().numpy(), network.projection.bias.detach().numpy()
    p, V = network.prototypes.detach().numpy(), network.classifier.detach().numpy()
    for image, pixels in enumerate(images[:, 0].numpy() / 255):
        quarters = [pixels[y : y + 3, x : x + 3].mean((0, 1)) for y in (0, 3) for x in (0, 3)]
        z = [1 / (1 + np.exp(-(W @ quarter + b))) for quarter in quarters]
        d = np.array([min(((cell - prototype) ** 2).sum() for cell in z) for prototype in p])
        logits = V @ np.log((d + 1) / (d + 1e-4))
        np.testing.assert_allclose(output.logits[image], logits, rtol=1e-4)
