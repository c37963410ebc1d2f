"""The evidence that every metric is computed from: a model's outputs for one split of a data set.

Dimensions: N images, B images of a batch, K crops, V views, P prototypes, D embedding, C classes, k
top prototypes, Q parts, S side of a crop and of a comparison map in pixels.
"""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pipeline.masks.masks import Masks
from pipeline.metrics.judging import Knowledge
from pipeline.metrics.perturbation import perturb
from pipeline.model.base.head import Head
from pipeline.model.base.inference import ModelOutputs, outputs_of
from pipeline.saliency.maps import Copies, Explanation


class Segmented(NamedTuple):
    """An image's masks and annotations at its own resolution.

    Args:
        masks: all masks of the image, the largest first.
        cropped: numbers of the masks that crops were cut along, in the order of the crops.
        object_mask: bool height×width, the pixels of the object; None if there is no object mask.
        parts_Q2: float32 Q×2, (x, y) of each part in the image's pixels, NaN if a part is not
            visible; None if the data set has no part locations.
    """

    masks: Masks
    cropped: Sequence[int]
    object_mask: NDArray[np.bool_] | None
    parts_Q2: Tensor | None


class Subject(Protocol):
    """The images' crops, and the model that is applied to changed copies of them.

    Attributes:
        pixel_std_3: float 3, the standard deviation by which the model divides each RGB channel of
            pixels in [0, 1].
    """

    pixel_std_3: Tensor

    def crops(self, images_B: Tensor) -> Tensor:
        """Returns the stored crops of images, uint8 B×K×S×S×3.

        Args:
            images_B: int64 B, the images' positions in the evidence.
        """
        ...

    def inside(self, images_B: Tensor) -> Tensor:
        """Returns the masks inside the stored crops of images, bool B×K×S×S.

        Args:
            images_B: int64 B, the images' positions in the evidence.
        """
        ...

    def segmented(self, image: int) -> Segmented:
        """Returns an image's masks, object mask and part locations.

        Args:
            image: the image's position in the evidence, 0..N−1.
        """
        ...

    def infer(self, crops_BKSS3: Tensor, valid_BK: Tensor, inside_BKSS: Tensor) -> ModelOutputs:
        """Returns the model's outputs for crops, on the CPU.

        Args:
            crops_BKSS3: RGB crops B×K×S×S×3, uint8, or float in [0, 1].
            valid_BK: bool B×K, false for missing crops; at least one true in each row.
            inside_BKSS: bool B×K×S×S, the masks inside the crops.
        """
        ...


