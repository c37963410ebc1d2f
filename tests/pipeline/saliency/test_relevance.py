"""Relevance: all of a score arrives at the pixels, by the rules, and the network stays as it is."""

from typing import Any, NamedTuple

import numpy as np
import pytest
import skimage
import torch
from numpy.typing import NDArray
from settings import model_settings
from timm.models.convnext import ConvNeXt, ConvNeXtBlock
from timm.models.resnet import BasicBlock, ResNet
from torch import Tensor, nn
from zennit.layer import Sum

from pipeline.backbone.backbone import Backbone
from pipeline.errors import ProtoMaskError
from pipeline.model.base.distance_network import SimilarityTarget
from pipeline.model.base.distances import similarity
from pipeline.model.base.models import build
from pipeline.model.base.network import PrototypeNetwork
from pipeline.model.base.relevance_target import SMALLEST
from pipeline.model.blackbox.model import BlackBox, LogitTarget
from pipeline.model.pipnet.model import PipNet, PresenceTarget
from pipeline.model.protomask.model import ProtoMask
from pipeline.saliency.canonizers import canonical
from pipeline.saliency.relevance import (
    MARGIN,
    PAIRS,
    PositiveContributions,
    Propagator,
    PrototypeRelevance,
    SameSign,
    at_best,
    evenly,
)

BACKBONES = ["efficientnet_lite0", "efficientnet_b0", "resnet18", "resnet50", "convnext_atto"]
SMALL = "test_resnet"


def randomise(network: nn.Module) -> None:
    """Gives every norm and layer scale something to do."""
    for part in network.modules():
        if isinstance(part, nn.BatchNorm2d):
            nn.init.normal_(part.running_mean, std=0.3)
            nn.init.uniform_(part.running_var, 0.5, 1.5)
        if isinstance(part, nn.BatchNorm2d | nn.LayerNorm):
            nn.init.uniform_(part.weight, 0.5, 1.5)
            nn.init.normal_(part.bias, std=0.3)
        if isinstance(part, ConvNeXtBlock):
            nn.init.uniform_(part.gamma, 0.1, 1)
            nn.init.normal_(part.mlp.fc2.bias, std=0.3)


def make_backbone(name: str) -> Backbone:
    torch.manual_seed(0)
    if name == "efficientnet_lite0":
        return Backbone(name, "imagenet").eval()
    backbone = Backbone(name).eval()
    randomise(backbone)
    return backbone


def make_network(name: str = SMALL) -> ProtoMask:
    backbone = make_backbone(name)
    network = ProtoMask(model_settings("protomask", embedding_dim=32), 3, backbone).eval()
    with torch.no_grad():
        network.standardise(features_of(network, make_crops(5)))
    return network


def make_crops(n: int, side: int = 64) -> Tensor:
    """Pieces of a photograph; the first two all black and all white."""
    cat = torch.from_numpy(skimage.data.chelsea())
    crops = torch.stack([cat[20 * i : 20 * i + side, 25 * i : 25 * i + side] for i in range(n)])
    crops[0], crops[1] = 0, 255
    return crops


def features_of(network: PrototypeNetwork, crops: Tensor) -> Tensor:
    return network.features(crops[None], torch.ones(1, len(crops), dtype=torch.bool))[0]


def similarities(network: PrototypeNetwork, crops: Tensor, prototypes: Tensor) -> Tensor:
    embedding = network.embed(features_of(network, crops))
    distance = (embedding - network.prototypes[prototypes]).square().sum(1)
    return similarity(distance, network.settings.epsilon).detach()


@pytest.mark.parametrize("name", BACKBONES)
def test_all_of_a_similarity_arrives_at_the_pixels(name: str) -> None:
    network, crops, prototypes = make_network(name), make_crops(5), torch.tensor([3, 0, 29, 7, 7])
    with torch.no_grad():
        network.prototypes[7] = network.embed(features_of(network, crops))[3]
    similarity = similarities(network, crops, prototypes)
    assert similarity[3] > 9 and similarity.min() > 0.05
    maps = PrototypeRelevance(network, "prp")(crops, prototypes)
    assert maps.shape == (5, 64, 64) and maps.dtype == torch.float32
    torch.testing.assert_close(maps.sum((1, 2)), similarity, rtol=1e-3, atol=0)


