"""The parameters of ProtoPool."""

from typing import Literal

from pydantic import model_validator

from pipeline.model.base.models import register_settings
from pipeline.model.base.settings import BackboneSettings, Count, Epsilon


@register_settings
class ProtoPoolSettings(BackboneSettings):
    """Parameters of ProtoPool.

    Args:
        name: name that the model is registered under.
        code: path of the model's code relative to the repository; a dependency of DVC stages.
        embedding_dim: D, the size of an embedding, ≥ 1.
        prototypes: P, the number of prototypes that all classes share; larger than `slots`.
        slots: K, the number of prototypes that each class selects, ≥ 1.
        gumbel_epochs: E, the number of epochs, including the warm-up, over which the sharpness of
            the Gumbel-softmax increases to its maximum, ≥ 1.
        epsilon: ε of the similarity log((d + 1) / (d + ε)), in (0, 1).

    Raises:
        ValueError: `slots` is not smaller than `prototypes`.
    """

    loss_terms = ("cluster", "separation", "orthogonality")
    name: Literal["protopool"] = "protopool"
    embedding_dim: Count
    prototypes: Count
    slots: Count
    gumbel_epochs: Count
    epsilon: Epsilon

    @model_validator(mode="after")
    def _consistent(self) -> "ProtoPoolSettings":
        if self.slots >= self.prototypes:
            raise ValueError(
                f"slots is {self.slots} and must be below prototypes, which is {self.prototypes}: "
                "a class is told from others by prototypes that it does not choose"
            )
        return self
