"""Metrics as tables: names taken apart, intervals, controls, what is missing."""

from typing import Any

import pytest

from pipeline.metrics.group import METRIC_GROUPS, note_on
from pipeline.metrics.names import CONTROLS, EXPLANATIONS, Name, taken_apart
from pipeline.report.metric_table import Figure, Measured, Table, tables
from pipeline.saliency.views import Kind

GROUPS = {name: METRIC_GROUPS[name] for name in METRIC_GROUPS.own()}
NOTES = {name: group.notes for name, group in GROUPS.items()}
OF_CELLS = {name: group.cell_notes for name, group in GROUPS.items()}


def table(
    metrics: dict[str, float], group: str = "truth", kind: Kind = "crops", **fields: Any
) -> Table:
    parts: dict[str, Any] = {
        "intervals": {},
        "unavailable": {},
        "no_better": {},
        "remarks": {},
        "plots": {},
    }
    (found,) = tables(Measured({group: metrics}, **(parts | fields)), kind)
    return found


def test_every_known_metric_has_a_meaning_of_one_line() -> None:
    notes = [note for of in (NOTES, OF_CELLS) for group in of.values() for note in group.values()]
    assert all(note.label and note.unit and 0 < len(note.meaning) < 90 for note in notes)


@pytest.mark.parametrize(("group", "metric"), [(g, m) for g, names in NOTES.items() for m in names])
def test_names_come_apart_as_they_were_put_together(group: str, metric: str) -> None:
    for explanation in ("", *EXPLANATIONS):
        for control in ("", *CONTROLS):
            for undefined in ("", "undefined"):
                name = "_".join(filter(None, (metric, explanation, control, undefined)))
                assert taken_apart(name) == Name(metric, explanation, control, bool(undefined))
                assert note_on(group, name) == NOTES[group][metric]


def test_rows_of_one_metric_follow_each_other() -> None:
    found = table({"vlc": 1, "stability": 2, "vlc_prp": 3, "vlc_grad": 4}, "continuity")
    assert [(row.name, row.by, row.span, row.ours.value) for row in found.rows] == [
        ("vlc", "mask", 3, "1"),
        ("vlc_prp", "PRP", 0, "3"),
        ("vlc_grad", "gradient", 0, "4"),
        ("stability", "", 1, "2"),
    ]
    assert found.no_better is None


@pytest.mark.parametrize(("kind", "by"), [("cells", "similarity map"), ("image", "gradient")])
def test_what_mask_stands_for_is_said(kind: Kind, by: str) -> None:
    found = table({"vlc": 1, "vlc_prp": 3}, "continuity", kind)
    assert [row.by for row in found.rows] == [by, "PRP"]


def test_cells_are_not_called_crops() -> None:
    for group, names in OF_CELLS.items():
        for name in names:
            assert name in NOTES[group] and "crop" not in note_on(group, name, "cells").meaning
            assert note_on(group, name) == note_on(group, name, "image") == NOTES[group][name]
    assert note_on("continuity", "vlc", "cells") == NOTES["continuity"]["vlc"]


def test_a_remark_stands_with_its_group() -> None:
    why = "birds has no object masks: boxes stand in for them"
    assert table({"iou": 1}, "complexity", remarks={"complexity": why}).remark == why
    assert table({"iou": 1}, "complexity").remark == ""


def test_a_metric_by_another_explanation_alone_says_so() -> None:
    (row,) = table({"vlc_prp": 3}, "continuity").rows
    assert (row.by, row.span, row.note.label) == ("PRP", 1, "Location change")


def test_controls_stand_beside_the_models_own() -> None:
    found = table(
        {
            "purity_prp": 81.2512,
            "purity_prp_undefined": 2,
            "purity_prp_random_prototypes": 80.0,
            "purity_prp_random_weights_undefined": 30,
        },
        intervals={"truth": {"purity_prp_random_prototypes": {"low": 75.0, "high": 85.0}}},
        no_better={"random_weights": [], "random_prototypes": ["purity_prp"]},
    )
    (row,) = found.rows
    assert found.controls == ["random weights", "random prototypes"]
    assert row.ours == Figure("81.25", "", 2)
    assert row.controls == [Figure("–", "", 30), Figure("80", "75–85", 0)]
    assert found.no_better == {"random weights": [], "random prototypes": ["Purity (PRP)"]}


@pytest.mark.parametrize(
    ("low", "high", "said"),
    [
        (0.9437, 0.9792, "0.944–0.979"),
        (12.34, 13.1, "12.34–13.10"),
        (1203.4, 1350.2, "1203–1350"),
        (-0.26, -0.05, "−0.26 to −0.05"),
        (-0.0001, 0.3, "0.00–0.30"),
        (100.0, 100.0, "100.00–100.00"),
    ],
)
def test_an_interval_is_as_fine_as_it_is_wide(low: float, high: float, said: str) -> None:
    intervals = {"truth": {"purity": {"low": low, "high": high}}}
    assert table({"purity": 1.0}, intervals=intervals).rows[0].ours.interval == said


def test_what_was_not_measured_is_gathered_by_its_reason() -> None:
    why = {"complexity": {"iou": "no masks", "ior": "no masks", "consistency": "no parts"}}
    none = Measured({"general": {}, "complexity": {}}, {}, why, {}, {}, {})
    (found,) = tables(none, "crops")
    assert (found.group, found.rows) == ("complexity", [])
    assert found.missing == {"no masks": ["IoU", "IOR"], "no parts": ["Consistency"]}


def test_a_metric_that_nobody_described_is_shown_by_its_name() -> None:
    found = table({"rain_days": 12.0}, "weather")
    assert (found.group, found.question) == ("weather", "")
    assert (found.rows[0].note.label, found.rows[0].ours.value) == ("rain days", "12")
