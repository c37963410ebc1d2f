"""From values to numbers: means and how sure they are, and a table with a row an image."""

from collections.abc import Iterable, Sequence
from typing import TypeGuard

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from scipy.stats import binomtest
from torch import Tensor

from pipeline.metrics import Values
from pipeline.metrics.resampling import resampled_sums

RESAMPLES = 2000
CONFIDENCE = 0.95

PROPORTIONS = ("general.accuracy", "general.top3_accuracy")
"""Metrics whose value of an image is 1 or 0: right or wrong."""


def summarise(values: dict[str, Values]) -> dict[str, dict[str, float]]:
    """Group -> metric -> number, all finite, so that it can be written as strict JSON.

    A metric with one value per image becomes the mean of the finite ones. Images whose value is
    not finite (OIRR where a map has nothing inside the object) are left out of the mean, and
    `<metric>_undefined` then says how many they were: such a mean describes the other images
    only, and is to be read with that number. A metric without any finite value is absent, and
    only its `<metric>_undefined` remains (1 for a metric that is no mean over images, as NPR).
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
    """The mean of the finite values, and how many were not finite, if any were not."""
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
    """Group -> metric -> {low, high}: the 95 % interval of each mean over images.

    The percentile bootstrap (Efron & Tibshirani, 1993): images are drawn with replacement 2,000
    times, the same ones for all metrics, and the interval is what the middle 95 % of the means
    span. A proportion has Wilson's score interval (1927) instead, since all resamples of images
    that are all right are all right: 16 of 16 would be certain. Which metrics are proportions,
    `PROPORTIONS` says and not their values: a share of pixels can be 0 or 1 in every image too.
    Images without a finite value do not count in a mean. A metric that is no mean over images has
    no interval.

    Args:
        values: as `groups.measure` gives them.
        seed: of the resampling.
    """
    return {
        group: {
            metric: {"low": low, "high": high}
            for metric, value in metrics.items()
            if _is_per_image(value) and bool(value.isfinite().any())
            for low, high in [_interval(f"{group}.{metric}", value.double().numpy(), seed)]
        }
        for group, metrics in values.items()
    }


def _interval(name: str, values_N: NDArray[np.float64], seed: int) -> tuple[float, float]:
    return wilson(values_N) if name in PROPORTIONS else bootstrap(values_N, seed)


def wilson(values_N: NDArray[np.float64]) -> tuple[float, float]:
    """Returns Wilson's 95 % interval of the share of ones among the finite values, at least one.

    Args:
        values_N: 1, 0 or not finite.
    """
    finite = values_N[np.isfinite(values_N)]
    test = binomtest(int(finite.sum()), len(finite))
    low, high = test.proportion_ci(CONFIDENCE, method="wilson")
    return float(low), float(high)


def bootstrap(values_N: NDArray[np.float64], seed: int) -> tuple[float, float]:
    """Returns the bootstrap 95 % interval of the mean of the finite values, at least one."""
    blocks = resampled_sums(values_N[:, None], RESAMPLES, seed)
    with np.errstate(invalid="ignore"):
        means = np.concatenate([sums_R1 / counted_R1 for sums_R1, counted_R1 in blocks])
    tail = 50 * (1 - CONFIDENCE)
    low, high = np.nanpercentile(means, [tail, 100 - tail])
    return float(low), float(high)


def per_image(ids: Sequence[str], values: dict[str, Values]) -> pd.DataFrame:
    """Returns a row an image and a column `group.metric` for each metric with a value per image.

    Values that are not finite stay as they are: infinite or NaN.
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

    That of a group that was not measured is empty, since DVC complains of a file that is not there.
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
