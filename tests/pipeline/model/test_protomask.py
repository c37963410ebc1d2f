"""ProtoMask: what a prototype sees is what its mask holds."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from pydantic import ValidationError
from settings import crop_settings, model_settings
from torch import Tensor

from pipeline.crops.extraction import extract_crops
from pipeline.crops.settings import CropSettings
from pipeline.errors import ProtoMaskError
from pipeline.masks.masks import Masks, Region
from pipeline.model.protomask.model import ProtoMask

HEIGHT, WIDTH = 50, 70


def make_network(**settings: object) -> ProtoMask:
    torch.manual_seed(0)
    own = {"backbone": "test_resnet", "pretrained": "none", "embedding_dim": 8, **settings}
    return ProtoMask(model_settings("protomask", **own), 3).eval()


NETWORKS = {pooling: make_network(pooling=pooling, stages=(-2, -1)) for pooling in ("box", "mask")}


def random_masks(numbers: np.random.Generator) -> Masks:
    """Blobs of all kinds: rims, single pixels, thin lines, some over others."""
    regions = []
    for _ in range(numbers.integers(1, 4)):
        height, width = numbers.integers(2, 40, size=2).tolist()
        bitmap = numbers.random((height, width)) < numbers.uniform(0.05, 1)
        bitmap[0, 0] = bitmap[-1, -1] = bitmap[0, -1] = bitmap[-1, 0] = True
        y0, x0 = numbers.integers(0, HEIGHT - height), numbers.integers(0, WIDTH - width)
        regions.append(Region(int(x0), int(y0), bitmap, (1.0,)))
    return Masks.of(HEIGHT, WIDTH, regions, 1)


def logits(network: ProtoMask, image: NDArray[np.uint8], masks: Masks, how: CropSettings) -> Tensor:
    crops = extract_crops(image, masks, how)
    assert (crops.masks[crops.valid] >= 0).all()
    given = (torch.from_numpy(a)[None] for a in (crops.pixels, crops.valid, crops.inside))
    with torch.inference_mode():
        return network(*given).logits


@pytest.mark.parametrize("background", ["mean", "zero"])
@pytest.mark.parametrize("pooling", NETWORKS)
@settings(deadline=None, max_examples=25)
@given(seed=st.integers(0, 2**32 - 1), share=st.sampled_from([0.0, 0.05]))
def test_no_pixel_outside_the_masks_reaches_a_logit(
    background: str, pooling: str, seed: int, share: float
) -> None:
    numbers, network = np.random.default_rng(seed), NETWORKS[pooling]
    how = crop_settings(side=64, per_image=3, background=background, min_box_area=share)
    image, other = numbers.integers(0, 256, (2, HEIGHT, WIDTH, 3), np.uint8)
    masks = random_masks(numbers)
    inside = np.logical_or.reduce([masks.full(number) for number in range(len(masks))])
    changed = np.where(inside[..., None], image, other)
    found = logits(network, image, masks, how)
    assert torch.equal(logits(network, changed, masks, how), found)
    assert not torch.equal(logits(network, other, masks, how), found)


def test_where_the_background_is_seen_it_reaches_them() -> None:
    numbers = np.random.default_rng(0)
    image, other = numbers.integers(0, 256, (2, HEIGHT, WIDTH, 3), np.uint8)
    bitmap = np.pad(np.zeros((18, 18), bool), 1, constant_values=True)
    masks = Masks.of(HEIGHT, WIDTH, [Region(5, 5, bitmap, (1.0,))], 1)
    changed = np.where(masks.full(0)[..., None], image, other)
    how = crop_settings(side=64, per_image=1)
    for network in NETWORKS.values():
        first, second = (logits(network, pixels, masks, how) for pixels in (image, changed))
        assert not torch.equal(first, second)


def test_features_by_the_formula() -> None:
    """Σ m·F / Σ m for each stage; one pixel is a cell's 16th or 32nd part of its side."""
    network, numbers = NETWORKS["mask"], torch.Generator().manual_seed(0)
    crops = torch.randint(0, 256, (1, 2, 64, 64, 3), generator=numbers, dtype=torch.uint8)
    inside = torch.rand(1, 2, 64, 64, generator=numbers) < 0.3
    inside[:, :, :20] = False
    with torch.inference_mode():
        found = network.features(crops, torch.tensor([[True, True]]), inside)
        maps = network.backbone.feature_maps(crops[0].permute(0, 3, 1, 2) / 255, [-2, -1])
    expected = []
    for stage, cell in zip(maps, (16, 32), strict=True):
        m = inside[0].float().unflatten(2, (-1, cell)).unflatten(1, (-1, cell)).mean((2, 4))
        expected.append((m[:, None] * stage).sum((2, 3)) / m.sum((1, 2))[:, None])
    assert found.shape == (1, 2, 192 + 96) and network.num_features == 192 + 96
    torch.testing.assert_close(found[0], torch.cat(expected, dim=1), rtol=1e-4, atol=1e-5)


def test_the_published_pooling_is_the_mean_over_the_crop_and_needs_no_masks() -> None:
    network = make_network()
    crops = torch.randint(0, 256, (1, 2, 64, 64, 3), dtype=torch.uint8)
    with torch.inference_mode():
        found = network.features(crops, torch.tensor([[True, False]]))
        expected = network.backbone(crops[0, :1].permute(0, 3, 1, 2) / 255)
    assert torch.equal(found[0, :1], expected) and not found[0, 1].any()


def test_a_stage_that_is_not_there_or_is_named_twice() -> None:
    with pytest.raises(ProtoMaskError, match="no feature map 9"):
        make_network(stages=(-1, 9))
    with pytest.raises(ValidationError, match="named twice"):
        model_settings("protomask", stages=(-1, -1))
