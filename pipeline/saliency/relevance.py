"""The `prp` and `grad` explanations: the relevance of each pixel of a crop for a score.

Dimensions: n pairs of a crop and a score, S pixels a side, F features, H×W cells of a feature map,
D embedding.
"""

import copy
from collections.abc import Callable, Iterator, Sequence
from functools import partial, reduce
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional
from zennit.composites import SpecialFirstLayerMapComposite
from zennit.core import Hook, ParamMod
from zennit.layer import Sum
from zennit.rules import Norm, ZBox

from pipeline.backbone.backbone import LAST, Backbone, stage_outputs
from pipeline.model.base.network import PrototypeNetwork
from pipeline.model.base.pooling import cell_weights
from pipeline.model.base.relevance_target import SMALLEST, RelevanceTarget
from pipeline.saliency.canonizers import ACTIVATIONS, GATES, canonical

Rule = Literal["prp", "grad"]

Pooling = Callable[[Tensor], Tensor]
"""Computes the weight of each cell of a map n×F×H×W in its features: n×1×H×W, sums to 1."""

# Values and weights are at least this, and the range of pixels is this much wider than it is: then
# a neuron that is active through its bias alone hands its relevance on instead of losing it.
MARGIN = 1e-3

# Number of pairs in a pass through the network; more take more memory and no less time. With fewer
# than 16, PyTorch leaves 1×1 convolutions in one thread to a slower kernel.
PAIRS = 16


def evenly(map_nFHW: Tensor) -> Tensor:
    """Pools with the same weight for each cell (average pooling): n×1×H×W of 1/(H·W)."""
    n, _, H, W = map_nFHW.shape
    return map_nFHW.new_full((n, 1, H, W), 1 / (H * W))


def within(inside_nSS: Tensor) -> Pooling:
    """Returns a pooling that weights each cell by its share of the crop's mask.

    Args:
        inside_nSS: bool n×S×S, the masks inside the crops, on the device of the maps.
    """
    return lambda map_nFHW: cell_weights(inside_nSS, *map_nFHW.shape[2:])


def at_best(network: PrototypeNetwork, prototypes_n: Tensor) -> Pooling:
    """Returns a pooling that selects the cell most similar to a prototype, the first of equal ones.

    Args:
        network: a model whose views are cells.
        prototypes_n: int64 n, for each map, the prototype, 0..P−1.
    """

    def pooling(map_nFHW: Tensor) -> Tensor:
        n, _, H, W = map_nFHW.shape
        scores_nVP = network.head().scores(network.embed(map_nFHW.flatten(2).mT))
        own_nV = scores_nVP.gather(2, prototypes_n[:, None, None].expand(n, H * W, 1))[..., 0]
        place_V = torch.arange(H * W, device=own_nV.device)
        is_best = own_nV == own_nV.amax(1, keepdim=True)
        best_n1 = torch.where(is_best, place_V, H * W).amin(1, keepdim=True)
        return (place_V == best_n1).to(map_nFHW).reshape(n, 1, H, W)

    return pooling


def at_cells(cells_n: Tensor) -> Pooling:
    """Returns a pooling that selects one given cell of each map.

    Args:
        cells_n: int64 n, the cell of each map in row-major order.
    """

    def pooling(map_nFHW: Tensor) -> Tensor:
        n, _, H, W = map_nFHW.shape
        return functional.one_hot(cells_n, H * W).to(map_nFHW).reshape(n, 1, H, W)

    return pooling


