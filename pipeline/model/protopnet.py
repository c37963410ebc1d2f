"""ProtoPNet: classifies an image by the nearest prototypes of the cells of its feature map."""

from pipeline.model.backbone import Backbone
from pipeline.model.distance_network import OwnPrototypes
from pipeline.model.settings import ProtoPNetSettings


class ProtoPNet(OwnPrototypes):
    """ProtoPNet (Chen et al., 2019): a view is a cell of the feature map of the whole image.

    V is at first 1 for a prototype's own class and −0.5 elsewhere. Of the two 1×1 convolutions that
    the paper puts on the backbone, W is the one with the sigmoid.
    """

    def __init__(
        self, settings: ProtoPNetSettings, num_classes: int, backbone: Backbone | None = None
    ) -> None:
        super().__init__(settings, num_classes, backbone, foreign=-0.5)
