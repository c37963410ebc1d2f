"""What models with prototypes in the space of embeddings have in common."""

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from pipeline.model.base import losses
from pipeline.model.base.backbone import Backbone
from pipeline.model.base.distances import crop_distances, similarity, smallest_distance
from pipeline.model.base.head import DistanceHead
from pipeline.model.base.network import Output, PrototypeNetwork
from pipeline.model.base.relevance_target import SMALLEST
from pipeline.model.base.start import centres, discriminants

EPSILON = 0.25
"""Of the root mean square of the pre-activations, see `SimilarityTarget.relevance`."""


class DistanceNetwork(PrototypeNetwork):
    """Compares sigmoid(W·f) with prototypes by the squared Euclidean distance.

    Attributes:
        projection: W with its bias, F → D.
        prototypes: P×D, uniform in (0, 1) at first.
        classifier: V, C×P.
    """

    finetunes = True

    def __init__(
        self, settings: Any, num_classes: int, num_prototypes: int, backbone: Backbone | None
    ) -> None:
        super().__init__(settings, num_classes, backbone)
        D = settings.embedding_dim
        self.projection = nn.Linear(self.backbone.num_features, D)
        self.prototypes = nn.Parameter(torch.rand(num_prototypes, D))
        self.classifier = nn.Parameter(torch.zeros(num_classes, num_prototypes))
        self.register_buffer("class_of", torch.zeros(num_prototypes, dtype=torch.int64))

    def embed(self, features_F: Tensor) -> Tensor:
        """Returns z = sigmoid(W·f), (…)×D in (0, 1)."""
        return torch.sigmoid(self.projection(self.standard(features_F)))

    def score(self, embedding_BVD: Tensor, valid_BV: Tensor) -> Output:
        distance_BVP = crop_distances(embedding_BVD, self.prototypes)
        distance_BP = smallest_distance(distance_BVP, valid_BV)
        similarity_BP = similarity(distance_BP, self.settings.epsilon)
        return Output(self.logits(similarity_BP), distance_BP, embedding_BVD)

    def logits(self, similarity_BP: Tensor) -> Tensor:
        """Returns y = V·s, B×C."""
        return similarity_BP @ self.classifier.T

    def head(self) -> DistanceHead:
        prototypes, classifier = self.prototypes.detach(), self.classifier.detach()
        return DistanceHead(prototypes, classifier, self.settings.epsilon)

    def distances_to(self, embedding_PD: Tensor) -> Tensor:
        return (embedding_PD.double() - self.prototypes.double()).square().sum(1).cpu()

    @torch.no_grad()
    def push(self, embedding_PD: Tensor) -> None:
        self.prototypes.copy_(embedding_PD)

    def relevance_target(self, prototypes_n: Tensor) -> "SimilarityTarget":
        return SimilarityTarget(self, prototypes_n)

    def losses(self, output: Output, labels_B: Tensor, weights_C: Tensor) -> dict[str, Tensor]:
        assert output.distance is not None
        own_BP = self.own_CP[labels_B]
        return {
            "cross_entropy": losses.cross_entropy(output.logits, labels_B, weights_C),
            "cluster": losses.cluster(output.distance, own_BP),
            "separation": losses.separation(output.distance, own_BP),
        }

    def parameter_groups(self) -> dict[str, list[nn.Parameter]]:
        return {
            "projection": list(self.projection.parameters()),
            "prototypes": [self.prototypes],
        }

    @torch.no_grad()
    def start_from(self, features_XF: Tensor, labels_X: Tensor, seed: int) -> None:
        """Moves W and the prototypes to where the training views' features say.

        The first rows of W become linear discriminants, the other ones stay as they are; a class's
        prototypes become the centres of its views' embeddings. A class without views keeps its own.
        """
        self._discriminate(features_XF, labels_X)
        embeddings_XD = self.embed(features_XF)
        for label in labels_X.unique():
            own = self.class_of == label
            found = centres(embeddings_XD[labels_X == label].cpu(), int(own.sum()), seed)
            self.prototypes[own] = found.to(self.device)

    def _discriminate(self, features_XF: Tensor, labels_X: Tensor) -> None:
        standard_XF = self.standard(features_XF)
        found_dF = discriminants(standard_XF.cpu(), labels_X.cpu(), self.settings.embedding_dim)
        found_dF = found_dF.to(self.device)
        self.projection.weight[: len(found_dF)] = found_dF
        self.projection.bias[: len(found_dF)] = -found_dF @ standard_XF.mean(0)

    def keep(self, prototypes: Tensor) -> None:
        """Drops all prototypes but these (int64, rising)."""
        self.prototypes = nn.Parameter(self.prototypes.detach()[prototypes])
        self.classifier = nn.Parameter(self.classifier.detach()[:, prototypes])
        self.class_of = self.class_of[prototypes]

    def reshape(self, num_prototypes: int) -> None:
        D = self.settings.embedding_dim
        self.prototypes = nn.Parameter(self.prototypes.new_empty(num_prototypes, D))
        self.classifier = nn.Parameter(self.classifier.new_empty(self.num_classes, num_prototypes))
        self.class_of = self.class_of.new_empty(num_prototypes)


