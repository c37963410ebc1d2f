"""Base class of all models: the backbone, its standardised features, and a head.

Dimensions: X any, B images, K crops, S pixels a side, F features, V views, D embedding, C classes,
P prototypes.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NamedTuple

import torch
from torch import Tensor, nn

from pipeline.backbone.backbone import Backbone
from pipeline.model.base.head import Head
from pipeline.model.base.pooling import pooled
from pipeline.model.base.relevance_target import RelevanceTarget
from pipeline.model.base.settings import BackboneSettings
from pipeline.model.base.start import mean_and_deviation

if TYPE_CHECKING:
    from pipeline.crops.store import CropStore


class Output(NamedTuple):
    """A model's outputs for a batch in training.

    Args:
        logits: class scores of the images, float B×C.
        distance: d_j, the smallest distance to prototype j among an image's valid views, float B×P;
            None for models without distances.
        embedding: embeddings of the images' views, float B×V×D.
    """

    logits: Tensor
    distance: Tensor | None
    embedding: Tensor


class PrototypeNetwork(nn.Module, ABC):
    """Abstract base class of all models.

    Args:
        settings: parameters of the model, an instance of its `settings_type`.
        num_classes: C, the number of classes, ≥ 1.
        backbone: the feature extractor; None builds it from the settings.

    Attributes:
        settings_type: class of the model's settings, whose default `name` it is registered under.
        label: the model's name as papers write it.
        sees: the model's input: `crops` of an image's masks, or the `whole` image as a single crop.
        in_cells: whether a view is a cell of the feature map; otherwise it is a crop, with its
            pooled features.
        in_pairs: whether training uses two copies of each image with different colours.
        shares_prototypes: whether a prototype may have weights to several classes from the start.
        focal: whether the similarity of an image is that of its most similar view minus the mean
            over its views, instead of the former alone.
        pushes: whether prototypes are points in the embedding space, which the push replaces by
            training views; otherwise a view only illustrates a prototype.
        finetunes: whether V is fine-tuned after the push; such a model implements `last_layer`
            and `set_floor`.
        num_features: F, the number of features of a view.
        feature_mean: float F, the mean of the training views' features; 0 until `standardise`.
        feature_std: float F, the standard deviation of these features; 1 until `standardise`.
        class_of: int64 P, the class of each prototype, 0..C−1.

    Raises:
        ProtoMaskError: the backbone cannot be built from the settings.
    """

    settings_type: ClassVar[type[BackboneSettings]]
    label: ClassVar[str]
    sees: ClassVar[Literal["crops", "whole"]] = "whole"
    in_cells: ClassVar[bool] = True
    in_pairs: ClassVar[bool] = False
    shares_prototypes: ClassVar[bool] = False
    focal: ClassVar[bool] = False
    pushes: ClassVar[bool] = False
    finetunes: ClassVar[bool] = False

    feature_mean: Tensor
    feature_std: Tensor
    class_of: Tensor

    def __init__(self, settings: Any, num_classes: int, backbone: Backbone | None = None) -> None:
        super().__init__()
        self.settings = settings
        self.num_classes = num_classes
        self.backbone = backbone or Backbone(settings.backbone, settings.pretrained)
        self.num_features = sum(self.backbone.channels(settings.feature_stages))
        self.register_buffer("feature_mean", torch.zeros(self.num_features))
        self.register_buffer("feature_std", torch.ones(self.num_features))

    @property
    def device(self) -> torch.device:
        """The device that the model's tensors are on."""
        return self.feature_mean.device

    @property
    def num_prototypes(self) -> int:
        """P, the number of prototypes of all classes together."""
        return len(self.class_of)

    @property
    def own_CP(self) -> Tensor:
        """Whether a prototype may be pushed onto images of the class, bool C×P."""
        return torch.arange(self.num_classes, device=self.device)[:, None] == self.class_of

    def seen(self, store: "CropStore") -> "CropStore":
        """Returns a crop store as this model reads it: its crops, or the whole images.

        Args:
            store: the crop store of a data set's images.
        """
        return store if self.sees == "crops" else store.whole()

    def standardise(self, features_XF: Tensor) -> None:
        """Sets the mean and standard deviation that features are standardised by, frozen from then.

        A constant feature is only centred. Nothing is set if `settings.standardise` is false.

        Args:
            features_XF: backbone features of X training views, float X×F.
        """
        if self.settings.standardise:
            mean, std = mean_and_deviation(features_XF)
            self.feature_mean.copy_(mean)
            self.feature_std.copy_(torch.where(std > 1e-6, std, 1.0))

    def standard(self, features_F: Tensor) -> Tensor:
        """Returns standardised features, float (…)×F.

        Args:
            features_F: backbone features, float (…)×F.
        """
        return (features_F - self.feature_mean) / self.feature_std

    def features(
        self, crops_BKSS3: Tensor, valid_BK: Tensor, inside_BKSS: Tensor | None = None
    ) -> Tensor:
        """Returns the backbone features of crops' views, float B×V×F; zeros for missing crops.

        Args:
            crops_BKSS3: RGB crops B×K×S×S×3, uint8, or float in [0, 1] after augmentation.
            valid_BK: bool B×K, false for missing crops, which the backbone does not process.
            inside_BKSS: the masks inside the crops, B×K×S×S, bool, or float in [0, 1] after
                augmentation. Needed, and used, by a model that pools inside them
                (`settings.pools_inside`).

        Raises:
            ProtoMaskError: the backbone does not accept crops of this size.
        """
        images = crops_BKSS3[valid_BK].permute(0, 3, 1, 2)
        if not images.is_floating_point():
            images = images.to(self.feature_mean.dtype) / 255
        inside = None
        if self.settings.pools_inside:
            assert inside_BKSS is not None, "a model that pools inside masks is given these"
            inside = inside_BKSS[valid_BK]
        views_nVF = self._views(images, inside)
        features = views_nVF.new_zeros(*valid_BK.shape, *views_nVF.shape[1:])
        features[valid_BK] = views_nVF
        return features.flatten(1, 2)

    def _views(self, images: Tensor, inside_nSS: Tensor | None) -> Tensor:
        if self.in_cells:
            return self.backbone.feature_map(images).flatten(2).mT
        maps = self.backbone.feature_maps(images, self.settings.feature_stages)
        return pooled(maps, inside_nSS)[:, None]

    def grid(self, size: int) -> tuple[int, int]:
        """Returns the numbers of rows and columns of views of a crop.

        Args:
            size: S, the side of a crop in pixels.

        Raises:
            ProtoMaskError: the backbone does not accept crops of this size.
        """
        return self.backbone.grid(size) if self.in_cells else (1, 1)

    def forward(
        self, inputs: Tensor, valid_BK: Tensor, inside_BKSS: Tensor | None = None
    ) -> Output:
        """Scores images.

        Under autocast only the backbone computes in half precision: a distance is a small
        difference of large numbers, which bfloat16 does not resolve.

        Args:
            inputs: RGB crops B×K×S×S×3 (uint8, or float in [0, 1]), or backbone features of the
                images' views, float B×V×F.
            valid_BK: bool B×K, false for missing crops; at least one true in each row.
            inside_BKSS: the masks inside the crops, as for `features`.

        Returns:
            Logits, distances and embeddings of the B images.

        Raises:
            ProtoMaskError: the backbone does not accept crops of this size.
        """
        known = inputs.ndim == 3
        features_BVF = inputs if known else self.features(inputs, valid_BK, inside_BKSS)
        with torch.autocast(features_BVF.device.type, enabled=False):
            embedding_BVD = self.embed(features_BVF.to(self.feature_mean.dtype))
            return self.score(embedding_BVD, valid_views(valid_BK, embedding_BVD))

    @abstractmethod
    def embed(self, features_F: Tensor) -> Tensor:
        """Returns the embeddings of views, float (…)×D.

        Args:
            features_F: backbone features, float (…)×F.
        """

    @abstractmethod
    def score(self, embedding_BVD: Tensor, valid_BV: Tensor) -> Output:
        """Scores images by the embeddings of their views.

        Args:
            embedding_BVD: embeddings of the images' views, float B×V×D.
            valid_BV: bool B×V, false for missing views; at least one true in each row.

        Returns:
            Logits, distances and embeddings of the B images.
        """

    @abstractmethod
    def head(self) -> Head:
        """Returns the computation from embeddings to class scores, detached from the graph."""

    @abstractmethod
    def losses(self, output: Output, labels_B: Tensor, weights_C: Tensor) -> dict[str, Tensor]:
        """Returns the terms of the loss by name, scalar tensors.

        Args:
            output: the model's output for B images, or for 2·B images of which the second half are
                copies of the first (`in_pairs`).
            labels_B: int64 B, the images' classes, 0..C−1.
            weights_C: float C, the cross-entropy weight of each class.
        """

    @abstractmethod
    def parameter_groups(self) -> dict[str, list[nn.Parameter]]:
        """Returns the trainable parameters outside the backbone by learning rate.

        Returns:
            `projection`, with the learning rate `lr_projection`, and `prototypes`, with
            `lr_prototypes`.
        """

    def start_from(self, features_XF: Tensor, labels_X: Tensor, views: int, seed: int) -> None:
        """Initialises parameters from features of the training views; by default does nothing.

        Args:
            features_XF: backbone features of X training views, float X×F.
            labels_X: int64 X, the classes of the views' images, 0..C−1.
            views: V, the number of views of an image.
            seed: seed of the clustering, ≥ 0.
        """

    def begin_epoch(self, epoch: int, warmup_epochs: int) -> None:
        """Prepares for an epoch; called before each one, and by default does nothing.

        Args:
            epoch: the epoch's number, counted from 0 at the start of the warm-up.
            warmup_epochs: number of warm-up epochs, ≥ 0.
        """

    def weights_of(self, weights: Mapping[str, float]) -> Mapping[str, float]:
        """Returns the weights of the loss terms in the current epoch, by default unchanged.

        Args:
            weights: the weight of each loss term by name, from the parameters.
        """
        return weights

    def after_step(self) -> None:
        """Adjusts parameters after an optimizer step; by default does nothing."""

    def finish(self) -> None:
        """Finishes the model after the last epoch; by default does nothing."""

    def distances_to(self, embedding_PD: Tensor) -> Tensor:
        """Returns the squared distance of each prototype to its embedding, float64 P on the CPU.

        NaN in a model whose prototypes are not points in the embedding space.

        Args:
            embedding_PD: one embedding per prototype, float P×D.
        """
        return torch.full((self.num_prototypes,), torch.nan, dtype=torch.float64)

    def push(self, embedding_PD: Tensor) -> None:
        """Replaces each prototype by its embedding; by default does nothing.

        Models whose prototypes are points in the embedding space implement it.

        Args:
            embedding_PD: one embedding per prototype, float P×D.
        """

    def last_layer(self) -> nn.Parameter:
        """Returns V, float C×P, the parameter that fine-tuning trains.

        Implemented by models that declare `finetunes`.
        """
        raise NotImplementedError(f"the last layer of {self.label} is not fine-tuned")

    def set_floor(self, floor_P: Tensor) -> None:
        """Sets what is subtracted from an image's similarity to each prototype.

        Implemented by models that declare `finetunes`.

        Args:
            floor_P: float P, ≥ 0.
        """
        raise NotImplementedError(f"the similarities of {self.label} have no floor")

    def keep(self, prototypes: Tensor) -> None:
        """Removes all prototypes except the given ones.

        Implemented by models that declare `prunes`.

        Args:
            prototypes: int64, the numbers of the prototypes to keep, in ascending order.
        """
        raise NotImplementedError(f"the prototypes of {self.label} are not pruned")

    @abstractmethod
    def relevance_target(self, prototypes_n: Tensor) -> RelevanceTarget:
        """Returns the scores that relevance is propagated from, one per crop.

        Args:
            prototypes_n: int64 n, the prototype to explain for each crop, 0..P−1; in a model
                without prototypes, the class whose logit is explained, 0..C−1.
        """

    def reshape(self, num_prototypes: int) -> None:
        """Allocates tensors for the number of prototypes of a saved model; by default does nothing.

        Args:
            num_prototypes: P, the number of prototypes of the saved model, ≥ 1.
        """


def valid_views(valid_BK: Tensor, embedding_BVD: Tensor) -> Tensor:
    """Returns which views exist, those of valid crops: bool B×V.

    Args:
        valid_BK: bool B×K, false for missing crops.
        embedding_BVD: embeddings or features of the views, B×V×(any); only V is used.
    """
    return valid_BK.repeat_interleave(embedding_BVD.shape[1] // valid_BK.shape[1], dim=1)
