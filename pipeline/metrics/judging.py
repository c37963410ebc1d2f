"""Agreement of a segmenter's masks with labelled objects and parts; needs no model.

`judge` compares the masks of one image with its annotations, `over_images` computes from the
results of all images what is not a mean over images.

Dimensions: H×W pixels of an image at its own resolution, m masks of it, M masks of a data set, N
images, Q labelled parts, P parts (clusters) of the segmenter at one level.
"""

import math
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pipeline.masks.masks import NO_PART, Masks

TOLERANCE = 0.008
"""Distance at which boundaries match, as a share of the image's diagonal (Perazzi et al., 2016)."""


class Level(NamedTuple):
    """The level of a segmenter's masks whose parts are compared with labelled parts.

    Args:
        number: the level, as in `Masks.levels`.
        parts: numbers of the P parts that the segmenter has at this level, ascending.
    """

    number: int
    parts: tuple[int, ...]


class Knowledge(NamedTuple):
    """What a segmenter says of its masks beside their pixels.

    Args:
        foreground: whether it tells objects from background.
        level: the level whose parts are compared with labelled parts; None if it knows no parts.
    """

    foreground: bool
    level: Level | None

    @classmethod
    def of(
        cls,
        parts_M: NDArray[np.int32],
        levels_M: NDArray[np.int32],
        foreground_M: NDArray[np.bool_],
        num_labelled: int,
    ) -> "Knowledge":
        """Returns what a segmenter knows, from all its masks of a data set.

        Its parts are compared at the level whose number of parts is nearest to that of the labelled
        parts; at the finer of two levels that are equally near. So the level does not depend on
        where the parts lie: the best of several levels would be chosen by the answer, and the
        finest would reward cutting finely, as the mutual information of ever more parts with any
        labels grows by chance.

        Args:
            parts_M: number of each mask's part, −1 if unknown.
            levels_M: level of each mask.
            foreground_M: whether each mask is foreground.
            num_labelled: Q, the number of labelled parts of the data set.
        """
        known_M = parts_M != NO_PART
        levels = [
            Level(int(level), tuple(np.unique(parts_M[known_M & (levels_M == level)]).tolist()))
            for level in np.unique(levels_M[known_M])
        ]
        nearest = min(
            levels,
            key=lambda level: (abs(len(level.parts) - num_labelled), -level.number),
            default=None,
        )
        return cls(bool(known_M.any() or not foreground_M.all()), nearest)


class Known(NamedTuple):
    """What is known of an image, at its own resolution.

    Args:
        object_mask: bool H×W, the pixels of the object; None if unknown.
        locations_Q2: float Q×2, (x, y) of each labelled part in pixels, NaN if it is not visible;
            None if unknown.
        labels: the part that each pixel shows, uint8 H×W: 0 for none, q + 1 for part q; None if
            unknown.
        num_parts: Q.
    """

    object_mask: NDArray[np.bool_] | None
    locations_Q2: NDArray[np.float32] | None
    labels: NDArray[np.uint8] | None
    num_parts: int


def judge(masks: Masks, known: Known, knowledge: Knowledge) -> dict[str, NDArray]:
    """Compares the masks of an image with what is known of it.

    Args:
        masks: all masks of the image.
        known: the image's annotations.
        knowledge: what the segmenter says of its masks.

    Returns:
        float64 each, and only what annotations and segmenter allow. Numbers: `foreground_area`, the
        % of the image that is foreground; `object_iou` and `boundary_f` of the foreground with the
        object (see `iou`, `boundary_f`); `best_object_iou`, the largest IoU of a single mask with
        the object, ×100, 0 without masks.
        `on_foreground` (2): the number of visible part locations on foreground, and of all.
        `part_iou` (Q): the largest IoU of a mask with each labelled part, ×100, 0 without masks;
        NaN for a part that is not visible.
        `part_counts` (Q×(P + 1)): see the function.
    """
    judged: dict[str, NDArray] = {}
    if known.object_mask is not None:
        of_object = best_ious(masks, known.object_mask.astype(np.uint8), 1)
        judged["best_object_iou"] = np.array(of_object[0])
    if known.labels is not None:
        judged["part_iou"] = best_ious(masks, known.labels, known.num_parts)
    if knowledge.foreground:
        judged |= _judge_foreground(foreground(masks), known)
    points = labelled_points(known, masks.height, masks.width)
    if knowledge.level is not None and points is not None:
        judged["part_counts"] = part_counts(masks, knowledge.level, points, known.num_parts)
    return judged


