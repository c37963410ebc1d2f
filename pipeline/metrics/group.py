"""The interface of a group of metrics, and the registry of all groups."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar, Literal, NamedTuple, TypeVar

from pipeline.metrics.names import taken_apart
from pipeline.registry import Registry

if TYPE_CHECKING:
    import pandas as pd
    from torch import Tensor

    from pipeline.metrics import Values
    from pipeline.metrics.evidence import Batch, Drawn, Evidence
    from pipeline.saliency.views import Kind

Better = Literal["higher", "lower", "depends"]

SHARE, PERCENT = "0 to 1", "%"
"""Units of metrics; the comparison of runs shows a share in per cent."""


class Note(NamedTuple):
    """How to read a metric.

    Args:
        label: the metric's name in the report.
        unit: unit or range of the number as written to metrics.json.
        better: which direction is better; `depends` if neither is.
        meaning: a description of the metric in one sentence.
        proportion: whether an image's value is 1 or 0, so that the mean is a proportion.
    """

    label: str
    unit: str
    better: Better
    meaning: str
    proportion: bool = False


class MetricGroup(ABC):
    """A group of metrics, computed from a model's outputs and explanations for a split.

    A group overrides those of the methods that it needs. `measuring.measure` calls them so that
    each image is read, explained and evaluated once for all groups.

    Attributes:
        cell_notes: the notes that differ for models that compare prototypes with cells.
        needs_prototypes: whether none of the metrics exists for a model without prototypes.
        needs_objects: whether metrics are about the images' object masks.
    """

    cell_notes: ClassVar[Mapping[str, Note]] = {}
    needs_prototypes: ClassVar[bool] = False
    needs_objects: ClassVar[bool] = False

    @property
    @abstractmethod
    def name(self) -> str:
        """The group's name, as in the parameter `evaluate.groups`."""

    @property
    @abstractmethod
    def question(self) -> str:
        """The question that the group's metrics answer."""

    @property
    @abstractmethod
    def notes(self) -> Mapping[str, Note]:
        """How to read each metric, by its name in metrics.json."""

    def measure(self, evidence: "Evidence") -> "Values":
        """Returns the metrics that are computed from the outputs for all images at once.

        Args:
            evidence: a model's outputs for the N images of a split.
        """
        return {}

    def of_batch(self, batch: "Batch") -> "dict[str, Tensor]":
        """Measures a batch of images, for what is too large to hold for all images at once.

        Args:
            batch: the B images, with the model's outputs for them.

        Returns:
            name → a tensor whose first dimension is B.
        """
        return {}

    def from_batches(self, evidence: "Evidence", gathered: "dict[str, Tensor]") -> "Values":
        """Returns the metrics, from the results of `of_batch`; by default these results.

        Args:
            evidence: a model's outputs for the N images of a split.
            gathered: the results of `of_batch` for all N images, by name.
        """
        return {**gathered}

    def of_maps(self, batch: "Batch", drawn: "Drawn") -> "dict[str, Tensor]":
        """Measures a batch's saliency maps, once for each explanation.

        Args:
            batch: the B images, with the model's outputs for them.
            drawn: the saliency maps and masks of the images' k prototypes.

        Returns:
            name → a tensor whose first dimension is B.
        """
        return {}

    def from_maps(self, evidence: "Evidence", gathered: "dict[str, Tensor]") -> "Values":
        """Returns the metrics, from the results of `of_maps`; by default these results.

        Args:
            evidence: a model's outputs for the N images of a split.
            gathered: the results of `of_maps` for all N images, by name.
        """
        return {**gathered}

    def unavailable(self, evidence: "Evidence") -> dict[str, str]:
        """Returns the metrics that cannot be measured: name → reason.

        Args:
            evidence: a model's outputs for the N images of a split.
        """
        return {}

    def plots(self, evidence: "Evidence", values: "Values") -> "dict[str, pd.DataFrame]":
        """Returns tables for `dvc plots`, besides that of all metrics: name → table.

        Args:
            evidence: a model's outputs for the N images of a split.
            values: the measured values of this group, by name; empty if it was not measured.
        """
        return {}


METRIC_GROUPS: Registry[MetricGroup] = Registry(
    "metric group", "pipeline.metrics.groups", "protomask.metrics"
)

Group = TypeVar("Group", bound=type[MetricGroup])


def register(group: Group) -> Group:
    """Class decorator that registers a group of metrics under its name.

    Raises:
        ProtoMaskError: another group has this name.
    """
    registered = group()
    METRIC_GROUPS.add(registered.name, registered)
    return group


def note_on(group: str, name: str, kind: "Kind" = "crops") -> Note:
    """Returns how to read a metric; an unknown one is labelled with its own name.

    Args:
        group: name of the metric's group, such as `continuity`.
        name: name of the number within its group in metrics.json.
        kind: the kind of the model's views: `crops`, `cells` or `image`.
    """
    metric = taken_apart(name).metric
    notes: dict[str, Note] = {}
    if group in METRIC_GROUPS:
        of = METRIC_GROUPS[group]
        notes = {**of.notes, **(of.cell_notes if kind == "cells" else {})}
    return notes.get(metric, Note(metric.replace("_", " "), "", "depends", ""))


def question_of(group: str) -> str:
    """Returns the question that a group's metrics answer; empty for an unknown group."""
    return METRIC_GROUPS[group].question if group in METRIC_GROUPS else ""
