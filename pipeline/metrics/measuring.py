"""The metric groups by name, measured together so that every image is read and explained once."""

import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import pandas as pd
from torch import Tensor

from pipeline.errors import ProtoMaskError
from pipeline.metrics import Values
from pipeline.metrics.evidence import Batch, Drawn, Evidence
from pipeline.metrics.group import METRIC_GROUPS, MetricGroup
from pipeline.progress import track

BATCH_SIZE = 16

ByGroup = dict[str, dict[str, Tensor]]
"""Group → metric → a tensor whose first dimension is N."""


class Gathered(NamedTuple):
    """What groups have measured of batches of N images.

    Args:
        of_batches: the results of `of_batch`.
        of_maps: explanation → the results of `of_maps`.
    """

    of_batches: ByGroup
    of_maps: dict[str, ByGroup]

    def of(self, images_n: Tensor) -> "Gathered":
        """Returns what was measured of some of the images.

        Args:
            images_n: int64 n, their positions.
        """
        return Gathered(
            _at(images_n, self.of_batches),
            {explanation: _at(images_n, found) for explanation, found in self.of_maps.items()},
        )


def _at(images_n: Tensor, found: ByGroup) -> ByGroup:
    return {
        group: {metric: values[images_n] for metric, values in of_group.items()}
        for group, of_group in found.items()
    }


def measure(
    evidence: Evidence, groups: Sequence[str], batch_size: int = BATCH_SIZE
) -> dict[str, Values]:
    """Measures metric groups in one pass over the images; see `gather` and `values_of`."""
    return values_of(evidence, groups, gather(evidence, groups, batch_size))


def values_of(evidence: Evidence, groups: Sequence[str], gathered: Gathered) -> dict[str, Values]:
    """Returns the values of metric groups.

    Args:
        evidence: a model's outputs for N images.
        groups: names of the groups to measure, as registered.
        gathered: what was measured of batches of these images, by these groups and maybe others.

    Returns:
        group → metric → value. The names of metrics of saliency maps by another explanation than
        `mask` end in that explanation's name, as in `vlc_prp`.

    Raises:
        ProtoMaskError: a group gave another number of values than there are images.
    """
    values: dict[str, Values] = {name: {} for name in groups}
    for name in _having("measure", _measurable(evidence, groups)):
        values[name] |= METRIC_GROUPS[name].measure(evidence)
    for name in _among(groups, gathered.of_batches):
        values[name] |= METRIC_GROUPS[name].from_batches(evidence, gathered.of_batches[name])
    for explanation, by_group in gathered.of_maps.items():
        suffix = "" if explanation == "mask" else f"_{explanation}"
        for name in _among(groups, by_group):
            measured = METRIC_GROUPS[name].from_maps(evidence, by_group[name])
            values[name] |= {metric + suffix: value for metric, value in measured.items()}
    for name, of_group in values.items():
        _refuse_other_lengths(name, of_group, len(evidence.ids))
    return values


def _refuse_other_lengths(group: str, values: Values, num_images: int) -> None:
    for metric, value in values.items():
        if isinstance(value, Tensor) and value.ndim and len(value) != num_images:
            raise ProtoMaskError(
                f"the metric group {group} gave {len(value)} values of {metric} for {num_images} "
                "images: a mistake in its code"
            )


def unavailable(evidence: Evidence, groups: Sequence[str]) -> dict[str, dict[str, str]]:
    """Returns the metrics that cannot be measured, with the reason.

    Args:
        evidence: a model's outputs for the N images of a split.
        groups: names of the groups to check, as registered.

    Returns:
        group → metric → reason; all metrics by an explanation that the model cannot have are one
        entry, such as `by prp`.
    """
    missing = {
        name: METRIC_GROUPS[name].unavailable(evidence) for name in _having("unavailable", groups)
    }
    for name in _having("of_maps", groups):
        by = {f"by {explanation}": why for explanation, why in evidence.unexplained.items()}
        missing[name] = {**missing.get(name, {}), **by}
    why = "a black box has no prototypes"
    without = _without_prototypes(evidence, groups)
    return missing | {name: dict.fromkeys(METRIC_GROUPS[name].notes, why) for name in without}


