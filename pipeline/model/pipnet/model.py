"""PIP-Net: each cell of the feature map is softly assigned to D prototypes; V is sparse."""

from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor, nn

from pipeline.backbone.backbone import Backbone
from pipeline.model.base import losses
from pipeline.model.base.head import PresenceHead, largest_score
from pipeline.model.base.models import register
from pipeline.model.base.network import Output, PrototypeNetwork
from pipeline.model.base.relevance_target import SMALLEST
from pipeline.model.pipnet.settings import PipNetSettings

PRETRAINING = {"presence": 5.0, "cross_entropy": 0.0}
SHRINKAGE = 1e-3


@register
class PipNet(PrototypeNetwork):
    """PIP-Net (Nauta et al., 2023): a view is a cell of the feature map of the whole image.

    The embedding of a cell is z = softmax(W·f), its assignment to the D prototypes; the presence
    p_d of prototype d in an image is the maximum of z_d over the cells. The score of a class is p·ω
    with ω ≥ 0; in training, the cross-entropy is computed on log((p·ω)² + 1), which drives weights
    to 0. W is the identity at initialisation if D = F.

    The warm-up is the paper's pretraining: no cross-entropy, a presence loss of weight 5, and an
    alignment loss whose weight increases linearly to 1. There is no push: a prototype is shown by
    the training cell with the largest presence of it.

    Args:
        settings: parameters of the model, such as D and the backbone.
        num_classes: C, the number of classes, ≥ 1.
        backbone: the feature extractor; None builds it from the settings.

    Attributes:
        projection: the linear layer W with bias, F → D.
        classifier: ω, float C×D; normal with mean 1 and standard deviation 0.1 at initialisation.

    Raises:
        ProtoMaskError: the backbone cannot be built from the settings.
    """

    settings_type = PipNetSettings
    label = "PIP-Net"
    shares_prototypes = True
    in_pairs = True

    def __init__(
        self, settings: PipNetSettings, num_classes: int, backbone: Backbone | None = None
    ) -> None:
        super().__init__(settings, num_classes, backbone)
        F = self.backbone.num_features
        D = settings.prototypes or F
        self.projection = nn.Linear(F, D)
        if D == F:
            nn.init.eye_(self.projection.weight)
            nn.init.zeros_(self.projection.bias)
        self.classifier = nn.Parameter(1 + 0.1 * torch.randn(num_classes, D))
        self.register_buffer("class_of", torch.zeros(D, dtype=torch.int64))
        self._pretraining = 0.0

    @property
    def own_CP(self) -> Tensor:
        """All true, bool C×D: a prototype may be shown by images of every class."""
        return torch.ones_like(self.classifier, dtype=torch.bool)

    def embed(self, features_F: Tensor) -> Tensor:
        """Returns the assignment z = softmax(W·f) of cells to prototypes, float (…)×D; sums to 1.

        Args:
            features_F: backbone features, float (…)×F.
        """
        return self.projection(self.standard(features_F)).softmax(-1)

    def score(self, embedding_BVD: Tensor, valid_BV: Tensor) -> Output:
        """Scores images by p·ω; for arguments and result see `PrototypeNetwork.score`.

        In evaluation mode, presences below 0.1 count as 0. The output has no distances.
        """
        if self.training:
            most_BD = largest_score(embedding_BVD, valid_BV)
        else:
            most_BD = self.head().pooled(embedding_BVD, valid_BV)
        return Output(most_BD @ self.classifier.relu().T, None, embedding_BVD)

    def head(self) -> PresenceHead:
        """Returns the classifier with ω ≥ 0, detached from the graph."""
        return PresenceHead(self.classifier.detach().relu())

    def relevance_target(self, prototypes_n: Tensor) -> "PresenceTarget":
        """Returns the presence of prototypes as the target that relevance is propagated from.

        Args:
            prototypes_n: int64 n, the prototype to explain for each crop, 0..D−1.
        """
        return PresenceTarget(self, prototypes_n)

    def losses(self, output: Output, labels_B: Tensor, weights_C: Tensor) -> dict[str, Tensor]:
        """Returns the scalar terms cross-entropy, alignment (L_A) and presence (L_T).

        Args:
            output: the model's output for B images, or for 2·B images of which the second half are
                copies of the first; without copies, each image is its own copy.
            labels_B: int64 B, the images' classes, 0..C−1.
            weights_C: float C, the cross-entropy weight of each class.
        """
        logits, embedding = output.logits, output.embedding
        copies = logits.shape[0] // len(labels_B)
        first_BVD, second_BVD = embedding[: len(labels_B)], embedding[-len(labels_B) :]
        presence = [losses.presence(half.amax(1)) for half in (first_BVD, second_BVD)]
        return {
            "cross_entropy": losses.cross_entropy(
                torch.log1p(logits.square()), labels_B.repeat(copies), weights_C
            ),
            "alignment": losses.alignment(first_BVD, second_BVD),
            "presence": torch.stack(presence).mean(),
        }

    def parameter_groups(self) -> dict[str, list[nn.Parameter]]:
        """Returns the parameters of W (`projection`) and ω (`prototypes`)."""
        return {"projection": list(self.projection.parameters()), "prototypes": [self.classifier]}

    def begin_epoch(self, epoch: int, warmup_epochs: int) -> None:
        """Sets the weight of the alignment loss during pretraining: (epoch + 1) / warmup_epochs.

        Args:
            epoch: the epoch's number, counted from 0 at the start of the warm-up.
            warmup_epochs: number of pretraining epochs, ≥ 0.
        """
        self._pretraining = (epoch + 1) / warmup_epochs if epoch < warmup_epochs else 0.0

    def weights_of(self, weights: Mapping[str, float]) -> Mapping[str, float]:
        """Returns the weights of the loss terms; during pretraining those of the paper.

        Args:
            weights: the weight of each loss term by name, from the parameters.
        """
        return PRETRAINING | {"alignment": self._pretraining} if self._pretraining else weights

    @torch.no_grad()
    def after_step(self) -> None:
        """Subtracts 1e-3 from ω and clamps it at 0, except during pretraining."""
        if not self._pretraining:
            self.classifier.sub_(SHRINKAGE).clamp_(min=0)

    @torch.no_grad()
    def finish(self) -> None:
        """Sets the class of each prototype to the one with its largest weight in ω."""
        self.class_of = self.classifier.argmax(0)


