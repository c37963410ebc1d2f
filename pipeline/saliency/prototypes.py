"""What a class score is made of: "this looks like that prototype", point by point."""

import math
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor

from pipeline.crops.store import CropStore
from pipeline.datasets.index import Index
from pipeline.errors import ProtoMaskError
from pipeline.model.base.network import PrototypeNetwork
from pipeline.saliency.views import Views


class Points(NamedTuple):
    """What one training view gives to a class score: similarity × weight = points.

    Args:
        prototypes: the numbers of the prototypes that are this view; mostly one, but the push may
            find the same view nearest to several, and their weights then add up.
        view: the image's view that looks most like it.
        similarity: s_j.
        weight: V_cj, summed over the prototypes.
        points: s_j · V_cj, summed over the prototypes.
    """

    prototypes: tuple[int, ...]
    view: int
    similarity: float
    weight: float
    points: float


class Score(NamedTuple):
    """One class's score for one image, taken apart; `rows` and `rest` add up to it.

    Args:
        label: the class.
        score: its logit.
        rows: what gives it most, largest first.
        rest: the points of all other prototypes together.
        num_rest: how many those are.
    """

    label: int
    score: float
    rows: list[Points]
    rest: float
    num_rest: int

    def rounded(self) -> "Score":
        """Returns the same in hundredths that still add up.

        What rounding leaves over goes to the rest, or without one to the largest row.
        """
        rows = [row._replace(points=_hundredths(row.points)) for row in self.rows]
        score = _hundredths(self.score)
        over = _hundredths(score - sum(row.points for row in rows))
        if self.num_rest:
            return self._replace(score=score, rows=rows, rest=over)
        rows[0] = rows[0]._replace(points=_hundredths(rows[0].points + over))
        return self._replace(score=score, rows=rows)


class Prototypes:
    """A model's P prototypes: where each came from, and what it is worth to each class.

    Args:
        class_names: the C classes.
        class_of_P: int64, the class of each.
        weights_CP: float64, V.
        rows_P: int64, the training image of each, as a row of the index.
        crop_P: int64, the crop of that image, 0..K−1.
        cell_P: int64, the cell of that crop's feature map; 0 where it is pooled.
        distance_P: float64, how far the trained prototype was from it; NaN in models without
            distances.
        views: what prototypes are compared with.
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
    ) -> None:
        self.class_names = class_names
        self.class_of_P, self.weights_CP = class_of_P, weights_CP
        self.rows_P, self.crop_P, self.cell_P = rows_P, crop_P, cell_P
        self.distance_P, self.views = distance_P, views
        self.view_P = crop_P * math.prod(views.grid) + cell_P
        # Where there is no push, a view shows a prototype but is not it, and may show several.
        own_P = np.where(np.isnan(distance_P), np.arange(len(class_of_P)), -1)
        origins = np.stack([class_of_P, rows_P, crop_P, cell_P, own_P])
        self._origin_P: NDArray[np.int64] = np.unique(origins, axis=1, return_inverse=True)[1]

    @classmethod
    def of(
        cls, network: PrototypeNetwork, record: pd.DataFrame, index: Index, size: int
    ) -> "Prototypes":
        """Joins a model, the record of its prototypes (see `write_record`) and the index.

        Args:
            network: the model.
            record: where its prototypes came from.
            index: the images.
            size: of the crops, in pixels.

        Raises:
            ProtoMaskError: the record is not this model's, or names an image that is not there.
        """
        class_of_P = network.class_of.cpu().numpy().astype(np.int64)
        names = [index.class_names[label] for label in class_of_P.tolist()]
        if record["class_name"].tolist() != names:
            raise ProtoMaskError(
                f"prototypes.csv names {len(record)} prototypes, which are not the model's "
                f"{len(names)}: run `dvc repro finetune`"
            )
        rows = {image: row for row, image in enumerate(index.ids)}
        unknown = sorted(set(record["image"]) - set(rows))
        if unknown:
            raise ProtoMaskError(
                f"prototypes.csv names the image {unknown[0]!r}, which is not in the index of "
                f"{index.dataset!r}: run `dvc repro`"
            )
        return cls(
            index.class_names,
            class_of_P,
            network.head().weights_CP.cpu().double().numpy(),
            np.array([rows[image] for image in record["image"]], np.int64),
            record["crop"].to_numpy(np.int64),
            record["cell"].to_numpy(np.int64),
            record["distance"].to_numpy(np.float64),
            Views.of(network, size),
        )

    def __len__(self) -> int:
        return len(self.class_of_P)

    def pixels(self, crops: CropStore) -> Tensor:
        """Returns the training crops that are the prototypes: uint8, P×1×S×S×3."""
        places = zip(self.rows_P.tolist(), self.crop_P.tolist(), strict=True)
        return torch.from_numpy(np.stack([crops.crops([row])[:, crop] for row, crop in places]))

    def distinct(self, label: int) -> list[tuple[int, ...]]:
        """Returns the prototypes of a class, those that are the same view together, by weight.

        Where classes share prototypes, those without any weight belong to none.
        """
        weighs_P = (self.weights_CP[label] != 0) | (not self.views.shared)
        own = np.flatnonzero((self.class_of_P == label) & weighs_P)
        groups = [own[self._origin_P[own] == origin] for origin in np.unique(self._origin_P[own])]
        groups.sort(key=lambda group: (-self.weights_CP[label, group].sum(), group[0]))
        return [tuple(group.tolist()) for group in groups]

    def score(
        self,
        label: int,
        similarity_P: NDArray[np.floating],
        view_P: NDArray[np.int64],
        top: int,
    ) -> Score:
        """Takes a class's score for an image apart.

        Args:
            label: the class.
            similarity_P: the image's similarities to the prototypes.
            view_P: the image's view most similar to each.
            top: how many rows; the prototypes that are the same view share one. A cell that adds
                nothing has none, and a black box has one for the class alone.
        """
        points_P = similarity_P.astype(np.float64) * self.weights_CP[label]
        points_G = np.bincount(self._origin_P, points_P)
        largest_G = np.argsort(-points_G, kind="stable")[:top]
        if self.views.kind == "cells":
            largest_G = largest_G[points_G[largest_G] != 0]
        elif self.views.kind == "image":
            largest_G = self._origin_P[[label]]
        rows = []
        for group in largest_G.tolist():
            members = np.flatnonzero(self._origin_P == group)
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
        others = ~np.isin(self._origin_P, largest_G)
        rest = float(points_P[others].sum())
        return Score(label, float(points_P.sum()), rows, rest, int(others.sum()))


def figure(value: float) -> str:
    """Returns a number as it is shown: in hundredths, with a true minus sign."""
    return f"{_hundredths(value):.2f}".replace("-", "−")


def _hundredths(value: float) -> float:
    return round(value, 2) + 0.0
