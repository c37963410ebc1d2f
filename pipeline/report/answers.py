"""What the model says of each test image, in the columns of a table."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pipeline.report.contrast import Contrast
from pipeline.report.stored_contrasts import Contrasts
from pipeline.report.typical import spread_over_classes, worst_first
from pipeline.saliency.prototypes import Points, Prototypes, hundredths
from pipeline.saliency.stored_outputs import StoredOutputs

NUM_LINES = 40


class Line(NamedTuple):
    """What the prototypes of one training view add to a margin.

    Args:
        points: similarity × difference of the weights = points, rounded to hundredths.
        label: number of the prototypes' class, 0..C−1.
        mark: label of the region in which they were found.
    """

    points: Points
    label: int
    mark: str


class Lines(NamedTuple):
    """A margin as a sum over prototypes.

    Args:
        lines: those with the most points for or against, in descending order of points.
        rest: the points of all others.
        num_rest: number of the other prototypes that have any.
    """

    lines: list[Line]
    rest: float
    num_rest: int


class Answer(NamedTuple):
    """What the model says of a test image.

    Args:
        place: position of the image in the outputs.
        actual, named: numbers of its class and of the class that it is given, 0..C−1.
        confidence: softmax of that class's logit, in [0, 1].
        second: number of the class that comes next; `named` with a single class.
        contrast: why this class rather than the right one, or, where they are the same, than the
            second, without pictures; None with a single class.
        decisive: what has the most points for it, in words (`its wing`); empty if nothing has.
        background: background overlap in percent (see the metrics), 0..100; None if not measured.
    """

    place: int
    actual: int
    named: int
    confidence: float
    second: int
    contrast: Contrast | None
    decisive: str
    background: float | None

    @property
    def right(self) -> bool:
        """Whether the image is given its class."""
        return self.actual == self.named


def confidence(logits_NC: NDArray[np.floating]) -> NDArray[np.float64]:
    """Returns the softmax of the largest logit of each image, float64 N, in (0, 1]."""
    logits_NC = logits_NC.astype(np.float64)
    largest_N1 = logits_NC.max(axis=1, keepdims=True)
    return 1 / np.exp(logits_NC - largest_N1).sum(axis=1)


def answer(
    place: int,
    outputs: StoredOutputs,
    contrasts: Contrasts,
    confidence_N: NDArray[np.float64],
    background_N: NDArray[np.float64] | None,
) -> Answer:
    """Returns what the model says of a test image.

    Args:
        place: position of the image in the outputs.
        outputs: the model's outputs on the test images.
        contrasts: says why they were given one class rather than another.
        confidence_N: see `confidence`.
        background_N: float64 N, background overlap in percent, NaN where it is not known; None if
            it was not measured.
    """
    actual, named = int(outputs.labels_N[place]), int(outputs.predicted_N[place])
    contrast = contrasts.plain(place, None if actual == named else actual)
    regions = contrast.margin.regions if contrast and contrast.rows else ()
    known = background_N is not None and np.isfinite(background_N[place])
    return Answer(
        place,
        actual,
        named,
        float(confidence_N[place]),
        int(contrasts.second_N[place]) if contrast else named,
        contrast,
        regions[0].called if regions and regions[0].points > 0 else "",
        float(background_N[place]) if background_N is not None and known else None,
    )


def chosen(outputs: StoredOutputs, count: int) -> set[int]:
    """Returns the test images that are worth drawing: mistakes, and images that nobody picked.

    At most half are mistakes, those first in which the wrong class leads by most. The others are
    spread over the classes (see `spread_over_classes`).

    Args:
        outputs: the model's outputs on the test images.
        count: the number of images wanted; all, if there are fewer.
    """
    labels = outputs.labels_N.tolist()
    found = worst_first(outputs)[: count // 2]
    spread = [*spread_over_classes(labels, count), *range(len(labels))]
    return set(list(dict.fromkeys([*found, *spread]))[:count])


def lines(
    prototypes: Prototypes,
    labels: tuple[int, int],
    similarity_P: NDArray[np.floating],
    view_P: NDArray[np.int64],
    margin: float,
) -> Lines:
    """Splits a margin by prototype; in hundredths, the lines and the rest add up to it.

    Args:
        prototypes: the model's prototypes and weights.
        labels: numbers of the class and of the one that it is compared with, 0..C−1.
        similarity_P: similarity s_j of the image to each prototype, float P.
        view_P: index of the image's view most similar to each prototype, int64 P.
        margin: the margin, in hundredths.
    """
    weight_P = prototypes.weights_CP[labels[0]] - prototypes.weights_CP[labels[1]]
    points_P = similarity_P.astype(np.float64) * weight_P
    points_G = np.bincount(prototypes.origin_P, points_P)
    largest = np.argsort(-np.abs(points_G), kind="stable")[:NUM_LINES].tolist()
    listed = [group for group in largest if hundredths(points_G[group])]
    found = []
    for group in sorted(listed, key=lambda group: -points_G[group]):
        members = np.flatnonzero(prototypes.origin_P == group)
        first = int(members[0])
        points = Points(
            tuple(members.tolist()),
            int(view_P[first]),
            float(similarity_P[first]),
            float(weight_P[members].sum()),
            hundredths(points_G[group]),
        )
        mark = prototypes.views.mark(points.view)
        found.append(Line(points, int(prototypes.class_of_P[first]), mark))
    others = ~np.isin(prototypes.origin_P, listed) & (points_P != 0)
    rest = hundredths(margin - sum(line.points.points for line in found))
    return Lines(found, rest, int(others.sum()))
