"""Black box baseline: a linear classifier of the pooled features of the whole image."""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from pipeline.backbone.backbone import Backbone
from pipeline.model.base import losses
from pipeline.model.base.head import LinearHead
from pipeline.model.base.models import register
from pipeline.model.base.network import Output, PrototypeNetwork
from pipeline.model.blackbox.settings import BlackBoxSettings


@register
class BlackBox(PrototypeNetwork):
    """Baseline for prototype networks: the same backbone with a linear classifier.

    The classes take the place of the prototypes (P = C), so that it passes through the same stages:
    the push shows each class by the training image with the largest logit for it.

    Args:
        settings: parameters of the model, such as the backbone and its weights.
        num_classes: C, the number of classes, ≥ 1.
        backbone: the feature extractor; None builds it from the settings.

    Attributes:
        classifier: linear layer F → C with bias; zero at initialisation.

    Raises:
        ProtoMaskError: the backbone cannot be built from the settings.
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
        """Returns the standardised features, float (…)×F.

        Args:
            features_F: backbone features, float (…)×F.
        """
        return self.standard(features_F)

    def score(self, embedding_BVD: Tensor, valid_BV: Tensor) -> Output:
        """Classifies images by their only view; for arguments and result see `PrototypeNetwork`.

        The output has no distances.
        """
        return Output(self.classifier(embedding_BVD[:, 0]), None, embedding_BVD)

    def head(self) -> LinearHead:
        """Returns the linear classifier, detached from the graph."""
        return LinearHead(self.classifier.weight.detach(), self.classifier.bias.detach())

    def relevance_target(self, prototypes_n: Tensor) -> "LogitTarget":
        """Returns the logits of classes as the target that relevance is propagated from.

        Args:
            prototypes_n: int64 n, the class to explain for each crop, 0..C−1.
        """
        weights_CF = self.classifier.weight.detach()
        return LogitTarget(weights_CF[prototypes_n] / self.feature_std)

    def losses(self, output: Output, labels_B: Tensor, weights_C: Tensor) -> dict[str, Tensor]:
        """Returns the class-weighted cross-entropy as the only term of the loss.

        Args:
            output: the model's output for a batch of B images.
            labels_B: int64 B, the images' classes, 0..C−1.
            weights_C: float C, the cross-entropy weight of each class.
        """
        return {"cross_entropy": losses.cross_entropy(output.logits, labels_B, weights_C)}

    def parameter_groups(self) -> dict[str, list[nn.Parameter]]:
        """Returns the classifier's parameters, which take the learning rate of the prototypes."""
        return {"projection": [], "prototypes": list(self.classifier.parameters())}


class LogitTarget(NamedTuple):
    """Logits of a linear classifier as the target of relevance propagation.

    The constant terms (the bias and the mean of the features) are left out, since no pixel
    contributes to them.

    Args:
        weights_nF: float n×F, for each crop the classifier's weights of the class to explain,
            divided by the standard deviation of the features.
    """

    weights_nF: Tensor

    def scores(self, features_nF: Tensor) -> Tensor:
        """Returns the logits of the explained classes without constant terms, float n.

        Args:
            features_nF: pooled backbone features of the crops, float n×F.
        """
        return self.relevance(features_nF).sum(1)

    def relevance(self, features_nF: Tensor) -> Tensor:
        """Returns each feature's contribution to the logit (feature × weight), float n×F.

        Args:
            features_nF: pooled backbone features of the crops, float n×F.
        """
        return features_nF * self.weights_nF
