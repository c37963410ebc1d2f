"""The masks of `SAM2AutomaticMaskGenerator`, computed on batches of crops and of points."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from sam2.modeling.sam2_base import SAM2Base
from sam2.utils.amg import build_all_layer_point_grids, generate_crop_boxes
from torch import Tensor
from torchvision.transforms.v2 import functional as transforms

from pipeline.masks.batch_size import BatchSize, limit_memory
from pipeline.masks.masks import Region
from pipeline.masks.segmenter import Machine
from pipeline.masks.segmenters.sam2.decoder import Decoded, PointDecoder
from pipeline.masks.segmenters.sam2.filters import (
    Crop,
    Proposals,
    distinct,
    distinct_in_crop,
    fill,
    may_be_stable,
    propose,
    regions,
)
from pipeline.masks.segmenters.sam2.settings import Sam2Settings

MEAN, STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
# Larger batches are not faster.
MOST_POINTS, MOST_CROPS = {"cpu": 32, "cuda": 1024}, {"cpu": 1, "cuda": 16}
MOST_PIXELS = 2**26
# Peak memory of one point and of one crop, in units of an image embedding (T×C).
EMBEDDINGS_PER_POINT, EMBEDDINGS_PER_CROP = 12, 250


class Job(NamedTuple):
    """One crop to segment.

    Args:
        image: index of the image among those segmented.
        crop: the crop's box and the image's size.
        layer: the crop's layer; 0 is the whole image.
    """

    image: int
    crop: Crop
    layer: int


class Encoded(NamedTuple):
    """The output of the image encoder for G crops.

    Args:
        tokens: image tokens of the crops, G×T×C.
        middle: feature maps at half the resolution of the mask logits.
        fine: feature maps at the resolution of the mask logits.
    """

    tokens: Tensor
    middle: Tensor
    fine: Tensor


class BatchedGenerator:
    """Segments images with batches as large as memory allows.

    Args:
        model: the network, with its weights, on its device.
        settings: the parameters of mask generation.
        machine: the limit of memory, and whether to compile the network.
    """

    def __init__(self, model: SAM2Base, settings: Sam2Settings, machine: Machine) -> None:
        self.model, self.settings = model, settings
        self.device, self.dtype = model.device, DTYPES[settings.precision]
        self.grids = build_all_layer_point_grids(
            settings.points_per_side,
            settings.crop_n_layers,
            settings.crop_n_points_downscale_factor,
        )
        limit_memory(self.device, machine.memory_fraction)
        decoder = PointDecoder(model, self.dtype)
        self.encoder: Callable[[Tensor], dict] = model.forward_image
        self.decoder: Callable[[Tensor, Tensor], Decoded] = decoder
        self.upscaler: Callable[[Decoded, Tensor, Tensor], Tensor] = decoder.masks
        if machine.compile:
            self.encoder = torch.compile(self.encoder)
            self.decoder = torch.compile(self.decoder)
            self.upscaler = torch.compile(self.upscaler)
        self.crops, self.points = self._batch_sizes()

    @torch.inference_mode()
    def __call__(self, images: Sequence[NDArray[np.uint8]]) -> list[list[Region]]:
        """Returns the regions of each image; see `Generator`."""
        pixels = [torch.tensor(image).to(self.device).permute(2, 0, 1) for image in images]
        jobs = [job for number, image in enumerate(images) for job in self._jobs(number, image)]
        found: list[list[Proposals]] = [[] for _ in images]
        for layer, grid in enumerate(self.grids):
            same = [job for job in jobs if job.layer == layer]
            points_n2 = torch.from_numpy(grid).float().to(self.device) * self.model.image_size
            for job, proposals in self._segment(same, pixels, points_n2):
                found[job.image].append(distinct_in_crop(proposals, self.settings))
        return [self._finish(parts) for parts in found]

    def _batch_sizes(self) -> tuple[BatchSize, BatchSize]:
        crops, points = MOST_CROPS[self.device.type], MOST_POINTS[self.device.type]
        if self.device.type == "cuda":
            free, _ = torch.cuda.mem_get_info(self.device)
            tokens = self.model.sam_image_embedding_size**2
            unit = tokens * self.model.hidden_dim * self.dtype.itemsize
            crops = min(crops, free // 4 // (EMBEDDINGS_PER_CROP * unit))
            points = min(points, free // 2 // (EMBEDDINGS_PER_POINT * unit))
        return BatchSize("crops that are encoded", crops), BatchSize("points", points)

    def _jobs(self, number: int, image: NDArray[np.uint8]) -> Iterator[Job]:
        height, width = image.shape[:2]
        boxes, layers = generate_crop_boxes(
            (height, width), self.settings.crop_n_layers, self.settings.crop_overlap_ratio
        )
        for (x0, y0, x1, y1), layer in zip(boxes, layers, strict=True):
            if x0 < x1 and y0 < y1:  # an image a few pixels wide has no more crops
                yield Job(number, Crop((x0, y0, x1, y1), width, height), layer)

    def _segment(
        self, jobs: list[Job], pixels: list[Tensor], points_n2: Tensor
    ) -> Iterator[tuple[Job, Proposals]]:
        """Yields the proposals of each crop, in order; all crops have the same point prompts."""
        together = max(1, self.points.value // len(points_n2))
        for batch, encoded in self.crops.over(
            len(jobs), lambda part: (jobs[part], self._encode(jobs[part], pixels))
        ):
            for start in range(0, len(batch), together):
                group = slice(start, start + together)
                yield from self._decode(
                    batch[group], Encoded(*(part[group] for part in encoded)), points_n2
                )

    def _encode(self, jobs: list[Job], pixels: list[Tensor]) -> Encoded:
        model, size = self.model, self.model.image_size
        inputs = []
        for job in jobs:
            x0, y0, x1, y1 = job.crop.box
            crop = pixels[job.image][:, y0:y1, x0:x1].float() / 255
            inputs.append(transforms.resize(crop, [size, size], antialias=True))
        batch = transforms.normalize(torch.stack(inputs), MEAN, STD)
        with self._autocast():
            fine, middle, coarse = self.encoder(batch)["backbone_fpn"][-3:]
        tokens = coarse.flatten(2).transpose(1, 2)
        if model.directly_add_no_mem_embed:
            tokens = tokens + model.no_mem_embed
        tokens = tokens + model.sam_prompt_encoder.no_mask_embed.weight
        return Encoded(tokens.to(self.dtype), middle.to(self.dtype), fine.to(self.dtype))

    def _autocast(self) -> AbstractContextManager:
        return torch.autocast(self.device.type, self.dtype, enabled=self.dtype != torch.float32)

    def _decode(
        self, jobs: list[Job], encoded: Encoded, points_n2: Tensor
    ) -> Iterator[tuple[Job, Proposals]]:
        parts: list[list[Proposals]] = [[] for _ in jobs]
        for proposals in self.points.over(
            len(points_n2), lambda part: self._ask(jobs, encoded, points_n2[part]), len(jobs)
        ):
            for place, found in enumerate(proposals):
                parts[place].append(found)
        for job, found_in_crop in zip(jobs, parts, strict=True):
            yield job, Proposals.together(found_in_crop)

    def _ask(self, jobs: list[Job], encoded: Encoded, points_n2: Tensor) -> list[Proposals]:
        """Returns each crop's proposals for some point prompts."""
        decoded = self.decoder(encoded.tokens, points_n2.expand(len(jobs), -1, -1))
        found = []
        for place, job in enumerate(jobs):
            of_crop = slice(place * len(points_n2), (place + 1) * len(points_n2))
            outputs = Decoded(*(part[of_crop] for part in decoded))
            features = encoded.middle[place, None], encoded.fine[place, None]
            logits, iou = self._passing(outputs, *features)
            logits = fill(logits, self.settings.min_mask_region_area)
            hopeful = may_be_stable(logits, job.crop, self.settings)
            logits, iou = logits[hopeful], iou[hopeful]
            found.append(propose(logits, iou, job.crop, self.settings, MOST_PIXELS))
        return found

    def _passing(self, decoded: Decoded, middle: Tensor, fine: Tensor) -> tuple[Tensor, Tensor]:
        """Returns the mask logits, m×h×w, and predicted IoUs, m, of points with a passing mask.

        A mask passes if its predicted IoU is above the threshold.
        """
        least = self.settings.pred_iou_thresh
        passes_BM = decoded.iou_BM > least if least > 0 else torch.ones_like(decoded.iou_BM).bool()
        rows = passes_BM.any(1).nonzero()[:, 0]
        passes_BM = passes_BM[rows]
        outputs = Decoded(*(part[rows] for part in decoded))
        logits = self.upscaler(outputs, middle, fine).float()
        return logits[passes_BM], outputs.iou_BM[passes_BM]

    def _finish(self, parts: list[Proposals]) -> list[Region]:
        proposals = Proposals.together(parts)
        if len(parts) > 1:
            proposals = distinct(proposals, self.settings)
        return regions(proposals, self.settings)
