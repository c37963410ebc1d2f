"""The model card of an exported model, as the Hugging Face hub shows it."""

import re
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import jinja2
import yaml

import pipeline
from pipeline.datasets.index import SPLITS
from pipeline.metrics.group import note_on, question_of
from pipeline.metrics.names import EXPLANATIONS, taken_apart
from pipeline.parameters import flat, written
from pipeline.saliency.prototypes import Prototypes
from protomask.exported import PICTURES, picture_name
from stages.finished import Finished

MOST_CLASSES, SHOWN = 200, 12
RANGE = re.compile(r"\S+ to \S+")
"""Of a unit that is none."""
Metrics = Mapping[str, Mapping[str, Any]]


class Measured(NamedTuple):
    """A row of one of the card's tables of metrics.

    Args:
        label: what the metric is called.
        value: its value on the test images, as text.
        interval: its 95 % interval, as text; empty for a metric that is no mean over images.
        meaning: what it says, in a sentence.
    """

    label: str
    value: str
    interval: str
    meaning: str


def write_card(
    path: Path, finished: Finished, prototypes: Prototypes, metrics: Metrics, intervals: Metrics
) -> None:
    """Writes the model card.

    Args:
        path: path of README.md.
        finished: the experiment.
        prototypes: the model's prototypes.
        metrics: group → metric → value, on the test images.
        intervals: group → metric → `low` and `high`, of those that have an interval.
    """
    index, about = finished.index, finished.about
    pictures = [
        (about.class_names[label], groups[0][0])
        for label in range(len(about.class_names))
        if (groups := prototypes.distinct(label))
    ]
    text = _template().render(
        front=yaml.safe_dump(_front(finished, metrics), allow_unicode=True, sort_keys=False),
        data_set=index.dataset,
        counts=[(len(index.rows(split)), split) for split in SPLITS],
        class_names=about.class_names[:MOST_CLASSES],
        num_more=max(0, len(about.class_names) - MOST_CLASSES),
        version=pipeline.__version__,
        num_classes=len(about.class_names),
        num_prototypes=len(prototypes),
        label=finished.network.label,
        kind=prototypes.views.kind,
        not_learned=about.not_learned,
        tables=[
            (group, question_of(group), rows)
            for group, values in metrics.items()
            if (rows := list(_rows(group, values, intervals.get(group, {}), prototypes)))
        ],
        made_with=sorted(
            (name, written(value))
            for values in about.made_with.values()
            for name, value in flat(values).items()
        ),
        segmenter=about.segmenter["name"],
        pictures=[
            (name, f"{PICTURES}/{picture_name(number)}") for name, number in pictures[:SHOWN]
        ],
    )
    path.write_text(text, encoding="utf-8")


def _front(finished: Finished, metrics: Metrics) -> dict[str, Any]:
    """Returns what the hub reads of the card."""
    accuracy = metrics.get("general", {}).get("accuracy")
    front: dict[str, Any] = {
        "library_name": "protomask",
        "pipeline_tag": "image-classification",
        "tags": ["prototype-learning", "interpretability", finished.network.settings.name],
    }
    if accuracy is not None:
        data_set = finished.index.dataset
        result = {
            "task": {"type": "image-classification"},
            "dataset": {"name": data_set, "type": data_set, "split": "test"},
            "metrics": [{"type": "accuracy", "value": accuracy, "name": "Test accuracy"}],
        }
        name = f"{finished.network.label} on {data_set}"
        front["model-index"] = [{"name": name, "results": [result]}]
    return front


def _rows(
    group: str, values: Mapping[str, Any], intervals: Mapping[str, Any], prototypes: Prototypes
) -> Iterator[Measured]:
    for name, value in values.items():
        note = note_on(group, name, prototypes.views.kind)
        told = taken_apart(name)
        if told.undefined or told.control:
            continue
        by = EXPLANATIONS.get(told.explanation)
        label = f"{note.label} (by {by})" if by else note.label
        known = intervals.get(name)
        interval = f"{_text(known['low'])}–{_text(known['high'])}" if known else ""
        unit = "" if RANGE.fullmatch(note.unit) else note.unit.partition(",")[0]
        yield Measured(label, f"{_text(value)} {unit}".rstrip(), interval, note.meaning)


def _text(value: float) -> str:
    return f"{value:.4g}"


@cache
def _template() -> jinja2.Template:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("protomask", "templates"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters["cell"] = lambda text: str(text).replace("|", "\\|").replace("\n", " ")
    return environment.get_template("card.md.jinja")
