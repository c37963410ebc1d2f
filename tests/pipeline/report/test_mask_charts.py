"""Charts of masks by rank."""

import pandas as pd
import pytest

from pipeline.report.mask_charts import Chart, mask_charts

COVERAGE = pd.DataFrame({"rank": [1, 2], "coverage": [40.0, 20.0], "union": [40.0, 80.0]})
AREAS = pd.DataFrame({"rank": [1, 2, 3], "area": [30.0, 15.0, 1.25]})


def height(chart: Chart, percent: float) -> float:
    """Returns how high a percentage lies above the axis, by the chart's own ticks."""
    (zero, _), *_, (top, said) = chart.ticks
    return (zero - top) * percent / float(said.removesuffix(" %"))


def test_bars_and_line_are_as_high_as_the_axis_says() -> None:
    coverage, areas = mask_charts(
        {"object_coverage": COVERAGE, "mask_areas": AREAS, "other": AREAS}
    )
    for chart, values in ((coverage, [40, 20]), (areas, [30, 15, 1.25])):
        assert chart.ticks[0] == (chart.bottom, "0 %")
        for bar, value in zip(chart.bars, values, strict=True):
            assert bar.height == pytest.approx(height(chart, value), abs=0.2)
            assert bar.y + bar.height == pytest.approx(chart.bottom, abs=0.2)
    lines = [chart_line(coverage, bar.line) for bar in coverage.bars]
    assert lines == pytest.approx([40, 80], abs=0.2)
    assert [bar.line for bar in areas.bars] == [None] * 3 and areas.line_name == ""


def chart_line(chart: Chart, y: float | None) -> float:
    assert y is not None
    return (chart.bottom - y) / height(chart, 1)


def test_charts_say_in_words_what_they_show() -> None:
    coverage, areas = mask_charts({"object_coverage": COVERAGE, "mask_areas": AREAS})
    space = "\N{NO-BREAK SPACE}"
    assert coverage.said == (
        f"The mask that is cut out first lies on 40{space}% of the object, those of the first 2 "
        f"together on 80{space}%."
    )
    assert areas.said == (
        f"The mask that is cut out first takes 30{space}% of the image, number 3 takes 1.2{space}%."
    )


@pytest.mark.parametrize("largest", [0.0, 0.4, 1.0, 7.0, 33.0, 100.0])
def test_everything_stays_on_the_chart(largest: float) -> None:
    (chart,) = mask_charts({"mask_areas": pd.DataFrame({"rank": [1], "area": [largest]})})
    assert 2 <= len(chart.ticks) <= 7
    assert all(0 <= bar.y <= chart.bottom and bar.height >= 0 for bar in chart.bars)
    assert all(chart.left <= bar.x and bar.x + bar.width <= chart.width for bar in chart.bars)


def test_what_was_not_measured_is_not_drawn() -> None:
    assert mask_charts({}) == []
    assert mask_charts({"object_coverage": COVERAGE[:0]}) == []
    assert len(mask_charts({"mask_areas": AREAS})) == 1
