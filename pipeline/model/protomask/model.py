"""ProtoMask: classifies an image by the distances of its crops to prototypes."""

from torch import Tensor

from pipeline.backbone.backbone import Backbone
from pipeline.model.base import losses
from pipeline.model.base.distance_network import OwnPrototypes
from pipeline.model.base.models import register
from pipeline.model.base.network import Output
from pipeline.model.protomask.settings import ProtoMaskSettings


@register
class ProtoMask(OwnPrototypes):
    """ProtoMask (Meinert et al., 2025; docs/method.md): a view is a crop.

    V is 1 for a prototype's own class and 0 elsewhere at initialisation. Pooling before W gives the
    same number as W on every cell of the map followed by the pooling, since both are linear.

    Args:
        settings: parameters of the model, such as D, M and ε.
        num_classes: C, the number of classes, ≥ 1.
        backbone: the feature extractor; None builds it from the settings.

    Raises:
        ProtoMaskError: the backbone cannot be built from the settings.
    """

    settings_type = ProtoMaskSettings
    label = "ProtoMask"
    sees = "crops"
    in_cells = False

    def __init__(
        self, settings: ProtoMaskSettings, num_classes: int, backbone: Backbone | None = None
    ) -> None:
        super().__init__(settings, num_classes, backbone, foreign=0.0)

    def losses(self, output: Output, labels_B: Tensor, weights_C: Tensor) -> dict[str, Tensor]:
        """Returns the scalar terms cross-entropy, Clst, Sep and Div (docs/method.md, "Training").

        Args:
            output: the model's output for a batch of B images, with distances.
            labels_B: int64 B, the images' classes, 0..C−1.
            weights_C: float C, the cross-entropy weight of each class.
        """
        prototypes_CMD = self.prototypes.unflatten(0, (self.num_classes, -1))
        present, place_B = labels_B.unique(return_inverse=True)
        return super().losses(output, labels_B, weights_C) | {
            "diversity": losses.diversity(prototypes_CMD[present])[place_B].mean()
        }
