"""SLIT: the regions between the boundaries that DirectSAM sees (Chen et al., 2024)."""

import re
import threading
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from pydantic import BeforeValidator, Field
from safetensors import SafetensorError
from safetensors.torch import load_file
from scipy import ndimage
from torch import Tensor, nn
from torch.nn.functional import interpolate

from pipeline.errors import ProtoMaskError
from pipeline.masks.masks import Masks, Region
from pipeline.masks.segmenter import Machine, Segmenter

WEIGHTS = "https://huggingface.co/chendelong/DirectSAM-1800px-0424/resolve/main/model.safetensors"
# SegFormer-B5; what is not here is as in transformers' SegformerConfig.
PUBLISHED = {
    "depths": (3, 6, 40, 3),
    "hidden_sizes": (64, 128, 320, 512),
    "num_attention_heads": (1, 2, 5, 8),
    "sr_ratios": (8, 4, 2, 1),
    "decoder_hidden_size": 768,
}
MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)
# What the published network needs for each pixel of its input at its peak, in float32: 2000 was
# measured. A guess that is too small costs one halving.
BYTES_PER_PIXEL = 2500
EIGHT_NEIGHBOURS = np.ones((3, 3))

_device = threading.Lock()


def _sha256(value: Any) -> Any:
    if isinstance(value, str) and re.fullmatch("[0-9a-f]{64}", value):
        return value
    raise ValueError(
        f"{value!r} is no SHA-256, 64 hexadecimal digits: fetch {WEIGHTS}, run `sha256sum "
        "model.safetensors`, and set segmenter.weights_sha256 to what it prints"
    )


class Slit(Segmenter):
    """Cuts an image along the boundaries that the network DirectSAM finds in it.

    A pixel is boundary where its probability is above `threshold`, or where one of its four
    neighbours is. The masks are the connected components (8-neighbourhood) of all other pixels.

    Args:
        weights_sha256: of the network's weights, a safetensors file.
        side: the network sees the image resized to this many pixels a side, whatever its shape.
        threshold: of the boundary probability.
        precision: what the network computes in; `bfloat16` is faster on a GPU.

    A mask's score is 1 − (mean boundary probability inside it)/threshold: 1 where the network sees
    no trace of a boundary, 0 where all of the mask is as near to one as a mask can be.
    """

    name: Literal["slit"] = "slit"
    version: Literal[1] = 1
    weights_sha256: Annotated[str, BeforeValidator(_sha256)]
    side: Annotated[int, Field(ge=32)] = 1800
    threshold: Annotated[float, Field(gt=0, lt=1)] = 0.001
    precision: Literal["float32", "bfloat16"] = "float32"
    uses_device: ClassVar[bool] = True
    architecture: ClassVar[Mapping[str, Any]] = PUBLISHED

    def segment(
        self, images: Sequence[NDArray[np.uint8]], machine: Machine = Machine()
    ) -> list[Masks]:
        """Segments photographs; several threads may call it at a time.

        Args:
            images: uint8 RGB, each height×width×3, sizes may differ.
            machine: what to work with.

        Returns:
            The masks of each image, at its own resolution.

        Raises:
            ProtoMaskError: transformers is not installed, there are no weights or they are of
                another network, or the device has no room for a single image.
        """
        if not images:
            return []
        with _device:
            boundaries = _boundaries(self, machine)
        return [cut(seen, self.threshold) for seen in boundaries.probabilities(images)]


