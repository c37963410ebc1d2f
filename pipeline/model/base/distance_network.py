"""Base classes of models whose prototypes are points in the embedding space."""

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from pipeline.backbone.backbone import Backbone
from pipeline.model.base import losses
from pipeline.model.base.distances import above, crop_distances, similarity, smallest_distance
from pipeline.model.base.head import DistanceHead, Head
from pipeline.model.base.network import Output, PrototypeNetwork
from pipeline.model.base.relevance_target import SMALLEST
from pipeline.model.base.start import centres, discriminants, kinds, principal_axes

EPSILON = 0.25
"""The ε of the epsilon rule in `SimilarityTarget.relevance`, relative to the root mean square of
the pre-activations."""

VIEWS_OF_A_KIND = 5
"""Views of each kind that a class has, on average, at least."""


class DistanceNetwork(PrototypeNetwork):
    """Compares embeddings sigmoid(W·f) with prototypes by the squared Euclidean distance.

    Args:
        settings: parameters of the model, with `embedding_dim` (D) and `epsilon` (ε).
        num_classes: C, the number of classes, ≥ 1.
        num_prototypes: P, the number of prototypes of all classes together, ≥ 1.
        backbone: the feature extractor; None builds it from the settings.

    Attributes:
        projection: the linear layer W with bias, F → D.
        prototypes: float P×D, uniform in (0, 1) at initialisation.
        classifier: V, float C×P, without bias; zero at initialisation.
        floor: float P, ≥ 0, what is subtracted from an image's similarity to each prototype; 0
            until `set_floor`.

    Raises:
        ProtoMaskError: the backbone cannot be built from the settings.
    """

    pushes = True
    finetunes = True

    floor: Tensor

    def __init__(
        self, settings: Any, num_classes: int, num_prototypes: int, backbone: Backbone | None
    ) -> None:
        super().__init__(settings, num_classes, backbone)
        D = settings.embedding_dim
        self.projection = nn.Linear(self.num_features, D)
        self.prototypes = nn.Parameter(torch.rand(num_prototypes, D))
        self.classifier = nn.Parameter(torch.zeros(num_classes, num_prototypes))
        self.register_buffer("class_of", torch.zeros(num_prototypes, dtype=torch.int64))
        self.register_buffer("floor", torch.zeros(num_prototypes))

    def embed(self, features_F: Tensor) -> Tensor:
        """Returns z = sigmoid(W·f), float (…)×D in (0, 1).

        Args:
            features_F: backbone features, float (…)×F.
        """
        return torch.sigmoid(self.projection(self.standard(features_F)))

    def score(self, embedding_BVD: Tensor, valid_BV: Tensor) -> Output:
        """Scores images by their nearest views; for arguments and result see `PrototypeNetwork`."""
        distance_BVP = crop_distances(embedding_BVD, self.prototypes)
        distance_BP = smallest_distance(distance_BVP, valid_BV)
        similarity_BP = above(similarity(distance_BP, self.settings.epsilon), self.floor)
        return Output(self.logits(similarity_BP), distance_BP, embedding_BVD)

    def logits(self, similarity_BP: Tensor) -> Tensor:
        """Returns y = V·s, float B×C.

        Args:
            similarity_BP: s_j of each image and prototype, float B×P.
        """
        return similarity_BP @ self.classifier.T

    def last_layer(self) -> nn.Parameter:
        """Returns V, float C×P."""
        return self.classifier

    def head(self) -> Head:
        """Returns the prototypes, V and the floors, detached from the graph."""
        prototypes, classifier = self.prototypes.detach(), self.classifier.detach()
        epsilon = self.settings.epsilon
        return DistanceHead(prototypes, classifier, epsilon, self.floor, self.focal)

    def set_floor(self, floor_P: Tensor) -> None:
        """Sets what is subtracted from an image's similarity to each prototype.

        Args:
            floor_P: float P, ≥ 0.
        """
        self.floor.copy_(floor_P)

    def distances_to(self, embedding_PD: Tensor) -> Tensor:
        """Returns the squared distance of each prototype to its embedding, float64 P on the CPU.

        Args:
            embedding_PD: one embedding per prototype, float P×D.
        """
        return (embedding_PD.double() - self.prototypes.double()).square().sum(1).cpu()

    @torch.no_grad()
    def push(self, embedding_PD: Tensor) -> None:
        """Replaces each prototype by its embedding; floors, which were another's, become 0.

        Args:
            embedding_PD: one embedding per prototype, float P×D.
        """
        self.prototypes.copy_(embedding_PD)
        self.floor.zero_()

    def relevance_target(self, prototypes_n: Tensor) -> "SimilarityTarget":
        """Returns the similarities to prototypes as the target that relevance is propagated from.

        Args:
            prototypes_n: int64 n, the prototype to explain for each crop, 0..P−1.
        """
        return SimilarityTarget(self, prototypes_n)

    def losses(self, output: Output, labels_B: Tensor, weights_C: Tensor) -> dict[str, Tensor]:
        """Returns the scalar terms cross-entropy, Clst and Sep (docs/method.md, "Training").

        Args:
            output: the model's output for a batch of B images, with distances.
            labels_B: int64 B, the images' classes, 0..C−1.
            weights_C: float C, the cross-entropy weight of each class.
        """
        assert output.distance is not None
        own_BP = self.own_CP[labels_B]
        return {
            "cross_entropy": losses.cross_entropy(output.logits, labels_B, weights_C),
            "cluster": losses.cluster(output.distance, own_BP),
            "separation": losses.separation(output.distance, own_BP),
        }

    def parameter_groups(self) -> dict[str, list[nn.Parameter]]:
        """Returns the parameters of W (`projection`) and the prototypes (`prototypes`)."""
        return {
            "projection": list(self.projection.parameters()),
            "prototypes": [self.prototypes],
        }

    @torch.no_grad()
    def start_from(self, features_XF: Tensor, labels_X: Tensor, views: int, seed: int) -> None:
        """Initialises W and the prototypes from features of the training views.

        The first half of W's rows become linear discriminants of classes among views of the same
        kind (`start.discriminants`), the second half the principal axes of the features, which tell
        kinds apart. Rows that there is no direction for are unchanged. The prototypes of a class
        become cluster centres of its views' embeddings; those of a class without views are
        unchanged.

        Args:
            features_XF: backbone features of X training views, float X×F.
            labels_X: int64 X, the classes of the views' images, 0..C−1.
            views: V, the number of views of an image, and so of kinds, unless there are too few.
            seed: seed of the clustering, ≥ 0.
        """
        self._start_projection(features_XF, labels_X, views, seed)
        embeddings_XD = self.embed(features_XF)
        for label in labels_X.unique():
            own = self.class_of == label
            found = centres(embeddings_XD[labels_X == label].cpu(), int(own.sum()), seed)
            self.prototypes[own] = found.to(self.device)

    def _start_projection(
        self, features_XF: Tensor, labels_X: Tensor, views: int, seed: int
    ) -> None:
        standard_XF = self.standard(features_XF)
        on_cpu_XF, labels_X = standard_XF.cpu(), labels_X.cpu()
        D = self.settings.embedding_dim
        axes_dF = principal_axes(on_cpu_XF, D // 2)
        kinds_X = kinds(on_cpu_XF @ axes_dF.T, self._num_kinds(labels_X, views), seed)
        tell_apart_dF = discriminants(on_cpu_XF, labels_X, D - D // 2, kinds_X)
        for first, found_dF in ((0, tell_apart_dF), (D - D // 2, axes_dF)):
            rows = slice(first, first + len(found_dF))
            found_dF = found_dF.to(self.device)
            self.projection.weight[rows] = found_dF
            self.projection.bias[rows] = -found_dF @ standard_XF.mean(0)

    @staticmethod
    def _num_kinds(labels_X: Tensor, views: int) -> int:
        """Returns the number of kinds, such that classes have views enough of each."""
        return max(1, min(views, len(labels_X) // (VIEWS_OF_A_KIND * len(labels_X.unique()))))

    def keep(self, prototypes: Tensor) -> None:
        """Removes all prototypes except the given ones.

        Args:
            prototypes: int64, the numbers of the prototypes to keep, in ascending order.
        """
        self.prototypes = nn.Parameter(self.prototypes.detach()[prototypes])
        self.classifier = nn.Parameter(self.classifier.detach()[:, prototypes])
        self.class_of = self.class_of[prototypes]
        self.floor = self.floor[prototypes]

    def reshape(self, num_prototypes: int) -> None:
        """Allocates prototypes and V, uninitialised, for another number of prototypes.

        Args:
            num_prototypes: P, the number of prototypes of the saved model, ≥ 1.
        """
        D = self.settings.embedding_dim
        self.prototypes = nn.Parameter(self.prototypes.new_empty(num_prototypes, D))
        self.classifier = nn.Parameter(self.classifier.new_empty(self.num_classes, num_prototypes))
        self.class_of = self.class_of.new_empty(num_prototypes)
        self.floor = self.floor.new_zeros(num_prototypes)


class OwnPrototypes(DistanceNetwork):
    """A distance network in which each class has M prototypes of its own, in class order.

    Args:
        settings: parameters of the model, with `prototypes_per_class` (M), D and ε.
        num_classes: C, the number of classes, ≥ 1.
        backbone: the feature extractor; None builds it from the settings.
        foreign: V_cj at initialisation where prototype j is not of class c; where it is, V_cj is 1.

    Raises:
        ProtoMaskError: the backbone cannot be built from the settings.
    """

    def __init__(
        self, settings: Any, num_classes: int, backbone: Backbone | None, foreign: float
    ) -> None:
        M = settings.prototypes_per_class
        super().__init__(settings, num_classes, num_classes * M, backbone)
        self.class_of = torch.arange(num_classes).repeat_interleave(M)
        self.classifier = nn.Parameter(torch.where(self.own_CP, 1.0, foreign))


class SimilarityTarget(NamedTuple):
    """Similarities s_j of crops to prototypes as the target of relevance propagation.

    Args:
        network: the explained network, with its projection W and its prototypes.
        prototypes_n: int64 n, the prototype to explain for each crop, 0..P−1.
    """

    network: DistanceNetwork
    prototypes_n: Tensor

    def scores(self, features_nF: Tensor) -> Tensor:
        """Returns the similarity of each crop to its prototype, float n in [0, log(1/ε)].

        Args:
            features_nF: backbone features of the explained views, float n×F.
        """
        distance_n = self._squares(features_nF).sum(1)
        similarity_n = similarity(distance_n, self.network.settings.epsilon)
        return above(similarity_n, self.network.floor[self.prototypes_n])

    def relevance(self, features_nF: Tensor) -> Tensor:
        """Returns the similarity, distributed over the features, float n×F.

        The relevance of an embedding channel is proportional to 1 / ((z − p)² + ε), with the ε of
        the similarity (Gautam et al., 2023). It passes the sigmoid unchanged, and the epsilon rule
        distributes it over the features through W / standard deviation. With a small ε of this
        rule, the few channels whose pre-activation is near zero would dominate the map; a large one
        absorbs relevance. The one used is large (0.25 times the root mean square of the
        pre-activations), and the sum is rescaled to make up for the absorbed part.

        Args:
            features_nF: backbone features of the explained views, float n×F.
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
