"""Heat maps over crops: the relevance of their pixels for a prototype."""

from collections.abc import Sequence
from typing import NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from scipy.ndimage import gaussian_filter
from torch import Tensor

from pipeline.crops.store import StoredCrops
from pipeline.errors import ProtoMaskError
from pipeline.model.base.network import PrototypeNetwork
from pipeline.report.drawing import Colour, resized

RAMP: tuple[Colour, ...] = (
    (86, 15, 109),
    (147, 38, 103),
    (205, 65, 71),
    (243, 120, 25),
    (250, 180, 30),
    (252, 255, 164),
)
"""Colours of rising relevance; their lightness rises evenly, so the order shows without colours."""
STRONG = 0.99
"""The quantile of a map's relevance at and above which the brightest colour is used."""
CLEAR, OPAQUE = 0.15, 0.7
"""Strengths up to which the heat map is transparent, and from which it has full opacity."""
SMOOTH = 0.01
"""Standard deviation of the Gaussian that smooths out the strides' grid, as a share of the side."""
GREY, GREY_OUTSIDE = 0.65, 0.35
LIGHTNESS = np.array([0.299, 0.587, 0.114])


class Relevance(Protocol):
    """Computes the relevance of each pixel of a crop for its similarity to a prototype."""

    @property
    def rule(self) -> str:
        """The method: `prp` or `grad`."""
        ...

    def __call__(
        self, crops_nSS3: Tensor, prototypes_n: Tensor, inside_nSS: Tensor | None = None
    ) -> Tensor:
        """Returns the relevance, float32 n×S×S, of crops for one prototype each.

        Args:
            crops_nSS3: RGB crops, uint8 n×S×S×3.
            prototypes_n: int64 n, the prototype of each crop, 0..P−1.
            inside_nSS: bool n×S×S, the masks inside the crops, for models that pool inside them.
        """
        ...


class Cut(NamedTuple):
    """A crop to show.

    Args:
        pixels: the RGB crop, uint8 S×S×3.
        inside: bool S×S, the mask inside the crop; for a whole image, the region in which a
            prototype is found.
        whole: whether the network sees the background outside the mask as well.
    """

    pixels: NDArray[np.uint8]
    inside: NDArray[np.bool_]
    whole: bool


class HeatMap(NamedTuple):
    """A crop with a heat map of a prototype's relevance.

    Args:
        image: picture of the crop with the heat map.
        on_mask: share of the crop's positive relevance that lies on the mask, in [0, 1]; None if
            the crop has no positive relevance.
    """

    image: Image.Image
    on_mask: float | None


class Places(Protocol):
    """Finds the regions of images in which prototypes are found."""

    def __call__(self, crops_nSS3: Tensor, prototypes_n: Tensor) -> Tensor:
        """Returns the regions, bool n×S×S on the CPU, of images for one prototype each.

        Args:
            crops_nSS3: RGB images, uint8 n×S×S×3.
            prototypes_n: int64 n, the prototype of each image, 0..P−1.
        """
        ...


def relevance_of(network: PrototypeNetwork) -> Relevance:
    """Returns the relevance of a model's prototypes by `prp`; by `grad` if a layer has no rule."""
    from pipeline.saliency.relevance import PrototypeRelevance  # imports zennit and timm

    try:
        return PrototypeRelevance(network, "prp")
    except ProtoMaskError:
        return PrototypeRelevance(network, "grad")


def read_cut(store: StoredCrops, row: int, crop: int) -> Cut:
    """Reads a crop and its mask from a crop store.

    Args:
        store: the crop store to read from.
        row: row of the image in the store.
        crop: index of the crop, 0..K−1.
    """
    whole = store.settings.background == "original"
    return Cut(store.crops([row])[0, crop], store.inside(row)[crop], whole)


def draw_heat_maps(
    relevance: Relevance, cuts: Sequence[Cut], prototypes: Sequence[int], side: int
) -> list[HeatMap]:
    """Draws heat maps over crops: the relevance of their pixels for one prototype each.

    Args:
        relevance: computes the relevance of the model's prototypes.
        cuts: n crops of the same size.
        prototypes: the prototype of each crop, 0..P−1.
        side: the pictures' side in pixels.
    """
    if not cuts:
        return []
    crops_nSS3 = torch.from_numpy(np.stack([cut.pixels for cut in cuts]))
    inside_nSS = torch.from_numpy(np.stack([cut.inside for cut in cuts]))
    found_nSS = relevance(crops_nSS3, torch.tensor(prototypes), inside_nSS)
    relevance_nSS = found_nSS.clamp_min(0).cpu().numpy()
    return [
        HeatMap(draw_heat_map(cut, found, side), _share(found, cut.inside))
        for cut, found in zip(cuts, relevance_nSS, strict=True)
    ]


def draw_heat_map(cut: Cut, relevance_SS: NDArray[np.float32], side: int) -> Image.Image:
    """Draws a heat map over a crop in grey, which is darker outside its mask.

    Outside the mask, relevance is drawn only if the network sees the whole crop.

    Args:
        cut: the crop and its mask.
        relevance_SS: relevance of the crop's pixels, float32 S×S, ≥ 0.
        side: the picture's side in pixels, at most S.
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
    """Scales relevance to [0, 1], where 1 is the quantile `STRONG` of the non-zero values."""
    found = relevance_SS[relevance_SS > 0]
    most = np.quantile(found, STRONG) if len(found) else 1.0
    return np.clip(relevance_SS / most, 0, 1)


def _share(relevance_SS: NDArray[np.float32], inside_SS: NDArray[np.bool_]) -> float | None:
    whole = float(relevance_SS.sum(dtype=np.float64))
    return float(relevance_SS[inside_SS].sum(dtype=np.float64)) / whole if whole > 0 else None
