"""The black box: a linear classifier of the pooled features of the whole image."""

from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from pipeline.model.base import losses
from pipeline.model.base.backbone import Backbone
from pipeline.model.base.head import LinearHead
from pipeline.model.base.models import register
from pipeline.model.base.network import Output, PrototypeNetwork
from pipeline.model.base.settings import BackboneSettings


class BlackBoxSettings(BackboneSettings):
    """The parameters of the black box."""

    name: Literal["blackbox"] = "blackbox"
    code: str = "pipeline/model/blackbox.py"


@register
class BlackBox(PrototypeNetwork):
    """What a prototype network is compared with: the same backbone, without prototypes.

    In the place of prototypes stand the classes, so that it goes through the same stages: the push
    shows a class by the training image with the highest logit for it.

    Attributes:
        classifier: F → C, with bias; zero at first.
    """

    settings_type = BlackBoxSettings
    label = "Black box"
    in_cells = False

    def __init__(
        self, settings: BlackBoxSettings, num_classes: int, backbone: Backbone | None = None
    ) -> None:
        super().__init__(settings, num_classes, backbone)
        self.classifier = nn.Linear(self.backbone.num_features, num_classes)
        nn.init.zeros_(self.classifier.weight)
        nn.init.zeros_(self.classifier.bias)
        self.register_buffer("class_of", torch.arange(num_classes))

    def embed(self, features_F: Tensor) -> Tensor:
        """Returns the standardised features."""
        return self.standard(features_F)

    def score(self, embedding_BVD: Tensor, valid_BV: Tensor) -> Output:
        return Output(self.classifier(embedding_BVD[:, 0]), None, embedding_BVD)

    def head(self) -> LinearHead:
        return LinearHead(self.classifier.weight.detach(), self.classifier.bias.detach())

    def relevance_target(self, prototypes_n: Tensor) -> "LogitTarget":
        weights_CF = self.classifier.weight.detach()
        return LogitTarget(weights_CF[prototypes_n] / self.feature_std)

    def losses(self, output: Output, labels_B: Tensor, weights_C: Tensor) -> dict[str, Tensor]:
        return {"cross_entropy": losses.cross_entropy(output.logits, labels_B, weights_C)}

    def parameter_groups(self) -> dict[str, list[nn.Parameter]]:
        return {"projection": [], "prototypes": list(self.classifier.parameters())}


class LogitTarget(NamedTuple):
    """A linear classifier's logits, without the bias, which no pixel added.

    Args:
        weights_nF: for each crop, the classifier's weights of the class to explain.
    """

    weights_nF: Tensor

    def scores(self, features_nF: Tensor) -> Tensor:
        return self.relevance(features_nF).sum(1)

    def relevance(self, features_nF: Tensor) -> Tensor:
        return features_nF * self.weights_nF
