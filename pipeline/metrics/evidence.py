"""What every metric is computed from: one model's answers on one split, gathered in one pass.

Dimensions: N images, B images of a batch, K crops, V views, P prototypes, D embedding, C classes,
k top prototypes, Q parts, S side of a crop and of a comparison map.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pipeline.masks.masks import Masks
from pipeline.metrics.perturbation import perturb
from pipeline.model.base.head import Head
from pipeline.model.base.inference import Answers
from pipeline.saliency.maps import Copies, Explanation


class Segmented(NamedTuple):
    """One image as it was segmented, at its own resolution.

    Args:
        masks: all of them, the largest first.
        object_mask: bool, height×width, or None.
        parts_Q2: float32 (x, y) of each part in the image's pixels, NaN where a part is not
            visible; None where the data set has no part locations.
    """

    masks: Masks
    object_mask: NDArray[np.bool_] | None
    parts_Q2: Tensor | None


class Subject(Protocol):
    """The images' crops, and the model to ask about changed copies of them.

    Args:
        pixel_std_3: the deviation by which the model divides pixels of 0..1, of each channel.
    """

    pixel_std_3: Tensor

    def crops(self, images_B: Tensor) -> Tensor:
        """Returns the crops as they are stored: uint8, B×K×S×S×3."""
        ...

    def segmented(self, image: int) -> Segmented:
        """Returns an image's masks."""
        ...

    def ask(self, crops_BKSS3: Tensor, valid_BK: Tensor) -> Answers:
        """Returns what the model says of these crops (uint8, or float 0..1), on the CPU."""
        ...


