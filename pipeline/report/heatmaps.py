"""Overlays: where in a crop a prototype finds what it knows, as a heat map over the crop."""

from collections.abc import Sequence
from typing import NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from scipy.ndimage import gaussian_filter
from torch import Tensor

from pipeline.crops.store import CropStore
from pipeline.errors import ProtoMaskError
from pipeline.model.base.network import PrototypeNetwork
from pipeline.report.drawing import Colour, resized
from pipeline.saliency.relevance import PrototypeRelevance

RAMP: tuple[Colour, ...] = (
    (86, 15, 109),
    (147, 38, 103),
    (205, 65, 71),
    (243, 120, 25),
    (250, 180, 30),
    (252, 255, 164),
)
"""From little relevance to much: lightness rises evenly, and tells the order without colours."""
STRONG = 0.99
"""The quantile of a map's relevance that has the brightest colour."""
CLEAR, OPAQUE = 0.15, 0.7
"""Up to which strength the crop alone is seen, and from which on the colours alone."""
SMOOTH = 0.01
"""How far relevance is smoothed, as a share of the crop's side: as far as strides leave a grid."""
GREY, GREY_OUTSIDE = 0.65, 0.35
LIGHTNESS = np.array([0.299, 0.587, 0.114])


class Relevance(Protocol):
    """Says how much each pixel of a crop has to do with its similarity to a prototype."""

    @property
    def rule(self) -> str:
        """How: `prp` or `grad`."""
        ...

    def __call__(self, crops_nSS3: Tensor, prototypes_n: Tensor) -> Tensor:
        """Returns the relevance, float32 n×S×S, of uint8 crops for one prototype each."""
        ...


class Cut(NamedTuple):
    """A crop to show.

    Args:
        pixels: uint8, S×S×3.
        inside: bool, S×S, its mask; of a whole image, where a prototype is found in it.
        whole: whether the network sees the photograph outside the mask, too.
    """

    pixels: NDArray[np.uint8]
    inside: NDArray[np.bool_]
    whole: bool


class Overlay(NamedTuple):
    """A crop with a prototype's relevance over it.

    Args:
        image: the picture.
        on_mask: which share of the crop's positive relevance lies on the mask, 0..1; None if the
            crop has none.
    """

    image: Image.Image
    on_mask: float | None


class Places(Protocol):
    """Says where in a crop a prototype is found."""

    def __call__(self, crops_nSS3: Tensor, prototypes_n: Tensor) -> Tensor:
        """Returns the places, bool n×S×S on the CPU, of uint8 crops for one prototype each."""
        ...


def relevance_of(network: PrototypeNetwork) -> Relevance:
    """Returns relevance by propagation (`prp`), or where it does not know the backbone, `grad`."""
    try:
        return PrototypeRelevance(network, "prp")
    except ProtoMaskError:
        return PrototypeRelevance(network, "grad")


def read_cut(store: CropStore, row: int, crop: int) -> Cut:
    """Reads a crop and its mask from a crop store."""
    whole = store.settings.background == "original"
    return Cut(store.crops([row])[0, crop], store.inside(row)[crop], whole)


def overlays(
    relevance: Relevance, cuts: Sequence[Cut], prototypes: Sequence[int], side: int
) -> list[Overlay]:
    """Draws crops with the relevance of their pixels for one prototype each.

    Args:
        relevance: what says it.
        cuts: the crops; all at once go through the network.
        prototypes: their numbers.
        side: the pictures' side, in pixels.
    """
    if not cuts:
        return []
    crops_nSS3 = torch.from_numpy(np.stack([cut.pixels for cut in cuts]))
    relevance_nSS = relevance(crops_nSS3, torch.tensor(prototypes)).clamp_min(0).cpu().numpy()
    return [
        Overlay(overlaid(cut, found, side), _share(found, cut.inside))
        for cut, found in zip(cuts, relevance_nSS, strict=True)
    ]


def overlaid(cut: Cut, relevance_SS: NDArray[np.float32], side: int) -> Image.Image:
    """Draws a crop in grey, darker outside its mask, and relevance in colours: on the mask only,
    unless the network sees the whole crop.

    Args:
        cut: the crop.
        relevance_SS: float32 ≥ 0.
        side: the picture's side, in pixels, if the crop is not smaller.
    """
    side_S = len(relevance_SS)
    smooth_SS = gaussian_filter(relevance_SS.astype(np.float64), SMOOTH * side_S)
    strength_SS = _strength(np.where(cut.inside | cut.whole, smooth_SS, 0))
    alpha_SS1 = np.clip((strength_SS - CLEAR) / (OPAQUE - CLEAR), 0, 1)[..., None]
    colour_SS3 = _colours(strength_SS)
    grey_SS = cut.pixels @ LIGHTNESS * np.where(cut.inside, GREY, GREY_OUTSIDE)
    canvas_SS3 = grey_SS[..., None] * (1 - alpha_SS1) + colour_SS3 * alpha_SS1
    return resized(canvas_SS3.round().astype(np.uint8), min(side, side_S))


def _colours(strength_SS: NDArray[np.float64]) -> NDArray[np.float64]:
    places = np.linspace(0, 1, len(RAMP))
    channels = np.array(RAMP, np.float64).T
    return np.stack([np.interp(strength_SS, places, channel) for channel in channels], axis=-1)


def _strength(relevance_SS: NDArray[np.float64]) -> NDArray[np.float64]:
    """Scales relevance to 0..1, 1 from the quantile `STRONG` of what is not zero."""
    found = relevance_SS[relevance_SS > 0]
    most = np.quantile(found, STRONG) if len(found) else 1.0
    return np.clip(relevance_SS / most, 0, 1)


def _share(relevance_SS: NDArray[np.float32], inside_SS: NDArray[np.bool_]) -> float | None:
    whole = float(relevance_SS.sum(dtype=np.float64))
    return float(relevance_SS[inside_SS].sum(dtype=np.float64)) / whole if whole > 0 else None
