"""ProtoPNet: classifies an image by the distances of its feature map's cells to prototypes."""

from pipeline.backbone.backbone import Backbone
from pipeline.model.base.distance_network import OwnPrototypes
from pipeline.model.base.models import register
from pipeline.model.protopnet.settings import ProtoPNetSettings


@register
class ProtoPNet(OwnPrototypes):
    """ProtoPNet (Chen et al., 2019): a view is a cell of the feature map of the whole image.

    V is 1 for a prototype's own class and −0.5 elsewhere at initialisation. Of the paper's two
    additional 1×1 convolutions, W is the one followed by the sigmoid; the other is omitted.

    Args:
        settings: parameters of the model, such as D, M and ε.
        num_classes: C, the number of classes, ≥ 1.
        backbone: the feature extractor; None builds it from the settings.

    Raises:
        ProtoMaskError: the backbone cannot be built from the settings.
    """

    settings_type = ProtoPNetSettings
    label = "ProtoPNet"

    def __init__(
        self, settings: ProtoPNetSettings, num_classes: int, backbone: Backbone | None = None
    ) -> None:
        super().__init__(settings, num_classes, backbone, foreign=-0.5)