@pytest.mark.parametrize("rule", ["prp", "grad"])
def test_what_is_above_the_floor_arrives_at_the_pixels(rule: Any) -> None:
    """Of two crops' similarities to the same prototype one is below its floor."""
    network, crops, prototypes = make_network(), make_crops(4)[2:], torch.tensor([7, 7])
    plain = similarities(network, crops, prototypes)
    network.set_floor(torch.full((30,), float(plain.mean())))
    relevance = PrototypeRelevance(network, rule)
    maps = relevance(crops, prototypes)
    above, below = plain.argmax(), plain.argmin()
    assert not maps[below].any() and maps[above].any()
    if rule == "prp":
        expected = plain[above] - plain.mean()
        torch.testing.assert_close(maps[above].sum(), expected, rtol=1e-3, atol=0)


def make_masked(name: str) -> tuple[ProtoMask, Tensor, Tensor]:
    """A network that pools two stages inside the masks, five crops, and their masks."""
    settings = model_settings("protomask", embedding_dim=32, pooling="mask", stages=(-2, -1))
    network, crops = ProtoMask(settings, 3, make_backbone(name)).eval(), make_crops(5)
    inside = torch.rand(5, 64, 64) < torch.linspace(0, 1, 64)
    inside[2, :32] = inside[3, :, 32:] = False
    with torch.no_grad():
        network.standardise(masked_features(network, crops, inside))
    return network, crops, inside


def masked_features(network: ProtoMask, crops: Tensor, inside: Tensor) -> Tensor:
    return network.features(crops[None], torch.ones(1, len(crops)) > 0, inside[None])[0]


@pytest.mark.parametrize("name", ["efficientnet_lite0", "resnet18", "convnext_atto"])
def test_all_of_a_similarity_of_several_stages_inside_masks_arrives(name: str) -> None:
    network, crops, inside = make_masked(name)
    prototypes = torch.tensor([3, 0, 29, 7, 7])
    features = masked_features(network, crops, inside)
    distance = (network.embed(features) - network.prototypes[prototypes]).square().sum(1)
    maps = PrototypeRelevance(network, "prp")(crops, prototypes, inside)
    expected = similarity(distance, network.settings.epsilon).detach()
    torch.testing.assert_close(maps.sum((1, 2)), expected, rtol=1e-3, atol=0)


def test_sums_are_of_similarities_inside_masks() -> None:
    network, crops, inside = make_masked(SMALL)
    relevance, cells = PrototypeRelevance(network, "prp"), torch.zeros(5, dtype=torch.int64)
    weights = torch.zeros(5, 30)
    weights[:, 3], weights[:, 8] = 2, -1
    found = relevance.of_sums(crops, cells, weights, inside)
    first, second = (relevance(crops, torch.full((5,), j), inside) for j in (3, 8))
    atol = 1e-3 * first.abs().max().item()
    torch.testing.assert_close(found, 2 * first - second, rtol=1e-3, atol=atol)


def test_relevance_of_several_stages_is_the_sum_of_each_ones() -> None:
    backbone, crops = make_backbone("efficientnet_lite0"), make_crops(3)
    channels = backbone.channels([-2, -1])
    weights = torch.randn(3, sum(channels), generator=torch.Generator().manual_seed(0))
    together = Propagator(backbone, "prp", [-2, -1]).maps(crops, LogitTarget(weights))
    alone = [
        Propagator(backbone, "prp", [stage]).maps(crops, LogitTarget(own))
        for stage, own in zip((-2, -1), weights.split(channels, dim=1), strict=True)
    ]
    assert all(found.abs().sum() > 0.1 * together.abs().sum() for found in alone)
    atol = 1e-4 * together.abs().max().item()
    torch.testing.assert_close(together, sum(alone), rtol=1e-3, atol=atol)


@pytest.mark.parametrize("name", ["efficientnet_lite0", "test_vit"])
def test_gradient_times_pixel_of_several_stages_inside_masks(name: str) -> None:
    network, crops, inside = make_masked(name)
    prototypes = torch.tensor([3, 0, 29, 7, 7])
    maps = PrototypeRelevance(network, "grad")(crops, prototypes, inside)
    pixels = (crops / 255).requires_grad_()
    distance = (
        network.embed(masked_features(network, pixels, inside)) - network.prototypes[prototypes]
    )
    similarity(distance.square().sum(1), network.settings.epsilon).sum().backward()
    mean = network.backbone.mean.flatten()
    expected = ((pixels.detach() - mean) * pixels.grad).sum(-1)
    atol = 1e-4 * expected.abs().max().item()
    torch.testing.assert_close(maps, expected, rtol=1e-3, atol=atol)


