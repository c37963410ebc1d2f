"""Masks alone: properties of the segmenter's masks, independent of any model.

Formulas: docs/method.md, "Metrics", Masks alone. Numbers and areas are those of all masks of an
image; the values by rank and the parts are those of the masks that become crops, ranked as the
crops are. How well the masks agree with labelled objects and parts is computed by
`pipeline.metrics.judging`.

Dimensions: those of `evidence`, and H×W pixels of an image at its own resolution.
"""

import math
from collections.abc import Sequence
from typing import ClassVar

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor

from pipeline.masks.masks import Masks
from pipeline.metrics import Values
from pipeline.metrics.evidence import Batch, Evidence
from pipeline.metrics.group import PERCENT, MetricGroup, Note, register
from pipeline.metrics.groups.complexity import area, part_hits
from pipeline.metrics.judging import Known, judge, mean_part_iou, over_images

SETS_SHOWN = 10
MOST_PARTS = 63
"""A set of parts is the bits of a number."""
"""Number of sets of parts that a plot shows per class."""
OF_FOREGROUND = ("object_iou", "boundary_f", "foreground_area", "parts_on_foreground")
COUNTED = ("on_foreground", "part_counts")
"""What `judge` counts in an image, for metrics over all images."""


@register
class Segmentation(MetricGroup):
    """Properties of the segmenter's masks, independent of any model."""

    name = "segmentation"
    question = "What are the masks like, before anything is learned from them?"
    notes: ClassVar = {
        "masks": Note("Masks", "an image", "depends", "How many masks the segmenter finds."),
        "area_median": Note(
            "Median area", PERCENT, "depends", "Half of an image's masks take more of it than this."
        ),
        "object_coverage": Note(
            "Object coverage",
            PERCENT,
            "higher",
            "Share of the object under masks that become crops.",
        ),
        "mask_consistency": Note(
            "Mask consistency", PERCENT, "higher", "How often a class's masks show the same parts."
        ),
        "foreground_area": Note(
            "Foreground", PERCENT, "depends", "Share of the image that is taken for the object."
        ),
        "object_iou": Note(
            "Object IoU", PERCENT, "higher", "Overlap of foreground and object, over their union."
        ),
        "boundary_f": Note(
            "Boundary F",
            PERCENT,
            "higher",
            "How well the foreground's boundary is the object's, to 0.8 % of the diagonal.",
        ),
        "parts_on_foreground": Note(
            "Parts on foreground",
            PERCENT,
            "higher",
            "Share of the visible part locations that lie on foreground.",
        ),
        "best_object_iou": Note(
            "Best object IoU", PERCENT, "higher", "IoU of the object with the mask nearest to it."
        ),
        "best_part_iou": Note(
            "Best part IoU",
            PERCENT,
            "higher",
            "IoU of each labelled part with the mask nearest to it, mean over parts.",
        ),
        "part_nmi": Note(
            "Part NMI",
            PERCENT,
            "higher",
            "Normalised mutual information of the masks' parts and the labelled ones.",
        ),
        "part_ari": Note(
            "Part ARI", PERCENT, "higher", "Adjusted Rand index of the same; 0 is chance."
        ),
    }
    needs_objects = True

    def unavailable(self, evidence: Evidence) -> dict[str, str]:
        """Returns the metrics that data set or segmenter do not know enough for.

        Args:
            evidence: a model's outputs for the N images of a split.

        Returns:
            metric → reason.
        """
        missing: dict[str, str] = {}
        if not evidence.knowledge.foreground:
            why = "the segmenter does not tell object from background"
            missing = dict.fromkeys(OF_FOREGROUND, why)
        if evidence.knowledge.level is None:
            why = "the segmenter's masks have no parts"
            missing |= dict.fromkeys(("part_nmi", "part_ari"), why)
        if evidence.truth is None:
            missing["best_part_iou"] = "the data set has no labelled pixels of parts"
        if len(evidence.part_names) > MOST_PARTS:
            missing["mask_consistency"] = f"the data set has more than {MOST_PARTS} parts"
        return missing | evidence.unmeasurable(
            ["object_coverage", "best_object_iou", "object_iou", "boundary_f"],
            ["mask_consistency", "parts_on_foreground", "part_nmi", "part_ari"],
        )

    def of_batch(self, batch: Batch) -> dict[str, Tensor]:
        """Returns number, areas, coverage and parts of a batch's masks, and how they are judged.

        Args:
            batch: the B images, with access to their masks.

        Returns:
            For each image (float32 B): `masks`, their number; `area_median`, the median of their
            areas in % of the image, NaN without masks; `object_coverage`, the % of the object under
            the crops' masks.
            For plots (float32 B×K): `rank_area`, the area of each mask in % of the image;
            `rank_coverage` and `rank_union`, the two results of `coverage`; NaN for missing masks,
            except `rank_union`.
            For the mask consistency (int64 B×K): `part_sets`, the set of parts on each mask as
            bits.
            The results of `judge`.
        """
        rows = [_of_image(batch, image) for image in batch.images_B.tolist()]
        return {name: torch.stack([row[name] for row in rows]) for name in rows[0]}

    def from_batches(self, evidence: Evidence, gathered: dict[str, Tensor]) -> Values:
        """Returns the values unchanged, and what is computed from those of all images.

        Args:
            evidence: a model's outputs for the N images of a split.
            gathered: the results of `of_batch` for all N images, by name.
        """
        values: Values = {name: value for name, value in gathered.items() if name not in COUNTED}
        values |= over_images({name: value.numpy() for name, value in gathered.items()})
        if "part_sets" in gathered:
            values["mask_consistency"] = mask_consistency(gathered["part_sets"], evidence.labels_N)
        return values

    def plots(self, evidence: Evidence, values: Values) -> dict[str, pd.DataFrame]:
        """Returns tables for plots of the segmenter's masks.

        Args:
            evidence: a model's outputs for the N images of a split.
            values: the measured values of this group, by name; empty if it was not measured.

        Returns:
            `mask_areas`: for each rank from 1, the median area of its masks, in % of the image.
            `object_coverage`: for each rank, the % of the object under its mask and under all masks
            up to it, means over images.
            `mask_consistency`: each class's most frequent sets of parts, and the % of its images in
            which one mask covers them.
            `part_iou`: for each part, the largest IoU of a mask with it, mean over images.
            Ranks without any mask are left out, and a table of what was not measured is empty.
        """
        tables = {
            "mask_areas": pd.DataFrame(columns=["rank", "area"]),
            "object_coverage": pd.DataFrame(columns=["rank", "coverage", "union"]),
            "mask_consistency": pd.DataFrame(columns=["label", "parts", "share"]),
            "part_iou": pd.DataFrame(columns=["part", "iou"]),
        }
        if "rank_area" in values:
            tables["mask_areas"] = _by_rank({"area": _frame(values["rank_area"]).median()})
        if "rank_coverage" in values:
            columns = {
                "coverage": _frame(values["rank_coverage"]).mean(),
                "union": _frame(values["rank_union"]).mean(),
            }
            tables["object_coverage"] = _by_rank(columns)
        if "part_sets" in values:
            part_sets_NK = torch.as_tensor(values["part_sets"])
            shares = set_shares(part_sets_NK, evidence.labels_N)
            tables["mask_consistency"] = _most_frequent(shares, evidence.part_names)
        if "part_iou" in values:
            iou_Q = mean_part_iou(torch.as_tensor(values["part_iou"]).numpy())
            table = pd.DataFrame({"part": list(evidence.part_names), "iou": iou_Q})
            tables["part_iou"] = table.dropna().reset_index(drop=True)
        return tables


