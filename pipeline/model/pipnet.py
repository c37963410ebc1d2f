"""PIP-Net: each cell of the feature map is one of D prototypes, and few of them make a class."""

from collections.abc import Mapping
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from pipeline.model.base import losses
from pipeline.model.base.backbone import Backbone
from pipeline.model.base.head import PresenceHead, largest_score
from pipeline.model.base.models import register
from pipeline.model.base.network import Output, PrototypeNetwork
from pipeline.model.base.relevance_target import SMALLEST
from pipeline.model.base.settings import BackboneSettings, Count

PRETRAINING = {"presence": 5.0, "cross_entropy": 0.0}
SHRINKAGE = 1e-3


class PipNetSettings(BackboneSettings):
    """The parameters of PIP-Net.

    Args:
        prototypes: D, or null for as many as the backbone has features.
    """

    loss_terms = ("alignment", "presence")
    name: Literal["pipnet"] = "pipnet"
    code: str = "pipeline/model/pipnet.py"
    prototypes: Count | None = None


@register
class PipNet(PrototypeNetwork):
    """PIP-Net (Nauta et al., 2023): a view is a cell of the feature map of the whole image.

    A cell's embedding is softmax(W·f), how much it is each prototype; an image has as much of a
    prototype as its best cell, p. A class's score is p·ω with ω ≥ 0; in training, the cross-entropy
    is of log((p·ω)² + 1), which drives weights to 0. W is the identity at first where D = F, as if
    it were not there.

    The warm-up is the paper's pretraining: no cross-entropy, a presence loss of weight 5, and an
    alignment loss whose weight rises to 1. There is no push: a prototype is shown by the training
    cell that has most of it.

    Attributes:
        projection: W with its bias, F → D.
        classifier: ω, C×D; 1 with a deviation of 0.1 at first.
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
        return torch.ones_like(self.classifier, dtype=torch.bool)

    def embed(self, features_F: Tensor) -> Tensor:
        """Returns how much a cell is each prototype, (…)×D; sums to 1."""
        return self.projection(self.standard(features_F)).softmax(-1)

    def score(self, embedding_BVD: Tensor, valid_BV: Tensor) -> Output:
        if self.training:
            most_BD = largest_score(embedding_BVD, valid_BV)
        else:
            most_BD = self.head().pooled(embedding_BVD, valid_BV)
        return Output(most_BD @ self.classifier.relu().T, None, embedding_BVD)

    def head(self) -> PresenceHead:
        return PresenceHead(self.classifier.detach().relu())

    def relevance_target(self, prototypes_n: Tensor) -> "PresenceTarget":
        return PresenceTarget(self, prototypes_n)

    def losses(self, output: Output, labels_B: Tensor, weights_C: Tensor) -> dict[str, Tensor]:
        """Returns CE, and alignment and presence; without copies an image is its own copy."""
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
        return {"projection": list(self.projection.parameters()), "prototypes": [self.classifier]}

    def begin_epoch(self, epoch: int, warmup_epochs: int) -> None:
        self._pretraining = (epoch + 1) / warmup_epochs if epoch < warmup_epochs else 0.0

    def weights_of(self, weights: Mapping[str, float]) -> Mapping[str, float]:
        return PRETRAINING | {"alignment": self._pretraining} if self._pretraining else weights

    @torch.no_grad()
    def after_step(self) -> None:
        """Draws ω towards 0 and keeps it from being negative, once it is trained."""
        if not self._pretraining:
            self.classifier.sub_(SHRINKAGE).clamp_(min=0)

    @torch.no_grad()
    def finish(self) -> None:
        self.class_of = self.classifier.argmax(0)


class PresenceTarget(NamedTuple):
    """How much of a prototype of PIP-Net there is in crops.

    Args:
        network: whose projection.
        prototypes_n: int64, for each crop, the prototype to explain.
    """

    network: PipNet
    prototypes_n: Tensor

    def scores(self, features_nF: Tensor) -> Tensor:
        found_nD = self.network.embed(features_nF)
        return found_nD.gather(1, self.prototypes_n[:, None])[:, 0]

    def relevance(self, features_nF: Tensor) -> Tensor:
        """Returns each feature's share, n×F: by what it adds to the softmax's input, if it does."""
        weights_nF = self.network.projection.weight[self.prototypes_n] / self.network.feature_std
        adds_nF = (features_nF * weights_nF).clamp(min=0)
        shares_nF = adds_nF / adds_nF.sum(1, keepdim=True).clamp_min(SMALLEST)
        return shares_nF * self.scores(features_nF)[:, None]