@pytest.mark.parametrize("name", ["efficientnet_lite0", "resnet18", "convnext_atto"])
def test_all_of_a_logit_arrives_at_the_pixels(name: str) -> None:
    backbone, crops = make_backbone(name), make_crops(4)
    head = LogitTarget(torch.rand(4, backbone.num_features))
    features = backbone(crops.permute(0, 3, 1, 2) / 255)
    maps = Propagator(backbone, "prp").maps(crops, head)
    logits = (features * head.weights_nF).sum(1)
    torch.testing.assert_close(maps.sum((1, 2)), logits.detach(), rtol=1e-3, atol=0)


@pytest.mark.parametrize(
    "name", ["efficientnet_lite0", "efficientnet_b0", "seresnet18", "resnet26d", "convnext_atto"]
)
def test_canonical_form_computes_the_same(name: str) -> None:
    network = make_backbone(name).network.double()
    pixels = torch.rand(1, 3, 64, 64, dtype=torch.float64)
    expected = network.forward_features(pixels)
    form = canonical(network, name)
    assert not any(isinstance(part, nn.BatchNorm2d) for part in form.modules())
    torch.testing.assert_close(form.forward_features(pixels), expected, rtol=1e-9, atol=1e-9)


def test_layers_by_hand() -> None:
    """Against dense matrices: box rule, maximum, two residual blocks, mean, linear head."""
    backbone, crop = make_backbone(SMALL), make_crops(3, 16)[2:]
    backbone.network = tiny_resnet()
    weights = torch.randn(1, 6)
    maps = Propagator(backbone, "prp").maps(crop, LogitTarget(weights))
    pixels = (crop.permute(0, 3, 1, 2) / 255 - backbone.mean) / backbone.std
    low, high = -backbone.mean / backbone.std, (1 - backbone.mean) / backbone.std
    by_hand = tiny_relevance(backbone.network, pixels, low - MARGIN, high + MARGIN, weights[0])
    assert np.abs(by_hand).max() > 1e-3
    np.testing.assert_allclose(maps[0].numpy(), by_hand, rtol=1e-3, atol=1e-6)


def tiny_resnet() -> ResNet:
    network = ResNet(BasicBlock, (1, 1, 1, 1), num_classes=0, zero_init_last=False)
    network.conv1 = nn.Conv2d(3, 4, 3, stride=2, padding=1, bias=False)
    network.bn1 = nn.BatchNorm2d(4)
    down = nn.Sequential(nn.Conv2d(4, 6, 1, stride=2, bias=False), nn.BatchNorm2d(6))
    network.layer1 = nn.Sequential(BasicBlock(4, 4))
    network.layer2 = nn.Sequential(BasicBlock(4, 6, stride=2, downsample=down))
    network.layer3 = network.layer4 = nn.Sequential()
    randomise(network)
    return network.eval()


class Dense:
    """A convolution with the batch norm after it, as a matrix, in double precision."""

    def __init__(self, conv: nn.Conv2d, norm: nn.BatchNorm2d, side: int) -> None:
        blank = torch.zeros(1, conv.in_channels, side, side)
        matrix = torch.autograd.functional.jacobian(conv, blank).double()
        cells = matrix.shape[2] * matrix.shape[3]
        scale = (norm.weight / (norm.running_var + norm.eps).sqrt()).double()
        shift = norm.bias.double() - norm.running_mean.double() * scale
        matrix = matrix.reshape(conv.out_channels * cells, -1)
        self.W = (matrix * scale.repeat_interleave(cells)[:, None]).detach().numpy()
        self.b = shift.repeat_interleave(cells).detach().numpy()

    def __call__(self, x: NDArray) -> NDArray:
        return self.W @ x + self.b

    def positive(self, x: NDArray, relevance: NDArray) -> NDArray:
        """Of values that are not negative."""
        weights = np.maximum(self.W, SMALLEST) * (self.W != 0)
        return _share(weights * np.maximum(x, SMALLEST), relevance)

    def box(self, x: NDArray, low: NDArray, high: NDArray, relevance: NDArray) -> NDArray:
        rising, falling = np.maximum(self.W, 0), np.minimum(self.W, 0)
        return _share(self.W * x - rising * low - falling * high, relevance)


def _share(contributions: NDArray, relevance: NDArray) -> NDArray:
    return contributions.T @ (relevance / contributions.sum(1))


