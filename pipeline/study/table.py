"""The table of a study: runs that differ in fold and seed only form a row."""

import difflib
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pipeline.datasets.dataset import DATASETS
from pipeline.errors import ProtoMaskError
from pipeline.metrics.group import PERCENT, SHARE, Better, note_on
from pipeline.metrics.names import CONTROLS, EXPLANATIONS, UNDEFINED, taken_apart
from pipeline.parameters import Params
from pipeline.study.commands import queue_command
from pipeline.study.comparison import Standing, compare
from pipeline.study.runs import ORDER, Run

USUAL = [
    "general.accuracy",
    "compactness.global_size",
    "compactness.local_size",
    "contrastivity.vlc",
    "contrastivity.vac",
    "continuity.stability",
    "complexity.object_overlap",
    "complexity.background_overlap",
    "complexity.iou",
    "complexity.consistency",
    "truth.purity",
    "truth.discrimination",
    "truth.decisive_region",
]
"""The metrics shown by default, if they were measured."""

DECIMALS = {PERCENT: 1, "prototypes": 1, "an image": 1}

Repeat = tuple[int, int]
"""Fold and seed."""

Overrides = Callable[[Params], list[str]]
"""Returns the overrides of presets that give these parameters."""

STATES = ("running", "queued", "failed", "unfinished")

NAMED = ("dataset", "model", "segmenter")
"""Sections whose `name` appears in the table's title or in a row's name."""


class Column(NamedTuple):
    """A metric's column.

    Args:
        name: name of the metric, `group.metric`.
        label: its label in the table.
        unit: unit of the values in the table; "" without one.
        better: which direction is better: `higher`, `lower` or `depends`.
        factor: factor from the value in metrics.json to the unit.
        decimals: number of decimals printed.
    """

    name: str
    label: str
    unit: str
    better: Better
    factor: float
    decimals: int


class Cell(NamedTuple):
    """A metric of a row.

    Args:
        mean: mean over the row's runs, in the column's unit.
        std: sample standard deviation over runs; None for one run.
        runs: number of runs that have the metric.
        standing: `best` in the column; `same`: no significant difference from the best; `worse`;
            `untested`.
    """

    mean: float
    std: float | None
    runs: int
    standing: Standing


class Row(NamedTuple):
    """Runs that differ in fold and seed only.

    Args:
        label: name of the row.
        cells: a cell for each column; None if no run has measured the metric.
    """

    label: str
    cells: list[Cell | None]


class Missing(NamedTuple):
    """A run that other rows have and this row lacks.

    Args:
        label: name of the row that lacks it.
        fold, seed: fold and seed of the missing run.
        task: the queued, running or failed run in its place, if there is one.
        command: the command that queues the run.
    """

    label: str
    fold: int
    seed: int
    task: Run | None
    command: str


class Table(NamedTuple):
    """The table of a data set.

    Args:
        dataset: name of the data set.
        columns, rows: the metrics, and their values in each row.
        num_runs: number of runs in all rows.
        num_images: number of distinct test images in all runs.
        repeats: fold and seed of every run that a row should have.
        notes: notes for the reader, in sentences.
        missing: the runs that are missing in a row.
    """

    dataset: str
    columns: list[Column]
    rows: list[Row]
    num_runs: int
    num_images: int
    repeats: list[Repeat]
    notes: list[str]
    missing: list[Missing]


