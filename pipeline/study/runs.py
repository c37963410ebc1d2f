"""A run of the experiment, and which runs differ in fold and seed only."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import pandas as pd

from pipeline.masks.segmenter import SEGMENTERS
from pipeline.metrics.names import UNDEFINED
from pipeline.model.base.models import MODELS
from pipeline.parameters import Params, flat

State = Literal["finished", "failed", "queued", "running", "unfinished"]

ORDER = ("ProtoMask", "ProtoPNet", "PIP-Net", "ProtoPool", "Black box")
"""Models in the order of a table's rows; others follow."""

APART = ("dataset.name", "dataset.num_classes")
REPEATED = ("seed", "dataset.fold")
WITHOUT_EFFECT = ("dataset.root", "dataset.source", "dataset.scanned", "dataset.code", "model.code")
LATER = ("runtime.", "explain.", "evaluate.")
"""Sections that change neither the model nor the meaning of a metric, except `MEANING`."""

MEANING = "evaluate.top_k"

SIDE = ("crops.side", "crops.size")
"""The parameter of the crops' side: its name, and its name in earlier versions."""


@dataclass(frozen=True)
class Run:
    """One run of the experiment.

    Args:
        name: name of DVC's experiment, or of the commit.
        params: content of the run's params.yaml.
        state: `finished`, or why there are no metrics.
        metrics: value by group and metric, as in metrics.json.
        images: returns the table of images.parquet; None if it is not available.
        made: time of the run, in seconds since 1970.
    """

    name: str
    params: Params
    state: State = "finished"
    metrics: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    images: Callable[[], pd.DataFrame | None] = lambda: None
    made: float = 0.0

    @property
    def dataset(self) -> str:
        """The data set's name, with the number of classes if only some are kept."""
        dataset = self.params["dataset"]
        kept = dataset.get("num_classes")
        return dataset["name"] + (f" ({kept} classes)" if kept else "")

    @property
    def repeat(self) -> tuple[int, int]:
        """The run's fold and seed."""
        return self.params["dataset"].get("fold", 0), self.params["seed"]

    @property
    def model(self) -> str:
        """The model's name as in papers; for ProtoMask with the segmenter of its crops."""
        name = _model(self.params)
        label = MODELS[name].label if name in MODELS else name
        if _sees_whole_images(name):
            return label
        segmenter = self.params["segmenter"]["name"]
        known = SEGMENTERS[segmenter].label if segmenter in SEGMENTERS else ""
        return f"{label} ({known or segmenter})"

    def settings(self) -> dict[str, str]:
        """The parameters, as text by dotted name, in which the runs of a row agree."""
        flattened = flat(self.params).items()
        return {name: written(value) for name, value in flattened if self.depends_on(name)}

    def completed_by(self, older: "Run") -> "Run":
        """Returns the run with the metrics added that only an older run has measured.

        Args:
            older: a run with the same settings, fold and seed, which may have measured other groups
                of metrics or other explanations.
        """
        added = {
            group: {name: value for name, value in of.items() if not self._measured(group, name)}
            for group, of in older.metrics.items()
        }
        if not any(added.values()):
            return self
        groups = {**self.metrics, **added}
        metrics = {of: {**self.metrics.get(of, {}), **added.get(of, {})} for of in groups}
        return replace(self, metrics=metrics, images=lambda: _joined(self.images(), older.images()))

    def _measured(self, group: str, name: str) -> bool:
        """Returns whether it has a metric, or the number of images in which it is undefined."""
        metric = name.removesuffix(UNDEFINED)
        return not {metric, metric + UNDEFINED}.isdisjoint(self.metrics.get(group, {}))

    def depends_on(self, name: str) -> bool:
        """Returns whether a parameter or group of presets distinguishes rows for this run's model.

        Models other than ProtoMask see whole images: of the parameters of masks and crops, only the
        side that images are resized to matters to them.
        """
        whole = _sees_whole_images(_model(self.params))
        return _tells_apart(name) and not (whole and _of_crops(name))


def written(value: Any) -> str:
    """Formats a parameter's value; 1 and 1.0 are the same."""
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return value if isinstance(value, str) else json.dumps(value)


def _sees_whole_images(name: str) -> bool:
    """Whether a model looks at whole images; one that is not registered here, at crops."""
    return name in MODELS and MODELS[name].sees == "whole"


def _model(params: Params) -> str:
    name: str = params["model"].get("name", "protomask")
    return name


def _tells_apart(name: str) -> bool:
    elsewhere = name in (*APART, *REPEATED, *WITHOUT_EFFECT) or f"{name}.".startswith(LATER)
    return name == MEANING or not elsewhere


def _of_crops(name: str) -> bool:
    return f"{name}.".startswith(("segmenter.", "crops.")) and name not in SIDE


def _joined(newer: pd.DataFrame | None, older: pd.DataFrame | None) -> pd.DataFrame | None:
    """Adds the columns that only the older table has, image by image; None without both tables."""
    if newer is None or older is None:
        return None
    only_older = older.columns.difference(newer.columns, sort=False)
    return newer.merge(older[["image", *only_older]], on="image", how="outer")