def _split(first: NDArray, second: NDArray, relevance: NDArray) -> tuple[NDArray, NDArray]:
    """Of sums that are positive, or have next to no relevance."""
    assert np.all((first + second > 1e-3) | (abs(relevance) < 1e-6))
    one, other = np.maximum(first, SMALLEST), np.maximum(second, SMALLEST)
    return relevance * one / (one + other), relevance * other / (one + other)


def tiny_relevance(
    network: ResNet, pixels: Tensor, low: Tensor, high: Tensor, weights: Tensor
) -> NDArray:
    block, last = network.layer1[0], network.layer2[0]
    stem = Dense(network.conv1, network.bn1, 16)
    first, second = Dense(block.conv1, block.bn1, 4), Dense(block.conv2, block.bn2, 4)
    third, fourth = Dense(last.conv1, last.bn1, 4), Dense(last.conv2, last.bn2, 2)
    down = Dense(last.downsample[0], last.downsample[1], 4)
    x, lows, highs = (
        value.expand_as(pixels).double().numpy().ravel() for value in (pixels, low, high)
    )
    a = np.maximum(stem(x), 0)
    winners = _winners(a.reshape(4, 8, 8))
    p = a[winners]
    u = np.maximum(first(p), 0)
    r = np.maximum(second(u) + p, 0)
    v = np.maximum(third(r), 0)
    branch, shortcut = fourth(v), down(r)
    out = np.maximum(branch + shortcut, 0)

    R = (out.reshape(6, 4) / 4 * weights.double().numpy()[:, None]).ravel()
    R_branch, R_shortcut = _split(branch, shortcut, R)
    R = third.positive(r, fourth.positive(v, R_branch)) + down.positive(r, R_shortcut)
    R_branch, R_shortcut = _split(second(u), p, R)
    R = first.positive(p, second.positive(u, R_branch)) + R_shortcut
    R = np.bincount(winners, R, len(a))
    return stem.box(x, lows, highs, R).reshape(3, 16, 16).sum(0)


def _winners(a: NDArray) -> NDArray:
    """Where the maxima of 3×3 windows lie, two apart, the first ones around −1 … 1."""
    C, S, _ = a.shape
    found = []
    for c in range(C):
        for y in range(0, S, 2):
            for x in range(0, S, 2):
                cells = [
                    (a[c, i, j], -(i * S + j), c * S * S + i * S + j)
                    for i in range(max(y - 1, 0), y + 2)
                    for j in range(max(x - 1, 0), x + 2)
                ]
                found.append(max(cells)[2])
    return np.array(found)


def test_signed_values_by_hand() -> None:
    layer, rule = nn.Linear(3, 1), PositiveContributions()
    layer.weight.data = torch.tensor([[1.0, -1.0, 2.0]])
    rule.register(layer)
    values = torch.tensor([[2.0, -3.0, -1.0]], requires_grad=True)
    (relevance,) = torch.autograd.grad(layer(values), values, torch.tensor([[10.0]]))
    # 2·1 and −3·−1 are positive contributions, −1·2 is none.
    assert relevance[0].tolist() == pytest.approx([4, 6, 0], abs=1e-4)


def test_terms_of_a_sum_by_hand() -> None:
    layer, rule = Sum(dim=0), SameSign()
    rule.register(layer)
    terms = torch.tensor([[3.0, 3.0, -1.0, 0.0], [1.0, -2.0, -4.0, 0.0]], requires_grad=True)
    (relevance,) = torch.autograd.grad(layer(terms), terms, torch.tensor([8.0, 8.0, -5.0, 2.0]))
    expected = torch.tensor([[6.0, 8.0, -1.0, 1.0], [2.0, 0.0, -4.0, 1.0]])
    torch.testing.assert_close(relevance, expected, rtol=1e-4, atol=1e-4)


def test_neuron_that_its_bias_alone_makes_active_keeps_nothing() -> None:
    backbone, crop = make_backbone(SMALL), make_crops(3, 16)[2:]
    backbone.network = tiny_resnet()
    last = backbone.network.layer2[0]
    nn.init.constant_(last.conv2.weight, -0.01)
    nn.init.constant_(last.bn2.bias, 3)
    head = LogitTarget(torch.ones(1, 6))
    maps = Propagator(backbone, "prp").maps(crop, head)
    logits = backbone(crop.permute(0, 3, 1, 2) / 255).sum()
    assert maps.sum().item() == pytest.approx(logits.item(), rel=1e-4)