class Propagator:
    """Computes relevance maps, with a copy of the backbone made at construction.

    `prp` is layer-wise relevance propagation (Bach et al., 2015); a map's sum is the score. A
    layer's relevance is distributed in proportion to the positive contributions in convolutions
    (α = 1, β = 0), by the z^B rule for bounded pixels in the first one (Montavon et al., 2017), to
    the terms with the sum's sign in a residual sum, to the values in average pooling, to the
    largest value in max pooling. Activations, norms and gates pass relevance through, and biases
    get none. `grad` is (image − mean) × gradient of the score.

    Args:
        backbone: the feature extractor, on any device, in training or evaluation mode.
        rule: the method, `prp` or `grad`.
        stages: the feature maps that a score is computed from, as `Backbone` numbers them.

    Raises:
        NoRuleError: `prp`, and the backbone has layers without a rule.
    """

    def __init__(self, backbone: Backbone, rule: Rule, stages: Sequence[int] = (LAST,)) -> None:
        self.rule, self.stages = rule, backbone.places(stages)
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
            pooling: how the features that the score is of come out of the maps; those of several
                stages are put side by side.
        """
        scale = 1 if crops_nSS3.is_floating_point() else 255
        draw = self._propagate if self.rule == "prp" else self._differentiate
        with torch.inference_mode(False), torch.enable_grad():
            return draw(crops_nSS3.permute(0, 3, 1, 2).float() / scale, target, pooling).sum(1)

    def _differentiate(self, images: Tensor, target: RelevanceTarget, pooling: Pooling) -> Tensor:
        images.requires_grad_()
        maps = self._network.feature_maps(images, self.stages)
        means = [(found * pooling(found.detach())).sum((2, 3)) for found in maps]
        scores_n = target.scores(torch.cat(means, dim=1))
        (gradient,) = torch.autograd.grad(scores_n.sum(), images)
        return (images.detach() - self._mean) * gradient

    def _propagate(self, images: Tensor, target: RelevanceTarget, pooling: Pooling) -> Tensor:
        low, high = -self._mean / self._std, (1 - self._mean) / self._std
        pixels = ((images - self._mean) / self._std).requires_grad_()
        with _composite(low, high).context(self._network) as network:
            maps = stage_outputs(network, pixels, self.stages)
            with torch.no_grad():
                shares = _unpool(maps, target, pooling)
            # zennit's hooks put relevance in the place of gradients. What the score owes to an
            # earlier map joins there what comes down from later ones.
            (relevance,) = torch.autograd.grad(maps, pixels, shares)
        return relevance


class PrototypeRelevance:
    """Computes the relevance of crops' pixels for their similarities to prototypes.

    Where views are cells of a feature map, the similarity of the most similar cell is explained.

    Args:
        network: the model to explain, on any device; its backbone is copied by a `Propagator`.
        rule: the method, `prp` or `grad`, as described at `Propagator`.

    Raises:
        NoRuleError: `prp`, and the backbone has layers without a rule.
    """

    def __init__(self, network: PrototypeNetwork, rule: Rule) -> None:
        self.network, self.rule = network, rule
        self._propagator = Propagator(network.backbone, rule, network.settings.feature_stages)

    def __call__(
        self, crops_nSS3: Tensor, prototypes_n: Tensor, inside_nSS: Tensor | None = None
    ) -> Tensor:
        """Returns signed relevance maps on the network's device, float32 n×S×S.

        Args:
            crops_nSS3: RGB crops n×S×S×3, uint8, or float in [0, 1], on any device.
            prototypes_n: int64 n, for each crop, the prototype to explain, 0..P−1.
            inside_nSS: bool n×S×S, the masks inside the crops; needed, and used, by a model that
                pools inside them.
        """
        passes = _passes(crops_nSS3, prototypes_n, inside_nSS)
        return torch.cat([self._maps(*some) for some in passes])

    def of_sums(
        self,
        crops_nSS3: Tensor,
        cells_n: Tensor,
        weights_nP: Tensor,
        inside_nSS: Tensor | None = None,
    ) -> Tensor:
        """Returns signed maps for weighted sums of the similarities of one view: float32 n×S×S.

        Args:
            crops_nSS3: RGB crops n×S×S×3, uint8, or float in [0, 1], on any device.
            cells_n: int64 n, the cell of each crop that is explained; 0 where views are crops.
            weights_nP: float n×P, the weight of each prototype's similarity in the sum.
            inside_nSS: bool n×S×S, the masks inside the crops, as for `__call__`.
        """
        network, device = self.network, self.network.device
        maps = []
        for crops, cells, weights, *inside in _passes(
            crops_nSS3, cells_n, weights_nP.float(), inside_nSS
        ):
            pooling = at_cells(cells.to(device)) if network.in_cells else self._of_crops(*inside)
            target = SumTarget(network, weights.to(device))
            maps.append(self._propagator.maps(crops.to(device), target, pooling))
        return torch.cat(maps) if maps else crops_nSS3.new_zeros(crops_nSS3.shape[:3]).float()

    def _maps(
        self, crops_nSS3: Tensor, prototypes_n: Tensor, inside_nSS: Tensor | None = None
    ) -> Tensor:
        network, prototypes_n = self.network, prototypes_n.to(self.network.device)
        in_cells = network.in_cells
        pooling = at_best(network, prototypes_n) if in_cells else self._of_crops(inside_nSS)
        crops_nSS3 = crops_nSS3.to(network.device)
        return self._propagator.maps(crops_nSS3, network.relevance_target(prototypes_n), pooling)

    def _of_crops(self, inside_nSS: Tensor | None = None) -> Pooling:
        """Returns the pooling of a model whose views are crops."""
        if not self.network.settings.pools_inside:
            return evenly
        assert inside_nSS is not None, "a model that pools inside masks is given these"
        return within(inside_nSS.to(self.network.device))


def _passes(*tensors: Tensor | None) -> Iterator[tuple[Tensor, ...]]:
    """Splits tensors of n pairs, of which some may be None and are left out."""
    return zip(*(given.split(PAIRS) for given in tensors if given is not None), strict=True)


class SumTarget(NamedTuple):
    """Weighted sums of the similarities to prototypes as the target of relevance propagation.

    Args:
        network: the explained network.
        weights_nP: float n×P, for each crop the weight of each prototype's similarity.
    """

    network: PrototypeNetwork
    weights_nP: Tensor

    def scores(self, features_nF: Tensor) -> Tensor:
        """Returns the sums, float n; differentiable.

        Args:
            features_nF: backbone features of the explained views, float n×F.
        """
        crop_m, weight_m, target = self._terms()
        scores_n = features_nF.new_zeros(len(features_nF))
        return scores_n.index_add(0, crop_m, weight_m * target.scores(features_nF[crop_m]))

    def relevance(self, features_nF: Tensor) -> Tensor:
        """Returns the contributions of the features to the sums, float n×F.

        Args:
            features_nF: backbone features of the explained views, float n×F.
        """
        crop_m, weight_m, target = self._terms()
        relevance_mF = weight_m[:, None] * target.relevance(features_nF[crop_m])
        return torch.zeros_like(features_nF).index_add(0, crop_m, relevance_mF)

    def _terms(self) -> tuple[Tensor, Tensor, RelevanceTarget]:
        """Returns the crop and the weight of each term of the sums, and the terms' own target."""
        crop_m, prototype_m = self.weights_nP.nonzero(as_tuple=True)
        weight_m = self.weights_nP[crop_m, prototype_m]
        return crop_m, weight_m, self.network.relevance_target(prototype_m)


