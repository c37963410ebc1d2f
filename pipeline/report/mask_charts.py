"""Charts of a segmenter's masks by rank: bars, optionally with a line."""

from collections.abc import Mapping
from typing import NamedTuple

import pandas as pd

WIDTH, HEIGHT, LEFT, BOTTOM, TOP = 560, 300, 58, 44, 26
STEPS = (1, 2, 5, 10, 20, 25, 50)
FEWEST_TICKS = 3


class Bar(NamedTuple):
    """The bar of a rank.

    Args:
        rank: rank of the mask among those that become crops, as in the plot.
        x, y: the bar's upper left corner, in units of the chart.
        width, height: the bar's size, in units of the chart.
        line: y of the line at this bar; None without a line.
        said: the bar's values in words.
    """

    rank: int
    x: float
    y: float
    width: float
    height: float
    line: float | None
    said: str


class Chart(NamedTuple):
    """A chart of percentages by rank.

    Args:
        width, height: the chart's size, in its own units (SVG).
        bottom, left: y of the horizontal axis and x of the vertical one.
        ticks: y and label of each tick of the vertical axis.
        bars: the bars, one for each rank.
        said: what the chart shows, in a sentence.
        bar_name, line_name: what a bar and the line show; the latter is empty without a line.
    """

    width: int
    height: int
    bottom: int
    left: int
    ticks: list[tuple[float, str]]
    bars: list[Bar]
    said: str
    bar_name: str
    line_name: str


def mask_charts(plots: Mapping[str, pd.DataFrame]) -> list[Chart]:
    """Draws the plots `object_coverage` and `mask_areas` of the stage evaluate, if present.

    Args:
        plots: tables by the plots' names.
    """
    charts = []
    if len(coverage := plots.get("object_coverage", pd.DataFrame())):
        alone, union = coverage["coverage"].tolist(), coverage["union"].tolist()
        said = f"The mask that is cut out first lies on {_percent(alone[0])} of the object"
        if len(union) > 1:
            said += f", those of the first {len(union)} together on {_percent(union[-1])}"
        names = ("of the object under the mask of this rank", "under it and all before it")
        charts.append(_chart(coverage["rank"].tolist(), alone, union, f"{said}.", names))
    if len(areas := plots.get("mask_areas", pd.DataFrame())):
        ranks, area = areas["rank"].tolist(), areas["area"].tolist()
        said = f"The mask that is cut out first takes {_percent(area[0])} of the image"
        if len(area) > 1:
            said += f", number {ranks[-1]} takes {_percent(area[-1])}"
        names = ("of the image under the mask of this rank, the median over images", "")
        charts.append(_chart(ranks, area, [None] * len(area), f"{said}.", names))
    return charts


def _percent(value: float) -> str:
    return f"{value:.2g}\N{NO-BREAK SPACE}%" if value < 10 else f"{value:.0f}\N{NO-BREAK SPACE}%"


def _chart(
    ranks: list[int],
    values: list[float],
    line: list[float] | list[None],
    said: str,
    names: tuple[str, str],
) -> Chart:
    largest = max([*values, *(value for value in line if value is not None)])
    step = next((s for s in STEPS if largest / s <= 2 * FEWEST_TICKS), STEPS[-1])
    top = step * max(1, -(-largest // step))
    scale = (HEIGHT - BOTTOM - TOP) / top
    slot = (WIDTH - LEFT - 8) / len(ranks)
    bars = [
        Bar(
            rank,
            round(LEFT + slot * (place + 0.15), 1),
            round(HEIGHT - BOTTOM - scale * value, 1),
            round(0.7 * slot, 1),
            round(scale * value, 1),
            None if over is None else round(HEIGHT - BOTTOM - scale * over, 1),
            f"Rank {rank}: {_percent(value)}"
            + ("" if over is None else f", with all before it {_percent(over)}"),
        )
        for place, (rank, value, over) in enumerate(zip(ranks, values, line, strict=True))
    ]
    ticks = [
        (round(HEIGHT - BOTTOM - scale * step * number, 1), f"{step * number} %")
        for number in range(round(top / step) + 1)
    ]
    return Chart(WIDTH, HEIGHT, HEIGHT - BOTTOM, LEFT, ticks, bars, said, *names)
