"""Boundary detection by the network DirectSAM (Chen et al., 2024)."""

import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn.functional import interpolate

from pipeline.errors import ProtoMaskError
from pipeline.masks.batch_size import BatchSize, limit_memory
from pipeline.masks.segmenter import Machine
from pipeline.masks.segmenters.slit.settings import WEIGHTS, SlitSettings

MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)
# Peak memory of the published network for each pixel of its input, in float32; measured: 2000.
# An estimate that is too small costs one halving of the batch size.
BYTES_PER_PIXEL = 2500

_device = threading.Lock()


class Boundaries:
    """The network on its device, with batches as large as memory allows.

    Args:
        network: returns `logits`, n×1×h×w, for normalised RGB images, n×3×side×side.
        slit: the parameters of the segmenter.
        machine: the device and other settings of this machine.

    Attributes:
        batch: number of images in a batch; halved whenever memory runs out.
    """

    def __init__(self, network: nn.Module, slit: SlitSettings, machine: Machine) -> None:
        self.slit = slit
        self.device = torch.device(machine.device)
        network = network.float().eval().to(self.device)
        self.network: Any = torch.compile(network) if machine.compile else network
        limit_memory(self.device, machine.memory_fraction)
        self.batch = BatchSize("photographs", _guess_batch(self.device, slit.side, machine))

    def probabilities(self, images: Sequence[NDArray[np.uint8]]) -> Iterator[NDArray[np.float32]]:
        """Yields each image's boundary probabilities, float32 height×width in [0, 1].

        Args:
            images: RGB images, uint8 height×width×3 each; sizes may differ.

        Raises:
            ProtoMaskError: memory does not suffice for a single image.
        """
        for seen in self.batch.over(len(images), lambda rows: self._see(images[rows])):
            yield from seen

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


def load_network(path: Path, architecture: Mapping[str, Any]) -> nn.Module:
    """Builds a SegFormer with one output channel and loads its weights.

    The published weights have the names of transformers 4; `from_pretrained` reads both these and
    current ones.

    Args:
        path: path of the weights, a safetensors file.
        architecture: parameters of transformers' SegformerConfig.

    Raises:
        ProtoMaskError: transformers is not installed, or the file holds no weights, or another
            network's.
    """
    transformers = import_transformers()
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


def import_transformers() -> Any:
    """Returns the module transformers, an optional dependency.

    Raises:
        ProtoMaskError: it is not installed.
    """
    try:
        import transformers
    except ImportError:
        raise ProtoMaskError(
            "the segmenter slit needs transformers: run `pip install -c constraints.txt -e "
            "'.[slit]'` in the repository"
        ) from None
    return transformers


def _guess_batch(device: torch.device, side: int, machine: Machine) -> int:
    if device.type != "cuda":
        return 1
    free, total = torch.cuda.mem_get_info(device)
    budget = free - (1 - machine.memory_fraction) * total
    return max(1, int(budget / (BYTES_PER_PIXEL * side**2)))


def _resize(image: NDArray[np.uint8], side: int) -> Tensor:
    """Returns the image resized as in the network's training, uint8 side×side×3."""
    resized = Image.fromarray(image).resize((side, side), Image.Resampling.BILINEAR)
    return torch.from_numpy(np.array(resized))


def _normalise(images: Tensor) -> Tensor:
    """Converts uint8 n×h×w×3 to float32 n×3×h×w, with ImageNet's normalisation."""
    mean, std = (torch.tensor(values, device=images.device) for values in (MEAN, STD))
    return ((images / 255 - mean) / std).permute(0, 3, 1, 2)


def _upsample(logit: Tensor, size: Sequence[int]) -> Tensor:
    """Returns the probabilities, height×width, of 1×h×w logits."""
    return interpolate(logit[None], tuple(size), mode="bilinear")[0, 0].sigmoid()
