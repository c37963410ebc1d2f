"""From settings to a model."""

from pipeline.model.backbone import Backbone
from pipeline.model.blackbox import BlackBox
from pipeline.model.network import PrototypeNetwork
from pipeline.model.pipnet import PipNet
from pipeline.model.protomask import ProtoMask
from pipeline.model.protopnet import ProtoPNet
from pipeline.model.protopool import ProtoPool
from pipeline.model.settings import ModelSettings

MODELS: dict[str, type[PrototypeNetwork]] = {
    "protomask": ProtoMask,
    "protopnet": ProtoPNet,
    "protopool": ProtoPool,
    "pipnet": PipNet,
    "blackbox": BlackBox,
}


def build(
    settings: ModelSettings, num_classes: int, backbone: Backbone | None = None
) -> PrototypeNetwork:
    """Returns a new model of the kind that the settings name."""
    return MODELS[settings.name](settings, num_classes, backbone)
