"""The parameters that models have in common."""

from typing import Annotated, ClassVar

from pydantic import BaseModel, ConfigDict, Field

Count = Annotated[int, Field(ge=1)]
Epsilon = Annotated[float, Field(gt=0, lt=1)]


class BackboneSettings(BaseModel):
    """What every model has.

    Args:
        name: what the model is registered as.
        code: the file of the model's code, relative to the repository: what DVC watches.
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

    name: str
    code: str
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