class Truth(Protocol):
    """What is known of a data set that was drawn.

    Args:
        distinguishing_CCQ: bool, the parts in which two classes differ.
    """

    distinguishing_CCQ: Tensor

    def labels(self, images_B: Tensor) -> Tensor:
        """Returns which part each pixel shows: uint8 B×S×S, 0 for none, q + 1 for the q-th."""
        ...

    def redrawn(self, images_B: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Draws the images again, one part of each taken from a class that differs in it.

        Returns:
            Their crops (uint8, B×K×S×S×3), cut as the stored ones; the part (int64 B); and what
            each pixel shows now (as `labels`).
        """
        ...


@dataclass(frozen=True)
class Evidence:
    """A model's answers on the N images of a split, on the CPU.

    Args:
        ids: the N images' ids, in index order.
        labels_N: int64, the true class of each image.
        answers: what the model says of the images.
        valid_NK: bool, whether an image has that crop.
        boxes_NK4: float32, each crop's box (x0, y0, x1, y1) in S×S pixels of its image; rows of
            missing crops hold anything.
        head: what the model computes from embeddings.
        class_of_P: int64, the class each prototype belongs to (⌊j/M⌋ before pruning).
        top_k: how many prototypes explain an image (k; at most P).
        explanations: what draws the saliency of a prototype in an image, one after the other.
        subject: the crops, and the model to ask about changed copies.
        crops_per_image: how many of the largest masks of an image are cut, at most, whether or not
            the model looks at them.
        object_masks: the images' object masks, N×S×S bool, or None where the data set has none.
        part_names: the Q parts.
        parts_NQ2: float32 (x, y) of each named part in S×S pixels, NaN where a part is not
            visible; None where the data set has no part locations.
        truth: what is known of a data set that was drawn, or None.
        seed: of the noise in changed copies.
        grid: how many rows and columns of views a crop has.
    """

    ids: Sequence[str]
    labels_N: Tensor
    answers: Answers
    valid_NK: Tensor
    boxes_NK4: Tensor
    head: Head
    class_of_P: Tensor
    top_k: int
    explanations: Sequence[Explanation]
    subject: Subject
    crops_per_image: int
    object_masks: Tensor | None = None
    part_names: Sequence[str] = ()
    parts_NQ2: Tensor | None = None
    truth: Truth | None = None
    seed: int = 0
    grid: tuple[int, int] = (1, 1)

    @property
    def prototypes_PD(self) -> Tensor:
        return self.head.prototypes_PD

    @property
    def weights_CP(self) -> Tensor:
        return self.head.weights_CP

    def valid_views(self, valid_BK: Tensor) -> Tensor:
        """bool, which views there are of images with these crops: B×V."""
        return valid_BK.repeat_interleave(math.prod(self.grid), dim=1)

    def crop_of(self, view: Tensor) -> Tensor:
        """int64, the crops that views are of."""
        return view // math.prod(self.grid)

    @cached_property
    def top_Nk(self) -> Tensor:
        """int64, each image's k prototypes by falling similarity; ties by prototype number."""
        return ranking(self.answers.similarity_NP)[:, : self.top_k]

    def batches(self, size: int) -> Iterator["Batch"]:
        """Yields the images in order, for work on S×S maps."""
        for images_B in torch.arange(len(self.ids)).split(size):
            yield Batch(self, images_B)


@dataclass(frozen=True)
class Batch:
    """Some of the images.

    Args:
        evidence: all of them.
        images_B: int64, their numbers in the evidence.
    """

    evidence: Evidence
    images_B: Tensor

    @cached_property
    def prototypes_Bk(self) -> Tensor:
        """int64, each image's k prototypes by falling similarity."""
        return self.evidence.top_Nk[self.images_B]

    @cached_property
    def crop_Bk(self) -> Tensor:
        """int64, the crop nearest to each of these prototypes."""
        return self.evidence.crop_of(self.answers.view_NP.gather(1, self.prototypes_Bk))

    @cached_property
    def valid_BK(self) -> Tensor:
        return self.evidence.valid_NK[self.images_B]

    @cached_property
    def answers(self) -> Answers:
        """What the model says of these images."""
        return Answers(*(tensor[self.images_B] for tensor in self.evidence.answers))

    @cached_property
    def crops_BKSS3(self) -> Tensor:
        """uint8, the crops as they are stored."""
        return self.evidence.subject.crops(self.images_B)

    @cached_property
    def perturbed(self) -> Copies:
        """One perturbed copy of each image; all groups share it."""
        crops = perturb(self.crops_BKSS3, self.evidence.seed, self.images_B)
        return Copies(crops, self.evidence.subject.ask(crops, self.valid_BK))

    @cached_property
    def labels_BSS(self) -> Tensor:
        """uint8, which part each pixel shows (see `Truth.labels`); drawn data sets only."""
        assert self.evidence.truth is not None
        return self.evidence.truth.labels(self.images_B)

    @cached_property
    def redrawn(self) -> "Redrawn":
        """Each image with one part of another class; drawn data sets only."""
        assert self.evidence.truth is not None
        crops, part_B, labels_BSS = self.evidence.truth.redrawn(self.images_B)
        copies = Copies(crops, self.evidence.subject.ask(crops, self.valid_BK))
        return Redrawn(copies, part_B, labels_BSS)


class Redrawn(NamedTuple):
    """Images of which one part was replaced.

    Args:
        copies: what they are now.
        part_B: int64, the part.
        labels_BSS: uint8, which part each pixel shows now (see `Truth.labels`).
    """

    copies: Copies
    part_B: Tensor
    labels_BSS: Tensor


@dataclass(frozen=True)
class Drawn:
    """The saliency of a batch of images by one explanation, on the CPU.

    Args:
        explanation: what drew it.
        maps_BkSS: float32 ≥ 0, where and how strongly each of the k prototypes was found.
        masks_BkSS: bool, the pixels that count as found.
    """

    explanation: Explanation
    maps_BkSS: Tensor
    masks_BkSS: Tensor


def ranking(similarity_NP: Tensor) -> Tensor:
    """Returns prototype numbers by falling similarity, int64 N×P; ties by prototype number."""
    return torch.sort(similarity_NP, dim=1, descending=True, stable=True).indices
