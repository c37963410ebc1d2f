"""ProtoMask: classifies an image by its crops' nearest prototypes."""

from torch import Tensor

from pipeline.model import losses
from pipeline.model.backbone import Backbone
from pipeline.model.distance_network import OwnPrototypes
from pipeline.model.network import Output
from pipeline.model.settings import ProtoMaskSettings


class ProtoMask(OwnPrototypes):
    """ProtoMask (Meinert et al., 2025; method.md): a view is a crop.

    Pooling before W gives the same number as W on every cell of the map followed by the pooling,
    since both are linear.
    """

    sees = "crops"
    in_cells = False

    def __init__(
        self, settings: ProtoMaskSettings, num_classes: int, backbone: Backbone | None = None
    ) -> None:
        super().__init__(settings, num_classes, backbone, foreign=0.0)

    def losses(self, output: Output, labels_B: Tensor, weights_C: Tensor) -> dict[str, Tensor]:
        prototypes_CMD = self.prototypes.unflatten(0, (self.num_classes, -1))
        present, place_B = labels_B.unique(return_inverse=True)
        return super().losses(output, labels_B, weights_C) | {
            "diversity": losses.diversity(prototypes_CMD[present])[place_B].mean()
        }