class TwoFeatures(nn.Module):
    num_features = 2

    def channels(self, stages: tuple[int, ...]) -> list[int]:
        return [2]


def test_similarity_by_hand() -> None:
    settings = model_settings("protomask", embedding_dim=2, epsilon=0.01)
    network = ProtoMask(settings, 1, TwoFeatures())
    network.feature_mean, network.feature_std = torch.tensor([1.0, 0.0]), torch.tensor([2.0, 1.0])
    features = torch.tensor([[2.0, 1.0]])
    with torch.no_grad():
        network.projection.weight.copy_(torch.tensor([[2.0, 1.0], [2.0, -5.0]]))
        network.projection.bias.zero_()
        network.prototypes[0] = network.embed(features)[0] + torch.tensor([0.1, 0.2])
    # (z − p)² = 0.01, 0.04; s = log(1.05 / 0.06); shares 1/0.02 : 1/0.05 = 5/7, 2/7.
    # W / deviation = [1, 1], [1, −5]; W·f = 3, −3; their root mean square is 3, ε = 0.75, so each
    # channel loses a fifth, and gets it back: 5/7 as 2/3 and 1/3, 2/7 as −2/3 and 5/3.
    similarity = np.log(1.05 / 0.06)
    expected = [(5 * 2 - 2 * 2) / 21 * similarity, (5 * 1 + 2 * 5) / 21 * similarity]
    found = SimilarityTarget(network, torch.tensor([0])).relevance(features)
    assert found[0].tolist() == pytest.approx(expected, rel=1e-4)


def test_channel_near_zero_does_not_decide() -> None:
    network = ProtoMask(model_settings("protomask", embedding_dim=2), 1, TwoFeatures())
    features = torch.tensor([[1.0, 1.0]])
    with torch.no_grad():
        network.projection.weight.copy_(torch.tensor([[1.0, 1.0], [1.0, -1 + 1e-6]]))
        network.prototypes[0] = network.embed(features)[0]
    found = SimilarityTarget(network, torch.tensor([0])).relevance(features)[0]
    assert found.sum().item() == pytest.approx(np.log(1e4), rel=1e-4)
    assert found.abs().max() < 4 * np.log(1e4)


@pytest.mark.parametrize("name", ["efficientnet_lite0", "swin_tiny_patch4_window7_224"])
def test_gradient_times_pixel(name: str) -> None:
    network, prototypes, crops = (
        make_network_of_any(name),
        torch.tensor([5]),
        make_crops(3, 224)[2:],
    )
    maps = PrototypeRelevance(network, "grad")(crops, prototypes)
    backbone = network.backbone
    pixels = (crops.permute(0, 3, 1, 2) / 255 - backbone.mean) / backbone.std
    pixels.requires_grad_()
    axes = (2, 3) if name == "efficientnet_lite0" else (1, 2)
    features = backbone.network.forward_features(pixels).mean(axes)
    distance = (network.embed(features) - network.prototypes[prototypes]).square().sum(1)
    similarity(distance, network.settings.epsilon).sum().backward()
    expected = (pixels * pixels.grad).sum(1).detach()
    torch.testing.assert_close(maps, expected, rtol=1e-3, atol=expected.abs().max().item() * 1e-4)


def make_network_of_any(name: str) -> ProtoMask:
    torch.manual_seed(0)
    settings = model_settings("protomask", backbone=name, pretrained="none", embedding_dim=8)
    return ProtoMask(settings, 2).eval()


SETTINGS = {
    "protopnet": model_settings("protopnet", embedding_dim=32, prototypes_per_class=2),
    "protopool": model_settings("protopool", embedding_dim=32, prototypes=8, slots=2),
    "pipnet": model_settings("pipnet", prototypes=6),
    "blackbox": model_settings("blackbox"),
}


def make_model(model: str, backbone: str = SMALL) -> PrototypeNetwork:
    """A finished model of 3 classes that sees whole images."""
    torch.manual_seed(0)
    network = build(SETTINGS[model], 3, make_backbone(backbone)).eval()
    with torch.no_grad():
        network.standardise(features_of(network, make_crops(5)))
    network.finish()
    if isinstance(network, BlackBox):
        nn.init.normal_(network.classifier.weight)
        nn.init.normal_(network.classifier.bias)
    return network


