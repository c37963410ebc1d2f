"""What was measured, as tables: each metric, how sure it is, and what its controls have."""

import math
from typing import NamedTuple

import pandas as pd

from pipeline.metrics.descriptions import (
    CONTROLS,
    EXPLANATIONS,
    GROUPS,
    OWN,
    Note,
    note_on,
    taken_apart,
)
from pipeline.saliency.views import Kind

SAME = 1e-6
"""The ends of an interval that is no wider than this are written as the same."""


class Measured(NamedTuple):
    """What the stage evaluate has found.

    Args:
        metrics: group → metric → number.
        intervals: group → metric → {low, high}.
        unavailable: group → metric → why it was not measured.
        no_better: control → metrics of the group `truth` in which ours is no better.
        remarks: group → what is to be known of all its metrics.
        plots: name → table.
    """

    metrics: dict[str, dict[str, float]]
    intervals: dict[str, dict[str, dict[str, float]]]
    unavailable: dict[str, dict[str, str]]
    no_better: dict[str, list[str]]
    remarks: dict[str, str]
    plots: dict[str, pd.DataFrame]


class Figure(NamedTuple):
    """A number ready to print: with its 95 % interval, and how many images are left out."""

    value: str
    interval: str
    left_out: int


class Row(NamedTuple):
    """A metric as it stands in a table.

    Args:
        name: as in metrics.json.
        note: how to read it.
        by: what drew the saliency maps, where the table has rows for several of these.
        span: how many rows are of the same metric, given in the first of them; 0 in the others.
        ours: what was measured of the model.
        controls: and of each control.
    """

    name: str
    note: Note
    by: str
    span: int
    ours: Figure
    controls: list[Figure]


class Table(NamedTuple):
    """A group of metrics.

    Args:
        group: its name.
        question: what it answers.
        controls: the columns beside the model's own.
        rows: its metrics.
        missing: why → the metrics that were not measured.
        remark: what is to be known of all of them, or nothing.
        no_better: control → the metrics in which the model is no better; None without controls.
    """

    group: str
    question: str
    controls: list[str]
    rows: list[Row]
    missing: dict[str, list[str]]
    remark: str
    no_better: dict[str, list[str]] | None


def tables(measured: Measured, kind: Kind) -> list[Table]:
    """Returns a table for each group that was measured, or was to be.

    Args:
        measured: what the stage evaluate has found.
        kind: of the model's views.
    """
    groups = dict.fromkeys([*measured.metrics, *measured.unavailable])
    found = [_table(group, measured, kind) for group in groups]
    return [table for table in found if table.rows or table.missing]


def _table(group: str, measured: Measured, kind: Kind) -> Table:
    values = measured.metrics.get(group, {})
    intervals = measured.intervals.get(group, {})
    names = [taken_apart(name) for name in values]
    controls = [control for control in CONTROLS if any(n.control == control for n in names)]
    kinds = dict.fromkeys((name.metric, name.explanation) for name in names)
    metrics = list(dict.fromkeys(metric for metric, _ in kinds))
    rows = []
    for metric in metrics:
        explanations = [explanation for of, explanation in kinds if of == metric]
        for place, explanation in enumerate(explanations):
            name = f"{metric}_{explanation}" if explanation else metric
            by = EXPLANATIONS.get(explanation, OWN[kind] if len(explanations) > 1 else "")
            figures = [
                _figure(f"{name}_{control}" if control else name, values, intervals)
                for control in ["", *controls]
            ]
            span = len(explanations) if place == 0 else 0
            rows.append(Row(name, note_on(group, metric, kind), by, span, figures[0], figures[1:]))
    return Table(
        group,
        GROUPS.get(group, ""),
        [CONTROLS[control] for control in controls],
        rows,
        _by_reason(group, measured.unavailable.get(group, {})),
        measured.remarks.get(group, ""),
        _no_better(group, measured) if controls else None,
    )


def _figure(name: str, values: dict[str, float], intervals: dict[str, dict[str, float]]) -> Figure:
    value = f"{values[name]:.4g}" if name in values else "–"
    interval = _interval(**intervals[name]) if name in intervals else ""
    return Figure(_minus(value), interval, int(values.get(f"{name}_undefined", 0)))


def _interval(low: float, high: float) -> str:
    """Writes an interval with so many decimals that its width has two figures."""
    width = high - low
    decimals = max(0, 1 - math.floor(math.log10(width))) if width > SAME else 2
    ends = [f"{round(end, decimals) + 0.0:.{decimals}f}" for end in (low, high)]
    return _minus((" to " if "-" in "".join(ends) else "–").join(ends))


def _by_reason(group: str, missing: dict[str, str]) -> dict[str, list[str]]:
    reasons: dict[str, list[str]] = {}
    for name, why in missing.items():
        reasons.setdefault(why, []).append(note_on(group, name).label)
    return reasons


def _no_better(group: str, measured: Measured) -> dict[str, list[str]]:
    return {
        CONTROLS.get(control, control): [_label(group, name) for name in names]
        for control, names in measured.no_better.items()
    }


def _label(group: str, name: str) -> str:
    by = EXPLANATIONS.get(taken_apart(name).explanation)
    return note_on(group, name).label + (f" ({by})" if by else "")


def _minus(text: str) -> str:
    return text.replace("-", "−")
