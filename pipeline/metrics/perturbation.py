"""Changed copies of images, for metrics that compare an image with its copy.

Masks and crops are cut before a model sees an image, so a copy is made of the image's crops, and
its masks, boxes and missing crops are those of the image. Contrast is therefore relative to each
crop's own mean, and blur, noise and JPEG blocks have their size in the crop.

Noise depends on the seed and on the image's position in the evidence, not on the batch.

Dimensions: B images, k copies of each, K crops, S pixels a side.
Source: docs/method.md, "Metrics", Continuity and Output completeness (Schlinge et al. 2025).
"""

from io import BytesIO

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

COLOUR_FACTOR = 1.125
HUE_TURNS = 0.05
NOISE_VARIANCE = 5.0
BLUR_SIDE = 3
JPEG_QUALITY = 90
OUTSIDE_STD = 0.05


def perturb(crops_BKSS3: Tensor, seed: int, images_B: Tensor) -> Tensor:
    """Returns one slightly perturbed copy of each image, uint8 B×K×S×S×3.

    In this order: brightness, contrast and saturation × 1.125; hue + 0.05 of a turn; Gaussian noise
    of variance 5 on the scale 0..255; a 3×3 Gaussian blur (σ 0.8, torchvision's default); JPEG of
    quality 90. Colours are clipped after each step and rounded once, before the JPEG compression.

    Args:
        crops_BKSS3: the images' RGB crops, uint8 B×K×S×S×3.
        seed: seed of the noise, ≥ 0.
        images_B: int64 B, the images' positions in the evidence.
    """
    copies = [
        _perturb(crops, normal_noise(crops.shape, seed, image))
        for crops, image in zip(crops_BKSS3, images_B.tolist(), strict=True)
    ]
    return torch.stack(copies)


def outside(boxes_BK4: Tensor, kept_Bk4: Tensor, size: int) -> Tensor:
    """Returns which pixels of crops lie outside k boxes of their image, bool B×k×K×S×S.

    A crop's pixel in row r and column c is located at its centre in the image:
    x = x0 + (c + ½)/S · (x1 − x0), y = y0 + (r + ½)/S · (y1 − y0).

    Args:
        boxes_BK4: float B×K×4, the crops' boxes (x0, y0, x1, y1) in pixels of the image.
        kept_Bk4: B×k×4, boxes in pixels of the same scale, half-open; everything lies outside an
            empty box.
        size: S, the side of a crop in pixels.
    """
    share_S1 = (torch.arange(size)[:, None] + 0.5) / size
    low_B1K12, high_B1K12 = boxes_BK4[:, None, :, None].split(2, dim=-1)
    centre_B1KS2 = low_B1K12 + share_S1 * (high_B1K12 - low_B1K12)
    low_Bk112, high_Bk112 = kept_Bk4[:, :, None, None].split(2, dim=-1)
    within_BkKS2 = (centre_B1KS2 >= low_Bk112) & (centre_B1KS2 < high_Bk112)
    column_BkKS, row_BkKS = within_BkKS2.unbind(dim=-1)
    return ~(row_BkKS[..., :, None] & column_BkKS[..., None, :])


def noise_outside(
    crops_BKSS3: Tensor, outside_BkKSS: Tensor, pixel_std_3: Tensor, seed: int, images_B: Tensor
) -> Tensor:
    """Returns k copies of each image with noise on some pixels, float32 B×k×K×S×S×3.

    Pixels are on the scale 0..1. The noise is normal with a standard deviation of 0.05 after the
    model's normalisation, thus 0.05 · pixel_std here. All copies of an image have the same noise,
    on different pixels. Nothing is clipped, so that dark and light pixels receive as much noise as
    others: values may lie outside [0, 1].

    Args:
        crops_BKSS3: the images' RGB crops, uint8 B×K×S×S×3.
        outside_BkKSS: bool B×k×K×S×S, the pixels of each copy that receive noise.
        pixel_std_3: float 3, the standard deviation by which the model divides each RGB channel of
            pixels in [0, 1].
        seed: seed of the noise, ≥ 0.
        images_B: int64 B, the images' positions in the evidence.
    """
    shape = crops_BKSS3.shape[1:]
    noise_BKSS3 = torch.stack([normal_noise(shape, seed, image) for image in images_B.tolist()])
    noise_BKSS3 *= OUTSIDE_STD * pixel_std_3
    return torch.addcmul(
        crops_BKSS3[:, None] / 255, noise_BKSS3[:, None], outside_BkKSS[..., None].float()
    )


def normal_noise(shape: torch.Size, seed: int, image: int) -> Tensor:
    """Returns standard normal noise that is specific to an image, float32.

    Args:
        shape: shape of the noise, such as K×S×S×3.
        seed: seed of the noise, ≥ 0.
        image: the image's position in the evidence, ≥ 0.
    """
    random = np.random.default_rng((seed, image))
    return torch.from_numpy(random.standard_normal(shape, dtype=np.float32))


def _perturb(crops_KSS3: Tensor, noise_KSS3: Tensor) -> Tensor:
    copy = crops_KSS3.permute(0, 3, 1, 2) / 255
    from torchvision.transforms.v2 import functional as transforms

    copy = transforms.adjust_brightness(copy, COLOUR_FACTOR)
    copy = transforms.adjust_contrast(copy, COLOUR_FACTOR)
    copy = transforms.adjust_saturation(copy, COLOUR_FACTOR)
    copy = transforms.adjust_hue(copy, HUE_TURNS)
    copy = (copy + NOISE_VARIANCE**0.5 / 255 * noise_KSS3.permute(0, 3, 1, 2)).clamp(0, 1)
    copy = transforms.gaussian_blur(copy, [BLUR_SIDE, BLUR_SIDE])
    pixels_KSS3 = (copy * 255).round().to(torch.uint8).permute(0, 2, 3, 1).contiguous()
    return torch.from_numpy(np.stack([_jpeg(pixels) for pixels in pixels_KSS3.numpy()]))


def _jpeg(pixels_SS3: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Returns an image after JPEG compression, uint8 S×S×3.

    Pillow is used, since torchvision's compression of the same pixels is slower and deprecated.
    """
    file = BytesIO()
    Image.fromarray(pixels_SS3).save(file, "JPEG", quality=JPEG_QUALITY)
    return np.asarray(Image.open(file))
