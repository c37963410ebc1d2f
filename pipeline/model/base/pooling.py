"""Pooling of feature maps over a crop's box, or over its mask (docs/method.md, "Extensions").

Dimensions: n crops, S pixels a side, F features, H×W cells of a feature map.
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional


def pooled(maps: Sequence[Tensor], inside_nSS: Tensor | None) -> Tensor:
    """Returns the features of crops, the means over the cells of each map side by side: float n×F.

    Args:
        maps: feature maps of n crops, float n×F_s×H_s×W_s each; F is the sum of all F_s.
        inside_nSS: the crops' masks, n×S×S, bool or float in [0, 1], for the mean weighted by
            each cell's share of the mask; None for the mean over all cells.
    """
    if inside_nSS is None:
        return torch.cat([found.mean(dim=(2, 3)) for found in maps], dim=1)
    means = [(found * cell_weights(inside_nSS, *found.shape[2:])).sum((2, 3)) for found in maps]
    return torch.cat(means, dim=1)


def cell_weights(inside_nSS: Tensor, rows: int, columns: int) -> Tensor:
    """Returns the weights of cells, in proportion to the mask's mean over the pixels of each.

    A mask that is narrower than a pixel of the crop may have none; then all cells weigh the same.

    Args:
        inside_nSS: masks, n×S×S, bool or float in [0, 1].
        rows: H, the number of rows of cells.
        columns: W, the number of columns of cells.

    Returns:
        float n×1×H×W; each crop's weights sum to 1.
    """
    share_n1HW = functional.adaptive_avg_pool2d(inside_nSS[:, None].float(), (rows, columns))
    total_n111 = share_n1HW.sum((2, 3), keepdim=True)
    everywhere = share_n1HW.new_tensor(1 / (rows * columns))
    return torch.where(total_n111 > 0, share_n1HW / total_n111.clamp_min(1e-12), everywhere)