class OwnPrototypes(DistanceNetwork):
    """Each class has M prototypes of its own, class after class.

    Args:
        settings: see `PrototypeSettings`.
        num_classes, backbone: see `PrototypeNetwork`.
        foreign: V at first, for a prototype of another class; 1 for one of the class.
    """

    def __init__(
        self, settings: Any, num_classes: int, backbone: Backbone | None, foreign: float
    ) -> None:
        M = settings.prototypes_per_class
        super().__init__(settings, num_classes, num_classes * M, backbone)
        self.class_of = torch.arange(num_classes).repeat_interleave(M)
        self.classifier = nn.Parameter(torch.where(self.own_CP, 1.0, foreign))


class SimilarityTarget(NamedTuple):
    """The similarities s_j of crops to prototypes.

    Args:
        network: whose projection and prototypes.
        prototypes_n: int64, for each crop, the prototype to explain.
    """

    network: DistanceNetwork
    prototypes_n: Tensor

    def scores(self, features_nF: Tensor) -> Tensor:
        distance_n = self._squares(features_nF).sum(1)
        return similarity(distance_n, self.network.settings.epsilon)

    def relevance(self, features_nF: Tensor) -> Tensor:
        """Returns each feature's share of the similarity, n×F.

        A channel of the embedding gets its share in proportion to 1 / ((z − p)² + ε), with the ε of
        the similarity: what is alike is what made the crop similar (Gautam et al., 2023). The
        sigmoid passes it on, and the epsilon rule hands it to the features through W / deviation.
        With a tiny ε the few channels that happen to be near zero would decide the whole map; a
        large one swallows relevance. This one is large, and all get back what it swallowed.
        """
        shares_nD = 1 / (self._squares(features_nF) + self.network.settings.epsilon)
        shares_nD = shares_nD / shares_nD.sum(1, keepdim=True)
        weight_DF = self.network.projection.weight / self.network.feature_std
        sums_nD = features_nF @ weight_DF.T
        epsilon_n1 = EPSILON * sums_nD.square().mean(1, keepdim=True).sqrt()
        units_nD = shares_nD / (sums_nD.abs() + epsilon_n1).clamp_min(SMALLEST)
        kept_n1 = (units_nD * sums_nD.abs()).sum(1, keepdim=True).clamp_min(SMALLEST)
        relevance_nF = features_nF * ((units_nD * sums_nD.sign()) @ weight_DF)
        return relevance_nF / kept_n1 * self.scores(features_nF)[:, None]

    def _squares(self, features_nF: Tensor) -> Tensor:
        prototypes_nD = self.network.prototypes.detach()[self.prototypes_n]
        return (self.network.embed(features_nF) - prototypes_nD).square()