def _judge_foreground(front: NDArray[np.bool_], known: Known) -> dict[str, NDArray]:
    judged = {"foreground_area": np.array(100 * front.mean())}
    if known.object_mask is not None:
        judged["object_iou"] = np.array(iou(front, known.object_mask))
        judged["boundary_f"] = np.array(boundary_f(front, known.object_mask))
    if known.locations_Q2 is not None:
        at = pixels_of(known.locations_Q2, *front.shape)
        judged["on_foreground"] = np.array([front[at.row, at.column].sum(), len(at.part)], float)
    return judged


def foreground(masks: Masks) -> NDArray[np.bool_]:
    """Returns the pixels that a segmenter takes for the object: bool H×W.

    The largest of the foreground masks of level 0, whole objects, of an image that has finer masks
    as well; the union of all foreground masks of any other image.

    Args:
        masks: all masks of the image, the largest first.
    """
    front = np.zeros((masks.height, masks.width), bool)
    chosen = np.flatnonzero(masks.foreground)
    whole = chosen[masks.levels[chosen] == 0]
    if len(whole) and masks.levels.any():
        chosen = whole[:1]
    for mask in chosen.tolist():
        x0, y0, x1, y1 = masks.boxes[mask].tolist()
        front[y0:y1, x0:x1] |= masks.inside(mask)
    return front


def iou(one: NDArray[np.bool_], other: NDArray[np.bool_]) -> float:
    """Returns the intersection of two regions over their union, ×100: 0..100; 0 if both are empty.

    Args:
        one: bool H×W.
        other: bool H×W.
    """
    union = np.count_nonzero(one | other)
    return 100 * np.count_nonzero(one & other) / union if union else 0.0


def boundary_f(found: NDArray[np.bool_], truth: NDArray[np.bool_]) -> float:
    """Returns the F-measure of a region's boundary, ×100: 0..100 (Martin et al., 2004).

    The boundary are the region's pixels beside one that is not of it; the image's border is none.
    Precision is the share of the found boundary that lies within a tolerance of the true one,
    recall the share of the true one within the tolerance of the found one, F their harmonic mean.
    The tolerance is 0.008 of the image's diagonal, rounded up to whole pixels (Perazzi et al.,
    2016, who let pixels match by distance alone, not one to one).

    Args:
        found: bool H×W, the region that was found.
        truth: bool H×W, the true region.

    Returns:
        100 if neither has a boundary, 0 if only one has.
    """
    from skimage.segmentation import find_boundaries

    edges = [find_boundaries(region, mode="inner") for region in (found, truth)]
    if not all(edge.any() for edge in edges):
        return 0.0 if any(edge.any() for edge in edges) else 100.0
    tolerance = math.ceil(TOLERANCE * math.hypot(*found.shape))
    precision, recall = (
        float(within(other, tolerance)[edge].mean()) for edge, other in (edges, reversed(edges))
    )
    return 200 * precision * recall / (precision + recall) if precision + recall else 0.0


def within(edge: NDArray[np.bool_], tolerance: float) -> NDArray[np.bool_]:
    """Returns the pixels at most a distance from a set of pixels: bool H×W.

    Args:
        edge: bool H×W with at least one pixel.
        tolerance: the distance between the pixels' centres, in pixels.
    """
    from scipy.ndimage import distance_transform_edt

    return distance_transform_edt(~edge) <= tolerance


def best_ious(masks: Masks, labels: NDArray[np.uint8], num_parts: int) -> NDArray[np.float64]:
    """Returns the largest IoU of a mask with each labelled region, ×100: float64 Q, 0..100.

    0 for an image without masks; NaN for a region that is empty.

    Args:
        masks: all masks of the image.
        labels: the region that each pixel belongs to, uint8 H×W: 0 for none, q + 1 for region q.
        num_parts: Q, the number of regions.
    """
    area_Q = np.bincount(labels.ravel(), minlength=num_parts + 1)[1:]
    shared_mQ = np.zeros((len(masks), num_parts))
    for mask, (x0, y0, x1, y1) in enumerate(masks.boxes.tolist()):
        inside = labels[y0:y1, x0:x1][masks.inside(mask)]
        shared_mQ[mask] = np.bincount(inside, minlength=num_parts + 1)[1:]
    union_mQ = masks.areas[:, None] + area_Q - shared_mQ
    best_Q = (100 * shared_mQ / union_mQ).max(axis=0, initial=0.0)
    return np.where(area_Q > 0, best_Q, np.nan)


class Points(NamedTuple):
    """Labelled points of an image.

    Args:
        row, column: the points' pixels, int64 each.
        part: the labelled part of each, int64, 0..Q−1.
    """

    row: NDArray[np.int64]
    column: NDArray[np.int64]
    part: NDArray[np.int64]


