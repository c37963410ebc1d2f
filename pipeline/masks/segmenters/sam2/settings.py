"""The parameters of mask generation with SAM 2.1."""

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from pipeline.masks.segmenter import Segmenter

Share = Annotated[float, Field(ge=0, le=1)]
ModelName = Literal[
    "sam2.1_hiera_tiny", "sam2.1_hiera_small", "sam2.1_hiera_base_plus", "sam2.1_hiera_large"
]


class Sam2Settings(Segmenter):
    """The parameters of the segmenter `Sam2`.

    A mask's scores are its predicted IoU and its stability.

    Args:
        model: the size of the network, one of four.
        weights_sha256: SHA-256 of the file with its weights, 64 hex digits.
        engine: `batched`, or `reference` for sam2's own `SAM2AutomaticMaskGenerator`, which finds
            the same masks one crop at a time.
        precision: dtype of the networks' computation; `bfloat16` gives slightly different masks.
        points_per_side: number of point prompts along each side of a crop.
        pred_iou_thresh: masks with a predicted IoU not above this are dropped.
        stability_score_thresh: masks with a stability below this are dropped.
        stability_score_offset: stability is the IoU of the masks thresholded this far above and
            below `mask_threshold`.
        mask_threshold: logits above this are inside the mask.
        box_nms_thresh: of masks of one crop whose boxes have an IoU above this, one is kept.
        crop_n_layers: number of layers of crops; layer i divides the image into 2^i×2^i crops that
            overlap.
        crop_nms_thresh: like `box_nms_thresh`, among the masks of different crops.
        crop_overlap_ratio: overlap of the crops of the first layer, as a share of the image's
            shorter side.
        crop_n_points_downscale_factor: factor by which the number of points along a side decreases
            from layer to layer.
        min_mask_region_area: holes and specks of at most this many pixels at the decoder's
            resolution are filled and removed.
    """

    label: ClassVar[str] = "SAM 2"
    name: Literal["sam2"] = "sam2"
    version: Literal[1]
    score_names: ClassVar[tuple[str, ...]] = ("predicted_iou", "stability")
    images_per_batch: ClassVar[int] = 8
    uses_device: ClassVar[bool] = True

    model: ModelName
    weights_sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
    engine: Literal["batched", "reference"]
    precision: Literal["float32", "bfloat16"]
    points_per_side: Annotated[int, Field(ge=1)]
    pred_iou_thresh: Share
    stability_score_thresh: Share
    stability_score_offset: Annotated[float, Field(ge=0)]
    mask_threshold: float
    box_nms_thresh: Share
    crop_n_layers: Annotated[int, Field(ge=0)]
    crop_nms_thresh: Share
    crop_overlap_ratio: Share
    crop_n_points_downscale_factor: Annotated[int, Field(ge=1)]
    min_mask_region_area: Annotated[int, Field(ge=0)]
