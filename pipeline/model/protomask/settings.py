"""The parameters of ProtoMask."""

from typing import Annotated, Literal

from pydantic import Field, field_validator

from pipeline.model.base.models import register_settings
from pipeline.model.base.settings import PrototypeSettings


@register_settings
class ProtoMaskSettings(PrototypeSettings):
    """Parameters of ProtoMask.

    Args:
        name: name that the model is registered under.
        code: path of the model's code relative to the repository; a dependency of DVC stages.
        pooling: what a crop's features are averaged over: all of it (`box`, as published), or what
            its mask holds (`mask`), each cell weighted by its share of the mask.
        stages: the backbone's feature maps that are pooled and put side by side: −1 is its last
            output, as published; others are places in timm's `feature_info`, from 0, or from the
            end if negative (in a convolutional network, −2 mostly has half the stride of −1).
    """

    loss_terms = ("cluster", "separation", "diversity")
    prunes = True
    name: Literal["protomask"] = "protomask"
    pooling: Literal["box", "mask"]
    stages: Annotated[tuple[int, ...], Field(min_length=1)]

    @field_validator("stages")
    @classmethod
    def _distinct(cls, stages: tuple[int, ...]) -> tuple[int, ...]:
        if len(set(stages)) < len(stages):
            raise ValueError(f"a stage is named twice in {list(stages)}")
        return stages

    @property
    def feature_stages(self) -> tuple[int, ...]:
        """The parameter `stages`."""
        return self.stages

    @property
    def pools_inside(self) -> bool:
        """Whether `pooling` is `mask`."""
        return self.pooling == "mask"
