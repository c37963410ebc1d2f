"""Two runs on the same test images: who is right where, and by how much the runs differ."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.stats import binomtest

from pipeline.errors import ProtoMaskError
from pipeline.metrics.descriptions import taken_apart
from pipeline.study.comparison import FEW
from pipeline.study.significance import paired_bootstrap
from pipeline.study.table import Column, columns_of

ACCURACY = "general.accuracy"


class Pairs(NamedTuple):
    """The N images that both runs were tested on.

    Args:
        a_N, b_N: int64, their places among the test images of each run, rising in A's.
        only_a, only_b: how many test images the other run does not have.
    """

    a_N: NDArray[np.int64]
    b_N: NDArray[np.int64]
    only_a: int
    only_b: int


class Outcome(NamedTuple):
    """How many images both runs, one or neither named right."""

    both: int
    only_a: int
    only_b: int
    neither: int

    @property
    def images(self) -> int:
        return sum(self)

    @property
    def right_a(self) -> int:
        return self.both + self.only_a

    @property
    def right_b(self) -> int:
        return self.both + self.only_b

    @property
    def p(self) -> float:
        """McNemar's exact test that both are as often right, two-sided: 0..1.

        Only images count that one run named right and the other wrong; under the hypothesis each of
        them is a toss of a coin. 1 where there are none.
        """
        tossed = self.only_a + self.only_b
        return float(binomtest(self.only_a, tossed).pvalue) if tossed else 1.0


class Difference(NamedTuple):
    """A metric in both runs, over the images in which both have a finite value.

    Args:
        column: which.
        a, b: the means, in the column's unit.
        images: how many there are.
        p: that there is no difference; None of fewer than `FEW` images.
    """

    column: Column
    a: float
    b: float
    images: int
    p: float | None


class Chosen(NamedTuple):
    """Images by who named them right, as places among the pairs, the clearest first."""

    only_a: list[int]
    only_b: list[int]
    neither: list[int]


class ClassCount(NamedTuple):
    """A class: how many images it has, and how many of them each run named right."""

    label: int
    images: int
    right_a: int
    right_b: int


def pair(ids_a: Sequence[str], ids_b: Sequence[str]) -> Pairs:
    """Finds the test images that both runs have.

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
    """Counts who was right."""
    return Outcome(
        int((right_a_N & right_b_N).sum()),
        int((right_a_N & ~right_b_N).sum()),
        int((~right_a_N & right_b_N).sum()),
        int((~right_a_N & ~right_b_N).sum()),
    )


def leads(logits_NC: NDArray[np.floating], labels_N: NDArray[np.int64]) -> NDArray[np.float64]:
    """Returns the logit of the right class less the largest of the others: negative if wrong.

    Args:
        logits_NC: at least two classes.
        labels_N: the right classes.
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
    """Orders the images that a run named wrong.

    Where one run is right, the largest lead of its right class comes first. Where both are wrong,
    the largest lead of their wrong classes, both together; since the logits of two models are of
    different sizes, each in units of the run's mean lead.

    Args:
        right_a_N, right_b_N: whether each run is right.
        lead_a_N, lead_b_N: see `leads`.
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
    """Counts the classes in which accuracy differs, those with the largest difference first."""
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
    """Compares the metrics that both runs have image by image, save accuracy and controls.

    Args:
        images_a, images_b: see `pipeline.metrics.summary.per_image`.
        ids: the images to compare.
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
