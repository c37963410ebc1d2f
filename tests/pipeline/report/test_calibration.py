"""Calibration: bins and error, worked out by hand."""

import numpy as np
import pytest

from pipeline.report.calibration import calibration_chart


def test_bins_and_expected_calibration_error() -> None:
    confidence_N = np.array([0.95, 0.95, 0.95, 0.95, 0.35, 0.35, 0.35, 0.35, 1.0, 0.9])
    right_N = np.array([1, 1, 1, 0, 1, 0, 0, 0, 0, 1], bool)
    chart = calibration_chart(confidence_N, right_N)
    assert chart is not None
    assert [bar.label for bar in chart.bars] == ["30–40", "90–100"]
    # 4 images of 35 % of which 25 % are right, 6 of 95 % in the mean of which 4 of 6 are
    error = (4 * 10 + 6 * (95 - 400 / 6)) / 10
    assert (
        f"{error:.0f}\N{NO-BREAK SPACE}%" in chart.said
        and "more sure than it is right" in chart.said
    )
    low, high = chart.bars
    assert low.height / high.height == pytest.approx(25 / (400 / 6), abs=0.01)
    assert "4 images" in low.said and "6 images" in high.said


def test_a_model_may_be_less_sure_than_right_and_may_have_no_images() -> None:
    chart = calibration_chart(np.array([0.5]), np.array([True]))
    assert chart and "less sure" in chart.said and "1 image," in chart.bars[0].said
    assert calibration_chart(np.array([]), np.array([], bool)) is None
