"""Augmentation: what each transform does, within which range, and that each crop gets its own."""

from typing import Any

import numpy as np
import pytest
import torch
from skimage.color import hsv2rgb, rgb2hsv
from torch import Tensor
from torchvision.transforms.functional import adjust_brightness, adjust_contrast, adjust_saturation

from pipeline.training.augmentation import Augmentation

S = 32


def augment(crops: Tensor, valid: Tensor | None = None, seed: int = 0) -> Tensor:
    torch.manual_seed(seed)
    if valid is None:
        valid = torch.ones(crops.shape[:2], dtype=torch.bool)
    return Augmentation()(crops, valid)


def noise(B: int, K: int, seed: int = 0) -> Tensor:
    numbers = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (B, K, S, S, 3), dtype=torch.uint8, generator=numbers)


def drawn(transform: int, count: int = 2000) -> tuple[Any, dict[str, Tensor]]:
    """Returns one of the four transforms and the parameters it draws for many images."""
    torch.manual_seed(0)
    augmentation = Augmentation()
    module = [*augmentation.shapes.children(), *augmentation.colours.children()][transform]
    return module, module.forward_parameters((count, 3, 224, 224))


def test_shape_kind_and_range() -> None:
    crops = noise(2, 3)
    augmented = augment(crops)
    assert augmented.shape == crops.shape and augmented.dtype == torch.float32
    assert augmented.min() >= 0 and augmented.max() <= 1
    assert (augmented - crops / 255).abs().mean() > 0.05


def test_missing_crops_stay_black_and_draw_nothing() -> None:
    crops = noise(2, 3)
    valid = torch.tensor([[True, False, True], [False, True, False]])
    augmented = augment(crops, valid)
    assert (augmented[~valid] == 0).all() and (augmented[valid] > 0).any()
    other = torch.where(valid[..., None, None, None], crops, 255)
    assert torch.equal(augment(other, valid), augmented)


def test_same_seed_same_crops() -> None:
    crops = noise(2, 2)
    assert torch.equal(augment(crops), augment(crops))
    assert not torch.equal(augment(crops), augment(crops, seed=1))


def test_each_crop_gets_its_own_transform() -> None:
    crops = noise(1, 1).expand(3, 2, -1, -1, -1, -1)[:, :, 0].contiguous()
    flat = augment(crops).flatten(0, 1)
    gaps = torch.stack([(one - other).abs().mean() for one in flat for other in flat])
    assert (gaps.view(6, 6)[~torch.eye(6, dtype=torch.bool)] > 0.01).all()


def test_crops_are_not_changed_in_place() -> None:
    crops = noise(1, 2)
    before = crops.clone()
    augment(crops)
    assert torch.equal(crops, before)


def test_masks_move_with_the_pixels_and_keep_their_values() -> None:
    crops, masks = noise(2, 3), 255 * (noise(2, 3)[..., :1] > 127).to(torch.uint8)
    valid = torch.tensor([[True, False, True], [False, True, False]])
    found = augment(torch.cat([crops, masks], dim=-1), valid)
    assert torch.equal(found[..., :3], augment(crops, valid))
    torch.manual_seed(0)
    images = masks[valid].permute(0, 3, 1, 2).expand(-1, 3, -1, -1).float() / 255
    expected = Augmentation().shapes(images)[:, 0]
    torch.testing.assert_close(found[valid][..., 3], expected.clamp(0, 1))
    assert (found[~valid] == 0).all()