def best_cells(network: PrototypeNetwork, crops: Tensor, prototypes: Tensor) -> Tensor:
    """Returns the features of each image's cell that is most similar to its prototype: n×F."""
    maps = network.backbone.network.forward_features(
        (crops.permute(0, 3, 1, 2) / 255 - network.backbone.mean) / network.backbone.std
    )
    features = maps.flatten(2).mT
    scores = network.head().scores(network.embed(features))
    cells = [scores[i, :, j].argmax() for i, j in enumerate(prototypes.tolist())]
    return torch.stack([features[i, cell] for i, cell in enumerate(cells)])


def explained(model: str, network: Any, crops: Tensor, prototypes: Tensor) -> Tensor:
    """What the sum of a map has to be, n, worked out without `pipeline.saliency`."""
    if model == "blackbox":
        features = network.backbone(crops.permute(0, 3, 1, 2) / 255)
        weights = network.classifier.weight[prototypes] / network.feature_std
        return (features * weights).sum(1)
    embedding = network.embed(best_cells(network, crops, prototypes))
    if model == "pipnet":
        return embedding[range(len(crops)), prototypes]
    distance = (embedding - network.prototypes[prototypes]).square().sum(1)
    return ((distance + 1) / (distance + network.settings.epsilon)).log()


@pytest.mark.parametrize("backbone", ["efficientnet_lite0", "resnet18"])
@pytest.mark.parametrize("model", SETTINGS)
def test_all_of_what_a_whole_image_shows_arrives_at_its_pixels(model: str, backbone: str) -> None:
    network, crops = make_model(model, backbone), make_crops(4)
    prototypes = torch.tensor([1, 0, 2, 2])
    expected = explained(model, network, crops, prototypes).detach()
    maps = PrototypeRelevance(network, "prp")(crops, prototypes)
    torch.testing.assert_close(maps.sum((1, 2)), expected, rtol=1e-3, atol=1e-5)
    assert maps.flatten(1).any(1).all()


@pytest.mark.parametrize("model", SETTINGS)
def test_gradient_times_pixel_of_whole_images(model: str) -> None:
    network, crops, prototypes = make_model(model), make_crops(4)[2:], torch.tensor([1, 2])
    maps = PrototypeRelevance(network, "grad")(crops, prototypes)
    pixels = crops.float().requires_grad_()
    explained(model, network, pixels, prototypes).sum().backward()
    # d/dx of the normalised pixel, times it: (x − mean)·d/dx of the pixel of 0..1
    mean = network.backbone.mean.flatten()
    expected = ((pixels / 255 - mean) * pixels.grad * 255).sum(-1).detach()
    largest = expected.abs().max().item()
    assert largest > 0
    torch.testing.assert_close(maps, expected, rtol=1e-3, atol=largest * 1e-4)


def test_a_black_boxs_map_is_its_logit_without_what_no_pixel_adds() -> None:
    network, crops = make_model("blackbox"), make_crops(4)
    maps = PrototypeRelevance(network, "prp")(crops, torch.tensor([0, 1, 2, 0]))
    logits = network(crops[:, None], torch.ones(4, 1, dtype=torch.bool)).logits.detach()
    weights = network.classifier.weight.detach() / network.feature_std
    constant = network.classifier.bias.detach() - weights @ network.feature_mean
    found = maps.sum((1, 2)) + constant[[0, 1, 2, 0]]
    torch.testing.assert_close(found, logits[range(4), [0, 1, 2, 0]], rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("rule", ["prp", "grad"])
@pytest.mark.parametrize("model", [*SETTINGS, "protomask"])
def test_the_map_of_a_sum_is_the_sum_of_the_maps(model: str, rule: Any) -> None:
    """Both prototypes are explained at one cell, which is the best of the first alone."""
    network = make_network() if model == "protomask" else make_model(model)
    crops, first = make_crops(4)[2:], torch.tensor([1, 2])
    relevance = PrototypeRelevance(network, rule)
    cells = torch.zeros(2, dtype=torch.int64)
    if network.in_cells:
        embedding = network.embed(features_of_cells(network, crops))
        cells = network.head().scores(embedding)[range(2), :, first].argmax(1)
    weights = torch.zeros(2, network.num_prototypes)
    weights[range(2), first] = torch.tensor([2.0, -0.5])
    found = relevance.of_sums(crops, cells, weights)
    expected = relevance(crops, first) * torch.tensor([2, -0.5])[:, None, None]
    largest = expected.abs().max().item()
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=largest * 1e-5)
    other = torch.zeros_like(weights)
    other[:, 0] = 3
    both = relevance.of_sums(crops, cells, weights + other)
    torch.testing.assert_close(
        both, found + relevance.of_sums(crops, cells, other), rtol=1e-3, atol=largest * 1e-4
    )
    assert not relevance.of_sums(crops, cells, 0 * weights).any()
    assert relevance.of_sums(crops[:0], cells[:0], weights[:0]).shape == (0, 64, 64)


