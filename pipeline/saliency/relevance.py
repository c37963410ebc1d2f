"""The `prp` and `grad` explanations: what each pixel of a crop added to a score.

Dimensions: n pairs of a crop and a score, S pixels a side, F features, H×W cells of a feature map,
D embedding.
"""

import copy
from collections.abc import Callable
from functools import partial, reduce
from typing import Any, Literal

import torch
from torch import Tensor, nn
from zennit.composites import SpecialFirstLayerMapComposite
from zennit.core import Hook, ParamMod
from zennit.layer import Sum
from zennit.rules import Norm, Pass, ZBox

from pipeline.model.base.backbone import Backbone
from pipeline.model.base.network import PrototypeNetwork
from pipeline.model.base.relevance_target import SMALLEST, RelevanceTarget
from pipeline.saliency.canonizers import ACTIVATIONS, GATES, canonical

Rule = Literal["prp", "grad"]

Pooling = Callable[[Tensor], Tensor]
"""Says what each cell of a map n×F×H×W counts in its features: n×1×H×W, sums to 1."""

# Values and weights are at least this, and the range of pixels is this much wider than it is: then
# a neuron that is active through its bias alone hands its relevance on instead of losing it.
MARGIN = 1e-3

# As many pass through the network at once; more take memory and no less time.
PAIRS = 8


def evenly(map_nFHW: Tensor) -> Tensor:
    """All cells count the same."""
    n, _, H, W = map_nFHW.shape
    return map_nFHW.new_full((n, 1, H, W), 1 / (H * W))


def at_best(network: PrototypeNetwork, prototypes_n: Tensor) -> Pooling:
    """Only the cell counts that is most similar to a prototype, of equal ones the first."""

    def pooling(map_nFHW: Tensor) -> Tensor:
        n, _, H, W = map_nFHW.shape
        scores_nVP = network.head().scores(network.embed(map_nFHW.flatten(2).mT))
        own_nV = scores_nVP.gather(2, prototypes_n[:, None, None].expand(n, H * W, 1))[..., 0]
        place_V = torch.arange(H * W, device=own_nV.device)
        is_best = own_nV == own_nV.amax(1, keepdim=True)
        best_n1 = torch.where(is_best, place_V, H * W).amin(1, keepdim=True)
        return (place_V == best_n1).to(map_nFHW).reshape(n, 1, H, W)

    return pooling


class Propagator:
    """Draws relevance maps. It copies the backbone as it is now, and leaves it alone.

    Args:
        backbone: on any device, in any mode; the copy is in evaluation mode.
        rule: `prp` hands the score down layer by layer (Bach et al., 2015), so that a map's sum is
            the score: in proportion to the positive contributions in convolutions (α = 1, β = 0),
            to those within the range of pixels in the first one (Montavon et al., 2017), to the
            terms of its sign in a residual sum, to the values in a mean, to the largest in a
            maximum. Activations, norms and gates pass it on as it is, and biases get nothing.
            `grad` multiplies the normalised pixels by the score's gradient.

    Raises:
        ProtoMaskError: `prp`, and the backbone has layers without a rule.
    """

    def __init__(self, backbone: Backbone, rule: Rule) -> None:
        self.rule = rule
        self._mean, self._std = backbone.mean, backbone.std
        if rule == "prp":
            self._network = canonical(backbone.network, backbone.name)
        else:
            self._network = copy.deepcopy(backbone).eval().requires_grad_(False)

    def maps(
        self, crops_nSS3: Tensor, target: RelevanceTarget, pooling: Pooling = evenly
    ) -> Tensor:
        """Returns signed maps, summed over the colours: float32 n×S×S.

        Args:
            crops_nSS3: uint8, or float 0..1, on the backbone's device; one batch.
            target: the score of each crop to explain.
            pooling: how the features that the score is of come out of the map.
        """
        scale = 1 if crops_nSS3.is_floating_point() else 255
        draw = self._propagate if self.rule == "prp" else self._differentiate
        with torch.inference_mode(False), torch.enable_grad():
            return draw(crops_nSS3.permute(0, 3, 1, 2).float() / scale, target, pooling).sum(1)

    def _differentiate(self, images: Tensor, target: RelevanceTarget, pooling: Pooling) -> Tensor:
        images.requires_grad_()
        map_nFHW = self._network.feature_map(images)
        scores_n = target.scores((map_nFHW * pooling(map_nFHW.detach())).sum((2, 3)))
        (gradient,) = torch.autograd.grad(scores_n.sum(), images)
        return (images.detach() - self._mean) * gradient

    def _propagate(self, images: Tensor, target: RelevanceTarget, pooling: Pooling) -> Tensor:
        low, high = -self._mean / self._std, (1 - self._mean) / self._std
        pixels = ((images - self._mean) / self._std).requires_grad_()
        with _composite(low, high).context(self._network) as network:
            map_nFHW = network.forward_features(pixels)
            with torch.no_grad():
                relevance_nFHW = _unpool(map_nFHW, target, pooling)
            # zennit's hooks put relevance in the place of gradients.
            (relevance,) = torch.autograd.grad(map_nFHW, pixels, relevance_nFHW)
        return relevance


