"""The parameters of PIP-Net."""

from typing import Literal

from pipeline.model.base.models import register_settings
from pipeline.model.base.settings import BackboneSettings, Count


@register_settings
class PipNetSettings(BackboneSettings):
    """Parameters of PIP-Net.

    Args:
        name: name that the model is registered under.
        code: path of the model's code relative to the repository; a dependency of DVC stages.
        prototypes: D, the number of prototypes, ≥ 1; null takes the number of backbone features F.
    """

    loss_terms = ("alignment", "presence")
    name: Literal["pipnet"] = "pipnet"
    prototypes: Count | None
