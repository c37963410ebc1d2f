"""A small made-up evidence that the metrics' tests share."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import settings
from numpy.typing import NDArray
from torch import Tensor

from pipeline.masks.masks import Masks, Region
from pipeline.metrics.evidence import Copies, Evidence, Segmented
from pipeline.metrics.judging import Knowledge, Level
from pipeline.model.base.head import DistanceHead
from pipeline.model.base.inference import ModelOutputs, outputs_of

# A busy machine's first call into torch takes longer than Hypothesis' default deadline.
settings.register_profile("no deadline", deadline=None, max_examples=40)
settings.load_profile("no deadline")

CROPS, SIDE, PARTS, SIZE, EPSILON = 4, 8, 3, 5, 1e-4


@dataclass
class StoredExplanation:
    """Looks maps up instead of drawing them, and notes which images it was asked for."""

    maps_NPSS: Tensor
    masks_NPSS: Tensor
    name: str = "mask"
    drawn: list[int] = field(default_factory=list)

    def maps(
        self,
        images_B: Tensor,
        prototypes_Bk: Tensor,
        crop_Bk: Tensor,
        copies: Copies | None = None,
    ) -> tuple[Tensor, Tensor]:
        if copies is None:
            self.drawn += images_B.tolist()
        place = images_B[:, None], prototypes_Bk
        return self.maps_NPSS[place], self.masks_NPSS[place]

    def regions(self, images_n: Tensor, views_n: Tensor, weights_nP: Tensor) -> Tensor:
        place = images_n, views_n % self.maps_NPSS.shape[1]
        return self.maps_NPSS[place] * self.masks_NPSS[place]


@dataclass
class MeanColours:
    """A model whose embedding of a crop is its mean colour, in three of five numbers."""

    crops_NKSS3: Tensor
    head: DistanceHead
    parts_NQ2: Tensor
    pixel_std_3: Tensor = field(default_factory=lambda: torch.tensor([0.2, 0.25, 0.5]))

    def crops(self, images_B: Tensor) -> Tensor:
        return self.crops_NKSS3[images_B]

    def inside(self, images_B: Tensor) -> Tensor:
        return torch.ones(self.crops_NKSS3[images_B].shape[:-1], dtype=torch.bool)

    def segmented(self, image: int) -> Segmented:
        bitmaps = [np.ones((SIDE, SIDE // (rank + 1)), bool) for rank in range(image % 3 + 1)]
        regions = [Region(0, 0, bitmap, (1.0,), part=rank) for rank, bitmap in enumerate(bitmaps)]
        masks = Masks.of(SIDE, SIDE, regions, 1)
        return Segmented(masks, range(len(masks)), np.eye(SIDE, dtype=bool), self.parts_NQ2[image])

    def infer(
        self, crops_BKSS3: Tensor, valid_BK: Tensor, inside_BKSS: Tensor | None = None
    ) -> ModelOutputs:
        scale = 1 if crops_BKSS3.is_floating_point() else 255
        colour_BK3 = crops_BKSS3.float().mean(dim=(2, 3)) / scale
        embedding_BKD = torch.nn.functional.pad(colour_BK3, (0, SIZE - 3), value=0.5)
        return outputs_of(self.head, embedding_BKD, valid_BK)


@dataclass
class StripedTruth:
    """Each part is a stripe of rows; classes differ in the part of their number."""

    crops_NKSS3: Tensor
    distinguishing_CCQ: Tensor

    def labels(self, images_B: Tensor) -> Tensor:
        stripes_S = torch.arange(SIDE) * (PARTS + 1) // SIDE
        return stripes_S[:, None].expand(len(images_B), SIDE, SIDE).to(torch.uint8)

    def part_pixels(self, image: int) -> NDArray[np.uint8]:
        return self.labels(torch.tensor([image]))[0].numpy()

    def labels_between(self, images_B: Tensor, first_B: Tensor, second_B: Tensor) -> Tensor:
        return self.labels(images_B)

    def redrawn(self, images_B: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        crops = self.crops_NKSS3[images_B].clone()
        crops[:, 0] //= 2
        return crops, images_B % PARTS, self.labels(images_B)


@pytest.fixture(scope="session")
def make_evidence() -> Callable[..., Evidence]:
    """Builds evidence of N images from random numbers; keyword arguments replace its fields, those
    of `outputs` and `head` among them."""

    def make(
        images: int = 7, prototypes: int = 6, classes: int = 3, seed: int = 0, **fields: Any
    ) -> Evidence:
        numbers = torch.Generator().manual_seed(seed)

        def rand(*shape: int) -> Tensor:
            return torch.rand(*shape, generator=numbers)

        maps = rand(images, prototypes, SIDE, SIDE)
        maps = maps * (rand(images, prototypes, SIDE, SIDE) > 0.4)
        head = DistanceHead(
            rand(prototypes, SIZE),
            rand(classes, prototypes) - 0.5,
            EPSILON,
            torch.zeros(prototypes),
        )
        crops_NKSS3 = (rand(images, CROPS, SIDE, SIDE, 3) * 256).to(torch.uint8)
        parts_NQ2 = rand(images, PARTS, 2) * SIDE
        subject = MeanColours(crops_NKSS3, head, parts_NQ2)
        corner_NK2 = rand(images, CROPS, 2) * SIDE / 2
        found = ModelOutputs(
            embedding_NVD=rand(images, CROPS, SIZE),
            view_NP=(rand(images, prototypes) * CROPS).long(),
            similarity_NP=rand(images, prototypes),
            logits_NC=rand(images, classes),
        )
        of_outputs = {name: fields.pop(name) for name in ModelOutputs._fields if name in fields}
        of_head = {name: fields.pop(name) for name in DistanceHead._fields if name in fields}
        labels = torch.arange(classes)
        evidence = Evidence(
            ids=[f"image{n}" for n in range(images)],
            labels_N=torch.arange(images) % classes,
            outputs=found._replace(**of_outputs),
            valid_NK=torch.ones(images, CROPS, dtype=torch.bool),
            boxes_NK4=torch.cat([corner_NK2, corner_NK2 + SIDE / 2], dim=-1),
            head=head._replace(**of_head),
            class_of_P=torch.arange(prototypes) % classes,
            top_k=3,
            explanations=[StoredExplanation(maps, maps > 0.5)],
            subject=subject,
            crops_per_image=CROPS,
            knowledge=Knowledge(True, Level(0, (0, 1, 2))),
            object_masks=rand(images, SIDE, SIDE) > 0.5,
            part_names=[f"part {q}" for q in range(PARTS)],
            parts_NQ2=parts_NQ2,
            truth=StripedTruth(
                crops_NKSS3,
                (labels[:, None, None] != labels[:, None])
                & (torch.arange(PARTS) == labels[:, None, None] % PARTS),
            ),
        )
        return replace(evidence, **fields)

    return make