def _unpool(maps: Sequence[Tensor], target: RelevanceTarget, pooling: Pooling) -> list[Tensor]:
    """Shares the relevance of features among the cells in proportion to what they add to them."""
    parts = [found * pooling(found) for found in maps]
    features_nF = torch.cat([part.sum((2, 3)) for part in parts], dim=1)
    units_nF = target.relevance(features_nF) / torch.where(features_nF == 0, 1, features_nF)
    units = units_nF.split([part.shape[1] for part in parts], dim=1)
    return [part * unit[:, :, None, None] for part, unit in zip(parts, units, strict=True)]


def _composite(low: Tensor, high: Tensor) -> SpecialFirstLayerMapComposite:
    """Returns the rules for all kinds of layers, for normalised pixels between low and high."""
    rules: list[tuple[Any, Hook]] = [
        ((*ACTIVATIONS, *GATES, nn.LayerNorm), LayerRule()),
        (Sum, SameSign()),
        (nn.AvgPool2d, Norm()),
        ((nn.Conv2d, nn.Linear), PositiveContributions()),
    ]
    box = ZBox(low - MARGIN, high + MARGIN, stabilizer=SMALLEST**2, zero_params="bias")
    return SpecialFirstLayerMapComposite(rules, first_map=[(nn.Conv2d, box)])


