"""A tiny separable problem: images of a class have crops of its colour."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from settings import crop_settings, model_settings

from pipeline.crops.settings import CropSettings
from pipeline.datasets.index import Image, Index
from pipeline.model.base.models import build
from pipeline.model.base.network import PrototypeNetwork
from pipeline.training.fabric import Fabric

CLASSES = ["blue", "green", "red"]
SIDE, CROPS = 32, 3
SMALL = {
    "protomask": {"embedding_dim": 16, "prototypes_per_class": 2},
    "protopnet": {"embedding_dim": 16, "prototypes_per_class": 2},
    "protopool": {"embedding_dim": 16, "prototypes": 8, "slots": 2, "gumbel_epochs": 2},
    "pipnet": {"prototypes": 12},
    "blackbox": {},
}
"""Settings of a small model of each kind."""


@dataclass
class Store:
    """A crop store in memory; notes which images were read. An image's first crop is all of it."""

    pixels: NDArray[np.uint8]
    valid: NDArray[np.bool_]
    pixels_from: dict[str, Any]
    settings: CropSettings
    read: list[int] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.valid)

    def crops(self, images: NDArray[np.int64]) -> NDArray[np.uint8]:
        self.read += list(images)
        return self.pixels[images]

    def inside(self, image: int) -> NDArray[np.bool_]:
        """The masks are the left half, the upper half and all of the crops."""
        masks = np.ones((CROPS, *self.pixels.shape[2:4]), bool)
        masks[0, :, masks.shape[2] // 2 :] = False
        masks[1, masks.shape[1] // 2 :] = False
        return masks

    def whole(self) -> "Store":
        own = {**self.pixels_from, "crops": "whole images"}
        return Store(self.pixels[:, :1], self.valid[:, :1], own, self.settings, self.read)


@pytest.fixture
def make_index() -> Callable[..., Index]:
    def make(train: int = 12, val: int = 6, test: int = 3) -> Index:
        splits = ["train"] * train + ["val"] * val + ["test"] * test
        # Rows of the splits lie mixed, as they do in a real index.
        order = np.random.default_rng(0).permutation(len(splits))
        images = [
            Image(f"{row:03d}", f"{row:03d}.png", CLASSES[row % 3], splits[place])  # type: ignore[arg-type]
            for row, place in enumerate(order)
        ]
        return Index.of("colours", images, CLASSES, [])

    return make


@pytest.fixture
def make_store() -> Callable[..., Store]:
    def make(index: Index, seed: int = 0, side: int = SIDE) -> Store:
        numbers = np.random.default_rng(seed)
        N = len(index)
        pixels = numbers.integers(0, 90, (N, CROPS, side, side, 3), dtype=np.uint8)
        for row, label in enumerate(index.labels):
            pixels[row, ..., label] += 120
        valid = numbers.random((N, CROPS)) < 0.7
        valid[:, 0] = True
        pixels[~valid] = 0
        settings = crop_settings(side=side, per_image=CROPS)
        return Store(pixels, valid, {"images": "colours", "seed": seed}, settings)

    return make


@pytest.fixture
def make_network() -> Callable[..., PrototypeNetwork]:
    def make(
        name: str = "protomask", backbone: str = "test_resnet", seed: int = 0, **settings: Any
    ) -> PrototypeNetwork:
        torch.manual_seed(seed)
        about = {"backbone": backbone, "pretrained": "none", **SMALL[name], **settings}
        return build(model_settings(name, **about), len(CLASSES))

    return make


@pytest.fixture(scope="session")
def fabric() -> Fabric:
    return Fabric(torch.device("cpu"), "float32")