class PrototypeRelevance:
    """Draws the relevance of crops' similarities to prototypes; where views are cells of a map, of
    the similarity of the most similar cell.

    Args:
        network: on any device; for its backbone see `Propagator`.
        rule: as there.

    Raises:
        ProtoMaskError: as there.
    """

    def __init__(self, network: PrototypeNetwork, rule: Rule) -> None:
        self.network, self.rule = network, rule
        self._propagator = Propagator(network.backbone, rule)

    def __call__(self, crops_nSS3: Tensor, prototypes_n: Tensor) -> Tensor:
        """Returns signed maps on the network's device, float32 n×S×S.

        Args:
            crops_nSS3: uint8, or float 0..1, on any device.
            prototypes_n: int64, for each crop, the prototype to explain.
        """
        passes = zip(crops_nSS3.split(PAIRS), prototypes_n.split(PAIRS), strict=True)
        return torch.cat([self._maps(crops, own) for crops, own in passes])

    def _maps(self, crops_nSS3: Tensor, prototypes_n: Tensor) -> Tensor:
        network, prototypes_n = self.network, prototypes_n.to(self.network.device)
        pooling = at_best(network, prototypes_n) if network.in_cells else evenly
        crops_nSS3 = crops_nSS3.to(network.device)
        return self._propagator.maps(crops_nSS3, network.relevance_target(prototypes_n), pooling)


def put_back(relevance_nSS: Tensor, boxes_n4: Tensor, sizes_n2: Tensor, side: int) -> Tensor:
    """Puts maps of crops into their boxes in the image, as it is when resized to side×side.

    The relevance of a crop's pixel is spread evenly over the area that the pixel covers.

    Args:
        relevance_nSS: the maps.
        boxes_n4: int, half-open (x0, y0, x1, y1) in the image.
        sizes_n2: int, the image's width and height.
        side: pixels.

    Returns:
        n×side×side, zero where the box is not; a map's sum stays what it was.
    """
    S = relevance_nSS.shape[-1]
    x0, y0, x1, y1 = boxes_n4.long().unbind(1)
    width, height = sizes_n2.long().unbind(1)
    rows = _overlap(y0, y1, height, S, side).to(relevance_nSS)
    columns = _overlap(x0, x1, width, S, side).to(relevance_nSS)
    return rows.mT @ relevance_nSS @ columns