def features_of_cells(network: PrototypeNetwork, crops: Tensor) -> Tensor:
    """Returns the features of each image's cells, n×V×F."""
    return network.features(crops[:, None], torch.ones(len(crops), 1, dtype=torch.bool))


class Scores(NamedTuple):
    """A head that takes the first features as similarities."""

    def scores(self, embedding_XVD: Tensor) -> Tensor:
        return embedding_XVD


class Identity:
    def embed(self, features: Tensor) -> Tensor:
        return features

    def head(self) -> Scores:
        return Scores()


def test_the_best_cell_is_the_first_of_equal_ones() -> None:
    # similarities of 2×3 cells to two prototypes
    cells = torch.tensor([[[1.0, 4, 2], [4, 0, 4]], [[7, 7, 7], [7, 7, 7]]])
    one_hot = at_best(Identity(), torch.tensor([0, 1]))(cells.expand(2, 2, 2, 3))
    assert one_hot.flatten(1).tolist() == [[0, 1, 0, 0, 0, 0], [1, 0, 0, 0, 0, 0]]
    assert one_hot.shape == (2, 1, 2, 3)
    assert evenly(cells[None]).flatten().tolist() == pytest.approx([1 / 6] * 6)


def test_protopool_is_explained_at_its_best_cell_whatever_the_mean() -> None:
    network, crops, prototypes = make_model("protopool"), make_crops(4)[2:], torch.tensor([0, 1])
    head = network.head()
    assert head.focal
    embedding = network.embed(network.features(crops[:, None], torch.ones(2, 1, dtype=torch.bool)))
    scores = head.scores(embedding)
    pooled = head.pooled(scores, torch.ones(scores.shape[:2], dtype=torch.bool))
    largest = scores.amax(1)[range(2), prototypes]
    assert (pooled[range(2), prototypes] < largest).all()
    maps = PrototypeRelevance(network, "prp")(crops, prototypes)
    torch.testing.assert_close(maps.sum((1, 2)), largest.float(), rtol=1e-3, atol=0)


@pytest.mark.parametrize(
    ("model", "kind"),
    [
        ("protopnet", SimilarityTarget),
        ("protopool", SimilarityTarget),
        ("pipnet", PresenceTarget),
        ("blackbox", LogitTarget),
    ],
)
def test_each_model_has_the_head_of_its_scores(model: str, kind: type) -> None:
    network, prototypes = make_model(model), torch.tensor([2, 0])
    head = network.relevance_target(prototypes)
    assert isinstance(head, kind)
    features = torch.rand(2, network.backbone.num_features)
    shares = head.relevance(features).detach()
    torch.testing.assert_close(shares.sum(1), head.scores(features).detach(), rtol=1e-4, atol=1e-6)


def test_presence_by_hand() -> None:
    network = PipNet(model_settings("pipnet", prototypes=2), 1, TwoFeatures())
    network.feature_std = torch.tensor([2.0, 1.0])
    with torch.no_grad():
        network.projection.weight.copy_(torch.tensor([[2.0, 3.0], [-2.0, 1.0]]))
        network.projection.bias.copy_(torch.tensor([5.0, 5.0]))
    features = torch.tensor([[4.0, 1.0]])
    # standardised (2, 1): 4 + 3 and −4 + 1, 10 apart; W / deviation = [1, 3], [−1, 1]
    first, second = 1 / (1 + np.exp(-10)), 1 / (1 + np.exp(10))
    found = [PresenceTarget(network, torch.tensor([j])).relevance(features)[0] for j in (0, 1)]
    # 4·1 and 1·3 add to the first; 1·1 alone to the second
    assert found[0].tolist() == pytest.approx([first * 4 / 7, first * 3 / 7], rel=1e-4)
    assert found[1].tolist() == pytest.approx([0, second], rel=1e-4)


