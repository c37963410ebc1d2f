from io import BytesIO

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from scipy.ndimage import gaussian_filter
from skimage import data
from skimage.color import hsv2rgb, rgb2hsv

from pipeline.metrics.perturbation import noise_outside, outside, perturb

STD_3 = torch.tensor([0.2, 0.25, 0.5])


def photographs(images: int = 3, crops: int = 2, side: int = 48) -> torch.Tensor:
    """Crops of a real photograph, B×K×S×S×3."""
    picture, random = data.astronaut(), np.random.default_rng(0)
    corners = random.integers(0, 512 - side, (images, crops, 2))
    return torch.from_numpy(
        np.array([[picture[y : y + side, x : x + side] for y, x in row] for row in corners])
    )


def flat(*colour: int) -> torch.Tensor:
    return torch.tensor(colour, dtype=torch.uint8).expand(1, 1, 32, 32, 3)


def by_formula(crop_SS3: np.ndarray, noise_SS3: np.ndarray) -> np.ndarray:
    """The perturbation with scikit-image and SciPy in torchvision's place."""
    grey_of = np.array([0.2989, 0.587, 0.114])
    copy = np.clip(crop_SS3 / 255 * 1.125, 0, 1)
    copy = np.clip(1.125 * copy - 0.125 * (copy @ grey_of).mean(), 0, 1)
    copy = np.clip(1.125 * copy - 0.125 * (copy @ grey_of)[..., None], 0, 1)
    hsv = rgb2hsv(copy)
    hsv[..., 0] = (hsv[..., 0] + 0.05) % 1
    copy = np.clip(hsv2rgb(hsv) + 5**0.5 / 255 * noise_SS3, 0, 1)
    copy = gaussian_filter(copy, sigma=0.8, radius=1, mode="mirror", axes=(0, 1))
    file = BytesIO()
    Image.fromarray((copy * 255).round().astype(np.uint8)).save(file, "JPEG", quality=90)
    return np.asarray(Image.open(file))


def test_a_flat_colour_by_hand():
    # (120, 80, 80); × 1.125: (135, 90, 90), whose grey is 103.44; contrast and saturation each take
    # 1.125·value − 0.125·103.44: (143.4, 86.4, 86.4); 0.05 of a turn lifts green by 0.3·57 = 17.1
    copy = perturb(flat(120, 80, 80), 0, torch.tensor([0]))
    means = copy.double().mean(dim=(0, 1, 2, 3))
    assert means.tolist() == pytest.approx([143.4, 103.5, 86.4], abs=1)


def test_agrees_with_scikit_image_and_scipy():
    crops = photographs(images=2)
    copies = perturb(crops, 7, torch.tensor([4, 9])).numpy()
    for copy_KSS3, crops_KSS3, image in zip(copies, crops.numpy(), (4, 9), strict=True):
        noise = np.random.default_rng((7, image)).standard_normal(crops_KSS3.shape, np.float32)
        expected = np.array([by_formula(c, n) for c, n in zip(crops_KSS3, noise, strict=True)])
        gap = np.abs(copy_KSS3.astype(int) - expected)
        # A value on the edge between two numbers may be rounded to either, before the JPEG.
        assert gap.mean() < 0.02
        assert gap.max() < 12


def test_noise_is_that_of_the_image_and_the_seed():
    crops = photographs(images=1).expand(3, -1, -1, -1, -1)
    first, second, third = perturb(crops, 0, torch.tensor([5, 5, 6]))
    assert torch.equal(first, second)
    assert not torch.equal(first, third)
    assert not torch.equal(first, perturb(crops[:1], 1, torch.tensor([5]))[0])


def test_the_batch_changes_nothing():
    crops, images_B = photographs(images=4), torch.tensor([8, 2, 5, 0])
    before = crops.clone()
    together = perturb(crops, 3, images_B)
    assert together.dtype == torch.uint8
    alone = [perturb(crops[b : b + 1], 3, images_B[b : b + 1]) for b in range(4)]
    assert torch.equal(together, torch.cat(alone))
    assert torch.equal(crops, before)


