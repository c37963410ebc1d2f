"""The prototype network: embedding, distances, similarities, class scores.

Dimensions: B images, K crops, S pixels a side, F pooled features, D embedding, C classes,
M prototypes a class, P prototypes (C·M before pruning).
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from pipeline.model.backbone import Backbone
from pipeline.model.settings import ModelSettings
from pipeline.model.start import centres, discriminants


class Output(NamedTuple):
    """What the network says of a batch.

    Args:
        logits: B×C.
        distance: B×P, d_j, the smallest distance to prototype j among an image's valid crops.
    """

    logits: Tensor
    distance: Tensor


class PrototypeNetwork(nn.Module):
    """ProtoMask (Meinert et al., 2025): classifies an image by its crops' nearest prototypes.

    Args:
        settings: see `ModelSettings`.
        num_classes: C.
        backbone: the feature extractor; built from the settings where None.

    Attributes:
        projection: W with its bias, F → D.
        prototypes: P×D, uniform in (0, 1) at first.
        classifier: V, C×P, 1 for a prototype's own class and 0 elsewhere at first.
        class_of: int64 P, the class of each prototype.
    """

    feature_mean: Tensor
    feature_std: Tensor
    class_of: Tensor

    def __init__(
        self, settings: ModelSettings, num_classes: int, backbone: Backbone | None = None
    ) -> None:
        super().__init__()
        self.settings = settings
        self.num_classes = num_classes
        self.backbone = backbone or Backbone(settings.backbone, settings.pretrained)
        M, D = settings.prototypes_per_class, settings.embedding_dim
        self.projection = nn.Linear(self.backbone.num_features, D)
        self.prototypes = nn.Parameter(torch.rand(num_classes * M, D))
        self.register_buffer("class_of", torch.arange(num_classes).repeat_interleave(M))
        own = torch.arange(num_classes)[:, None] == self.class_of
        self.classifier = nn.Parameter(own.float())
        self.register_buffer("feature_mean", torch.zeros(self.backbone.num_features))
        self.register_buffer("feature_std", torch.ones(self.backbone.num_features))

    def standardise(self, features_XF: Tensor) -> None:
        """Takes the mean and deviation of the training crops' pooled features, frozen from here.

        A feature that never changes is only centred.
        """
        if self.settings.standardise:
            std, mean = torch.std_mean(features_XF.double(), dim=0, correction=0)
            self.feature_mean.copy_(mean)
            self.feature_std.copy_(torch.where(std > 1e-6, std, 1.0))

    @torch.no_grad()
    def start_from(self, features_XF: Tensor, labels_X: Tensor, seed: int) -> None:
        """Moves W and the prototypes to where the training crops' pooled features say.

        The first rows of W become linear discriminants, the other ones stay as they are; a class's
        prototypes become the centres of its crops' embeddings. A class without crops keeps its own.

        Args:
            features_XF: as the backbone gives them.
            labels_X: int64, their images' classes.
            seed: of the clustering.
        """
        standard_XF = (features_XF - self.feature_mean) / self.feature_std
        found_dF = discriminants(standard_XF.cpu(), labels_X.cpu(), self.settings.embedding_dim)
        found_dF = found_dF.to(features_XF.device)
        self.projection.weight[: len(found_dF)] = found_dF
        self.projection.bias[: len(found_dF)] = -found_dF @ standard_XF.mean(0)
        embeddings_XD = self.embed(features_XF)
        for label in labels_X.unique():
            own = self.class_of == label
            found = centres(embeddings_XD[labels_X == label].cpu(), int(own.sum()), seed)
            self.prototypes[own] = found.to(self.prototypes.device)

    def embed(self, features_F: Tensor) -> Tensor:
        """Returns z = sigmoid(W·f), (…)×D in (0, 1), of pooled features, (…)×F."""
        return torch.sigmoid(self.projection((features_F - self.feature_mean) / self.feature_std))

    def features(self, crops_BKSS3: Tensor, valid_BK: Tensor) -> Tensor:
        """Returns the pooled features, B×K×F, of crops; zeros for missing ones.

        Args:
            crops_BKSS3: uint8, or float 0..1 as augmentation leaves them.
            valid_BK: bool; the backbone sees the valid crops only.
        """
        crops = crops_BKSS3[valid_BK]
        images = crops.permute(0, 3, 1, 2)
        if not images.is_floating_point():
            images = images.to(self.projection.weight.dtype) / 255
        pooled = self.backbone(images)
        features = pooled.new_zeros(*valid_BK.shape, pooled.shape[-1])
        features[valid_BK] = pooled
        return features

    def forward(self, inputs: Tensor, valid_BK: Tensor) -> Output:
        """Scores images by their crops.

        Under autocast the backbone alone works in half precision: a distance is a small difference
        of large numbers, and bfloat16 leaves nothing of it.

        Args:
            inputs: crops as `features` takes them, B×K×S×S×3, or their pooled features, B×K×F.
            valid_BK: bool, at least one true in each row.
        """
        features_BKF = inputs if inputs.ndim == 3 else self.features(inputs, valid_BK)
        with torch.autocast(features_BKF.device.type, enabled=False):
            embedding_BKD = self.embed(features_BKF.to(self.prototypes.dtype))
            distance_BKP = crop_distances(embedding_BKD, self.prototypes)
            distance_BP = smallest_distance(distance_BKP, valid_BK)
            return Output(self.logits(self.similarity(distance_BP)), distance_BP)

    def similarity(self, distance: Tensor) -> Tensor:
        """Returns s_j; see `similarity`."""
        return similarity(distance, self.settings.epsilon)

    def logits(self, similarity_BP: Tensor) -> Tensor:
        """Returns y = V·s, B×C."""
        return similarity_BP @ self.classifier.T

    def keep(self, prototypes: Tensor) -> None:
        """Drops all prototypes but these (int64, rising)."""
        self.prototypes = nn.Parameter(self.prototypes.detach()[prototypes])
        self.classifier = nn.Parameter(self.classifier.detach()[:, prototypes])
        self.class_of = self.class_of[prototypes]


def similarity(distance: Tensor, epsilon: float) -> Tensor:
    """Returns s = log((d + 1) / (d + ε)); ≥ 0, log(1/ε) at d = 0."""
    return torch.log((distance + 1) / (distance + epsilon))


def crop_distances(embedding_XD: Tensor, prototypes_PD: Tensor) -> Tensor:
    """Returns the squared Euclidean distances of all embeddings to all prototypes, (…)×P, ≥ 0.

    One matrix product: ‖z − p‖² = ‖z‖² + ‖p‖² − 2·z·p, with the middle ½ of the embedding's range
    subtracted from both, which keeps the three terms small against their difference.
    """
    z, p = embedding_XD - 0.5, prototypes_PD - 0.5
    squares = z.square().sum(-1, keepdim=True) + p.square().sum(-1)
    return (squares - 2 * z @ p.T).clamp_min(0)


def smallest_distance(distance_BKP: Tensor, valid_BK: Tensor) -> Tensor:
    """Returns d_j, the smallest distance over an image's valid crops: B×P."""
    return distance_BKP.masked_fill(~valid_BK.unsqueeze(-1), torch.inf).amin(dim=1)


def nearest_crop(distance_BKP: Tensor, valid_BK: Tensor) -> Tensor:
    """Returns the valid crop nearest to each prototype, int64 B×P; of equally near ones the first.

    (torch.argmin promises nothing about ties.)
    """
    K = distance_BKP.shape[1]
    smallest_BP = smallest_distance(distance_BKP, valid_BK)
    is_smallest = (distance_BKP == smallest_BP.unsqueeze(1)) & valid_BK.unsqueeze(-1)
    place = torch.arange(K, device=distance_BKP.device).view(1, K, 1)
    return torch.where(is_smallest, place, K).amin(dim=1)
