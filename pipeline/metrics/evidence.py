"""What every metric is computed from: one model's answers on one split, gathered in one pass.

Dimensions: N images, B images of a batch, K crops, P prototypes, D embedding, C classes,
k top prototypes, Q parts, S side of a comparison map.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor


class Explanation(Protocol):
    """Draws where in an image a prototype was found."""

    def maps(self, images_B: Tensor, prototypes_Bk: Tensor) -> tuple[Tensor, Tensor]:
        """Returns the saliency maps (float32 ≥ 0) and saliency masks (bool), both B×k×S×S."""
        ...


@dataclass(frozen=True)
class Evidence:
    """A model's answers on the N images of a split, on the CPU.

    Args:
        ids: the N images' ids, in index order.
        labels_N: int64, the true class of each image.
        logits_NC: float32, class scores.
        similarity_NP: float32, s_j of every image and prototype.
        crop_NP: int64 in 0..K-1, the crop with the smallest distance to each prototype.
        embedding_NKD: float32 in (0, 1); rows of missing crops hold anything.
        valid_NK: bool, whether an image has that crop.
        prototypes_PD: float32.
        weights_CP: float32, the last layer V.
        class_of_P: int64, the class each prototype belongs to (⌊j/M⌋ before pruning).
        top_k: how many prototypes explain an image (k; at most P).
        explanation: draws the saliency of a prototype in an image.
        object_masks: the images' object masks, N×S×S bool, or None where the data set has none.
        parts_NQ2: float32 (x, y) of each named part in S×S pixels, NaN where a part is not
            visible; None where the data set has no part locations.
    """

    ids: list[str]
    labels_N: Tensor
    logits_NC: Tensor
    similarity_NP: Tensor
    crop_NP: Tensor
    embedding_NKD: Tensor
    valid_NK: Tensor
    prototypes_PD: Tensor
    weights_CP: Tensor
    class_of_P: Tensor
    top_k: int
    explanation: Explanation
    object_masks: Tensor | None = None
    parts_NQ2: Tensor | None = None

    @property
    def top_Nk(self) -> Tensor:
        """int64, each image's k prototypes by falling similarity; ties by prototype number."""
        order_NP = torch.sort(self.similarity_NP, dim=1, descending=True, stable=True).indices
        return order_NP[:, : self.top_k]

    def batches(self, size: int = 32) -> Iterator[Tensor]:
        """Yields the image numbers 0..N-1 in batches (int64), for work on S×S maps."""
        yield from torch.arange(len(self.ids)).split(size)