def _overlap(start_n: Tensor, stop_n: Tensor, length_n: Tensor, S: int, side: int) -> Tensor:
    """Returns how much of each of S steps from start to stop lies in each of `side` cells of a
    length: fractions of the step, n×S×side. In whole numbers, so that nothing leaves the box.
    """
    start, extent, length = start_n[:, None], (stop_n - start_n)[:, None], length_n[:, None]
    steps = (start * S + extent * torch.arange(S + 1, device=start.device)) * side
    cells = length * S * torch.arange(side + 1, device=start.device)
    low = torch.maximum(steps[:, :-1, None], cells[:, None, :-1])
    high = torch.minimum(steps[:, 1:, None], cells[:, None, 1:])
    return (high - low).clamp_min(0) / (extent * side)[..., None]


def _unpool(map_nFHW: Tensor, target: RelevanceTarget, pooling: Pooling) -> Tensor:
    """Shares the relevance of features among the cells in proportion to what they add to them."""
    parts_nFHW = map_nFHW * pooling(map_nFHW)
    features_nF = parts_nFHW.sum((2, 3))
    units_nF = target.relevance(features_nF) / torch.where(features_nF == 0, 1, features_nF)
    return parts_nFHW * units_nF[:, :, None, None]


def _composite(low: Tensor, high: Tensor) -> SpecialFirstLayerMapComposite:
    """Returns the rule of each kind of layer, for normalised pixels from low to high."""
    rules: list[tuple[Any, Hook]] = [
        ((*ACTIVATIONS, *GATES, nn.LayerNorm), Pass()),
        (Sum, SameSign()),
        (nn.AvgPool2d, Norm()),
        ((nn.Conv2d, nn.Linear), PositiveContributions()),
    ]
    box = ZBox(low - MARGIN, high + MARGIN, stabilizer=SMALLEST**2, zero_params="bias")
    return SpecialFirstLayerMapComposite(rules, first_map=[(nn.Conv2d, box)])


class PositiveContributions(Hook):
    """The alpha-beta rule with α = 1, β = 0: positive values times positive weights, and negative
    values times negative weights, share the relevance.

    zennit's own, `ZPlus`, drops the relevance of a neuron that has no positive contribution and is
    active through its bias. Depthwise convolutions have so many of these that of an
    EfficientNet-Lite0's relevance less than 1 % would reach the pixels.
    """

    def forward(self, module: nn.Module, input: tuple[Tensor, ...], output: Tensor) -> None:
        self.stored_tensors["input"] = input[0].detach()

    def backward(self, module: nn.Module, grad_input: Any, grad_output: Any) -> tuple[Tensor]:
        values = self.stored_tensors["input"]
        halves = [values.clamp(min=SMALLEST)]
        if (values < 0).any():
            halves.append((-values).clamp(min=0))
        with torch.enable_grad():
            total = reduce(torch.add, map(partial(_through, module), halves, (1, -1)))
        gradients = torch.autograd.grad(total, halves, grad_output[0] / total.detach())
        return (reduce(torch.add, map(torch.mul, map(Tensor.detach, halves), gradients)),)


def _through(module: nn.Module, half: Tensor, sign: int) -> Tensor:
    """Passes half of the values through the weights of their sign, without the module's hooks."""
    modifier = ParamMod(lambda weight, _: (sign * weight).clamp(min=SMALLEST), zero_params="bias")
    with modifier(module) as modified:
        return modified.forward(half.requires_grad_())


class SameSign(Hook):
    """Shares the relevance of a sum among the terms of its sign, in proportion to them.

    In proportion to all terms, as zennit's `Norm` does, two large ones that nearly cancel would get
    huge relevance of both signs; along the residual sums of a ConvNeXt it grows until little of the
    map is anything else.
    """

    def forward(self, module: Any, input: tuple[Tensor, ...], output: Tensor) -> None:
        signed = torch.where(output < 0, -1, 1).unsqueeze(module.dim) * input[0]
        self.stored_tensors["shares"] = signed.detach().clamp(min=SMALLEST)

    def backward(self, module: Any, grad_input: Any, grad_output: Any) -> tuple[Tensor]:
        shares = self.stored_tensors["shares"]
        units = grad_output[0] / shares.sum(module.dim)
        return (shares * units.unsqueeze(module.dim),)
