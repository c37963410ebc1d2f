"""Augmentation of training crops on the device; each crop draws its own random parameters."""

from typing import Any

import torch
from kornia import augmentation as K
from kornia.enhance import (
    adjust_brightness_accumulative,
    adjust_contrast_with_mean_subtraction,
    adjust_saturation_with_gray_subtraction,
)
from kornia.geometry.transform import get_perspective_transform
from torch import Tensor, nn


class InwardPerspective(K.RandomPerspective):
    """Perspective augmentation that maps a quadrilateral inside the image onto the whole image.

    Kornia's own maps the image into the quadrilateral, which leaves a black border.
    """

    def compute_transformation(
        self, input: Tensor, params: dict[str, Tensor], flags: dict[str, Any]
    ) -> Tensor:
        """Returns the homographies from the inner quadrilateral to the image's corners: n×3×3.

        Args:
            input: images, float n×3×S×S; only their dtype and device are used.
            params: Kornia's random parameters; `start_points` are the image's corners and
                `end_points` those of the inner quadrilateral, n×4×2 (x, y) in pixels.
            flags: Kornia's static parameters; unused.
        """
        corners, inside = (params[key].to(input) for key in ("start_points", "end_points"))
        return get_perspective_transform(inside, corners)


class ColourJitter(K.ColorJitter):
    """Kornia's colour jitter at half its cost: the hue is shifted without a conversion to HSV."""

    def apply_transform(
        self,
        input: Tensor,
        params: dict[str, Tensor],
        flags: dict[str, Any],
        transform: Tensor | None = None,
    ) -> Tensor:
        """Returns the images with the four colour changes applied in the order drawn by Kornia.

        Args:
            input: images, float n×3×S×S in [0, 1].
            params: Kornia's random parameters: `order` (a permutation of 0..3) and the four
                factors, n each.
            flags: Kornia's static parameters; unused.
            transform: Kornia's transformation matrices; unused.
        """
        steps = [
            (adjust_brightness_accumulative, "brightness_factor"),
            (adjust_contrast_with_mean_subtraction, "contrast_factor"),
            (adjust_saturation_with_gray_subtraction, "saturation_factor"),
            (turn_hue, "hue_factor"),
        ]
        for place in params["order"].tolist():
            change, factor = steps[place]
            input = change(input, params[factor].to(input))
        return input


def turn_hue(images: Tensor, turns: Tensor) -> Tensor:
    """Shifts the hue of images; saturation and value (of HSV) remain the same.

    Args:
        images: RGB images, float n×3×S×S in [0, 1].
        turns: hue shift of each image, float n, in turns of the colour circle (1 is 360°).

    Returns:
        The shifted images, float n×3×S×S in [0, 1].
    """
    red, green, blue = images.unbind(1)
    value = torch.maximum(torch.maximum(red, green), blue)
    spread = value - torch.minimum(torch.minimum(red, green), blue)
    between = torch.where(
        value == red,
        green - blue,
        torch.where(value == green, blue - red, red - green),
    )
    from_red = torch.where(value == red, 0.0, torch.where(value == green, 2.0, 4.0))
    # In sixths of the circle: red 0, green 2, blue 4.
    hue = from_red + between / spread.clamp_min(1e-8) + 6 * turns.view(-1, 1, 1)
    sixths = ((place + hue).remainder(6) for place in (5, 3, 1))
    channels = [value - spread * torch.minimum(k, 4 - k).clamp(0, 1) for k in sixths]
    return torch.stack(channels, dim=1)


class Augmentation(nn.Module):
    """The published augmentation (docs/method.md, "Training").

    Horizontal flip with probability 0.5; perspective with each corner 0–0.05 of the sides further
    inside; rotation ±15° and shear ±15° along both axes with mirrored edges; brightness, contrast
    and saturation × 0.85–1.15; hue ± 0.025 of the colour circle.
    """

    def __init__(self) -> None:
        super().__init__()
        both_axes = torch.tensor([[-15.0, 15.0], [-15.0, 15.0]])
        self.shapes = _sequence(
            K.RandomHorizontalFlip(p=0.5),
            # Kornia moves a corner by up to half of the distortion.
            InwardPerspective(2 * 0.05, p=1.0),
            K.RandomAffine(15.0, shear=both_axes, padding_mode="reflection", p=1.0),
        )
        self.colours = _sequence(ColourJitter(0.15, 0.15, 0.15, 0.025, p=1.0))

    @torch.no_grad()
    def forward(self, crops_BKSSc: Tensor, valid_BK: Tensor, copies: int = 1) -> Tensor:
        """Augments a batch of crops.

        Args:
            crops_BKSSc: RGB crops, uint8 B×K×S×S×c; channels after the third, such as the crops'
                masks, are moved with the pixels and keep their values.
            valid_BK: bool B×K, false for missing crops.
            copies: number of augmented copies of each image; they share the geometric transform and
                draw their colours independently.

        Returns:
            Augmented crops, float32 (copies·B)×K×S×S×c in [0, 1]: the first copies of all images,
            then the second ones. Missing crops are zero.
        """
        images = crops_BKSSc[valid_BK].permute(0, 3, 1, 2).float() / 255
        shaped = self.shapes(images).clamp(0, 1)
        crops = shaped.new_zeros(copies, *crops_BKSSc.shape)
        for copy in crops:
            coloured = self.colours(shaped[:, :3]).clamp(0, 1)
            copy[valid_BK] = torch.cat([coloured, shaped[:, 3:]], dim=1).permute(0, 2, 3, 1)
        return crops.flatten(0, 1)


def _sequence(*transforms: Any) -> K.AugmentationSequential:
    return K.AugmentationSequential(*transforms, data_keys=["input"], same_on_batch=False)