class Boundaries:
    """The network on its device, with as many images at a time as there is room for.

    Args:
        network: has `logits`, n×1×h×w, for n×3×side×side normalised RGB images.
        slit: how the network sees an image.
        machine: what to work with.

    Attributes:
        batch: images at a time; halved whenever the device has no room for them.
    """

    def __init__(self, network: nn.Module, slit: Slit, machine: Machine) -> None:
        self.slit = slit
        self.device = torch.device(machine.device)
        network = network.float().eval().to(self.device)
        self.network: Any = torch.compile(network) if machine.compile else network
        self.batch = _guess_batch(self.device, slit.side, machine.memory_fraction)

    def probabilities(self, images: Sequence[NDArray[np.uint8]]) -> Iterator[NDArray[np.float32]]:
        """Yields for each image the probability that a pixel is boundary, float32 height×width.

        Raises:
            ProtoMaskError: the device has no room for a single image.
        """
        done = 0
        while done < len(images):
            batch = self.batch
            try:
                found = self._see(images[done : done + batch])
            except torch.OutOfMemoryError:
                self._halve(batch)
                continue
            yield from found
            done += len(found)

    @torch.inference_mode()
    def _see(self, images: Sequence[NDArray[np.uint8]]) -> list[NDArray[np.float32]]:
        resized = torch.stack([_resize(image, self.slit.side) for image in images])
        in_bfloat16 = self.slit.precision == "bfloat16"
        with _device:
            pixels = _normalise(resized.to(self.device))
            with torch.autocast(self.device.type, torch.bfloat16, enabled=in_bfloat16):
                logits = self.network(pixels).logits
            return [
                _upsample(logit.float(), image.shape[:2]).cpu().numpy()
                for logit, image in zip(logits, images, strict=True)
            ]

    def _halve(self, batch: int) -> None:
        if batch == 1:
            side = self.slit.side
            raise ProtoMaskError(
                f"{self.device} has no room for one image of {side}×{side} pixels: end what else "
                "uses its memory, raise runtime.memory_fraction, or set runtime.device=cpu"
            ) from None
        self.batch = min(self.batch, batch // 2)


def cut(probability: NDArray[np.float32], threshold: float) -> Masks:
    """Returns the regions between boundaries.

    Args:
        probability: that a pixel is boundary, height×width, in 0–1.
        threshold: a pixel with more is boundary, and so are its four neighbours.
    """
    boundary = ndimage.binary_dilation(probability > threshold)
    labels, count = ndimage.label(~boundary, EIGHT_NEIGHBOURS)
    inside = ndimage.mean(probability, labels, range(1, count + 1))
    regions = [
        Region(columns.start, rows.start, labels[rows, columns] == number, (1 - mean / threshold,))
        for number, ((rows, columns), mean) in enumerate(
            zip(ndimage.find_objects(labels), inside, strict=True), start=1
        )
    ]
    height, width = probability.shape
    return Masks.of(height, width, regions, len(Slit.score_names))


def load_network(path: Path, architecture: Mapping[str, Any]) -> nn.Module:
    """Builds a SegFormer with one output and loads its weights.

    The published weights have the names of transformers 4; `from_pretrained` knows both.

    Args:
        path: a safetensors file.
        architecture: of the SegFormer, in the words of transformers' SegformerConfig.

    Raises:
        ProtoMaskError: transformers is not installed, or the file holds no weights, or another
            network's.
    """
    transformers = _import_transformers()
    try:
        state = load_file(path)
    except SafetensorError as error:
        raise ProtoMaskError(f"{path} is no safetensors file ({error}); get {WEIGHTS}") from None
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    network, found = transformers.SegformerForSemanticSegmentation.from_pretrained(
        None,
        config=transformers.SegformerConfig(num_labels=1, **architecture),
        state_dict=state,
        ignore_mismatched_sizes=True,
        output_loading_info=True,
    )
    wrong = {what: len(found[f"{what}_keys"]) for what in ("missing", "unexpected", "mismatched")}
    if any(wrong.values()):
        said = ", ".join(f"{count} {what}" for what, count in wrong.items())
        raise ProtoMaskError(
            f"{path} holds the weights of another network (of its tensors, {said}); get {WEIGHTS}"
        )
    return network


@lru_cache(maxsize=1)
def _boundaries(slit: Slit, machine: Machine) -> Boundaries:
    from pipeline.masks.weights import find_weights

    _import_transformers()
    path = find_weights(WEIGHTS, slit.weights_sha256, machine.weights)
    return Boundaries(load_network(path, slit.architecture), slit, machine)


def _import_transformers() -> Any:
    try:
        import transformers
    except ImportError:
        raise ProtoMaskError(
            "the segmenter slit needs transformers: `pip install 'protomask[slit]'`"
        ) from None
    return transformers


def _guess_batch(device: torch.device, side: int, memory_fraction: float) -> int:
    if device.type != "cuda":
        return 1
    free, total = torch.cuda.mem_get_info(device)
    budget = free - (1 - memory_fraction) * total
    return max(1, int(budget / (BYTES_PER_PIXEL * side**2)))


def _resize(image: NDArray[np.uint8], side: int) -> Tensor:
    """Returns the image as the network was trained on it, uint8 side×side×3."""
    resized = Image.fromarray(image).resize((side, side), Image.Resampling.BILINEAR)
    return torch.from_numpy(np.array(resized))


def _normalise(images: Tensor) -> Tensor:
    """Turns n×h×w×3 of uint8 into n×3×h×w of float32 with ImageNet's mean and deviation."""
    mean, std = (torch.tensor(values, device=images.device) for values in (MEAN, STD))
    return ((images / 255 - mean) / std).permute(0, 3, 1, 2)


def _upsample(logit: Tensor, size: Sequence[int]) -> Tensor:
    """Returns the probabilities, height×width, of 1×h×w logits."""
    return interpolate(logit[None], tuple(size), mode="bilinear")[0, 0].sigmoid()
