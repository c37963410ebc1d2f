"""Augmentation of training crops on the device, each crop for itself."""

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
    """Stretches a quadrilateral inside the image over the whole of it.

    (Kornia's own squeezes the image into the quadrilateral, and leaves a black frame.)
    """

    def compute_transformation(
        self, input: Tensor, params: dict[str, Tensor], flags: dict[str, Any]
    ) -> Tensor:
        corners, inside = (params[key].to(input) for key in ("start_points", "end_points"))
        return get_perspective_transform(inside, corners)


class ColourJitter(K.ColorJitter):
    """Kornia's at half its cost: the hue is turned without images in HSV in between."""

    def apply_transform(
        self,
        input: Tensor,
        params: dict[str, Tensor],
        flags: dict[str, Any],
        transform: Tensor | None = None,
    ) -> Tensor:
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
    """Turns the hue, and leaves saturation and value (of HSV) as they are.

    Args:
        images: n×3×S×S, 0..1.
        turns: n, of the colour circle.
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
    """The published augmentation (method.md, "Training").

    Horizontal flip with probability ½; perspective: each corner 0–0.05 of the sides further in;
    rotation ±15° and shear ±15° along both axes with edges mirrored; brightness, contrast and
    saturation × 0.85–1.15; hue ± 0.025 of the colour circle.
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
    def forward(self, crops_BKSS3: Tensor, valid_BK: Tensor, copies: int = 1) -> Tensor:
        """Returns augmented crops, float 0..1; missing ones are left black.

        Args:
            crops_BKSS3: uint8.
            valid_BK: bool.
            copies: how many of each image, alike in shape and each with colours of its own; the
                first copies of all images come first.
        """
        images = crops_BKSS3[valid_BK].permute(0, 3, 1, 2).float() / 255
        shaped = self.shapes(images).clamp(0, 1)
        crops = shaped.new_zeros(copies, *crops_BKSS3.shape)
        for copy in crops:
            copy[valid_BK] = self.colours(shaped).clamp(0, 1).permute(0, 2, 3, 1)
        return crops.flatten(0, 1)


def _sequence(*transforms: Any) -> K.AugmentationSequential:
    return K.AugmentationSequential(*transforms, data_keys=["input"], same_on_batch=False)
