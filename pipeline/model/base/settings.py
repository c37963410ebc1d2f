"""Parameters that several models have in common."""

from typing import Annotated, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field

Count = Annotated[int, Field(ge=1)]
Epsilon = Annotated[float, Field(gt=0, lt=1)]
Precision = Literal["float32", "tf32", "bfloat16"]
"""What a backbone computes in; `tf32` is float32 whose factors a GPU rounds to 10 bits."""


class BackboneSettings(BaseModel):
    """Parameters of every model.

    Args:
        name: name that the model is registered under.
        code: path of the model's code relative to the repository; a dependency of DVC stages.
        backbone: name of a timm model, or `efficientnet_lite0`.
        pretrained: `imagenet`, `none` (random weights), or the path of a file with weights.
        standardise: whether to subtract the mean of the training views' features and divide by
            their standard deviation before W; meant for a frozen backbone, since batch norms in
            training change both.

    Attributes:
        loss_terms: names of the terms of the loss besides cross-entropy.
        prunes: whether prototypes can be pruned, since V is fine-tuned and each belongs to one
            class; such a model implements `keep`.
    """

    loss_terms: ClassVar[tuple[str, ...]] = ()
    prunes: ClassVar[bool] = False
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    name: str
    code: str
    backbone: str
    pretrained: str
    standardise: bool

    @property
    def feature_stages(self) -> tuple[int, ...]:
        """The backbone's feature maps that features are pooled from, as `Backbone` numbers them.

        By default the last alone.
        """
        return (-1,)

    @property
    def pools_inside(self) -> bool:
        """Whether features are averaged over a crop's mask, not over all of the crop."""
        return False


class PrototypeSettings(BackboneSettings):
    """Parameters of models with a fixed number of prototypes per class.

    Args:
        embedding_dim: D, the size of an embedding, ≥ 1.
        prototypes_per_class: M, the number of prototypes per class, ≥ 1.
        epsilon: ε of the similarity log((d + 1) / (d + ε)), in (0, 1).
    """

    embedding_dim: Count
    prototypes_per_class: Count
    epsilon: Epsilon