def test_outside_by_hand():
    # Of 4 pixels a side. The first crop's centres are at x 2.5 3.5 4.5 5.5, y 0.5 1.5 2.5 3.5; the
    # second's at 1 3 5 7 both ways. Kept: x from 3 to under 5, y from 1 to under 3; then nothing.
    boxes_BK4 = torch.tensor([[[2.0, 0, 6, 4], [0, 0, 8, 8]]])
    kept_Bk4 = torch.tensor([[[3, 1, 5, 3], [0, 0, 0, 0]]])
    inside_BkKSS = ~outside(boxes_BK4, kept_Bk4, 4)
    assert inside_BkKSS.shape == (1, 2, 2, 4, 4)
    assert inside_BkKSS[0, 0, 0].nonzero().tolist() == [[1, 1], [1, 2], [2, 1], [2, 2]]
    assert inside_BkKSS[0, 0, 1].nonzero().tolist() == [[0, 1]]
    assert not inside_BkKSS[0, 1].any()


@given(corners=st.lists(st.integers(0, 9), min_size=4, max_size=4))
def test_outside_of_a_crop_that_is_the_whole_image(corners):
    x0, x1 = sorted(corners[:2])
    y0, y1 = sorted(corners[2:])
    expected_SS = torch.ones(9, 9, dtype=torch.bool)
    expected_SS[y0:y1, x0:x1] = False
    found = outside(torch.tensor([[[0.0, 0, 9, 9]]]), torch.tensor([[[x0, y0, x1, y1]]]), 9)
    assert torch.equal(found[0, 0, 0], expected_SS)


@given(seed=st.integers(0, 1000))
def test_a_crop_within_the_box_is_untouched_and_one_beside_it_is_not(seed):
    low, high = torch.rand(2, 2, generator=torch.Generator().manual_seed(seed)).sort(dim=0).values
    box = torch.cat([low, high + 1])
    beside = box + torch.tensor([high[0] + 1 - low[0], 0, high[0] + 1 - low[0], 0])
    within_SS, beside_SS = outside(torch.stack([box, beside])[None], box[None, None], 16)[0, 0]
    assert not within_SS.any()
    assert beside_SS.all()


def test_noise_lies_outside_only():
    crops, images_B = photographs(images=2), torch.tensor([3, 4])
    numbers = torch.Generator().manual_seed(0)
    outside_BkKSS = torch.rand(2, 3, 2, 48, 48, generator=numbers) > 0.5
    copies = noise_outside(crops, outside_BkKSS, STD_3, 0, images_B)
    assert copies.dtype == torch.float32
    plain = (crops[:, None] / 255).expand_as(copies)
    assert torch.equal(copies[~outside_BkKSS], plain[~outside_BkKSS])
    assert (copies[outside_BkKSS] != plain[outside_BkKSS]).float().mean() > 0.999


def test_noise_has_the_deviation_of_normalised_pixels_and_is_not_clipped():
    crops = torch.zeros(1, 1, 128, 128, 3, dtype=torch.uint8)
    everywhere = torch.ones(1, 1, 1, 128, 128, dtype=torch.bool)
    copies_X3 = noise_outside(crops, everywhere, STD_3, 0, torch.tensor([0])).flatten(0, -2)
    assert (copies_X3 < 0).float().mean().item() == pytest.approx(0.5, abs=0.01)
    normalised_X3 = copies_X3 / STD_3
    assert normalised_X3.std(dim=0).tolist() == pytest.approx([0.05] * 3, rel=0.03)
    assert normalised_X3.mean(dim=0).tolist() == pytest.approx([0] * 3, abs=0.002)


def test_copies_of_an_image_share_their_noise_in_any_batch():
    crops, images_B = photographs(images=3), torch.tensor([7, 1, 4])
    outside_BkKSS = torch.ones(3, 2, 2, 48, 48, dtype=torch.bool)
    outside_BkKSS[:, 1, :, :24] = False
    copies = noise_outside(crops, outside_BkKSS, STD_3, 2, images_B)
    assert torch.equal(copies[:, 0, :, 24:], copies[:, 1, :, 24:])
    alone = noise_outside(crops[1:2], outside_BkKSS[1:2], STD_3, 2, images_B[1:2])
    assert torch.equal(alone[0], copies[1])
    other = noise_outside(crops[1:2], outside_BkKSS[1:2], STD_3, 3, images_B[1:2])
    assert not torch.equal(other[0], copies[1])
