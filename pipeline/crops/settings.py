"""The parameters of crops."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

NO_MASK = NO_PART = -1
"""The number of the mask of a crop that has none, and of its part where none is known."""


Storage = Literal["jpeg", "lossless"]
"""How pixels are kept."""


class CropSettings(BaseModel):
    """How crops are cut: exactly what changes a crop store.

    Args:
        version: of the algorithm; raised when the same masks give other crops.
        side: S, pixels a side of a crop.
        per_image: K, crops kept of an image at most.
        choose: which masks become crops: the K largest (`largest`, as published); or those of
            objects, whole objects before their parts and larger before smaller ones, without
            background and without masks that nearly repeat another (`parts`).
        background: what stands outside the mask but inside the box: the photograph itself
            (`original`), the mean colour inside the mask (`mean`), or black (`zero`).
        min_box_area: boxes under this fraction of the image grow to it around their centre.
        max_box_area: masks whose box is over this fraction of the image give no crop, as that of a
            background around an object, whose box is the whole image.
        storage: how pixels are kept: as JPEG pictures of quality 95 in full colour (`jpeg`), or
            exactly (`lossless`).
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    version: Literal[3]
    side: Annotated[int, Field(ge=16, le=1024)]
    per_image: Annotated[int, Field(ge=1, le=256)]
    choose: Literal["largest", "parts"]
    background: Literal["original", "mean", "zero"]
    min_box_area: Annotated[float, Field(ge=0, le=1)]
    max_box_area: Annotated[float, Field(gt=0, le=1)]
    storage: Storage

    def of_whole_images(self) -> "CropSettings":
        """Returns the settings of images that are each their own only crop, without a mask."""
        return self.model_copy(update={"background": "original"})

    @model_validator(mode="after")
    def _consistent(self) -> "CropSettings":
        if self.min_box_area > self.max_box_area:
            raise ValueError(
                f"min_box_area is {self.min_box_area:g} and above max_box_area, "
                f"{self.max_box_area:g}: no crop could be both"
            )
        return self
