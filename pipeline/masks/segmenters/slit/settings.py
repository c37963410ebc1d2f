"""The parameters of SLIT, and the published network."""

import re
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BeforeValidator, Field

from pipeline.masks.segmenter import Segmenter

WEIGHTS = "https://huggingface.co/chendelong/DirectSAM-1800px-0424/resolve/main/model.safetensors"
# SegFormer-B5; other parameters have the defaults of transformers' SegformerConfig.
PUBLISHED = {
    "depths": (3, 6, 40, 3),
    "hidden_sizes": (64, 128, 320, 512),
    "num_attention_heads": (1, 2, 5, 8),
    "sr_ratios": (8, 4, 2, 1),
    "decoder_hidden_size": 768,
}


def _sha256(value: Any) -> Any:
    if isinstance(value, str) and re.fullmatch("[0-9a-f]{64}", value):
        return value
    raise ValueError(
        f"{value!r} is no SHA-256, 64 hexadecimal digits: fetch {WEIGHTS}, run `sha256sum "
        "model.safetensors`, and set segmenter.weights_sha256 to what it prints"
    )


class SlitSettings(Segmenter):
    """The parameters of the segmenter `Slit`.

    Args:
        weights_sha256: SHA-256 of the network's weights, a safetensors file.
        side: side of the square that images are resized to for the network, in pixels.
        threshold: threshold of the boundary probability, in (0, 1).
        precision: dtype of the network's computation; `bfloat16` is faster on a GPU.
    """

    label: ClassVar[str] = "SLIT"
    name: Literal["slit"] = "slit"
    version: Literal[1]
    weights_sha256: Annotated[str, BeforeValidator(_sha256)]
    side: Annotated[int, Field(ge=32)]
    threshold: Annotated[float, Field(gt=0, lt=1)]
    precision: Literal["float32", "bfloat16"]
    uses_device: ClassVar[bool] = True
    architecture: ClassVar[Mapping[str, Any]] = PUBLISHED
