"""The parameters of the black box."""

from typing import Literal

from pipeline.model.base.models import register_settings
from pipeline.model.base.settings import BackboneSettings


@register_settings
class BlackBoxSettings(BackboneSettings):
    """Parameters of the black box.

    Args:
        name: name that the model is registered under.
        code: path of the model's code relative to the repository; a dependency of DVC stages.
    """

    name: Literal["blackbox"] = "blackbox"
