"""Which classes are taken for which: a matrix, and the images of the most frequent confusions."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pipeline.report.pages import Picture

SIDE, LARGEST_STEP, LETTER, FEW = 1000, 60, 8.5, 40
NUM_PAIRS, NUM_IMAGES = 8, 6
FAINTEST = 0.25


class Cell(NamedTuple):
    """A field of the matrix with images.

    Args:
        actual, named: numbers of the images' class and of the class that they are given, 0..C−1.
        images: the number of these images.
        x, y: the field's upper left corner, in units of the matrix.
        share: opacity, in [0, 1]: the more of the class's images, the more.
        said: the field in words.
    """

    actual: int
    named: int
    images: int
    x: float
    y: float
    share: float
    said: str


class Matrix(NamedTuple):
    """A confusion matrix.

    Args:
        side: its side, in its own units (SVG).
        left: where its fields begin, from the left and from above.
        step: side of a field.
        names: name of each class and the middle of its row and column; none if they are too many.
        cells: the fields with images.
        said: what it shows, in a sentence.
    """

    side: float
    left: float
    step: float
    names: list[tuple[str, float]]
    cells: list[Cell]
    said: str


class Pair(NamedTuple):
    """A class whose images are taken for another.

    Args:
        actual, named: numbers of the two classes, 0..C−1.
        images: the number of these images.
        of: the number of all images of the class.
        pictures: place and picture of the first of them.
    """

    actual: int
    named: int
    images: int
    of: int
    pictures: list[tuple[int, Picture]]


def confusion_matrix(
    actual_N: NDArray[np.int64], named_N: NDArray[np.int64], names: Sequence[str]
) -> Matrix:
    """Draws which classes are named which.

    Args:
        actual_N: the images' classes, int64 N, 0..C−1.
        named_N: the classes that they are given, int64 N.
        names: names of the C classes.
    """
    C = len(names)
    counts_CC = np.zeros((C, C), np.int64)
    np.add.at(counts_CC, (actual_N, named_N), 1)
    left = 0.0 if C > FEW else min(LETTER * max(map(len, names)) + 12, SIDE / 2)
    step = round(min((SIDE - left) / C, LARGEST_STEP), 2)
    of_C = counts_CC.sum(axis=1)
    cells = [
        Cell(
            a,
            n,
            int(counts_CC[a, n]),
            round(left + n * step, 2),
            round(left + a * step, 2),
            round(FAINTEST + (1 - FAINTEST) * float(counts_CC[a, n] / of_C[a]), 2),
            f"{names[a]}, {'rightly' if a == n else 'named ' + names[n]}: "
            f"{counts_CC[a, n]} of {of_C[a]}",
        )
        for a, n in np.argwhere(counts_CC).tolist()
    ]
    wrong = int((actual_N != named_N).sum())
    pairs = int(((counts_CC > 0) & ~np.eye(C, dtype=bool)).sum())
    said = "No image is named wrong."
    if wrong:
        said = f"Named wrong: {_count(wrong, 'image')}, in {_count(pairs, 'pair')} of classes."
    middle = [(name, round(left + step * (at + 0.5), 1)) for at, name in enumerate(names)]
    side = round(left + C * step, 1)
    return Matrix(side, left, step, middle if C <= FEW else [], cells, said)


def confused_pairs(
    actual_N: NDArray[np.int64],
    named_N: NDArray[np.int64],
    draw: Callable[[int], Picture],
) -> list[Pair]:
    """Returns the classes that are most often taken for another, the most frequent first.

    Args:
        actual_N: the images' classes, int64 N, 0..C−1.
        named_N: the classes that they are given, int64 N.
        draw: draws an image by its place, 0..N−1.
    """
    wrong = np.flatnonzero(actual_N != named_N)
    labels = np.stack([actual_N[wrong], named_N[wrong]], axis=1)
    pairs, counts = np.unique(labels, axis=0, return_counts=True)
    found = []
    for at in np.argsort(-counts, kind="stable")[:NUM_PAIRS].tolist():
        actual, named = pairs[at].tolist()
        places = wrong[(labels == pairs[at]).all(axis=1)].tolist()
        pictures = [(place, draw(place)) for place in places[:NUM_IMAGES]]
        found.append(Pair(actual, named, len(places), int((actual_N == actual).sum()), pictures))
    return found


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'s' if number > 1 else ''}"