def _of_image(batch: Batch, image: int) -> dict[str, Tensor]:
    evidence = batch.evidence
    masks, cropped, object_mask, parts_Q2 = evidence.subject.segmented(image)
    masks_KHW = masks_by_rank(masks, cropped, evidence.crops_per_image)
    missing_K = torch.arange(len(masks_KHW)) >= len(cropped)
    percent = 100 / (masks.height * masks.width)
    median = percent * np.median(masks.areas) if len(masks) else math.nan
    values = {
        "masks": torch.tensor(float(len(masks))),
        "area_median": torch.tensor(median, dtype=torch.float32),
        "rank_area": (percent * area(masks_KHW)).where(~missing_K, torch.nan),
    }
    if evidence.object_masks is not None:
        assert object_mask is not None
        alone_K, union_K = coverage(masks_KHW, torch.from_numpy(object_mask))
        values["object_coverage"] = union_K[-1]
        values["rank_coverage"] = alone_K.where(~missing_K, torch.nan)
        values["rank_union"] = union_K
    if evidence.parts_NQ2 is not None and len(evidence.part_names) <= MOST_PARTS:
        assert parts_Q2 is not None
        values["part_sets"] = part_sets(masks_KHW, parts_Q2)
    return values | _judged(evidence, image, masks, object_mask, parts_Q2)


def _judged(
    evidence: Evidence,
    image: int,
    masks: Masks,
    object_mask: NDArray[np.bool_] | None,
    parts_Q2: Tensor | None,
) -> dict[str, Tensor]:
    known = Known(
        None if evidence.object_masks is None else object_mask,
        None if evidence.parts_NQ2 is None or parts_Q2 is None else parts_Q2.numpy(),
        None if evidence.truth is None else evidence.truth.part_pixels(image),
        len(evidence.part_names),
    )
    judged = judge(masks, known, evidence.knowledge)
    return {name: torch.from_numpy(value) for name, value in judged.items()}


