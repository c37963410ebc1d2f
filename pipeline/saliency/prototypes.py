"""How a class score adds up: similarity × weight = points, prototype by prototype."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor

from pipeline.crops.store import CropStore
from pipeline.errors import ProtoMaskError, rerun
from pipeline.masks.masks import NO_PART
from pipeline.model.base.network import PrototypeNetwork
from pipeline.saliency.views import Views


class Points(NamedTuple):
    """The contribution of one training view to a class score: similarity × weight = points.

    Args:
        prototypes: indices of the prototypes that are this view; usually one, but the push may
            find the same view for several, whose weights then add up.
        view: index of the image's view that is most similar to them.
        similarity: similarity s_j of the image to the first of them.
        weight: V_cj, summed over the prototypes.
        points: s_j · V_cj, summed over the prototypes.
    """

    prototypes: tuple[int, ...]
    view: int
    similarity: float
    weight: float
    points: float


class Score(NamedTuple):
    """The score of one class for one image as a sum of contributions and a rest.

    Args:
        label: number of the class, 0..C−1.
        score: the logit of the class; the sum of `rows` and `rest`.
        rows: the largest contributions, in descending order.
        rest: the sum of the points of all other prototypes.
        num_rest: number of the other prototypes.
    """

    label: int
    score: float
    rows: list[Points]
    rest: float
    num_rest: int

    def rounded(self) -> "Score":
        """Returns the score with all terms rounded to hundredths such that they still add up.

        The rounding error is added to the rest, or to the largest row if there is no rest.
        """
        rows = [row._replace(points=hundredths(row.points)) for row in self.rows]
        score = hundredths(self.score)
        over = hundredths(score - sum(row.points for row in rows))
        if self.num_rest:
            return self._replace(score=score, rows=rows, rest=over)
        rows[0] = rows[0]._replace(points=hundredths(rows[0].points + over))
        return self._replace(score=score, rows=rows)


class Prototypes:
    """A model's P prototypes: where each came from, and its weight for each class.

    Args:
        class_names: names of the C classes, in the order of their numbers.
        class_of_P: int64 P, the class of each prototype, 0..C−1.
        weights_CP: float64 C×P, the classifier's weights V.
        rows_P: int64 P, the training image of each prototype, as a row of the index.
        crop_P: int64 P, the crop of that image, 0..K−1.
        cell_P: int64 P, the cell of that crop's feature map in row-major order; 0 where the map is
            pooled.
        distance_P: float64 P, squared Euclidean distance of the trained prototype to that view
            before the push; NaN in models without distances.
        views: the kind of view that the model compares prototypes with.
        alike_P: int64 P, how many pushed prototypes each stands for, itself included; None: one.
        part_P: int64 P, number of the part that each shows, `NO_PART` where none is known; None: of
            none.

    Attributes:
        origin_P: int64 P, the same number for prototypes of a class that are the same training
            view, 0..P−1.
    """

    def __init__(
        self,
        class_names: list[str],
        class_of_P: NDArray[np.int64],
        weights_CP: NDArray[np.float64],
        rows_P: NDArray[np.int64],
        crop_P: NDArray[np.int64],
        cell_P: NDArray[np.int64],
        distance_P: NDArray[np.float64],
        views: Views,
        alike_P: NDArray[np.int64] | None = None,
        part_P: NDArray[np.int64] | None = None,
    ) -> None:
        self.class_names = class_names
        self.class_of_P, self.weights_CP = class_of_P, weights_CP
        self.rows_P, self.crop_P, self.cell_P = rows_P, crop_P, cell_P
        self.distance_P, self.views = distance_P, views
        self.alike_P = np.ones_like(class_of_P) if alike_P is None else alike_P
        self.part_P = np.full_like(class_of_P, NO_PART) if part_P is None else part_P
        self.view_P = crop_P * math.prod(views.grid) + cell_P
        # Without a push, a view only illustrates a prototype, and may illustrate several.
        own_P = np.where(np.isnan(distance_P), np.arange(len(class_of_P)), -1)
        origins = np.stack([class_of_P, rows_P, crop_P, cell_P, own_P])
        self.origin_P: NDArray[np.int64] = np.unique(origins, axis=1, return_inverse=True)[1]

    @classmethod
    def of(
        cls,
        network: PrototypeNetwork,
        sources: pd.DataFrame,
        class_names: list[str],
        ids: Sequence[str],
        size: int,
    ) -> "Prototypes":
        """Joins a model and the sources of its prototypes (see `write_sources`).

        Args:
            network: the finished model, which gives the prototypes' classes and weights.
            sources: the table of the views that the prototypes came from, one row for each.
            class_names: names of the C classes, in the order of their numbers.
            ids: the ids of the images among which the sources are, in the order of their rows.
            size: S, the side of the crops in pixels.

        Raises:
            ProtoMaskError: the sources are another model's, or name an image that is not among
                these.
        """
        class_of_P = network.class_of.cpu().numpy().astype(np.int64)
        names = [class_names[label] for label in class_of_P.tolist()]
        if sources["class_name"].tolist() != names:
            raise ProtoMaskError(
                f"prototypes.csv names {len(sources)} prototypes, which are not the model's "
                f"{len(names)}: {rerun('finetune')}"
            )
        rows = {image: row for row, image in enumerate(ids)}
        unknown = sorted(set(sources["image"]) - set(rows))
        if unknown:
            raise ProtoMaskError(
                f"prototypes.csv names the image {unknown[0]!r}, which is not in the index: run "
                "`dvc repro`"
            )
        return cls(
            class_names,
            class_of_P,
            network.head().weights_CP.cpu().double().numpy(),
            np.array([rows[image] for image in sources["image"]], np.int64),
            sources["crop"].to_numpy(np.int64),
            sources["cell"].to_numpy(np.int64),
            sources["distance"].to_numpy(np.float64),
            Views.of(network, size),
            sources["alike"].to_numpy(np.int64),
            sources["part"].to_numpy(np.int64),
        )

    def __len__(self) -> int:
        return len(self.class_of_P)

    def pixels(self, crops: CropStore) -> Tensor:
        """Returns the training crops that the prototypes came from: uint8 P×1×S×S×3."""
        return crops_at(crops, self._places())

    def inside(self, crops: CropStore) -> Tensor:
        """Returns the masks inside these crops: bool P×1×S×S."""
        return insides_at(crops, self._places())

    def _places(self) -> list[tuple[int, int]]:
        return list(zip(self.rows_P.tolist(), self.crop_P.tolist(), strict=True))

    def distinct(self, label: int) -> list[tuple[int, ...]]:
        """Returns the prototypes of a class, grouped by training view, by descending weight.

        Where classes share prototypes, those with weight zero are left out.

        Args:
            label: number of the class, 0..C−1.

        Returns:
            Groups of prototype indices that came from the same view.
        """
        weighs_P = (self.weights_CP[label] != 0) | (not self.views.shared)
        own = np.flatnonzero((self.class_of_P == label) & weighs_P)
        groups = [own[self.origin_P[own] == origin] for origin in np.unique(self.origin_P[own])]
        groups.sort(key=lambda group: (-self.weights_CP[label, group].sum(), group[0]))
        return [tuple(group.tolist()) for group in groups]

    def score(
        self,
        label: int,
        similarity_P: NDArray[np.floating],
        view_P: NDArray[np.int64],
        top: int,
    ) -> Score:
        """Splits the score of a class for an image into the contributions of prototypes.

        Args:
            label: number of the class, 0..C−1.
            similarity_P: similarity s_j of the image to each prototype, float P.
            view_P: index of the image's view most similar to each prototype, int64 P.
            top: the largest number of rows. Prototypes of the same view share a row. Where views
                are cells, contributions of zero have no row; a black box has a single one, the
                logit of the class.
        """
        points_P = similarity_P.astype(np.float64) * self.weights_CP[label]
        points_G = np.bincount(self.origin_P, points_P)
        largest_G = np.argsort(-points_G, kind="stable")[:top]
        if self.views.kind == "cells":
            largest_G = largest_G[points_G[largest_G] != 0]
        elif self.views.kind == "image":
            largest_G = self.origin_P[[label]]
        rows = []
        for group in largest_G.tolist():
            members = np.flatnonzero(self.origin_P == group)
            first = members[0]
            rows.append(
                Points(
                    tuple(members.tolist()),
                    int(view_P[first]),
                    float(similarity_P[first]),
                    float(self.weights_CP[label, members].sum()),
                    float(points_G[group]),
                )
            )
        others = ~np.isin(self.origin_P, largest_G)
        rest = float(points_P[others].sum())
        return Score(label, float(points_P.sum()), rows, rest, int(others.sum()))


def crops_at(crops: CropStore, places: Sequence[tuple[int, int]]) -> Tensor:
    """Returns single crops of a store: uint8 X×1×S×S×3.

    Args:
        crops: the crop store to read from.
        places: for each of X crops, the row of its image in the store, and its index, 0..K−1.
    """
    return torch.from_numpy(np.stack([crops.crops([row])[:, crop] for row, crop in places]))


def insides_at(crops: CropStore, places: Sequence[tuple[int, int]]) -> Tensor:
    """Returns the masks inside single crops of a store: bool X×1×S×S.

    Args:
        crops: the crop store to read from.
        places: for each of X crops, the row of its image in the store, and its index, 0..K−1.
    """
    return torch.from_numpy(np.stack([crops.inside(row)[crop][None] for row, crop in places]))


def figure(value: float) -> str:
    """Returns a number as text: in hundredths, with the minus sign U+2212."""
    return f"{hundredths(value):.2f}".replace("-", "−")


def hundredths(value: float) -> float:
    """Returns a number rounded to hundredths, never −0."""
    return round(value, 2) + 0.0