@pytest.mark.parametrize("rule", ["prp", "grad"])
def test_network_stays_as_it_is(rule: str) -> None:
    network, crops, prototypes = make_network(), make_crops(3), torch.tensor([0, 1, 2])
    network.train()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    relevance = PrototypeRelevance(network, rule)
    first = relevance(crops, prototypes)
    with pytest.raises(ZeroDivisionError):
        relevance._propagator.maps(crops, Fails())
    torch.testing.assert_close(relevance(crops, prototypes), first, rtol=0, atol=0)
    assert not first.requires_grad
    after = network.state_dict()
    assert list(before) == list(after)
    assert all(torch.equal(value, after[name]) for name, value in before.items())
    for part in network.modules():
        assert part.training and not part._forward_hooks and not part._forward_pre_hooks
    assert all(p.requires_grad and p.grad is None for p in network.parameters())


class Fails:
    def scores(self, features_nF: Tensor) -> Tensor:
        raise ZeroDivisionError

    relevance = scores


@pytest.mark.parametrize("rule", ["prp", "grad"])
def test_maps_are_of_the_backbone_as_it_was(rule: str) -> None:
    network, crops, prototypes = make_network(), make_crops(3), torch.tensor([0, 1, 2])
    propagator, head = Propagator(network.backbone, rule), SimilarityTarget(network, prototypes)
    before = propagator.maps(crops, head)
    with torch.no_grad():
        for parameter in network.backbone.parameters():
            parameter.mul_(2)
    assert torch.equal(propagator.maps(crops, head), before)


@pytest.mark.parametrize("name", ["efficientnet_b0", "resnet18", "convnext_atto"])
def test_pair_does_not_depend_on_the_others(name: str) -> None:
    network, crops, prototypes = make_network(name), make_crops(4), torch.tensor([0, 8, 3, 3])
    relevance = PrototypeRelevance(network, "prp")
    together = relevance(crops, prototypes)
    for i in (0, 3):
        alone = relevance(crops[i : i + 1], prototypes[i : i + 1])[0]
        atol = 1e-2 * alone.abs().max().item()
        torch.testing.assert_close(together[i], alone, rtol=0, atol=atol)


@pytest.mark.parametrize("rule", ["prp", "grad"])
def test_any_number_of_pairs_in_their_order(rule: str) -> None:
    network, n = make_network(), PAIRS + 3
    crops = make_crops(4).repeat(n // 4 + 1, 1, 1, 1)[:n]
    prototypes = torch.arange(n) % 4
    maps = PrototypeRelevance(network, rule)(crops, prototypes)
    assert maps.shape == (n, 64, 64)
    torch.testing.assert_close(maps[4:], maps[:-4], rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("rule", ["prp", "grad"])
def test_kinds_of_crops_and_of_modes(rule: str) -> None:
    network, crops, prototypes = make_network(), make_crops(3), torch.tensor([0, 1, 2])
    relevance = PrototypeRelevance(network, rule)
    maps = relevance(crops, prototypes)
    with torch.no_grad():
        assert torch.equal(relevance(crops / 255, prototypes), maps)
    with torch.inference_mode():
        assert torch.equal(relevance(crops / 255, prototypes.clone()), maps)


def test_dense_layers_and_convolutions_of_one_cell_are_the_same() -> None:
    torch.manual_seed(0)
    options = {"depths": (1, 1, 1, 1), "dims": (8, 8, 16, 16), "num_classes": 0}
    dense, convolved = (ConvNeXt(conv_mlp=conv, **options) for conv in (False, True))
    randomise(dense)
    state = dense.state_dict()
    own = convolved.state_dict()
    convolved.load_state_dict({name: state[name].view_as(own[name]) for name in own})
    backbone, crops, head = make_backbone(SMALL), make_crops(4), LogitTarget(torch.rand(4, 16))
    maps = []
    for backbone.network in (dense.eval(), convolved.eval()):
        maps.append(Propagator(backbone, "prp").maps(crops, head))
    torch.testing.assert_close(*maps, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "what"),
    [
        ("swin_tiny_patch4_window7_224", "SwinTransformer"),
        ("mobilenetv3_small_050", "MobileNetV3"),
        ("convnextv2_atto", "GlobalResponseNorm"),
        ("ecaresnet26t", "EcaModule"),
        ("mixnet_s", "MixedConv2d"),
    ],
)
def test_backbone_without_rules_is_told_what_has_them(name: str, what: str) -> None:
    pattern = rf"{what}.* of {name}.*ResNets.*EfficientNets.*ConvNeXts.*`grad`"
    with pytest.raises(ProtoMaskError, match=pattern):
        Propagator(Backbone(name), "prp")