def masks_by_rank(masks: Masks, cropped: Sequence[int], K: int) -> Tensor:
    """Returns the masks that became crops, bool K×H×W; missing ones are empty.

    Args:
        masks: all masks of the image.
        cropped: numbers of the masks that became crops, at most K, in the order of the crops.
        K: number of masks to return, ≥ 1.
    """
    masks_KHW = np.zeros((K, masks.height, masks.width), bool)
    for rank, number in enumerate(cropped):
        masks_KHW[rank] = masks.full(number)
    return torch.from_numpy(masks_KHW)


def coverage(masks_KHW: Tensor, object_HW: Tensor) -> tuple[Tensor, Tensor]:
    """Returns the share of the object under masks, ×100: 0..100; NaN for an empty object.

    Args:
        masks_KHW: bool K×H×W, the masks of an image by rank.
        object_HW: bool H×W, the object mask of the image.

    Returns:
        The shares under each mask, and under the union of each mask and all before it, float32 K
        each.
    """
    unions_KHW = torch.from_numpy(np.logical_or.accumulate(masks_KHW.numpy(), axis=0))
    alone_K, union_K = area(masks_KHW & object_HW), area(unions_KHW & object_HW)
    return 100 * alone_K / area(object_HW), 100 * union_K / area(object_HW)


def part_sets(masks_KHW: Tensor, parts_Q2: Tensor) -> Tensor:
    """Returns the set of parts that lie on each mask, int64 K: bit q for part q.

    Args:
        masks_KHW: bool K×H×W, the masks of an image by rank.
        parts_Q2: float32 Q×2, (x, y) in the masks' pixels, of at most MOST_PARTS parts; a part at
            NaN lies on no mask.
    """
    hits_KQ = part_hits(masks_KHW[None], parts_Q2[None])[0]
    return (hits_KQ.long() << torch.arange(len(parts_Q2))).sum(dim=1)


def mask_consistency(part_sets_NK: Tensor, labels_N: Tensor) -> float:
    """Returns how consistently images of a class are cut into the same sets of parts, ×100: 0..100.

    For each class and each non-empty set of parts that some mask of the class covers, exactly: the
    share of the class's images in which a mask covers exactly this set. Then the mean over the
    class's sets (0 for a class without any), and the mean over classes. A part that is not visible
    in an image lies on no mask there.

    Args:
        part_sets_NK: int64 N×K, the set of parts on each mask as bits.
        labels_N: int64 N, the images' classes, 0..C−1.
    """
    of_class = set_shares(part_sets_NK, labels_N).groupby("label")["share"].mean()
    return float(of_class.reindex(labels_N.unique().numpy(), fill_value=0.0).mean())


def set_shares(part_sets_NK: Tensor, labels_N: Tensor) -> pd.DataFrame:
    """Returns the non-empty sets of parts that masks cover, and their frequencies.

    Args:
        part_sets_NK: int64 N×K, the set of parts on each mask as bits.
        labels_N: int64 N, the images' classes, 0..C−1.

    Returns:
        One row per class and set: `label`, the class; `parts`, the set as bits; and `share`, the %
        of the class's images that have it.
    """
    N, K = part_sets_NK.shape
    covered = pd.DataFrame(
        {
            "label": labels_N.repeat_interleave(K).numpy(),
            "image": np.arange(N).repeat(K),
            "parts": part_sets_NK.flatten().numpy(),
        }
    )
    covered = covered[covered["parts"] != 0].drop_duplicates()
    shares = covered.groupby(["label", "parts"]).size().reset_index(name="share")
    images_C = np.bincount(labels_N.numpy())
    return shares.assign(share=100 * shares["share"] / images_C[shares["label"]])


def _most_frequent(shares: pd.DataFrame, part_names: Sequence[str]) -> pd.DataFrame:
    """Returns each class's largest shares, in descending order, with the parts by name."""
    order = ["label", "share", "parts"]
    shown = shares.sort_values(order, ascending=[True, False, True])
    shown = shown.groupby("label").head(SETS_SHOWN).reset_index(drop=True)
    names = [
        " + ".join(name for q, name in enumerate(part_names) if parts >> q & 1)
        for parts in shown["parts"]
    ]
    return shown.assign(parts=names)


def _frame(values_NK: Tensor | float) -> pd.DataFrame:
    """Returns values as a table, whose means and medians over images ignore NaN."""
    return pd.DataFrame(torch.as_tensor(values_NK).numpy())


def _by_rank(columns: dict[str, pd.Series]) -> pd.DataFrame:
    table = pd.DataFrame(columns)
    table.insert(0, "rank", table.index + 1)
    return table.dropna().reset_index(drop=True)
