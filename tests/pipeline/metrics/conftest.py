"""A small made-up evidence that the metrics' tests share."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
import torch
from hypothesis import settings
from torch import Tensor

from pipeline.metrics.evidence import Evidence

# A busy machine's first call into torch takes longer than Hypothesis' default deadline.
settings.register_profile("no deadline", deadline=None, max_examples=40)
settings.load_profile("no deadline")


@dataclass
class StoredExplanation:
    """Looks maps up instead of drawing them, and notes which images it was asked for."""

    maps_NPSS: Tensor
    masks_NPSS: Tensor
    drawn: list[int] = field(default_factory=list)

    def maps(self, images_B: Tensor, prototypes_Bk: Tensor) -> tuple[Tensor, Tensor]:
        self.drawn += images_B.tolist()
        place = images_B[:, None], prototypes_Bk
        return self.maps_NPSS[place], self.masks_NPSS[place]


@pytest.fixture(scope="session")
def make_evidence() -> Callable[..., Evidence]:
    """Builds evidence of N images from random numbers; keyword arguments replace its fields."""

    def make(
        images: int = 7, prototypes: int = 6, classes: int = 3, seed: int = 0, **fields: Any
    ) -> Evidence:
        numbers = torch.Generator().manual_seed(seed)
        crops, side, parts, size = 4, 8, 3, 5

        def rand(*shape: int) -> Tensor:
            return torch.rand(*shape, generator=numbers)

        maps = rand(images, prototypes, side, side)
        maps = maps * (rand(images, prototypes, side, side) > 0.4)
        evidence = Evidence(
            ids=[f"image{n}" for n in range(images)],
            labels_N=torch.arange(images) % classes,
            logits_NC=rand(images, classes),
            similarity_NP=rand(images, prototypes),
            crop_NP=(rand(images, prototypes) * crops).long(),
            embedding_NKD=rand(images, crops, size),
            valid_NK=torch.ones(images, crops, dtype=torch.bool),
            prototypes_PD=rand(prototypes, size),
            weights_CP=rand(classes, prototypes) - 0.5,
            class_of_P=torch.arange(prototypes) % classes,
            top_k=3,
            explanation=StoredExplanation(maps, maps > 0.5),
            object_masks=rand(images, side, side) > 0.5,
            parts_NQ2=rand(images, parts, 2) * side,
        )
        return replace(evidence, **fields)

    return make