def test_copies_are_alike_in_shape_and_each_has_its_colours() -> None:
    """Crops of a grey left half beside a brighter right one: a colour change keeps the halves'
    order and their edge, which flips, turns and shears would move."""
    crops = torch.full((6, 2, S, S, 3), 60, dtype=torch.uint8)
    crops[:, :, :, S // 2 :] = 180
    valid = torch.ones(6, 2, dtype=torch.bool)
    valid[1, 1] = False
    torch.manual_seed(0)
    augmented = Augmentation()(crops, valid, copies=2)
    assert augmented.shape == (12, 2, S, S, 3)
    first, second = augmented[:6], augmented[6:]
    assert (first[~valid] == 0).all() and (second[~valid] == 0).all()
    bright = [
        half[valid].mean(-1) > half[valid].mean((1, 2, 3))[:, None, None]
        for half in (first, second)
    ]
    assert (bright[0] == bright[1]).float().mean() > 0.999
    # Of the eleven crops some are flipped and some are not, and no two are shaped alike.
    left = bright[0][:, :, : S // 2].float().mean((1, 2))
    assert left.min() < 0.4 and left.max() > 0.6
    colours = [half[valid].mean((1, 2, 3)) for half in (first, second)]
    assert ((colours[0] - colours[1]).abs() > 1e-3).all()


def test_the_first_copies_are_those_of_a_single_copy() -> None:
    crops, valid = noise(2, 2), torch.ones(2, 2, dtype=torch.bool)
    torch.manual_seed(3)
    first = Augmentation()(crops, valid, copies=2)[:2]
    torch.testing.assert_close(first, augment(crops, valid, seed=3))


def test_half_of_the_crops_are_flipped() -> None:
    _, parameters = drawn(0)
    # 2000 fair coins: standard deviation 0.011.
    assert parameters["batch_prob"].float().mean().item() == pytest.approx(0.5, abs=0.05)


def test_perspective_moves_corners_inward_by_0_to_5_percent() -> None:
    module, parameters = drawn(1)
    corners = torch.tensor([[0.0, 0.0], [223.0, 0.0], [223.0, 223.0], [0.0, 223.0]])
    assert torch.equal(parameters["start_points"][0], corners)
    inward = torch.tensor([[1.0, 1.0], [-1.0, 1.0], [-1.0, -1.0], [1.0, -1.0]])
    moved = (parameters["end_points"] - corners) * inward / 224
    assert moved.min() >= 0 and 0.0495 < moved.max() <= 0.05
    # Uniform: mean 0.025.
    assert moved.mean().item() == pytest.approx(0.025, abs=0.0005)
    assert module.p == 1.0


def test_perspective_stretches_the_inner_quadrilateral_over_the_image() -> None:
    module, parameters = drawn(1, count=3)
    images = torch.rand(3, 3, 224, 224)
    matrix = module.compute_transformation(images, parameters, module.flags)
    inside = torch.cat([parameters["end_points"], torch.ones(3, 4, 1)], dim=2)
    mapped = inside @ matrix.transpose(1, 2)
    mapped = mapped[..., :2] / mapped[..., 2:]
    torch.testing.assert_close(mapped, parameters["start_points"], atol=1e-2, rtol=0)


def test_rotation_and_shear_up_to_15_degrees_on_both_axes() -> None:
    module, parameters = drawn(2)
    for name in ("angle", "shear_x", "shear_y"):
        values = parameters[name]
        assert -15 <= values.min() < -14.8 and 14.8 < values.max() <= 15, name
        # Uniform on ±15: standard deviation 30/√12 = 8.66.
        assert values.std().item() == pytest.approx(8.66, abs=0.4), name
    assert (parameters["scale"] == 1).all() and (parameters["translations"] == 0).all()
    assert module.p == 1.0


def test_no_edge_is_left_black() -> None:
    white = torch.full((4, 8, S, S, 3), 255, dtype=torch.uint8)
    # A black frame or corner would pull values far below the darkest colour change, 0.85 at most
    # for brightness (contrast and saturation leave an even white even).
    assert augment(white).min() > 0.84


def test_edges_are_mirrored() -> None:
    """Moved four pixels right: what comes in repeats, backwards, what lies just inside."""
    torch.manual_seed(0)
    affine = list(Augmentation().shapes.children())[2]
    image = torch.zeros(1, 3, S, S)
    image[..., :4] = torch.linspace(1.0, 0.25, 4)
    still = affine.forward_parameters((1, 3, S, S))
    still.update(
        {
            "angle": torch.zeros(1),
            "shear_x": torch.zeros(1),
            "shear_y": torch.zeros(1),
            "translations": torch.tensor([[4.0, 0.0]]),
        }
    )
    moved = affine(image, params=still)
    expected = [0.25, 0.5, 0.75, 1.0, 1.0, 0.75, 0.5, 0.25]
    assert moved[0, 0, S // 2, :8].tolist() == pytest.approx(expected, abs=1e-4)


def test_colours_are_multiplied_by_085_to_115_and_turned_by_0025() -> None:
    module, parameters = drawn(3)
    for name in ("brightness_factor", "contrast_factor", "saturation_factor"):
        assert 0.85 <= parameters[name].min() < 0.853, name
        assert 1.147 < parameters[name].max() <= 1.15, name
    assert -0.025 <= parameters["hue_factor"].min() < -0.0245
    assert 0.0245 < parameters["hue_factor"].max() <= 0.025
    assert module.p == 1.0


def colours(**factors: float) -> tuple[Tensor, Tensor]:
    """Applies one colour change alone to dark noise, which no change clips."""
    module, parameters = drawn(3, count=1)
    image = 0.2 + 0.4 * torch.rand(1, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    neutral = {"brightness": 1.0, "contrast": 1.0, "saturation": 1.0, "hue": 0.0, **factors}
    values = {f"{name}_factor": torch.tensor([value]) for name, value in neutral.items()}
    return image, module(image, params={**parameters, **values})


def test_brightness_is_a_factor() -> None:
    image, changed = colours(brightness=1.15)
    torch.testing.assert_close(changed, image * 1.15)
    torch.testing.assert_close(changed, adjust_brightness(image, 1.15))


def test_contrast_and_saturation_are_torchvisions() -> None:
    image, changed = colours(contrast=0.85)
    torch.testing.assert_close(changed, adjust_contrast(image, 0.85), atol=1e-3, rtol=0)
    image, changed = colours(saturation=0.85)
    torch.testing.assert_close(changed, adjust_saturation(image, 0.85), atol=1e-3, rtol=0)


def test_hue_turns_by_shares_of_the_circle() -> None:
    image, changed = colours(hue=0.025)
    hsv = rgb2hsv(image[0].permute(1, 2, 0).numpy())
    hsv[..., 0] = (hsv[..., 0] + 0.025) % 1
    np.testing.assert_allclose(changed[0].permute(1, 2, 0), hsv2rgb(hsv), atol=1e-4)
