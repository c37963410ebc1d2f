"""The parameters a model is built from."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field


class ModelSettings(BaseModel):
    """What a model is built from.

    Args:
        name: the kind of model.
        backbone: a timm model, or `efficientnet_lite0`.
        pretrained: `imagenet`, `none`, or a file with weights.
        embedding_dim: D.
        prototypes_per_class: M.
        standardise: subtract the training crops' mean from the pooled features and divide by their
            standard deviation before W.
        epsilon: ε of the similarity.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    name: Literal["protomask"] = "protomask"
    backbone: str = "efficientnet_lite0"
    pretrained: str = "imagenet"
    embedding_dim: Annotated[int, Field(ge=1)] = 1280
    prototypes_per_class: Annotated[int, Field(ge=1)] = 10
    standardise: bool = True
    epsilon: Annotated[float, Field(gt=0, lt=1)] = 1e-4
