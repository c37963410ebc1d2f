"""Connected components (8-neighbourhood) of masks."""

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor
from torch.nn.functional import max_pool2d


def connected_components(masks_N1HW: Tensor) -> tuple[Tensor, Tensor]:
    """Computes what sam2's CUDA extension does: each pixel's component and its size.

    Args:
        masks_N1HW: the masks, N×1×H×W, non-zero inside.

    Returns:
        Number and area of each pixel's component, int32 N×1×H×W each; 0 outside the mask.
    """
    labels = np.zeros(masks_N1HW.shape, np.int32)
    areas = np.zeros(masks_N1HW.shape, np.int32)
    for number, mask_HW in enumerate(masks_N1HW[:, 0].cpu().numpy()):
        labels[number, 0], _ = ndimage.label(mask_HW, np.ones((3, 3)))
        sizes = np.bincount(labels[number, 0].ravel())
        sizes[0] = 0
        areas[number, 0] = sizes[labels[number, 0]]
    device = masks_N1HW.device
    return torch.from_numpy(labels).to(device), torch.from_numpy(areas).to(device)


def small_components(masks_NHW: Tensor, largest: int) -> Tensor:
    """Finds the components of at most `largest` pixels, on the masks' device.

    Args:
        masks_NHW: bool N×H×W, with fewer than 2²⁴ pixels in a mask.
        largest: largest area of a small component in pixels, at least 1.

    Returns:
        bool N×H×W, the pixels of small components.
    """
    if masks_NHW.device.type == "cpu":
        _, areas_N1HW = connected_components(masks_NHW[:, None])
        return (areas_N1HW[:, 0] <= largest) & masks_NHW
    return spread_numbers(masks_NHW, largest)


def spread_numbers(masks_NHW: Tensor, largest: int) -> Tensor:
    """Finds small components without a loop over masks or components.

    The highest pixel number is propagated `largest` − 1 steps: far enough to reach all of a small
    component, whose pixels then have the same number, and no neighbour another.
    """
    count, height, width = masks_NHW.shape
    pixels = height * width
    numbers_HW = torch.arange(1.0, pixels + 1, device=masks_NHW.device).view(height, width)
    spread_NHW = numbers_HW * masks_NHW
    for _ in range(largest - 1):
        spread_NHW = _highest(spread_NHW) * masks_NHW
    lowest_NHW = -_highest(torch.where(masks_NHW, -spread_NHW, -torch.inf))
    whole_NHW = (_highest(spread_NHW) == spread_NHW) & (lowest_NHW == spread_NHW)
    first = torch.arange(count, device=masks_NHW.device)[:, None] * (pixels + 1)
    place_Np = spread_NHW.flatten(1).long() + first
    # A pixel with a neighbour of another number shows that its component is too large.
    weight_Np = torch.where(whole_NHW, 1, largest + 1).flatten(1)
    sizes = torch.zeros(count * (pixels + 1), dtype=torch.long, device=masks_NHW.device)
    sizes.scatter_add_(0, place_Np.flatten(), weight_Np.flatten())
    return (sizes[place_Np] <= largest).view_as(masks_NHW) & masks_NHW


def _highest(values_NHW: Tensor) -> Tensor:
    return max_pool2d(values_NHW[:, None], 3, stride=1, padding=1)[:, 0]