def _among(groups: Sequence[str], gathered: ByGroup) -> list[str]:
    return [name for name in groups if name in gathered]


def _measurable(evidence: Evidence, groups: Sequence[str]) -> list[str]:
    without = _without_prototypes(evidence, groups)
    return [name for name in groups if name not in without]


def _without_prototypes(evidence: Evidence, groups: Sequence[str]) -> list[str]:
    """Returns the groups that require prototypes, if the model has none."""
    if evidence.head.has_prototypes:
        return []
    return [name for name in groups if METRIC_GROUPS[name].needs_prototypes]


def plots(evidence: Evidence, values: dict[str, Values]) -> dict[str, pd.DataFrame]:
    """Returns the tables of all groups that plot more than their metrics.

    Args:
        evidence: a model's outputs for the N images of a split.
        values: the measured values by group, as returned by `measure`.

    Returns:
        name → table, which is empty if its group was not measured.
    """
    tables: dict[str, pd.DataFrame] = {}
    for name in plotted(values):
        tables |= METRIC_GROUPS[name].plots(evidence, values.get(name, {}))
    return tables


def plotted(measured: Iterable[str]) -> list[str]:
    """Returns the groups that tables for plots are written of: those measured, and all our own.

    DVC reports a missing file as an error, so what was not measured has an empty table. Another
    package's groups that were not measured have none: the files would depend on what is installed.

    Args:
        measured: names of the groups that were measured.
    """
    return sorted({*measured, *METRIC_GROUPS.own()})


def _having(method: str, groups: Sequence[str]) -> list[str]:
    """Returns the groups that override a method of `MetricGroup`."""
    default = getattr(MetricGroup, method)
    return [name for name in groups if getattr(type(METRIC_GROUPS[name]), method) is not default]


def gather(evidence: Evidence, groups: Sequence[str], batch_size: int = BATCH_SIZE) -> Gathered:
    """Calls every group's `of_batch` and, for each explanation, `of_maps`.

    Args:
        evidence: a model's outputs for the N images of a split.
        groups: names of the groups to measure, as registered.
        batch_size: number of images per batch, ≥ 1.

    Raises:
        ProtoMaskError: the split holds no image.
    """
    if not evidence.ids:
        raise ProtoMaskError("no metric can be measured: the split holds no image")
    groups = _measurable(evidence, groups)
    of_batches: ByGroup = defaultdict(dict)
    of_maps: dict[str, ByGroup] = defaultdict(lambda: defaultdict(dict))
    on_batches, on_maps = _having("of_batch", groups), _having("of_maps", groups)
    if not on_batches and not on_maps:
        return Gathered(of_batches, of_maps)
    # A batch holds crops and copies: it is released before the next one is loaded.
    total = math.ceil(len(evidence.ids) / batch_size)
    for batch in track(evidence.batches(batch_size), "Measuring", total):
        for name in on_batches:
            _store(of_batches[name], METRIC_GROUPS[name].of_batch(batch), batch)
        for explanation in evidence.explanations if on_maps else ():
            maps = explanation.maps(batch.images_B, batch.prototypes_Bk, batch.crop_Bk)
            drawn = Drawn(explanation, *maps)
            for name in on_maps:
                found = METRIC_GROUPS[name].of_maps(batch, drawn)
                _store(of_maps[explanation.name][name], found, batch)
    return Gathered(of_batches, of_maps)


def _store(gathered: dict[str, Tensor], found: dict[str, Tensor], batch: Batch) -> None:
    """Copies a batch's values into tensors of all N images.

    One small tensor per batch, kept separately, would fragment the RAM that the next batch's maps
    could reuse (10 GB instead of 2 for 6,000 images).
    """
    for name, value in found.items():
        if name not in gathered:
            gathered[name] = value.new_empty(len(batch.evidence.ids), *value.shape[1:])
        gathered[name][batch.images_B] = value
