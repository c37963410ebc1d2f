"""The parameters of ProtoPNet."""

from typing import Literal

from pipeline.model.base.models import register_settings
from pipeline.model.base.settings import PrototypeSettings


@register_settings
class ProtoPNetSettings(PrototypeSettings):
    """Parameters of ProtoPNet.

    Args:
        name: name that the model is registered under.
        code: path of the model's code relative to the repository; a dependency of DVC stages.
    """

    loss_terms = ("cluster", "separation")
    prunes = True
    name: Literal["protopnet"] = "protopnet"
