"""The best row of a table in each column, and the rows that do not differ significantly from it."""

from collections.abc import Iterator, Sequence
from typing import Literal, NamedTuple, Protocol

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pipeline.study.significance import LEVEL, RESAMPLES, paired_bootstrap

Standing = Literal["", "best", "same", "worse", "untested"]

FEW = 20


class Metric(Protocol):
    """A column of the comparison."""

    @property
    def name(self) -> str:
        """The metric's name, `group.metric`."""
        ...

    @property
    def label(self) -> str:
        """The metric's label in a table."""
        ...

    @property
    def better(self) -> str:
        """Which values are better: `higher`, `lower` or `depends`."""
        ...


class Compared(NamedTuple):
    """The result of a comparison of rows.

    Args:
        standings: standing of each row (outer list) in each column; "" where nothing is compared.
        notes: how the differences were tested, and which were not, in sentences.
    """

    standings: list[list[Standing]]
    notes: list[str]


class _Pair(NamedTuple):
    row: int
    best: int
    column: int


def compare(
    means_RC: NDArray[np.float64],
    images: Sequence[pd.DataFrame | None],
    columns: Sequence[Metric],
    labels: Sequence[str],
) -> Compared:
    """Finds the best row of each column, and tests the others against it.

    The test is a paired bootstrap over the images that both rows have. Two rows are not tested if
    they share less than half of their images, or fewer than `FEW` images with a value in both.

    Args:
        means_RC: the rows' means, float64 R×C; NaN where there is none.
        images: for each row, a table with a value for each image (index) and metric (column), NaN
            where undefined; None if it is not available.
        columns: the C metrics that are compared.
        labels: names of the R rows, for the notes.
    """
    pairs = list(_pairs(means_RC, columns))
    standings: list[list[Standing]] = [["" for _ in columns] for _ in labels]
    untested: list[str] = []
    tested: dict[_Pair, pd.Series] = {}
    for pair in pairs:
        standings[pair.best][pair.column] = "best"
        tie = means_RC[pair.row, pair.column] == means_RC[pair.best, pair.column]
        standings[pair.row][pair.column] = "best" if tie else "untested"
        found = "" if tie else _differences(pair, images, columns[pair.column].name, labels)
        if isinstance(found, pd.Series):
            tested[pair] = found
        elif found:
            untested.append(found)
    if tested:
        together = pd.concat(list(tested.values()), axis=1).sort_index()
        for pair, p in zip(tested, paired_bootstrap(together.to_numpy()), strict=True):
            standings[pair.row][pair.column] = "same" if p >= LEVEL else "worse"
    return Compared(standings, _notes(pairs, bool(tested), untested, columns, images))


def _pairs(means_RC: NDArray[np.float64], columns: Sequence[Metric]) -> Iterator[_Pair]:
    """Yields each row but the best with the best of its column, where a direction is better."""
    for number, column in enumerate(columns):
        means_R = means_RC[:, number] * (-1 if column.better == "lower" else 1)
        there = np.flatnonzero(np.isfinite(means_R))
        if column.better == "depends" or len(there) < 2:
            continue
        best = int(np.nanargmax(means_R))
        yield from (_Pair(int(row), best, number) for row in there if row != best)


def _differences(
    pair: _Pair, images: Sequence[pd.DataFrame | None], name: str, labels: Sequence[str]
) -> pd.Series | str:
    """Returns the differences by image, or why there is no test; "" if no row has such values."""
    if not any(name in table for table in images if table is not None):
        return ""
    row, best = images[pair.row], images[pair.best]
    for table, label in ((row, labels[pair.row]), (best, labels[pair.best])):
        if table is None or name not in table:
            return f"{label}, of which the values of single images are not here"
    assert row is not None and best is not None
    between = f"{labels[pair.row]} against {labels[pair.best]}"
    shared, most = len(row.index.intersection(best.index)), max(len(row), len(best))
    differences = row[name] - best[name]
    defined = int(differences.notna().sum())
    if 2 * shared < most:
        return f"{between}, which share {shared} of {most} test images"
    if defined < FEW:
        return f"{between} in `{name}`, which both have on {defined} test images only"
    return differences


def _notes(
    pairs: list[_Pair],
    tested: bool,
    untested: list[str],
    columns: Sequence[Metric],
    images: Sequence[pd.DataFrame | None],
) -> list[str]:
    if not pairs:
        return []
    notes = ["Bold: the best of a column."]
    if tested:
        notes.append(
            f"†: not significantly different from the best (p ≥ {LEVEL:g}, two-sided; paired "
            f"bootstrap over the test images with {RESAMPLES:,} resamples, a row's runs averaged "
            "image by image; not corrected for the number of comparisons)."
        )
    here = [table for table in images if table is not None]
    compared = [column for n, column in enumerate(columns) if any(n == p.column for p in pairs)]
    untestable = [c.label for c in compared if not any(c.name in table for table in here)]
    if untestable and here:
        notes.append(f"Not tested, since no mean over images: {', '.join(untestable)}.")
    elif untestable:
        notes.append("Nothing is tested: the values of single images are not here.")
    if untested:
        notes.append(f"Not tested: {'; '.join(dict.fromkeys(untested))}.")
    return notes
