"""The parameters of ProtoMask."""

from typing import Literal

from pipeline.model.base.models import register_settings
from pipeline.model.base.settings import PrototypeSettings


@register_settings
class ProtoMaskSettings(PrototypeSettings):
    """Parameters of ProtoMask.

    Args:
        name: name that the model is registered under.
        code: path of the model's code relative to the repository; a dependency of DVC stages.
    """

    loss_terms = ("cluster", "separation", "diversity")
    prunes = True
    name: Literal["protomask"] = "protomask"
