"""Summary of metric values: means with confidence intervals, and a table with a row per image."""

from collections.abc import Iterable, Sequence
from typing import TypeGuard

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor

from pipeline.metrics import Values
from pipeline.metrics.group import Note, note_on
from pipeline.metrics.resampling import resampled_sums

RESAMPLES = 2000
CONFIDENCE = 0.95


def summarise(values: dict[str, Values]) -> dict[str, dict[str, float]]:
    """Returns the mean of each metric; all numbers are finite, as strict JSON requires.

    A metric with one value per image becomes the mean of the finite ones. Images whose value is not
    finite (OIRR of a map with nothing inside the object) are excluded, and `<metric>_undefined` is
    their number: such a mean describes the other images only, and is to be read with that number. A
    metric without any finite value is absent, and only its `<metric>_undefined` remains (1 for a
    metric that is not a mean over images, such as NPR).

    Args:
        values: group → metric → value, as returned by `measuring.measure`.

    Returns:
        group → metric → number.
    """
    return {
        group: {
            name: number
            for metric, value in metrics.items()
            if not _is_curve(value)
            for name, number in finite_mean(metric, value).items()
        }
        for group, metrics in values.items()
    }


def finite_mean(metric: str, value: Tensor | float) -> dict[str, float]:
    """Returns the mean of the finite values and, if any are not finite, the number of these.

    Args:
        metric: name of the metric, the key of its mean.
        value: one value per image, float N, or a single number.

    Returns:
        The mean as `<metric>`, if any value is finite; the number as `<metric>_undefined`.
    """
    per_image = torch.as_tensor(value, dtype=torch.float64).reshape(-1)
    finite = per_image[per_image.isfinite()]
    undefined = len(per_image) - len(finite)
    mean = {metric: float(finite.mean())} if len(finite) else {}
    return mean | ({f"{metric}_undefined": float(undefined)} if undefined else {})


def _is_per_image(value: Tensor | float) -> TypeGuard[Tensor]:
    return isinstance(value, Tensor) and value.ndim == 1


def _is_curve(value: Tensor | float) -> bool:
    return isinstance(value, Tensor) and value.ndim > 1


def intervals(values: dict[str, Values], seed: int) -> dict[str, dict[str, dict[str, float]]]:
    """Returns the 95 % confidence interval of each mean over images.

    The percentile bootstrap (Efron & Tibshirani, 1993): images are drawn with replacement 2,000
    times, the same ones for all metrics, and the interval covers the middle 95 % of the means. A
    proportion has Wilson's score interval (1927) instead, since all resamples of images that are
    all correct are all correct, and 16 of 16 would have an interval of width 0. Its note says that
    a metric is a proportion; values do not, as a share of pixels can be 0 or 1 in every image too.
    Images without a finite value are ignored. A metric that is not a mean over images has no
    interval.

    Args:
        values: group → metric → value, as returned by `measuring.measure`.
        seed: seed of the bootstrap, ≥ 0.

    Returns:
        group → metric → the interval's limits `low` and `high`.
    """
    return {
        group: {
            metric: {"low": low, "high": high}
            for metric, value in metrics.items()
            if _is_per_image(value) and bool(value.isfinite().any())
            for low, high in [_interval(note_on(group, metric), value.double().numpy(), seed)]
        }
        for group, metrics in values.items()
    }


def _interval(note: Note, values_N: NDArray[np.float64], seed: int) -> tuple[float, float]:
    return wilson(values_N) if note.proportion else bootstrap(values_N, seed)


def wilson(values_N: NDArray[np.float64]) -> tuple[float, float]:
    """Returns Wilson's 95 % score interval (1927) of the share of ones among the finite values.

    Args:
        values_N: float64 N, each 1, 0 or not finite; at least one is finite.

    Returns:
        The lower and the upper limit, 0..1.
    """
    from scipy.stats import binomtest

    finite = values_N[np.isfinite(values_N)]
    test = binomtest(int(finite.sum()), len(finite))
    low, high = test.proportion_ci(CONFIDENCE, method="wilson")
    return float(low), float(high)


def bootstrap(values_N: NDArray[np.float64], seed: int) -> tuple[float, float]:
    """Returns the bootstrap 95 % interval of the mean of the finite values.

    Percentile bootstrap (Efron & Tibshirani, 1993) with 2,000 resamples.

    Args:
        values_N: float64 N, one value per image; at least one is finite.
        seed: seed of the bootstrap, ≥ 0.

    Returns:
        The lower and the upper limit, in the unit of the values.
    """
    blocks = resampled_sums(values_N[:, None], RESAMPLES, seed)
    with np.errstate(invalid="ignore"):
        means = np.concatenate([sums_R1 / counted_R1 for sums_R1, counted_R1 in blocks])
    tail = 50 * (1 - CONFIDENCE)
    low, high = np.nanpercentile(means, [tail, 100 - tail])
    return float(low), float(high)


def per_image(ids: Sequence[str], values: dict[str, Values]) -> pd.DataFrame:
    """Returns a table with a row per image and a column for each metric with a value per image.

    Args:
        ids: the N images' ids, in the order of the values.
        values: group → metric → value, as returned by `measuring.measure`.

    Returns:
        The columns `image` and `group.metric`; values that are not finite stay infinite or NaN.
    """
    columns = {
        f"{group}.{metric}": value.double().numpy()
        for group, metrics in values.items()
        for metric, value in metrics.items()
        if _is_per_image(value)
    }
    return pd.DataFrame({"image": list(ids), **columns})


def plot_tables(
    groups: Iterable[str],
    metrics: dict[str, dict[str, float]],
    sure: dict[str, dict[str, dict[str, float]]],
) -> dict[str, pd.DataFrame]:
    """Returns for each group a table that `dvc plots` draws: metric, value, low and high.

    The table of a group that was not measured is empty, since DVC reports a missing file as an
    error.

    Args:
        groups: names of the groups that a table is made for.
        metrics: group → metric → number, as returned by `summarise`.
        sure: group → metric → the limits `low` and `high`, as returned by `intervals`.
    """
    return {
        group: pd.DataFrame(
            [
                {"metric": name, "value": value, **sure.get(group, {}).get(name, {})}
                for name, value in metrics.get(group, {}).items()
            ],
            columns=["metric", "value", "low", "high"],
        )
        for group in groups
    }
