"""ProtoPNet: classifies an image by the nearest prototypes of the cells of its feature map."""

from typing import Literal

from pipeline.model.base.backbone import Backbone
from pipeline.model.base.distance_network import OwnPrototypes
from pipeline.model.base.models import register
from pipeline.model.base.settings import Count, PrototypeSettings


class ProtoPNetSettings(PrototypeSettings):
    """The parameters of ProtoPNet."""

    loss_terms = ("cluster", "separation")
    name: Literal["protopnet"] = "protopnet"
    code: str = "pipeline/model/protopnet.py"
    embedding_dim: Count = 128


@register
class ProtoPNet(OwnPrototypes):
    """ProtoPNet (Chen et al., 2019): a view is a cell of the feature map of the whole image.

    V is at first 1 for a prototype's own class and −0.5 elsewhere. Of the two 1×1 convolutions that
    the paper puts on the backbone, W is the one with the sigmoid.
    """

    settings_type = ProtoPNetSettings
    label = "ProtoPNet"
    prunes = True

    def __init__(
        self, settings: ProtoPNetSettings, num_classes: int, backbone: Backbone | None = None
    ) -> None:
        super().__init__(settings, num_classes, backbone, foreign=-0.5)
