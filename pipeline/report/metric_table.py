"""The metrics as tables, with confidence intervals and the values of controls."""

import math
from typing import NamedTuple

import pandas as pd

from pipeline.metrics.group import Note, note_on, question_of
from pipeline.metrics.names import CONTROLS, EXPLANATIONS, OWN, taken_apart
from pipeline.saliency.views import Kind

SAME = 1e-6
"""An interval narrower than this is written with two decimals."""


class Measured(NamedTuple):
    """The results of the stage evaluate.

    Args:
        metrics: value by group and metric.
        intervals: 95 % confidence interval, as {low, high}, by group and metric.
        unavailable: the reason why a metric was not measured, by group and metric.
        no_better: for each control, the metrics of the group `truth` in which the model is no
            better.
        remarks: a remark on all metrics of a group, by group.
        plots: tables by the plots' names.
    """

    metrics: dict[str, dict[str, float]]
    intervals: dict[str, dict[str, dict[str, float]]]
    unavailable: dict[str, dict[str, str]]
    no_better: dict[str, list[str]]
    remarks: dict[str, str]
    plots: dict[str, pd.DataFrame]


class Figure(NamedTuple):
    """A metric's value, formatted.

    Args:
        value: the number as text; a dash if there is none.
        interval: the 95 % confidence interval as text; empty if there is none.
        left_out: number of images for which the metric is undefined.
    """

    value: str
    interval: str
    left_out: int


class Row(NamedTuple):
    """A metric's row in a table.

    Args:
        name: the metric's name in metrics.json, without a control's suffix.
        note: label of the metric and how to read it.
        by: what drew the saliency maps, if the table has rows for several explanations.
        span: in the first row of a metric, its number of rows; 0 in the others.
        ours: the value measured on the model.
        controls: the value of each control, in the order of the table's columns.
    """

    name: str
    note: Note
    by: str
    span: int
    ours: Figure
    controls: list[Figure]


class Table(NamedTuple):
    """The table of a group of metrics.

    Args:
        group: the group's name, such as `compactness`.
        question: the question that the group's metrics answer.
        controls: names of the controls, which have columns beside the model's.
        rows: the rows of the group's metrics.
        missing: labels of the metrics that were not measured, by the reason.
        remark: a remark on all metrics of the group; may be empty.
        no_better: for each control, the metrics in which the model is no better; None without
            controls.
    """

    group: str
    question: str
    controls: list[str]
    rows: list[Row]
    missing: dict[str, list[str]]
    remark: str
    no_better: dict[str, list[str]] | None


def tables(measured: Measured, kind: Kind) -> list[Table]:
    """Returns the table of each group that was measured, or could not be.

    Args:
        measured: the results of the stage evaluate.
        kind: the kind of the model's views, which some descriptions depend on.
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
        question_of(group),
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
    """Formats an interval with as many decimals as show its width to two digits."""
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
