"""Canonical forms of timm's networks, as relevance propagation needs them.

Batch norms and layer scales are merged into the convolutions before them, and every residual sum
is a module of its own, to which a rule can be attached.
"""

import copy
from typing import Any

import torch
from timm.layers import GELU, DropPath, GELUTanh, Mlp, SEModule, Sigmoid
from timm.models._efficientnet_blocks import (
    ConvBnAct,
    DepthwiseSeparableConv,
    EdgeResidual,
    InvertedResidual,
)
from timm.models.convnext import ConvNeXt, ConvNeXtBlock, ConvNeXtStage, Downsample
from timm.models.efficientnet import EfficientNet, SqueezeExcite
from timm.models.resnet import BasicBlock, Bottleneck, ResNet
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval
from zennit.layer import Sum
from zennit.types import Activation

from pipeline.errors import NoRuleError

_FAMILIES = (ResNet, EfficientNet, ConvNeXt)
_HEADS = ("global_pool", "fc", "classifier", "head")
GATES = (SqueezeExcite, SEModule)
ACTIVATIONS = (Activation, GELU, GELUTanh, Sigmoid)

_MOBILE = (ConvBnAct, DepthwiseSeparableConv, EdgeResidual, InvertedResidual)
_LAYERS = (nn.Conv2d, nn.Linear, nn.LayerNorm, nn.MaxPool2d, nn.AvgPool2d, *ACTIVATIONS)
_BLOCKS = (*_MOBILE, BasicBlock, Bottleneck, ConvNeXtBlock, ConvNeXtStage, Downsample, Mlp)
_KNOWN = (*_FAMILIES, *_LAYERS, *_BLOCKS, *GATES, nn.Sequential, nn.Identity, nn.Dropout, DropPath)


class Residual(nn.Module):
    """activation(branch(x) + shortcut(x)), with the sum as a module.

    Args:
        branch: the block without its shortcut and its last activation.
        shortcut: the shortcut, often the identity.
        activation: the activation applied to the sum.
    """

    def __init__(self, branch: nn.Module, shortcut: nn.Module, activation: nn.Module) -> None:
        super().__init__()
        self.branch, self.shortcut, self.activation = branch, shortcut, activation
        self.sum = Sum(dim=0)

    def forward(self, x: Tensor) -> Tensor:
        """Returns the block's output for the feature maps x, n×F×H×W."""
        both = torch.stack([self.branch(x), self.shortcut(x)])
        return self.activation(self.sum(both))


class _Nothing(nn.Module):
    """Replaces a block's shortcut, which its `Residual` computes, by zero."""

    def forward(self, x: Tensor) -> float:
        return 0.0


def canonical(network: Any, name: str) -> Any:
    """Returns a canonical copy of a network in evaluation mode, with the same `forward_features`.

    Args:
        network: a ResNet, EfficientNet or ConvNeXt of timm; it is not changed.
        name: the network's name, for error messages.

    Raises:
        NoRuleError: the network is of another family or has a layer without a rule.
    """
    if not isinstance(network, _FAMILIES):
        raise _not_understood(name, type(network).__name__)
    network = copy.deepcopy(network).eval().requires_grad_(False)
    for head in _HEADS:
        if hasattr(network, head):
            setattr(network, head, nn.Identity())
    _merge_batch_norms(network)
    unknown = {type(part).__name__ for part in network.modules() if not isinstance(part, _KNOWN)}
    if unknown:
        raise _not_understood(name, ", ".join(sorted(unknown)))
    for path, block in list(network.named_modules()):
        residual = _residual(block)
        if residual is not None:
            network.set_submodule(path, residual)
    return network


def _not_understood(name: str, what: str) -> NoRuleError:
    return NoRuleError(
        f"relevance propagation has no rule for {what} of {name}: it knows the ResNets, "
        "EfficientNets and ConvNeXts that are made of convolutions, batch or layer norms and "
        "squeeze-and-excitation alone. The `grad` explanation works with any backbone"
    )


def _merge_batch_norms(network: nn.Module) -> None:
    """Merges each batch norm that follows a convolution into it, and keeps its activation."""
    parts: list[tuple[str, Any]] = list(network.named_modules())
    last_path, last = parts[0]
    for path, part in parts:
        if isinstance(part, nn.BatchNorm2d) and _ends_in(last, part.num_features):
            network.set_submodule(last_path, fuse_conv_bn_eval(last, part))
            network.set_submodule(path, getattr(part, "act", nn.Identity()))
        last_path, last = path, part


def _ends_in(part: nn.Module, channels: int) -> bool:
    return isinstance(part, nn.Conv2d) and part.out_channels == channels


def _residual(block: Any) -> Residual | None:
    """Returns a block with its residual sum as a module; None for a block without one."""
    if isinstance(block, _MOBILE) and block.has_skip:
        block.has_skip = False
        return Residual(block, nn.Identity(), nn.Identity())
    if isinstance(block, BasicBlock | Bottleneck):
        last = "act2" if isinstance(block, BasicBlock) else "act3"
        residual = Residual(block, block.downsample or nn.Identity(), getattr(block, last))
        block.downsample = _Nothing()
        setattr(block, last, nn.Identity())
        return residual
    if isinstance(block, ConvNeXtBlock):
        _merge_layer_scale(block)
        residual = Residual(block, block.shortcut, nn.Identity())
        block.set_submodule("shortcut", _Nothing())
        return residual
    return None


def _merge_layer_scale(block: Any) -> None:
    if block.gamma is not None:
        last = block.mlp.fc2
        last.weight.mul_(block.gamma.view(-1, *[1] * (last.weight.ndim - 1)))
        last.bias.mul_(block.gamma)
        block.gamma = None
