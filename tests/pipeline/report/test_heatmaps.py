"""Overlays: colours where there is relevance, grey elsewhere."""

import numpy as np
import pytest
import torch
from PIL import Image
from settings import model_settings

from pipeline.model.protomask.model import ProtoMask
from pipeline.report.heatmaps import RAMP, Cut, draw_heat_map, draw_heat_maps, relevance_of

S = 64
PIXELS = np.tile(np.array([40, 160, 90], np.uint8), (S, S, 1))


def half() -> np.ndarray:
    """The left half of a crop."""
    inside = np.zeros((S, S), bool)
    inside[:, : S // 2] = True
    return inside


def colourful(image: Image.Image) -> np.ndarray:
    pixels = np.asarray(image).astype(int)
    return pixels.max(-1) - pixels.min(-1) > 8


class Maps:
    """Gives maps that were made by hand."""

    rule = "prp"

    def __init__(self, maps_nSS: np.ndarray) -> None:
        self.maps_nSS = maps_nSS

    def __call__(
        self,
        crops_nSS3: torch.Tensor,
        prototypes_n: torch.Tensor,
        inside_nSS: torch.Tensor | None = None,
    ) -> torch.Tensor:
        assert crops_nSS3.dtype == torch.uint8 and prototypes_n.dtype == torch.int64
        return torch.from_numpy(self.maps_nSS)


def test_where_only_the_mask_is_seen_only_relevance_on_it_has_a_colour() -> None:
    drawn = draw_heat_map(Cut(PIXELS, half(), False), np.ones((S, S), np.float32), S)
    assert colourful(drawn)[:, : S // 2].all() and not colourful(drawn)[:, S // 2 :].any()


def test_where_the_whole_crop_is_seen_relevance_has_a_colour_everywhere() -> None:
    drawn = draw_heat_map(Cut(PIXELS, half(), True), np.ones((S, S), np.float32), S)
    assert colourful(drawn).all()


def test_a_crop_without_relevance_is_grey_and_darker_outside_its_mask() -> None:
    drawn = draw_heat_map(Cut(PIXELS, half(), True), np.zeros((S, S), np.float32), S)
    assert not colourful(drawn).any()
    light = np.asarray(drawn)[..., 0].astype(int)
    assert light[:, :30].min() > light[:, 34:].max() + 20


def test_the_most_relevant_pixels_are_the_lightest() -> None:
    whole = Cut(PIXELS, np.ones((S, S), bool), True)
    relevance = np.repeat(np.linspace(0, 1, S, dtype=np.float32)[:, None], S, axis=1)
    light = np.asarray(draw_heat_map(whole, relevance, S)).sum(-1)
    assert light[-1].mean() == pytest.approx(sum(RAMP[-1]), abs=20)
    assert (np.diff(light[S // 2 :, 0].astype(int)) >= -2).all()
    assert not colourful(draw_heat_map(whole, relevance, S))[0].any()


def test_the_ramp_grows_lighter_step_by_step() -> None:
    light = np.array(RAMP) @ [0.2126, 0.7152, 0.0722]
    assert (np.diff(light) > 15).all()


def test_the_share_on_the_mask_counts_what_speaks_for_the_prototype() -> None:
    relevance = np.zeros((3, S, S), np.float32)
    relevance[0, 0, 0], relevance[0, 0, -1] = 3.0, 1.0  # 3 on the mask, 1 off it: 3/4
    relevance[1, 0, 0], relevance[1, 0, -1] = -3.0, 1.0  # against does not count: 0/1
    relevance[2, 0, 0] = -1.0
    found = draw_heat_maps(Maps(relevance), [Cut(PIXELS, half(), True)] * 3, [5, 6, 7], 32)
    assert [heat_map.on_mask for heat_map in found] == [0.75, 0.0, None]
    assert {heat_map.image.size for heat_map in found} == {(32, 32)}


def test_without_crops_nothing_is_asked() -> None:
    assert draw_heat_maps(Maps(np.zeros((0, S, S), np.float32)), [], [], 32) == []


@pytest.mark.parametrize(("backbone", "rule"), [("test_resnet", "prp"), ("test_mambaout", "grad")])
def test_backbones_that_propagation_does_not_know_get_gradients(backbone: str, rule: str) -> None:
    settings = model_settings("protomask", backbone=backbone, pretrained="none", embedding_dim=4)
    relevance = relevance_of(ProtoMask(settings, 2).eval())
    assert relevance.rule == rule
    crops = torch.randint(0, 256, (2, 32, 32, 3), dtype=torch.uint8)
    maps = relevance(crops, torch.tensor([0, 3]))
    assert maps.shape == (2, 32, 32) and bool(maps.isfinite().all()) and bool((maps > 0).any())