@dataclass
class _Group:
    """A row in the making: its finished runs and others that were to be, by fold and seed."""

    label: str = ""
    runs: dict[Repeat, Run] = field(default_factory=dict)
    tasks: dict[Repeat, Run] = field(default_factory=dict)

    def add(self, run: Run) -> None:
        """Takes a run that was made after those it has."""
        if run.state == "finished":
            earlier = self.runs.get(run.repeat)
            self.runs[run.repeat] = run.completed_by(earlier) if earlier else run
        else:
            rivals = [run, self.tasks.get(run.repeat, run)]
            self.tasks[run.repeat] = min(rivals, key=lambda task: STATES.index(task.state))

    @property
    def asked_for(self) -> list[Repeat]:
        """Fold and seed of all its runs, save those that were never meant to be measured."""
        asked = [repeat for repeat, task in self.tasks.items() if task.state != "unfinished"]
        return [*self.runs, *asked]

    @property
    def drawn(self) -> bool:
        """Whether the images are drawn from the run's seed."""
        name = self.newest.params["dataset"]["name"]
        return name in DATASETS and DATASETS[name].drawn

    @property
    def newest(self) -> Run:
        return max((self.runs or self.tasks).values(), key=lambda run: run.made)

    def values(self, column: Column) -> NDArray[np.float64]:
        """Returns a metric of the runs that have it."""
        of, _, metric = column.name.partition(".")
        found = (_value(run.metrics.get(of, {}), metric) for run in self.runs.values())
        return column.factor * np.array([value for value in found if value is not None], np.float64)

    def mean(self, column: Column) -> float:
        values = self.values(column)
        return float(values.mean()) if len(values) else np.nan

    def cell(self, column: Column, standing: Standing) -> Cell | None:
        values = self.values(column)
        if len(values) == 0:
            return None
        std = float(values.std(ddof=1)) if len(values) > 1 else None
        return Cell(float(values.mean()), std, len(values), standing)

    def row(self, columns: Sequence[Column], standings: Sequence[Standing]) -> Row:
        return Row(self.label, [self.cell(*of) for of in zip(columns, standings, strict=True)])

    def images(self) -> pd.DataFrame | None:
        """Returns an image's values, a mean over runs; None unless they are there for all runs.

        A run in which an image's value is not finite does not count in that mean. Where images are
        drawn, those of another seed are others.
        """
        found, drawn = [], self.drawn
        for (_, seed), run in self.runs.items():
            table = run.images()
            if table is None:
                return None
            if drawn:
                table = table.assign(image=f"{seed}:" + table["image"])
            found.append(table.set_index("image"))
        every = pd.concat(found)
        return every.replace([np.inf, -np.inf], np.nan).groupby(level=0).mean()

    def missing(self, repeats: Sequence[Repeat], overrides: Overrides) -> Iterator[Missing]:
        """Yields what it lacks of the runs that a row should have."""
        params = self.newest.params
        for fold, seed in repeats:
            if (fold, seed) not in self.runs:
                dataset = {**params["dataset"], "fold": fold}
                command = queue_command(overrides({**params, "seed": seed, "dataset": dataset}))
                yield Missing(self.label, fold, seed, self.tasks.get((fold, seed)), command)


def _value(metrics: Mapping[str, float], name: str) -> float | None:
    """Returns a metric; images without a value are counted only where there are any."""
    nothing = 0.0 if name.removesuffix(UNDEFINED) in metrics and name.endswith(UNDEFINED) else None
    return metrics.get(name, nothing)


def tables(runs: Iterable[Run], metrics: Sequence[str], overrides: Overrides) -> list[Table]:
    """Returns a table for each data set.

    Of runs with the same parameters, the latest counts, completed by metrics that only earlier ones
    have measured.

    Args:
        runs: finished and other runs, of any data sets.
        metrics: the metrics to show, as `group.metric`, or as `metric` in any group; empty for
            `USUAL`.
        overrides: function that returns the overrides for given parameters.

    Raises:
        ProtoMaskError: no run is finished, or none has a metric of that name.
    """
    runs = list(runs)
    finished = [run for run in runs if run.state == "finished"]
    if not finished:
        raise ProtoMaskError(
            "no finished experiment: queue some with `dvc exp run --queue evaluate -S seed=0,1,2` "
            "and run them with `dvc queue start`"
        )
    names = _chosen(finished, metrics)
    datasets = sorted({run.dataset for run in finished})
    return [_table([run for run in runs if run.dataset == d], names, overrides) for d in datasets]


def _chosen(runs: list[Run], metrics: Sequence[str]) -> list[str]:
    known = _measured(runs)
    if not metrics:
        return [name for name in USUAL if name in known] or known
    chosen = []
    for wanted in metrics:
        found = [name for name in known if wanted in (name, name.partition(".")[2])]
        if not found:
            bare = [name.partition(".")[2] for name in known]
            near = difflib.get_close_matches(wanted, [*known, *bare], n=3)
            hint = f"did you mean {' or '.join(dict.fromkeys(near))}?" if near else "there are:"
            raise ProtoMaskError(
                f"no run has measured {wanted!r}; {hint}" + ("" if near else f" {', '.join(known)}")
            )
        chosen += found
    return list(dict.fromkeys(chosen))


def _measured(runs: Iterable[Run]) -> list[str]:
    names = (f"{group}.{name}" for run in runs for group, of in run.metrics.items() for name in of)
    return list(dict.fromkeys(names))


def _table(runs: list[Run], names: list[str], overrides: Overrides) -> Table:
    groups = _groups(runs, overrides)
    shown = [group for group in groups if group.runs]
    finished = [run for group in shown for run in group.runs.values()]
    measured = _measured(finished)
    columns = columns_of([name for name in names if name in measured])
    repeats = sorted({repeat for group in groups for repeat in group.asked_for})
    images = [group.images() for group in shown]
    means = np.array([[group.mean(column) for column in columns] for group in shown])
    compared = compare(means, images, columns, [group.label for group in shown])
    rows = [
        group.row(columns, standings)
        for group, standings in zip(shown, compared.standings, strict=True)
    ]
    return Table(
        runs[0].dataset,
        columns,
        rows,
        len(finished),
        len({image for table in images if table is not None for image in table.index}),
        repeats,
        _notes(rows, repeats, compared.notes),
        [missing for group in groups for missing in group.missing(repeats, overrides)],
    )


