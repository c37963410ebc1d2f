"""Charts of the training curves: loss and accuracy by epoch."""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import pandas as pd

WIDTH, HEIGHT, LEFT, BOTTOM, TOP = 560, 300, 58, 44, 26
NUM_TICKS = 5
SPLITS = {"train": "training images", "val": "validation images"}


class Curve(NamedTuple):
    """A curve.

    Args:
        kind: `train` or `val`.
        name: what it was measured on.
        points: x, y in units of the chart, and what the point says, by epoch.
    """

    kind: str
    name: str
    points: list[tuple[float, float, str]]


class CurveChart(NamedTuple):
    """A chart of curves by epoch.

    Args:
        width, height: the chart's size, in its own units (SVG).
        bottom, left: y of the horizontal axis and x of the vertical one.
        ticks: y and label of each tick of the vertical axis.
        epochs: x and number of the epochs that are named on the horizontal axis.
        curves: the curves.
        said: what the chart shows, in a sentence.
    """

    width: int
    height: int
    bottom: int
    left: int
    ticks: list[tuple[float, str]]
    epochs: list[tuple[float, int]]
    curves: list[Curve]
    said: str


def curve_charts(curves: Mapping[str, Mapping[str, pd.DataFrame]]) -> list[CurveChart]:
    """Draws loss and accuracy by epoch.

    Args:
        curves: metric (`loss`, `accuracy`) → split (`train`, `val`) → a table with the columns
            `step`, the epoch counted from 0, and that metric.
    """
    drawn = []
    for metric, by_split in curves.items():
        found = {
            split: (table["step"].to_numpy(int) + 1, table[metric].to_numpy(float))
            for split, table in by_split.items()
            if len(table) and np.isfinite(table[metric]).all()
        }
        if found:
            drawn.append(_chart(metric, found))
    return drawn


def _chart(metric: str, found: Mapping[str, tuple[np.ndarray, np.ndarray]]) -> CurveChart:
    values = np.concatenate([value for _, value in found.values()])
    last = max(int(epoch.max()) for epoch, _ in found.values())
    low, high = min(0.0, float(values.min())), float(values.max())
    if metric == "accuracy":
        low, high = float(np.floor(10 * values.min()) / 10), 1.0
    extent = (high - low) or 1.0

    def x(epoch: int) -> float:
        return round(LEFT + 12 + (WIDTH - LEFT - 28) * (epoch - 1) / max(1, last - 1), 1)

    def y(value: float) -> float:
        return round(HEIGHT - BOTTOM - (HEIGHT - BOTTOM - TOP) * (value - low) / extent, 1)

    ticks = [low + extent * tick / (NUM_TICKS - 1) for tick in range(NUM_TICKS)]
    step = max(1, -(-last // 10))
    curves = [
        Curve(
            split,
            SPLITS[split],
            [
                (x(of), y(value), f"Epoch {of}, {SPLITS[split]}: {_said(metric, value)}")
                for of, value in zip(epoch.tolist(), value_of.tolist(), strict=True)
            ],
        )
        for split, (epoch, value_of) in found.items()
    ]
    ends = [
        f"{_said(metric, float(value[-1]))} on the {SPLITS[split]}"
        for split, (_, value) in found.items()
    ]
    return CurveChart(
        WIDTH,
        HEIGHT,
        HEIGHT - BOTTOM,
        LEFT,
        [(y(tick), _said(metric, tick)) for tick in ticks],
        [(x(epoch), epoch) for epoch in range(1, last + 1, step)],
        curves,
        f"The {metric} ends at {' and '.join(ends)}.",
    )


def _said(metric: str, value: float) -> str:
    return f"{100 * value:.0f} %" if metric == "accuracy" else f"{value:.3g}".replace("-", "−")
