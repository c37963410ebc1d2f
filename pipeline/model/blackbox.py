"""The black box: a linear classifier of the pooled features of the whole image."""

import torch
from torch import Tensor, nn

from pipeline.model import losses
from pipeline.model.backbone import Backbone
from pipeline.model.head import LinearHead
from pipeline.model.network import Output, PrototypeNetwork
from pipeline.model.settings import BlackBoxSettings


class BlackBox(PrototypeNetwork):
    """What a prototype network is compared with: the same backbone, without prototypes.

    In the place of prototypes stand the classes, so that it goes through the same stages: the push
    shows a class by the training image with the highest logit for it.

    Attributes:
        classifier: F → C, with bias; zero at first.
    """

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

    def losses(self, output: Output, labels_B: Tensor, weights_C: Tensor) -> dict[str, Tensor]:
        return {"cross_entropy": losses.cross_entropy(output.logits, labels_B, weights_C)}

    def parameter_groups(self) -> dict[str, list[nn.Parameter]]:
        return {"projection": [], "prototypes": list(self.classifier.parameters())}
