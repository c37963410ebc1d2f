"""Two runs on the same test images: which are classified correctly, and how the metrics differ."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pipeline.errors import ProtoMaskError
from pipeline.metrics.names import taken_apart
from pipeline.study.comparison import FEW
from pipeline.study.significance import paired_bootstrap
from pipeline.study.table import Column, columns_of

ACCURACY = "general.accuracy"


class Pairs(NamedTuple):
    """The N images that both runs were tested on.

    Args:
        a_N, b_N: int64 N, their positions among the test images of each run, ascending in A's.
        only_a, only_b: numbers of test images that the other run does not have.
    """

    a_N: NDArray[np.int64]
    b_N: NDArray[np.int64]
    only_a: int
    only_b: int


class Outcome(NamedTuple):
    """Numbers of images that both runs, one of them or neither classified correctly."""

    both: int
    only_a: int
    only_b: int
    neither: int

    @property
    def images(self) -> int:
        """The number of images."""
        return sum(self)

    @property
    def right_a(self) -> int:
        """The number of images that run A classified correctly."""
        return self.both + self.only_a

    @property
    def right_b(self) -> int:
        """The number of images that run B classified correctly."""
        return self.both + self.only_b

    @property
    def p(self) -> float:
        """p-value of McNemar's exact test of equal accuracies, two-sided, in [0, 1].

        Only images that exactly one run classified correctly count; under the hypothesis each of
        them is a fair coin toss. 1 if there are none.
        """
        from scipy.stats import binomtest

        tossed = self.only_a + self.only_b
        return float(binomtest(self.only_a, tossed).pvalue) if tossed else 1.0


class Difference(NamedTuple):
    """A metric in both runs, over the images in which both have a finite value.

    Args:
        column: the metric, as a column of a table.
        a, b: mean of each run, in the column's unit.
        images: number of these images.
        p: p-value of the hypothesis that the means are equal; None for fewer than `FEW` images.
    """

    column: Column
    a: float
    b: float
    images: int
    p: float | None


class Chosen(NamedTuple):
    """Images by who classified them correctly, as positions among the pairs, the clearest first."""

    only_a: list[int]
    only_b: list[int]
    neither: list[int]


class ClassCount(NamedTuple):
    """A class's number of test images, and how many of them each run classified correctly."""

    label: int
    images: int
    right_a: int
    right_b: int


def pair(ids_a: Sequence[str], ids_b: Sequence[str]) -> Pairs:
    """Finds the test images that both runs have.

    Args:
        ids_a: ids of run A's test images.
        ids_b: ids of run B's test images.

    Raises:
        ProtoMaskError: there are none.
    """
    place = {image: number for number, image in enumerate(ids_b)}
    shared = [(number, place[image]) for number, image in enumerate(ids_a) if image in place]
    if not shared:
        raise ProtoMaskError(
            f"no image is among the test images of both runs ({len(ids_a)} and {len(ids_b)})"
        )
    a_N, b_N = np.array(shared, np.int64).T
    return Pairs(a_N, b_N, len(ids_a) - len(shared), len(ids_b) - len(shared))


def outcome(right_a_N: NDArray[np.bool_], right_b_N: NDArray[np.bool_]) -> Outcome:
    """Counts the images that both, one or neither of the runs classified correctly.

    Args:
        right_a_N: bool N, whether run A classified each image correctly.
        right_b_N: bool N, whether run B did.
    """
    return Outcome(
        int((right_a_N & right_b_N).sum()),
        int((right_a_N & ~right_b_N).sum()),
        int((~right_a_N & right_b_N).sum()),
        int((~right_a_N & ~right_b_N).sum()),
    )


def leads(logits_NC: NDArray[np.floating], labels_N: NDArray[np.int64]) -> NDArray[np.float64]:
    """Returns the margin of each image: the right class's logit minus the largest other one.

    Args:
        logits_NC: logits of at least two classes, float N×C.
        labels_N: the images' classes, int64 N in 0..C−1.

    Returns:
        float64 N, negative for misclassified images.
    """
    places = np.arange(len(labels_N))
    others_NC = logits_NC.astype(np.float64)
    right_N = others_NC[places, labels_N].copy()
    others_NC[places, labels_N] = -np.inf
    return right_N - others_NC.max(axis=1)


