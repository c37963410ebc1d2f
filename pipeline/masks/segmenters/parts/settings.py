"""Parameters of the segmenter `parts`."""

from typing import Annotated, ClassVar, Literal

from pydantic import Field, field_validator

from pipeline.masks.segmenter import Segmenter

Sha256 = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]


class PartsSettings(Segmenter):
    """Finds objects and their parts by the features of a frozen backbone.

    What the object is, and which parts there are, is learned from the images of the data set
    without any label, and kept in a codebook. A mask's score is the mean objectness of its pixels:
    0 at the threshold between object and background, 1 at the mean of the object.

    Args:
        backbone: name of a timm model with feature maps, or `efficientnet_lite0`.
        pretrained: `imagenet` for the weights that timm names for the model, `none` for random
            ones, or the SHA-256 of a file with weights, which `runtime.weights` names.
        side: pixels a side that images are resized to for the backbone, ≥ 64.
        margin: pixels that the resized image is continued by on each side, mirrored, before the
            backbone sees it, and that are cut off its feature maps; a multiple of each stage's
            stride, or 0. A network's padding with zeros tells it where an image ends, and a border
            would look like a part.
        stages: numbers of the backbone's stages whose feature maps are used, in ascending order
            (see `Backbone.feature_maps`). All of them tell object from background, all but the
            first, if there are three or more, tell parts from one another.
        objectness: the first guess of where the object is: `norm` of the last stage's features,
            which is large where a network trained on classes sees something that it knows, or
            `contrast` to the features along the image's border.
        levels: number of parts at each level, ascending; level 0, the whole object, is one more.
        sample: largest number of images that the codebook is learned from, ≥ 1.
        min_area: smallest area of a mask as a fraction of the image, in (0, 1).
        superpixel: scikit-image's parameter `scale` of the superpixels (felzenszwalb) of which
            parts are made; larger values give larger ones, > 0.
        codebook: SHA-256 of the codebook to use, which `runtime.codebook` names; null learns one.
    """

    name: Literal["parts"] = "parts"
    version: Literal[1]
    label: ClassVar[str] = "parts"
    uses_device: ClassVar[bool] = True
    shares_device: ClassVar[bool] = True
    learned: ClassVar[tuple[str, ...]] = ("codebook",)

    backbone: Annotated[str, Field(min_length=1)]
    pretrained: Literal["imagenet", "none"] | Sha256
    side: Annotated[int, Field(ge=64)]
    margin: Annotated[int, Field(ge=0)]
    stages: Annotated[tuple[int, ...], Field(min_length=1)]
    objectness: Literal["norm", "contrast"]
    levels: Annotated[tuple[Annotated[int, Field(ge=2)], ...], Field(min_length=1)]
    sample: Annotated[int, Field(ge=1)]
    min_area: Annotated[float, Field(gt=0, lt=1)]
    superpixel: Annotated[float, Field(gt=0)]
    codebook: Sha256 | None

    @field_validator("levels")
    @classmethod
    def _ascending(cls, levels: tuple[int, ...]) -> tuple[int, ...]:
        if list(levels) != sorted(set(levels)):
            raise ValueError(f"levels must be ascending, from few parts to many, not {levels}")
        return levels