def labelled_points(known: Known, height: int, width: int) -> Points | None:
    """Returns the pixels that show parts or, if these are unknown, the visible part locations.

    Args:
        known: the image's annotations.
        height: H.
        width: W.

    Returns:
        None if it has neither.
    """
    if known.labels is not None:
        row, column = np.nonzero(known.labels)
        return Points(row, column, known.labels[row, column].astype(np.int64) - 1)
    if known.locations_Q2 is not None:
        return pixels_of(known.locations_Q2, height, width)
    return None


def pixels_of(locations_Q2: NDArray[np.float32], height: int, width: int) -> Points:
    """Returns the pixels of visible part locations.

    A part at (x, y) lies on pixel (⌊x⌋, ⌊y⌋); one on the right or lower border, on the last pixel.
    A part outside the image or at NaN (not visible) is left out.

    Args:
        locations_Q2: float Q×2, (x, y) in pixels.
        height: H.
        width: W.
    """
    inside_Q2 = (locations_Q2 >= 0) & (locations_Q2 <= (width, height))
    part = np.flatnonzero(inside_Q2.all(axis=1))
    column, row = np.minimum(locations_Q2[part].astype(np.int64), (width - 1, height - 1)).T
    return Points(row, column, part)


def part_counts(masks: Masks, level: Level, points: Points, num_parts: int) -> NDArray[np.int64]:
    """Counts labelled points by their part and by the segmenter's part there: int64 Q×(P + 1).

    The last column counts points on no mask of the level: background is one more part. Where masks
    of the level overlap, the smallest counts.

    Args:
        masks: all masks of the image, the largest first.
        level: the level whose masks count, and its parts.
        points: the labelled points.
        num_parts: Q, the number of labelled parts.
    """
    background = len(level.parts)
    found = np.full((masks.height, masks.width), background)
    for mask in np.flatnonzero((masks.levels == level.number) & (masks.parts != NO_PART)).tolist():
        x0, y0, x1, y1 = masks.boxes[mask].tolist()
        found[y0:y1, x0:x1][masks.inside(mask)] = level.parts.index(masks.parts[mask])
    pair = points.part * (background + 1) + found[points.row, points.column]
    counts = np.bincount(pair, minlength=num_parts * (background + 1))
    return counts.reshape(num_parts, background + 1)


def over_images(judged: Mapping[str, NDArray]) -> dict[str, float]:
    """Returns the metrics that are not means over images.

    Args:
        judged: the results of `judge` for N images, by name; N is each one's first dimension.

    Returns:
        `best_part_iou`, the mean of `mean_part_iou` over the parts; `part_nmi` and `part_ari`, see
        `part_agreement`; `parts_on_foreground`, the % of all visible part locations that lie on
        foreground. NaN without any part; and only what `judge` returned the parts of.
    """
    metrics = {}
    if "part_iou" in judged:
        metrics["best_part_iou"] = float(mean_part_iou(judged["part_iou"]).mean())
    if "part_counts" in judged:
        metrics["part_nmi"], metrics["part_ari"] = part_agreement(judged["part_counts"].sum(axis=0))
    if "on_foreground" in judged:
        on, visible = judged["on_foreground"].sum(axis=0).tolist()
        metrics["parts_on_foreground"] = 100 * on / visible if visible else math.nan
    return metrics


def mean_part_iou(part_iou_NQ: NDArray[np.float64]) -> pd.Series:
    """Returns each part's mean over the images that show it, float64 Q; NaN if none does.

    Args:
        part_iou_NQ: largest IoU of a mask with each part, ×100, NaN for a part that is not visible.
    """
    return pd.DataFrame(part_iou_NQ).mean()


def part_agreement(counts_QP: NDArray[np.int64]) -> tuple[float, float]:
    """Returns how well a segmenter's parts agree with labelled parts (Choudhury et al., 2021).

    Over all labelled points of all images, the labelled part of a point against the segmenter's
    part there, at one level (see `Knowledge.of`). A point on no mask of this level counts as on one
    more part, the background; a segmenter gains nothing by leaving out what it is unsure of.

    Args:
        counts_QP: number of points by labelled part and by the segmenter's part, Q×(P + 1).

    Returns:
        The normalised mutual information (arithmetic mean), ×100, 0..100; and the adjusted Rand
        index, ×100, −50..100, 0 by chance. NaN without points.
    """
    from sklearn.metrics import adjusted_rand_score, normalized_mutual_info_score

    if not counts_QP.any():
        return math.nan, math.nan
    pairs = np.indices(counts_QP.shape).reshape(2, -1)
    labelled, found = np.repeat(pairs, counts_QP.ravel(), axis=1)
    return (
        100 * float(normalized_mutual_info_score(labelled, found)),
        100 * float(adjusted_rand_score(labelled, found)),
    )
