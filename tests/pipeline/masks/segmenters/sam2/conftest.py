"""A small SAM 2 with random weights, and photographs on which it finds masks."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

pytest.importorskip("sam2", reason="sam2 is not installed")

from hydra.core.global_hydra import GlobalHydra
from settings import SAM2

from pipeline.masks.segmenters.sam2.model import build
from pipeline.masks.segmenters.sam2.segmenter import Sam2

# Importing sam2 takes the process's one Hydra, with which tests of DVC compose parameters.
GlobalHydra.instance().clear()

CHANNELS, TRUNK = 32, 8
SMALL = {
    "image_size": 256,
    "image_encoder.trunk.embed_dim": TRUNK,
    "image_encoder.trunk.stages": "[1,1,2,1]",
    "image_encoder.trunk.global_att_blocks": "[3]",
    "image_encoder.neck.backbone_channel_list": str([TRUNK * 2**at for at in (3, 2, 1, 0)]),
    "image_encoder.neck.d_model": CHANNELS,
    "image_encoder.neck.position_encoding.num_pos_feats": CHANNELS,
    "memory_attention.d_model": CHANNELS,
    "memory_attention.layer.d_model": CHANNELS,
    "memory_attention.layer.self_attention.embedding_dim": CHANNELS,
    "memory_attention.layer.cross_attention.embedding_dim": CHANNELS,
}


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    """The networks here are too small for more."""
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def make_model() -> Callable[[int], torch.nn.Module]:
    """Builds a network whose logits and predicted IoUs vary as a trained one's do."""

    def make(seed: int) -> torch.nn.Module:
        torch.manual_seed(seed)
        changed = [f"++model.{key}={value}" for key, value in SMALL.items()]
        model = build("sam2.1_hiera_tiny", "cpu", changed)
        decoder = model.sam_mask_decoder
        with torch.no_grad():
            for network in decoder.output_hypernetworks_mlps:
                network.layers[-1].weight *= 60
            decoder.iou_prediction_head.layers[-1].weight *= 20
        return model.requires_grad_(False)

    return make


@pytest.fixture(scope="session")
def blobs() -> Callable[..., NDArray[np.uint8]]:
    """Draws 4×4 bright blobs on black."""

    def draw(seed: int, height: int = 230, width: int = 300) -> NDArray[np.uint8]:
        random = np.random.default_rng(seed)
        image = np.zeros((height, width, 3), np.uint8)
        y, x = np.mgrid[:height, :width]
        for column in range(4):
            for row in range(4):
                x0 = (column + 0.5) * width / 4 + random.uniform(-8, 8)
                y0 = (row + 0.5) * height / 4 + random.uniform(-8, 8)
                radius, flat = random.uniform(5, 14), random.uniform(0.6, 1.6)
                inside = (x - x0) ** 2 * flat + (y - y0) ** 2 / flat < radius**2
                image[inside] = random.integers(90, 255, 3)
        return image

    return draw


@pytest.fixture(scope="session")
def make_settings() -> Callable[..., Sam2]:
    """Settings that let masks of a small random network through."""

    def make(**changed: object) -> Sam2:
        settings = {
            "points_per_side": 6,
            "pred_iou_thresh": 0.5,
            "stability_score_thresh": 0.3,
            "mask_threshold": 5.0,
        }
        return Sam2.model_validate({**SAM2, **settings, **changed})

    return make
