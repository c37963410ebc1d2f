"""The margin of one class over another, added up by region (docs/method.md, "Extensions").

A region is a view: a crop, a cell of the feature map, or the whole image. With the weights V and
the similarities s, the margin of class c over class r is y_c − y_r = Σ_j s_j·(V_cj − V_rj), and
each prototype j was found in one region, in its most similar view.

Dimensions: B images, P prototypes, C classes, V views.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pipeline.saliency.prototypes import Points, Prototypes, figure, hundredths

NO_NAMES: Mapping[int, str] = {}


@dataclass(frozen=True)
class Region:
    """What the prototypes found in one region of an image add to a margin.

    Args:
        view: index of the region's view, 0..V−1.
        called: the region in words: `its wing`, or, where the part is not known, `region 3` or
            `cell (2, 5)`.
        points: the sum over the prototypes found in it of s_j·(V_cj − V_rj).
        pro: of the prototypes found in it that have a positive weight for the first class, those of
            the training view that adds most to the margin, with V_cj − V_rj as their weight; None
            if there is none that adds to it.
        con: the same for the second class, with V_rj − V_cj as their weight, so that their points
            are what they take from the margin.
    """

    view: int
    called: str
    points: float
    pro: Points | None
    con: Points | None

    @property
    def others(self) -> float:
        """The points of its other prototypes, such that the three add up in hundredths."""
        pro, con = (hundredths(of.points) if of else 0.0 for of in (self.pro, self.con))
        return hundredths(hundredths(self.points) - pro + con)


@dataclass(frozen=True)
class Margin:
    """Why one class rather than another: the margin of their scores, by region of the image.

    Args:
        labels: numbers of the first class c and of the second r, 0..C−1.
        names: names of the two classes.
        scores: their logits.
        points: the margin, the first score minus the second; the sum of `regions` and `rest`.
        regions: the regions with the most points for or against, in descending order of points.
        rest: the sum of the points of all other regions.
        num_rest: number of the other regions in which a prototype was found.
    """

    labels: tuple[int, int]
    names: tuple[str, str]
    scores: tuple[float, float]
    points: float
    regions: tuple[Region, ...]
    rest: float
    num_rest: int

    def rounded(self) -> "Margin":
        """Returns the margin with all terms rounded to hundredths such that they still add up.

        The margin is the difference of the rounded scores. Regions whose points become 0 join the
        rest. The rounding error is added to it, or, without a rest, to the region with the most
        points.
        """
        first, second = map(hundredths, self.scores)
        regions = [replace(region, points=hundredths(region.points)) for region in self.regions]
        regions = [region for region in regions if region.points]
        num_rest = self.num_rest + len(self.regions) - len(regions)
        margin = hundredths(first - second)
        over = hundredths(margin - sum(region.points for region in regions))
        if regions and not num_rest:
            regions[0] = replace(regions[0], points=hundredths(regions[0].points + over))
            over = 0.0
        scores, shown = (first, second), tuple(regions)
        return replace(
            self, scores=scores, points=margin, regions=shown, rest=over, num_rest=num_rest
        )

    @property
    def sentence(self) -> str:
        """The margin in words: `wren rather than crow (+1.90): by its tail (+2.10); …`."""
        rather = f"{self.names[0]} rather than {self.names[1]} ({signed(self.points)})"
        pro = [_said(region) for region in self.regions if region.points > 0]
        con = [_said(region) for region in reversed(self.regions) if region.points < 0]
        why = [f"by {', '.join(pro)}"] if pro else []
        why += [f"against it: {', '.join(con)}"] if con else []
        why += [f"other regions: {signed(self.rest)}"] if hundredths(self.rest) else []
        return f"{rather}: {'; '.join(why)}" if why else rather


def margin_of(
    prototypes: Prototypes,
    labels: tuple[int, int],
    similarity_P: NDArray[np.floating],
    view_P: NDArray[np.int64],
    top: int,
    called: Mapping[int, str] = NO_NAMES,
) -> Margin:
    """Splits the margin of one class over another for an image by region.

    Args:
        prototypes: the model's prototypes and weights.
        labels: numbers of the class c and of the class r that it is compared with, 0..C−1.
        similarity_P: similarity s_j of the image to each prototype, float P.
        view_P: index of the image's view most similar to each prototype, int64 P.
        top: the largest number of regions listed, those with the most points for or against.
        called: what the part that a view shows is called (`its wing`), by view, where it is known.
    """
    weights_CP, pair_2 = prototypes.weights_CP, list(labels)
    similarity_1P = torch.from_numpy(similarity_P)[None]
    first_1, second_1 = torch.tensor(pair_2)[:, None]
    points_1P = prototype_points(similarity_1P, torch.from_numpy(weights_CP), first_1, second_1)
    view_1P = torch.from_numpy(view_P)[None]
    points_V = region_points(points_1P, view_1P, int(view_P.max()) + 1)[0].numpy()
    points_P = points_1P[0].numpy()
    shown = np.argsort(-np.abs(points_V), kind="stable")[:top]
    shown = shown[points_V[shown] != 0]
    regions = [
        Region(
            view,
            called.get(view, prototypes.views.region(view)),
            float(points_V[view]),
            _strongest(prototypes, labels, similarity_P, points_P, view_P, view),
            _strongest(prototypes, labels[::-1], similarity_P, -points_P, view_P, view),
        )
        for view in shown[np.argsort(-points_V[shown], kind="stable")].tolist()
    ]
    scores = weights_CP[pair_2] @ similarity_P.astype(np.float64)
    rest_V = np.delete(points_V, shown)
    return Margin(
        labels,
        (prototypes.class_names[labels[0]], prototypes.class_names[labels[1]]),
        (float(scores[0]), float(scores[1])),
        float(points_V.sum()),
        tuple(regions),
        float(rest_V.sum()),
        int((rest_V != 0).sum()),
    )


def signed(value: float) -> str:
    """Returns points as text in hundredths, with their sign: `+1.90`, `−0.20`, `0.00`."""
    text = figure(value)
    return f"+{text}" if hundredths(value) > 0 else text


def _strongest(
    prototypes: Prototypes,
    labels: tuple[int, int],
    similarity_P: NDArray[np.floating],
    points_P: NDArray[np.float64],
    view_P: NDArray[np.int64],
    view: int,
) -> Points | None:
    """Returns the prototypes of one training view that add most for a class in one region.

    Args:
        prototypes: the model's prototypes and weights.
        labels: the class, which they must have a positive weight for, and the one it is against.
        similarity_P: similarity s_j of the image to each prototype, float P.
        points_P: what each prototype adds for the class, float64 P.
        view_P: index of the image's view most similar to each prototype, int64 P.
        view: index of the region's view.
    """
    weights_CP = prototypes.weights_CP
    own_P = (view_P == view) & (weights_CP[labels[0]] > 0)
    points_G = np.bincount(prototypes.origin_P, points_P * own_P)
    best = int(points_G.argmax())
    if points_G[best] <= 0:
        return None
    members = np.flatnonzero(own_P & (prototypes.origin_P == best))
    weight = weights_CP[labels[0], members] - weights_CP[labels[1], members]
    return Points(
        tuple(members.tolist()),
        view,
        float(similarity_P[members[0]]),
        float(weight.sum()),
        float(points_G[best]),
    )


def _said(region: Region) -> str:
    return f"{region.called} ({signed(region.points)})"


def prototype_points(
    similarity_BP: Tensor, weights_CP: Tensor, first_B: Tensor, second_B: Tensor
) -> Tensor:
    """Returns what each prototype adds to a margin, s_j·(V_cj − V_rj): float64 B×P.

    Args:
        similarity_BP: s_j of each image and prototype, float B×P.
        weights_CP: V, float C×P, the weight of each prototype's similarity for each class.
        first_B: int64 B, the class c of each image, 0..C−1.
        second_B: int64 B, the class r that c is compared with, 0..C−1.
    """
    weights_CP = weights_CP.double()
    return similarity_BP.double() * (weights_CP[first_B] - weights_CP[second_B])


def region_points(points_BP: Tensor, view_BP: Tensor, num_views: int) -> Tensor:
    """Returns the points of each region: float64 B×V, 0 for one in which no prototype was found.

    The points of an image's regions add up to its margin.

    Args:
        points_BP: what each prototype adds to the margin (`prototype_points`), float64 B×P.
        view_BP: int64 B×P, the view in which each prototype was found, 0..V−1.
        num_views: V, the number of views of an image, ≥ 1.
    """
    points_BV = torch.zeros(len(points_BP), num_views, dtype=points_BP.dtype)
    return points_BV.scatter_add_(1, view_BP, points_BP)