class Truth(Protocol):
    """Ground truth of a data set that was drawn.

    Attributes:
        distinguishing_CCQ: bool C×C×Q, the parts in which two classes differ.
    """

    @property
    def distinguishing_CCQ(self) -> Tensor: ...  # noqa: D102

    def labels(self, images_B: Tensor) -> Tensor:
        """Returns the part that each pixel shows, uint8 B×S×S: 0 for none, q + 1 for part q.

        Args:
            images_B: int64 B, the images' positions in the evidence.
        """
        ...

    def labels_between(self, images_B: Tensor, first_B: Tensor, second_B: Tensor) -> Tensor:
        """Returns `labels`, and where the parts would be that tell two classes apart.

        A part that one of the two classes has and the image's own has not is where a bird of that
        class would have it: what tells a plain wing from one with a bar is the place of the bar.

        Args:
            images_B: int64 B, the images' positions in the evidence.
            first_B: int64 B, one class for each image.
            second_B: int64 B, and the other.
        """
        ...

    def part_pixels(self, image: int) -> NDArray[np.uint8]:
        """Returns the part that each pixel of an image shows, at its own resolution.

        Args:
            image: the image's position in the evidence, 0..N−1.

        Returns:
            uint8 height×width: 0 for none, q + 1 for part q.
        """
        ...

    def redrawn(self, images_B: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Draws the images again, one part of each taken from a class that differs in it.

        Args:
            images_B: int64 B, the images' positions in the evidence.

        Returns:
            The changed images' crops (uint8 B×K×S×S×3), cut like the stored ones; the replaced part
            of each image (int64 B, 0..Q−1); and the part that each pixel shows afterwards (uint8
            B×S×S: 0 for none, q + 1 for part q).
        """
        ...


@dataclass(frozen=True)
class TruthOfSome:
    """Ground truth of some images of a data set that was drawn; implements `Truth`.

    Args:
        truth: that of all images.
        images_n: int64 n, the positions of these images among all.
    """

    truth: Truth
    images_n: Tensor

    @property
    def distinguishing_CCQ(self) -> Tensor:
        """The parts in which two classes differ, bool C×C×Q."""
        return self.truth.distinguishing_CCQ

    def labels(self, images_B: Tensor) -> Tensor:
        """Returns the part that each pixel shows; see `Truth.labels`."""
        return self.truth.labels(self.images_n[images_B])

    def labels_between(self, images_B: Tensor, first_B: Tensor, second_B: Tensor) -> Tensor:
        """Returns the parts' pixels, missing ones included; see `Truth.labels_between`."""
        return self.truth.labels_between(self.images_n[images_B], first_B, second_B)

    def part_pixels(self, image: int) -> NDArray[np.uint8]:
        """Returns the part that each pixel of an image shows; see `Truth.part_pixels`."""
        return self.truth.part_pixels(int(self.images_n[image]))

    def redrawn(self, images_B: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Draws the images again with a part of another class; see `Truth.redrawn`."""
        return self.truth.redrawn(self.images_n[images_B])


@dataclass(frozen=True)
class Evidence:
    """A model's outputs for the N images of a split, on the CPU.

    Args:
        ids: the N images' ids, in index order.
        labels_N: int64 N, the true class of each image, 0..C−1.
        outputs: the model's outputs for the images.
        valid_NK: bool N×K, false for missing crops.
        boxes_NK4: float32 N×K×4, each crop's box (x0, y0, x1, y1) in S×S pixels of its image; rows
            of missing crops are arbitrary.
        head: the model's computation from embeddings to class scores, on the CPU.
        class_of_P: int64 P, the class of each prototype (⌊j/M⌋ before pruning).
        top_k: k, the number of prototypes that explain an image, 1..P.
        explanations: the explanations that draw the saliency of a prototype in an image.
        subject: the images' crops, and the model that is applied to changed copies of them.
        crops_per_image: maximum number of crops that are cut from an image, whether or not the
            model uses them.
        knowledge: what the segmenter says of its masks.
        object_masks: bool N×S×S, the images' object masks; None unless every image has one.
        part_names: names of the Q parts; empty if the data set has no part locations.
        parts_NQ2: float32 N×Q×2, (x, y) of each part in S×S pixels, NaN if a part is not visible;
            None if the data set has no part locations.
        truth: ground truth of a data set that was drawn; None for any other data set.
        seed: seed of the noise in changed copies, ≥ 0.
        grid: numbers of rows and columns of views of a crop.
        only_inside: whether crops show their masks alone, since other pixels were replaced.
        unexplained: the explanations that were asked for and that this model cannot have, with the
            reason.
    """

    ids: Sequence[str]
    labels_N: Tensor
    outputs: ModelOutputs
    valid_NK: Tensor
    boxes_NK4: Tensor
    head: Head
    class_of_P: Tensor
    top_k: int
    explanations: Sequence[Explanation]
    subject: Subject
    crops_per_image: int
    knowledge: Knowledge
    object_masks: Tensor | None = None
    part_names: Sequence[str] = ()
    parts_NQ2: Tensor | None = None
    truth: Truth | None = None
    seed: int = 0
    grid: tuple[int, int] = (1, 1)
    only_inside: bool = False
    unexplained: Mapping[str, str] = field(default_factory=dict)

    def unmeasurable(
        self, of_objects: Iterable[str] = (), of_parts: Iterable[str] = ()
    ) -> dict[str, str]:
        """Returns the metrics that lack object masks or part locations: metric → reason.

        Args:
            of_objects: names of the metrics that need the object mask of every image.
            of_parts: names of the metrics that need part locations.
        """
        missing = {}
        if self.object_masks is None:
            missing = dict.fromkeys(of_objects, "not every test image has an object mask")
        if self.parts_NQ2 is None:
            missing |= dict.fromkeys(of_parts, "the data set has no part locations")
        return missing

    @property
    def prototypes_PD(self) -> Tensor:
        """The prototypes, float P×D; of a black box, the classifier's weights."""
        return self.head.prototypes_PD

    @property
    def weights_CP(self) -> Tensor:
        """V, float C×P, the weight of each prototype's similarity for each class."""
        return self.head.weights_CP

    def valid_views(self, valid_BK: Tensor) -> Tensor:
        """Returns which views exist, those of valid crops: bool B×V.

        Args:
            valid_BK: bool B×K, false for missing crops.
        """
        return valid_BK.repeat_interleave(math.prod(self.grid), dim=1)

    def crop_of(self, view: Tensor) -> Tensor:
        """Returns the crops that views belong to, int64 of the same shape, 0..K−1.

        Args:
            view: int64 of any shape, numbers of views, 0..V−1.
        """
        return view // math.prod(self.grid)

    @cached_property
    def top_Nk(self) -> Tensor:
        """Each image's k prototypes by descending similarity (ties by number), int64 N×k."""
        return ranking(self.outputs.similarity_NP)[:, : self.top_k]

    def batches(self, size: int) -> Iterator["Batch"]:
        """Yields the images in order, in batches, for computations on S×S maps.

        Args:
            size: number of images per batch, ≥ 1; the last batch may be smaller.
        """
        for images_B in torch.arange(len(self.ids)).split(size):
            yield Batch(self, images_B)


@dataclass(frozen=True)
class Batch:
    """A batch of the images of the evidence.

    Args:
        evidence: the evidence, with all N images.
        images_B: int64 B, the images' positions in the evidence, 0..N−1.
    """

    evidence: Evidence
    images_B: Tensor

    @cached_property
    def prototypes_Bk(self) -> Tensor:
        """Each image's k prototypes by descending similarity, int64 B×k."""
        return self.evidence.top_Nk[self.images_B]

    @cached_property
    def crop_Bk(self) -> Tensor:
        """The crop with the most similar view to each of these prototypes, int64 B×k."""
        return self.evidence.crop_of(self.outputs.view_NP.gather(1, self.prototypes_Bk))

    @cached_property
    def valid_BK(self) -> Tensor:
        """Which crops exist, bool B×K."""
        return self.evidence.valid_NK[self.images_B]

    @cached_property
    def outputs(self) -> ModelOutputs:
        """The model's outputs for these images."""
        return ModelOutputs(*(tensor[self.images_B] for tensor in self.evidence.outputs))

    @cached_property
    def crops_BKSS3(self) -> Tensor:
        """The crops as stored, uint8 B×K×S×S×3."""
        return self.evidence.subject.crops(self.images_B)

    @cached_property
    def inside_BKSS(self) -> Tensor:
        """The masks inside the crops as stored, bool B×K×S×S; changed copies have the same."""
        return self.evidence.subject.inside(self.images_B)

    @cached_property
    def perturbed(self) -> Copies:
        """One perturbed copy of each image, with the model's outputs; shared by all groups."""
        crops_BKSS3 = perturb(self.crops_BKSS3, self.evidence.seed, self.images_B)
        found = self.evidence.subject.infer(crops_BKSS3, self.valid_BK, self.inside_BKSS)
        return Copies(crops_BKSS3, found)

    @cached_property
    def labels_BSS(self) -> Tensor:
        """The part that each pixel shows (`Truth.labels`), uint8 B×S×S; drawn data sets only."""
        assert self.evidence.truth is not None
        return self.evidence.truth.labels(self.images_B)

    @cached_property
    def redrawn(self) -> "Redrawn":
        """Copies of the images with one part of another class; drawn data sets only."""
        assert self.evidence.truth is not None
        crops_BKSS3, part_B, labels_BSS = self.evidence.truth.redrawn(self.images_B)
        return Redrawn(Copies(crops_BKSS3, self._again(crops_BKSS3)), part_B, labels_BSS)

    def _again(self, crops_BKSS3: Tensor) -> ModelOutputs:
        """Returns the model's outputs for images of which some crops have changed.

        Only these are embedded, so that the others have the same embeddings to the bit.
        """
        changed_BK = (crops_BKSS3 != self.crops_BKSS3).flatten(2).any(dim=2) & self.valid_BK
        some_n = changed_BK.any(dim=1).nonzero()[:, 0]
        if len(some_n) == 0:
            return self.outputs
        found = self.evidence.subject.infer(
            crops_BKSS3[some_n], changed_BK[some_n], self.inside_BKSS[some_n]
        )
        embedding_BVD = self.outputs.embedding_NVD.clone()
        new_nV1 = self.evidence.valid_views(changed_BK[some_n])[..., None]
        embedding_BVD[some_n] = torch.where(new_nV1, found.embedding_NVD, embedding_BVD[some_n])
        valid_BV = self.evidence.valid_views(self.valid_BK)
        return outputs_of(self.evidence.head, embedding_BVD, valid_BV)


class Redrawn(NamedTuple):
    """Copies of images in which one part was replaced.

    Args:
        copies: crops of the changed images, and the model's outputs for them.
        part_B: int64 B, the replaced part of each image, 0..Q−1.
        labels_BSS: uint8 B×S×S, the part that each pixel shows after the replacement: 0 for none, q
            + 1 for part q.
    """

    copies: Copies
    part_B: Tensor
    labels_BSS: Tensor


@dataclass(frozen=True)
class Drawn:
    """The saliency of a batch of images by one explanation, on the CPU.

    Args:
        explanation: the explanation that drew the maps.
        maps_BkSS: saliency maps of the images' k prototypes, float32 B×k×S×S, ≥ 0.
        masks_BkSS: saliency masks of the images' k prototypes, bool B×k×S×S.
    """

    explanation: Explanation
    maps_BkSS: Tensor
    masks_BkSS: Tensor


def ranking(similarity_NP: Tensor) -> Tensor:
    """Returns prototypes (or classes) by descending score, int64 N×P; ties by number.

    Args:
        similarity_NP: score of each prototype (or class) for each image, float N×P.
    """
    return torch.sort(similarity_NP, dim=1, descending=True, stable=True).indices
