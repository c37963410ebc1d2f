"""Backbones whose features one can work out by hand."""

from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn import functional


class MeanColour(nn.Module):
    """Three features: the mean of each channel; notes what it was shown."""

    num_features = 3

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[Tensor] = []

    def channels(self, stages: Sequence[int]) -> list[int]:
        return [3 for _ in stages]

    def feature_maps(self, images: Tensor, stages: Sequence[int]) -> list[Tensor]:
        self.seen.append(images)
        return [images.mean((2, 3), keepdim=True) for _ in stages]


class FourCells(nn.Module):
    """A map of 2×2 cells, each the mean colour of a quarter of the image."""

    num_features = 3

    def channels(self, stages: Sequence[int]) -> list[int]:
        return [3 for _ in stages]

    def feature_map(self, images: Tensor) -> Tensor:
        return functional.avg_pool2d(images, images.shape[-1] // 2)
