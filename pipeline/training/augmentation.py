"""Augmentation of training crops on the device, each crop for itself."""

import torch
from kornia import augmentation as K
from torch import Tensor, nn


class Augmentation(nn.Module):
    """The published augmentation (method.md, "Training").

    Horizontal flip with probability ½; perspective 0–0.05; rotation ±15° and shear ±15° with edges
    mirrored; brightness, contrast and saturation × 0.85–1.15; hue ± 0.025 of the colour circle.
    """

    def __init__(self) -> None:
        super().__init__()
        self.transforms = K.AugmentationSequential(
            K.RandomHorizontalFlip(p=0.5),
            K.RandomPerspective(0.05, p=1.0),
            K.RandomAffine(degrees=15.0, shear=15.0, padding_mode="reflection", p=1.0),
            K.ColorJitter(0.15, 0.15, 0.15, 0.025, p=1.0),
            data_keys=["input"],
            same_on_batch=False,
        )

    @torch.no_grad()
    def forward(self, crops_BKSS3: Tensor, valid_BK: Tensor) -> Tensor:
        """Returns float crops in 0..1, B×K×S×S×3, of uint8 ones; missing crops are left black."""
        images = crops_BKSS3[valid_BK].permute(0, 3, 1, 2).float() / 255
        augmented = self.transforms(images).clamp(0, 1).permute(0, 2, 3, 1)
        crops = augmented.new_zeros(crops_BKSS3.shape)
        crops[valid_BK] = augmented
        return crops
