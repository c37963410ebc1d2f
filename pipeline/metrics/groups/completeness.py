"""Output completeness: change of the outputs when everything outside the explanation changes.

Formulas: docs/method.md, "Metrics", Output completeness; Schlinge et al. 2025 (arXiv 2507.06819).
For each of an image's k prototypes there is one copy of the image, with noise everywhere outside
the bounding box of that prototype's saliency map (`perturbation.noise_outside`). The map locates
the box to a pixel, so the box is grown by one pixel on each side. If the map covers everything that
the prototype responds to, the change is 0. Where crops show their masks alone (`crops.background`),
no change of an image reaches their other pixels, and these get no noise. The metrics are those of
`continuity`, where they are defined; an image's value is their mean over its k copies.

Dimensions: those of `evidence`, and X = B·k copies.
"""

from typing import ClassVar

import torch
from torch import Tensor

from pipeline.metrics.evidence import Batch, Drawn, Evidence
from pipeline.metrics.group import MetricGroup, register
from pipeline.metrics.groups import continuity
from pipeline.metrics.perturbation import noise_outside, outside
from pipeline.model.base.inference import ModelOutputs, outputs_of
from pipeline.saliency.maps import Copies

MARGIN = 1
"""Pixels that a map's box is grown by on each side. A crop's box lies between pixels of the map,
and the noise would otherwise reach the border of the very crop that is explained."""
IMAGES_AT_ONCE = 2
"""Images per pass; few, since each has k copies: 2·5 of 11 crops of 224×224 pixels are 66 MB."""


@register
class Completeness(MetricGroup):
    """Change of the outputs when everything outside the explanation changes."""

    name = "completeness"
    question = "Is what it shows all that it used?"
    notes: ClassVar = {
        name: continuity.Continuity.notes[name] for name in "vlc vac plc psc prc palc pac".split()
    }
    cell_notes = continuity.Continuity.cell_notes

    def unavailable(self, evidence: Evidence) -> dict[str, str]:
        """Returns the metrics of similarity maps, with the reason, for a black box.

        Args:
            evidence: a model's outputs for the N images of a split.
        """
        return continuity.without_maps(evidence)

    def of_maps(self, batch: Batch, drawn: Drawn) -> dict[str, Tensor]:
        """Returns VLC, VAC, PLC, PALC, PAC, PSC and PRC of a batch's images, float B each.

        Args:
            batch: the B images, with the model's outputs for them.
            drawn: the saliency maps of the images' k prototypes.
        """
        places = torch.arange(len(batch.images_B)).split(IMAGES_AT_ONCE)
        found = [_of_places(batch, drawn, place_B) for place_B in places]
        return {name: torch.cat([values[name] for values in found]) for name in found[0]}


def bounding_boxes(maps_SS: Tensor) -> Tensor:
    """Returns the bounding boxes of maps' non-zero pixels, half-open: int64 (…)×4.

    Args:
        maps_SS: saliency maps, (…)×S×S, of any leading dimensions.

    Returns:
        (x0, y0, x1, y1) in pixels; all four are 0 for an all-zero map, and nothing lies inside.
    """
    x0, x1 = _span((maps_SS != 0).any(dim=-2))
    y0, y1 = _span((maps_SS != 0).any(dim=-1))
    return torch.stack([x0, y0, x1, y1], dim=-1)


def grown(boxes_X4: Tensor) -> Tensor:
    """Returns boxes that are one pixel larger on each side, int64 (…)×4; empty ones stay empty.

    Args:
        boxes_X4: half-open boxes (x0, y0, x1, y1), int64 (…)×4.
    """
    empty_X1 = boxes_X4[..., 2:3] == boxes_X4[..., 0:1]
    larger_X4 = boxes_X4 + MARGIN * torch.tensor([-1, -1, 1, 1])
    return torch.where(empty_X1, boxes_X4, larger_X4)