def _groups(runs: Iterable[Run], overrides: Overrides) -> list[_Group]:
    """Puts the runs of a row together; rows in the order of `ORDER`."""
    found: dict[tuple, _Group] = defaultdict(_Group)
    for run in sorted(runs, key=lambda run: run.made):
        found[tuple(sorted(run.settings().items()))].add(run)
    order = list(ORDER)
    groups = sorted(
        (group for group in found.values() if group.asked_for),
        key=lambda group: (_place(order, group.newest.model), group.newest.model),
    )
    for group, label in zip(groups, _labels(groups, overrides), strict=True):
        group.label = label
    return groups


def _place(order: list[str], model: str) -> int:
    return next((n for n, name in enumerate(order) if model.startswith(name)), len(order))


def _labels(groups: list[_Group], overrides: Overrides) -> list[str]:
    """The models' names, with the overrides that not all rows share."""
    runs = [group.newest for group in groups]
    told = [_told(run, overrides) for run in runs]
    return [
        ", ".join([run.model, *(word for word in words if not _shared(word, runs, told))])
        for run, words in zip(runs, told, strict=True)
    ]


def _shared(override: str, runs: list[Run], told: list[list[str]]) -> bool:
    """Returns whether all of several rows that depend on an override's parameter have it."""
    name = _overridden(override)
    having = [
        override in words for run, words in zip(runs, told, strict=True) if run.depends_on(name)
    ]
    return len(having) > 1 and all(having)


def _told(run: Run, overrides: Overrides) -> list[str]:
    """Returns the overrides that distinguish a row, as in `crops.side=96`.

    Overrides that the table's title or the row's name implies are left out: that a preset of the
    data set, model or segmenter is the one of that name.
    """
    said = {
        f"{key}={run.params[section].get('name')}"
        for section in NAMED
        for key in (section, f"{section}.name")
    }
    return [
        override
        for override in overrides(run.params)
        if override not in said and run.depends_on(_overridden(override))
    ]


def _overridden(override: str) -> str:
    """Returns an override's parameter or group of presets: `crops.side` of `+crops.side=96`."""
    return override.lstrip("+~").partition("=")[0]


def columns_of(names: list[str]) -> list[Column]:
    """Returns the columns of metrics given as `group.metric`."""
    columns = []
    for name in names:
        group, _, metric = name.partition(".")
        apart, note = taken_apart(metric), note_on(group, metric)
        ways = [EXPLANATIONS.get(apart.explanation), CONTROLS.get(apart.control)]
        label = ", ".join([note.label, *(way for way in ways if way)])
        if apart.undefined:
            columns.append(Column(name, f"{label}, left out", "images", "depends", 1, 1))
        elif note.unit == SHARE:
            columns.append(Column(name, label, PERCENT, note.better, 100, 1))
        else:
            decimals = DECIMALS.get(note.unit, 3)
            columns.append(Column(name, label, note.unit, note.better, 1, decimals))
    counts = Counter(column.label for column in columns)
    return [
        column
        if counts[column.label] == 1
        else column._replace(label=f"{column.label} ({column.name.partition('.')[0]})")
        for column in columns
    ]


def _notes(rows: list[Row], repeats: list[Repeat], on_tests: list[str]) -> list[str]:
    cells = [cell for row in rows for cell in row.cells]
    some_missing = any(cell and cell.runs < len(repeats) for cell in cells)
    not_measured = ["–: not measured."] if None in cells else []
    return [_about_runs(repeats, some_missing), *on_tests, *not_measured]


def _about_runs(repeats: list[Repeat], some_missing: bool) -> str:
    folds, seeds = ({repeat[place] for repeat in repeats} for place in (0, 1))
    if len(repeats) == 1:
        return "One run a row."
    product = len(folds) * len(seeds) == len(repeats)
    of = f" ({_several(folds, 'fold')} × {_several(seeds, 'seed')})" if product else ""
    fewer = " n: how many, where some are missing." if some_missing else ""
    return f"Mean ± sample standard deviation over {len(repeats)} runs{of}.{fewer}"


def _several(of: set[int], noun: str) -> str:
    return f"{len(of)} {noun}" + ("s" if len(of) > 1 else "")