def choose(
    right_a_N: NDArray[np.bool_],
    right_b_N: NDArray[np.bool_],
    lead_a_N: NDArray[np.float64],
    lead_b_N: NDArray[np.float64],
) -> Chosen:
    """Sorts the images that at least one run misclassified.

    Where one run is right, by its margin, in descending order. Where both are wrong, by the sum of
    the runs' margins, the most negative first; since the logits of two models have different
    scales, each is in units of the run's mean absolute margin.

    Args:
        right_a_N: bool N, whether run A classified each image correctly.
        right_b_N: bool N, whether run B did.
        lead_a_N: run A's margins, float64 N, from `leads`.
        lead_b_N: run B's margins, float64 N, from `leads`.
    """
    wrong_N = -_of_size_one(lead_a_N) - _of_size_one(lead_b_N)
    return Chosen(
        _largest(right_a_N & ~right_b_N, lead_a_N),
        _largest(right_b_N & ~right_a_N, lead_b_N),
        _largest(~right_a_N & ~right_b_N, wrong_N),
    )


def _of_size_one(lead_N: NDArray[np.float64]) -> NDArray[np.float64]:
    return lead_N / (np.abs(lead_N).mean() or 1.0)


def _largest(which_N: NDArray[np.bool_], by_N: NDArray[np.float64]) -> list[int]:
    places = np.flatnonzero(which_N)
    ordered: list[int] = places[np.argsort(-by_N[places], kind="stable")].tolist()
    return ordered


def by_class(
    labels_N: NDArray[np.int64], right_a_N: NDArray[np.bool_], right_b_N: NDArray[np.bool_]
) -> list[ClassCount]:
    """Returns the classes in which accuracy differs, the largest difference first.

    Args:
        labels_N: the images' classes, int64 N in 0..C−1.
        right_a_N: bool N, whether run A classified each image correctly.
        right_b_N: bool N, whether run B did.
    """
    C = int(labels_N.max()) + 1
    images_C, right_a_C, right_b_C = (
        np.bincount(labels_N[which], minlength=C) for which in (slice(None), right_a_N, right_b_N)
    )
    share_C = np.abs(right_a_C - right_b_C) / np.maximum(images_C, 1)
    order = [label for label in np.argsort(-share_C, kind="stable").tolist() if share_C[label]]
    return [
        ClassCount(label, int(images_C[label]), int(right_a_C[label]), int(right_b_C[label]))
        for label in order
    ]


def differences(
    images_a: pd.DataFrame, images_b: pd.DataFrame, ids: Sequence[str]
) -> list[Difference]:
    """Compares the metrics that both runs have image by image, without accuracy and controls.

    Args:
        images_a: run A's value of each metric on each image, from
            `pipeline.metrics.summary.per_image`.
        images_b: the same of run B.
        ids: ids of the images to compare.
    """
    a, b = (
        table.set_index("image").reindex(list(ids)).replace([np.inf, -np.inf], np.nan)
        for table in (images_a, images_b)
    )
    names = [name for name in a if name in b and _is_the_models(name)]
    names = [name for name in names if (a[name] - b[name]).notna().any()]
    if not names:
        return []
    differing_NT = (a[names] - b[names]).to_numpy(np.float64)
    p_T = paired_bootstrap(differing_NT)
    found = []
    for column, p in zip(columns_of(names), p_T, strict=True):
        both = (a[column.name] - b[column.name]).notna()
        mean_a, mean_b = (column.factor * float(t[column.name][both].mean()) for t in (a, b))
        count = int(both.sum())
        found.append(Difference(column, mean_a, mean_b, count, float(p) if count >= FEW else None))
    return found


def _is_the_models(name: str) -> bool:
    return name != ACCURACY and not taken_apart(name.partition(".")[2]).control
