"""What all models have in common: the backbone, its standardised features, and a head.

Dimensions: B images, K crops, S pixels a side, F features, V views, D embedding, C classes,
P prototypes.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar, Literal, NamedTuple

import torch
from torch import Tensor, nn

from pipeline.crops.store import CropStore
from pipeline.model.base.backbone import Backbone
from pipeline.model.base.head import Head
from pipeline.model.base.relevance_target import RelevanceTarget
from pipeline.model.base.settings import BackboneSettings


class Output(NamedTuple):
    """What a model says of a batch in training.

    Args:
        logits: B×C.
        distance: B×P, d_j, the smallest distance to prototype j among an image's valid views; None
            for models without distances.
        embedding: B×V×D.
    """

    logits: Tensor
    distance: Tensor | None
    embedding: Tensor


class PrototypeNetwork(nn.Module, ABC):
    """A model of any kind.

    Args:
        settings: the kind's own.
        num_classes: C.
        backbone: the feature extractor; built from the settings where None.

    Attributes:
        settings_type: the model's settings, whose `name` it is registered under.
        label: the model's name as papers write it.
        sees: the crops of an image's masks, or the whole image as a single crop.
        in_cells: whether a view is a cell of the feature map, or the pooled map of a crop.
        in_pairs: whether it learns from two differently coloured copies of each image.
        shares_prototypes: whether a prototype speaks for several classes from the start.
        prunes: whether its prototypes belong to one class each, and can be pruned.
        finetunes: whether V is fine-tuned afterwards.
        class_of: int64 P, the class of each prototype.
    """

    settings_type: ClassVar[type[BackboneSettings]]
    label: ClassVar[str]
    sees: ClassVar[Literal["crops", "whole"]] = "whole"
    in_cells: ClassVar[bool] = True
    in_pairs: ClassVar[bool] = False
    shares_prototypes: ClassVar[bool] = False
    prunes: ClassVar[bool] = False
    finetunes: ClassVar[bool] = False

    feature_mean: Tensor
    feature_std: Tensor
    class_of: Tensor

    def __init__(self, settings: Any, num_classes: int, backbone: Backbone | None = None) -> None:
        super().__init__()
        self.settings = settings
        self.num_classes = num_classes
        self.backbone = backbone or Backbone(settings.backbone, settings.pretrained)
        self.register_buffer("feature_mean", torch.zeros(self.backbone.num_features))
        self.register_buffer("feature_std", torch.ones(self.backbone.num_features))

    @property
    def device(self) -> torch.device:
        return self.feature_mean.device

    @property
    def num_prototypes(self) -> int:
        return len(self.class_of)

    @property
    def own_CP(self) -> Tensor:
        """bool, from the images of which classes each prototype may come."""
        return torch.arange(self.num_classes, device=self.device)[:, None] == self.class_of

    def seen(self, store: CropStore) -> CropStore:
        """Returns a crop store as this model sees it."""
        return store if self.sees == "crops" else store.whole()

    def standardise(self, features_XF: Tensor) -> None:
        """Takes the mean and deviation of the training views' features, frozen from here.

        A feature that never changes is only centred.
        """
        if self.settings.standardise:
            std, mean = torch.std_mean(features_XF.double(), dim=0, correction=0)
            self.feature_mean.copy_(mean)
            self.feature_std.copy_(torch.where(std > 1e-6, std, 1.0))

    def standard(self, features_F: Tensor) -> Tensor:
        """Returns features with the training views' mean and deviation taken out."""
        return (features_F - self.feature_mean) / self.feature_std

    def features(self, crops_BKSS3: Tensor, valid_BK: Tensor) -> Tensor:
        """Returns the features of crops' views, B×V×F; zeros for missing crops.

        Args:
            crops_BKSS3: uint8, or float 0..1 as augmentation leaves them.
            valid_BK: bool; the backbone sees the valid crops only.
        """
        images = crops_BKSS3[valid_BK].permute(0, 3, 1, 2)
        if not images.is_floating_point():
            images = images.to(self.feature_mean.dtype) / 255
        views_nVF = self._views(images)
        features = views_nVF.new_zeros(*valid_BK.shape, *views_nVF.shape[1:])
        features[valid_BK] = views_nVF
        return features.flatten(1, 2)

    def _views(self, images: Tensor) -> Tensor:
        if not self.in_cells:
            return self.backbone(images)[:, None]
        return self.backbone.feature_map(images).flatten(2).mT

    def grid(self, size: int) -> tuple[int, int]:
        """Returns how many rows and columns of views a crop of this size has."""
        return self.backbone.grid(size) if self.in_cells else (1, 1)

    def forward(self, inputs: Tensor, valid_BK: Tensor) -> Output:
        """Scores images.

        Under autocast the backbone alone works in half precision: a distance is a small difference
        of large numbers, and bfloat16 leaves nothing of it.

        Args:
            inputs: crops as `features` takes them, B×K×S×S×3, or their features, B×V×F.
            valid_BK: bool, at least one true in each row.
        """
        features_BVF = inputs if inputs.ndim == 3 else self.features(inputs, valid_BK)
        with torch.autocast(features_BVF.device.type, enabled=False):
            embedding_BVD = self.embed(features_BVF.to(self.feature_mean.dtype))
            return self.score(embedding_BVD, views(valid_BK, embedding_BVD))

    @abstractmethod
    def embed(self, features_F: Tensor) -> Tensor:
        """Returns the embeddings, (…)×D, of features, (…)×F."""

    @abstractmethod
    def score(self, embedding_BVD: Tensor, valid_BV: Tensor) -> Output:
        """Scores images by the embeddings of their views."""

    @abstractmethod
    def head(self) -> Head:
        """Returns what computes the answers of the finished model."""

    @abstractmethod
    def losses(self, output: Output, labels_B: Tensor, weights_C: Tensor) -> dict[str, Tensor]:
        """Returns the terms of the loss by name, scalars.

        Args:
            output: of a batch; of 2·B images where the second half are copies of the first.
            labels_B: int64 classes.
            weights_C: cross-entropy weight of each class.
        """

    @abstractmethod
    def parameter_groups(self) -> dict[str, list[nn.Parameter]]:
        """Returns what the learning rates `lr_projection` and `lr_prototypes` are of."""

    def start_from(self, features_XF: Tensor, labels_X: Tensor, seed: int) -> None:
        """Moves what is learned to where the training views' features say; by default nothing.

        Args:
            features_XF: as the backbone gives them.
            labels_X: int64, their images' classes.
            seed: of clustering.
        """

    def begin_epoch(self, epoch: int, warmup_epochs: int) -> None:
        """Is told which epoch follows, 0 the first of the warm-up."""

    def weights_of(self, weights: Mapping[str, float]) -> Mapping[str, float]:
        """Returns the weights of the loss's terms in this epoch, of those of the parameters."""
        return weights

    def after_step(self) -> None:
        """Is called after every step of the optimiser."""

    def finish(self) -> None:
        """Is called once, after the last epoch."""

    def distances_to(self, embedding_PD: Tensor) -> Tensor:
        """Returns the squared distance of each prototype to an embedding, float64 P on the CPU; NaN
        in a model whose prototypes are no points in the space of embeddings."""
        return torch.full((self.num_prototypes,), torch.nan, dtype=torch.float64)

    def push(self, embedding_PD: Tensor) -> None:
        """Replaces each prototype by an embedding, in a model whose prototypes are embeddings."""

    @abstractmethod
    def relevance_target(self, prototypes_n: Tensor) -> RelevanceTarget:
        """Returns what the relevance of pixels adds up to: the scores of crops for one prototype
        each; of a model without prototypes, the logits of classes.

        Args:
            prototypes_n: int64.
        """

    def reshape(self, num_prototypes: int) -> None:
        """Makes room for a saved model with so many prototypes."""


def views(valid_BK: Tensor, embedding_BVD: Tensor) -> Tensor:
    """Returns which views there are, bool B×V: those of valid crops."""
    return valid_BK.repeat_interleave(embedding_BVD.shape[1] // valid_BK.shape[1], dim=1)
