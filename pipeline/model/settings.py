"""The parameters a model is built from."""

from typing import Annotated, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

Count = Annotated[int, Field(ge=1)]
Epsilon = Annotated[float, Field(gt=0, lt=1)]


class BackboneSettings(BaseModel):
    """What every model has.

    Args:
        backbone: a timm model, or `efficientnet_lite0`.
        pretrained: `imagenet`, `none`, or a file with weights.
        standardise: subtract the training images' mean from the features and divide by their
            standard deviation before W; for a backbone that stands still, as batch norms in
            training change both.

    Attributes:
        loss_terms: what the loss has besides cross-entropy.
    """

    loss_terms: ClassVar[tuple[str, ...]] = ()
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    backbone: str = "efficientnet_lite0"
    pretrained: str = "imagenet"
    standardise: bool = True


class PrototypeSettings(BackboneSettings):
    """What models with a fixed number of prototypes for each class have.

    Args:
        embedding_dim: D.
        prototypes_per_class: M.
        epsilon: ε of the similarity.
    """

    embedding_dim: Count = 1280
    prototypes_per_class: Count = 10
    epsilon: Epsilon = 1e-4


class ProtoMaskSettings(PrototypeSettings):
    """See `pipeline.model.protomask`."""

    loss_terms = ("cluster", "separation", "diversity")
    name: Literal["protomask"] = "protomask"


class ProtoPNetSettings(PrototypeSettings):
    """See `pipeline.model.protopnet`."""

    loss_terms = ("cluster", "separation")
    name: Literal["protopnet"] = "protopnet"
    embedding_dim: Count = 128


class ProtoPoolSettings(BackboneSettings):
    """See `pipeline.model.protopool`.

    Args:
        embedding_dim: D.
        prototypes: P, how many all classes share.
        slots: K, how many prototypes a class chooses.
        gumbel_epochs: epochs, the warm-up's among them, after which the choice is as good as made.
        epsilon: ε of the similarity.
    """

    loss_terms = ("cluster", "separation", "orthogonality")
    name: Literal["protopool"] = "protopool"
    embedding_dim: Count = 128
    prototypes: Count = 202
    slots: Count = 10
    gumbel_epochs: Count = 30
    epsilon: Epsilon = 1e-4

    @model_validator(mode="after")
    def _consistent(self) -> "ProtoPoolSettings":
        if self.slots >= self.prototypes:
            raise ValueError(
                f"slots is {self.slots} and must be below prototypes, which is {self.prototypes}: "
                "a class is told from others by prototypes that it does not choose"
            )
        return self


class PipNetSettings(BackboneSettings):
    """See `pipeline.model.pipnet`.

    Args:
        prototypes: D, or null for as many as the backbone has features.
    """

    loss_terms = ("alignment", "presence")
    name: Literal["pipnet"] = "pipnet"
    prototypes: Count | None = None


class BlackBoxSettings(BackboneSettings):
    """See `pipeline.model.blackbox`."""

    name: Literal["blackbox"] = "blackbox"


ModelSettings = Annotated[
    ProtoMaskSettings | ProtoPNetSettings | ProtoPoolSettings | PipNetSettings | BlackBoxSettings,
    Field(discriminator="name"),
]