class PresenceTarget(NamedTuple):
    """Presence of PIP-Net's prototypes in crops as the target of relevance propagation.

    Args:
        network: the explained network, whose projection W computes the presence.
        prototypes_n: int64 n, the prototype to explain for each crop, 0..D−1.
    """

    network: PipNet
    prototypes_n: Tensor

    def scores(self, features_nF: Tensor) -> Tensor:
        """Returns the presence of each crop's prototype, float n in (0, 1).

        Args:
            features_nF: backbone features of the explained views, float n×F.
        """
        found_nD = self.network.embed(features_nF)
        return found_nD.gather(1, self.prototypes_n[:, None])[:, 0]

    def relevance(self, features_nF: Tensor) -> Tensor:
        """Returns the presence, distributed over the features, float n×F.

        The shares are proportional to the positive contributions to the softmax's input: feature ×
        weight of W / standard deviation (the z⁺ rule of layer-wise relevance propagation).

        Args:
            features_nF: backbone features of the explained views, float n×F.
        """
        weights_nF = self.network.projection.weight[self.prototypes_n] / self.network.feature_std
        adds_nF = (features_nF * weights_nF).clamp(min=0)
        shares_nF = adds_nF / adds_nF.sum(1, keepdim=True).clamp_min(SMALLEST)
        return shares_nF * self.scores(features_nF)[:, None]
