"""Charts of percentages: bars, optionally with a line."""

from typing import NamedTuple

WIDTH, HEIGHT, LEFT, BOTTOM, TOP = 560, 300, 58, 44, 26
STEPS = (1, 2, 5, 10, 20, 25, 50)
FEWEST_TICKS = 3


class Bar(NamedTuple):
    """A bar.

    Args:
        label: what stands under it, such as the rank of a mask among those that become crops.
        x, y: the bar's upper left corner, in units of the chart.
        width, height: the bar's size, in units of the chart.
        line: y of the line at this bar; None without a line.
        said: the bar's values in words.
    """

    label: str
    x: float
    y: float
    width: float
    height: float
    line: float | None
    said: str


class Chart(NamedTuple):
    """A chart of percentages.

    Args:
        width, height: the chart's size, in its own units (SVG).
        bottom, left: y of the horizontal axis and x of the vertical one.
        ticks: y and label of each tick of the vertical axis.
        bars: the bars.
        said: what the chart shows, in a sentence.
        axis: what the bars are ordered by, in words.
        bar_name, line_name: what a bar and the line show; the latter is empty without a line.
    """

    width: int
    height: int
    bottom: int
    left: int
    ticks: list[tuple[float, str]]
    bars: list[Bar]
    said: str
    axis: str
    bar_name: str
    line_name: str


def percent(value: float) -> str:
    """Returns a percentage as text: with two digits below 10, without decimals from there."""
    return f"{value:.2g}\N{NO-BREAK SPACE}%" if value < 10 else f"{value:.0f}\N{NO-BREAK SPACE}%"


def draw_bars(
    labels: list[str],
    values: list[float],
    line: list[float] | list[None],
    said: list[str],
    sentence: str,
    axis: str,
    names: tuple[str, str],
) -> Chart:
    """Draws a chart of percentages.

    Args:
        labels: what stands under each bar.
        values: the bars' values, in percent, ≥ 0.
        line: a further value above each bar, in percent; None for none.
        said: what is said of each bar.
        sentence: what the chart shows, in a sentence.
        axis: what the bars are ordered by, in words.
        names: what a bar and the line show; the latter is empty without a line.
    """
    largest = max([*values, *(value for value in line if value is not None)])
    step = next((s for s in STEPS if largest / s <= 2 * FEWEST_TICKS), STEPS[-1])
    top = step * max(1, -(-largest // step))
    scale = (HEIGHT - BOTTOM - TOP) / top
    slot = (WIDTH - LEFT - 8) / len(labels)
    bars = [
        Bar(
            label,
            round(LEFT + slot * (place + 0.15), 1),
            round(HEIGHT - BOTTOM - scale * value, 1),
            round(0.7 * slot, 1),
            round(scale * value, 1),
            None if over is None else round(HEIGHT - BOTTOM - scale * over, 1),
            words,
        )
        for place, (label, value, over, words) in enumerate(
            zip(labels, values, line, said, strict=True)
        )
    ]
    ticks = [
        (round(HEIGHT - BOTTOM - scale * step * number, 1), f"{step * number} %")
        for number in range(round(top / step) + 1)
    ]
    return Chart(WIDTH, HEIGHT, HEIGHT - BOTTOM, LEFT, ticks, bars, sentence, axis, *names)