class _Replaced(torch.autograd.Function):
    """Puts a rule into the graph in the place of a layer's gradient."""

    @staticmethod
    def forward(ctx: Any, entered: Tensor, output: Tensor, share: Callable[..., Tensor]) -> Tensor:
        ctx.share = share
        return output.detach()  # or the next layer could not change it in place

    @staticmethod
    def backward(ctx: Any, *relevance: Tensor) -> tuple[Tensor, None, None]:
        return ctx.share(*relevance), None, None


class LayerRule(Hook):
    """Hands relevance on as it is; the base of the other rules.

    The layer's own gradient, which zennit's hooks compute and drop, is not computed.
    """

    def pre_forward(self, module: nn.Module, input: tuple[Tensor]) -> Tensor:
        """Lets the layer compute without a graph."""
        (self.stored_tensors["entered"],) = input
        return input[0].detach()

    def post_forward(self, module: nn.Module, input: tuple[Tensor], output: Tensor) -> None:
        """Registers no hook: `forward` connects the output with what entered."""

    def forward(self, module: nn.Module, input: tuple[Tensor], output: Tensor) -> Tensor:
        """Keeps what the rule needs, and returns the output with the rule in its graph."""
        self.keep(module, input[0], output)
        share = partial(self.share, module)
        return _Replaced.apply(self.stored_tensors.pop("entered"), output, share)

    def keep(self, module: Any, values: Tensor, output: Tensor) -> None:
        """Stores what `share` needs of the layer's input and output; nothing."""

    def share(self, module: Any, relevance: Tensor) -> Tensor:
        """Returns the relevance of the layer's input, given that of its output; the same."""
        return relevance


class PositiveContributions(LayerRule):
    """The alpha-beta rule with α = 1, β = 0 (Bach et al., 2015).

    Relevance is distributed over the products of positive values with positive weights and of
    negative values with negative weights. zennit's own, `ZPlus`, drops the relevance of a neuron
    that has no positive contribution and is active through its bias. Depthwise convolutions have so
    many of these that less than 1 % of the relevance of an EfficientNet-Lite0 would reach the
    pixels.
    """

    def keep(self, module: nn.Module, values: Tensor, output: Tensor) -> None:
        """Stores the layer's input."""
        self.stored_tensors["input"] = values

    def share(self, module: nn.Module, relevance: Tensor) -> Tensor:
        """Returns the relevance of the layer's input, given that of its output."""
        values = self.stored_tensors.pop("input")
        halves = [values.clamp(min=SMALLEST)]
        if values.numel() and values.amin() < 0:
            halves.append((-values).clamp(min=0))
        with torch.enable_grad():
            total = reduce(torch.add, map(partial(_through, module), halves, (1, -1)))
        gradients = torch.autograd.grad(total, halves, relevance / total.detach())
        return reduce(torch.add, map(torch.mul, map(Tensor.detach, halves), gradients))


def _through(module: nn.Module, half: Tensor, sign: int) -> Tensor:
    """Applies the module with the weights of one sign to values of that sign, without its hooks."""
    modifier = ParamMod(lambda weight, _: (sign * weight).clamp(min=SMALLEST), zero_params="bias")
    with modifier(module) as modified:
        return modified.forward(half.requires_grad_())


class SameSign(LayerRule):
    """Distributes the relevance of a sum over the terms with the sum's sign, in proportion to them.

    With zennit's `Norm`, which distributes over all terms, two large terms that nearly cancel would
    get huge relevance of opposite signs; along the residual sums of a ConvNeXt these grow until
    they dominate the map.
    """

    def keep(self, module: Any, values: Tensor, output: Tensor) -> None:
        """Stores the terms with the sum's sign."""
        signed = torch.where(output < 0, -1, 1).unsqueeze(module.dim) * values
        self.stored_tensors["shares"] = signed.clamp(min=SMALLEST)

    def share(self, module: Any, relevance: Tensor) -> Tensor:
        """Returns the relevance of the terms, given that of the sum."""
        shares = self.stored_tensors.pop("shares")
        return shares * (relevance / shares.sum(module.dim)).unsqueeze(module.dim)