def _of_places(batch: Batch, drawn: Drawn, place_B: Tensor) -> dict[str, Tensor]:
    """Returns the metrics of some of a batch's images, float B each.

    Each of the X = B·k copies is treated as an image of its own, with one prototype.
    """
    evidence, images_B = batch.evidence, batch.images_B[place_B]
    maps_BkSS, masks_BkSS = drawn.maps_BkSS[place_B], drawn.masks_BkSS[place_B]
    B, k = maps_BkSS.shape[:2]
    crops_BKSS3, inside_BKSS = batch.crops_BKSS3[place_B], batch.inside_BKSS[place_B]
    outside_BkKSS = outside(
        evidence.boxes_NK4[images_B], grown(bounding_boxes(maps_BkSS)), crops_BKSS3.shape[2]
    )
    if evidence.only_inside:
        outside_BkKSS &= inside_BKSS[:, None]
    copies_XKSS3 = noise_outside(
        crops_BKSS3, outside_BkKSS, evidence.subject.pixel_std_3, evidence.seed, images_B
    ).flatten(0, 1)
    changed_XK = outside_BkKSS.any(dim=(-2, -1)).flatten(0, 1)
    same_XK = _first_alike(outside_BkKSS)

    place_X = place_B.repeat_interleave(k)
    images_X, prototypes_X1 = batch.images_B[place_X], batch.prototypes_Bk[place_B].reshape(-1, 1)
    first = ModelOutputs(*(tensor[place_X] for tensor in batch.outputs))
    inside_XKSS = inside_BKSS.repeat_interleave(k, dim=0)
    second = _infer(evidence, copies_XKSS3, changed_XK, same_XK, inside_XKSS, images_X)
    crop_X1 = evidence.crop_of(second.view_NP.gather(1, prototypes_X1))
    maps_X1SS, masks_X1SS = drawn.explanation.maps(
        images_X, prototypes_X1, crop_X1, Copies(copies_XKSS3, second)
    )
    changes = {
        "vlc": continuity.vlc(masks_BkSS, masks_X1SS.reshape(masks_BkSS.shape)),
        "vac": continuity.vac(maps_BkSS, maps_X1SS.reshape(maps_BkSS.shape)),
    } | continuity.of_outputs(evidence, first, second, batch.valid_BK[place_X], prototypes_X1)
    return {name: change.reshape(B, k).nanmean(dim=1) for name, change in changes.items()}


def _first_alike(outside_BkKSS: Tensor) -> Tensor:
    """Returns, for each crop of each copy, the image's first copy that shows the same: int64 X×K.

    The copies of an image have the same noise, so a crop shows the same where it lies on the same
    pixels; those that lie outside all regions that are explained, for one, show the same in all.

    Args:
        outside_BkKSS: bool B×k×K×S×S, the pixels of each copy that receive noise.
    """
    B, k, K = outside_BkKSS.shape[:3]
    of_copy_k1 = torch.arange(B * k).reshape(B, k, 1)
    first_BkK = of_copy_k1.repeat(1, 1, K)
    for later in range(1, k):
        for earlier in reversed(range(later)):
            alike_BK = (outside_BkKSS[:, later] == outside_BkKSS[:, earlier]).flatten(2).all(dim=2)
            first_BkK[:, later] = torch.where(alike_BK, first_BkK[:, earlier], first_BkK[:, later])
    return first_BkK.flatten(0, 1)


def _infer(
    evidence: Evidence,
    copies_XKSS3: Tensor,
    changed_XK: Tensor,
    same_XK: Tensor,
    inside_XKSS: Tensor,
    images_X: Tensor,
) -> ModelOutputs:
    """Returns the model's outputs for copies.

    Crops that the noise does not change are skipped, and those that an earlier copy shows alike
    (`_first_alike`). Each of the others is passed to the model as an image of its own, and the
    embeddings are put together here.
    """
    X, K = changed_XK.shape
    valid_XK = evidence.valid_NK[images_X]
    asked_XK = changed_XK & valid_XK & (same_XK == torch.arange(X)[:, None])
    embedding_XVD = evidence.outputs.embedding_NVD[images_X]
    if asked_XK.any():
        crops_Y1SS3, inside_Y1SS = copies_XKSS3[asked_XK][:, None], inside_XKSS[asked_XK][:, None]
        alone = torch.ones(len(crops_Y1SS3), 1, dtype=torch.bool)
        found = evidence.subject.infer(crops_Y1SS3, alone, inside_Y1SS)
        embedding_XVD[evidence.valid_views(asked_XK)] = found.embedding_NVD.flatten(0, 1)
        by_crop = embedding_XVD.unflatten(1, (K, -1))
        embedding_XVD = by_crop[same_XK, torch.arange(K)].flatten(1, 2)
    return outputs_of(evidence.head, embedding_XVD, evidence.valid_views(valid_XK))


def _span(hit_S: Tensor) -> tuple[Tensor, Tensor]:
    """Returns the first true position and the one after the last; 0 and 0 if there is none."""
    place_S = torch.arange(hit_S.shape[-1])
    end = torch.where(hit_S, place_S + 1, 0).amax(dim=-1)
    return torch.where(hit_S, place_S, end[..., None]).amin(dim=-1), end
