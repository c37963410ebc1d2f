"""Training curves: points are where the axes say."""

import pandas as pd
import pytest

from pipeline.report.curve_charts import CurveChart, curve_charts

CURVES = {
    "loss": {
        "train": pd.DataFrame({"step": [0, 1, 2], "loss": [4.0, 2.0, 1.0]}),
        "val": pd.DataFrame({"step": [0, 1, 2], "loss": [3.0, 2.5, 2.0]}),
    },
    "accuracy": {"train": pd.DataFrame({"step": [0, 1, 2], "accuracy": [0.5, 0.75, 0.93]})},
}


def value(chart: CurveChart, y: float) -> float:
    (zero, low), *_, (top, high) = [
        (at, float(said.removesuffix(" %"))) for at, said in chart.ticks
    ]
    return low + (high - low) * (zero - y) / (zero - top)


def test_points_lie_at_their_values() -> None:
    loss, accuracy = curve_charts(CURVES)
    for curve, values in zip(loss.curves, ([4, 2, 1], [3, 2.5, 2]), strict=True):
        assert [value(loss, y) for _, y, _ in curve.points] == pytest.approx(values, abs=0.02)
    (train,) = accuracy.curves
    assert [value(accuracy, y) for _, y, _ in train.points] == pytest.approx([50, 75, 93], abs=0.5)
    assert [x for x, _, _ in train.points] == [x for x, _ in accuracy.epochs]
    assert [epoch for _, epoch in accuracy.epochs] == [1, 2, 3]
    assert loss.said == (
        "The loss ends at 1 on the training images and 2 on the validation images."
    )


def test_without_epochs_there_is_no_chart_and_one_epoch_is_a_dot() -> None:
    assert curve_charts({"loss": {"train": pd.DataFrame({"step": [], "loss": []})}}) == []
    assert curve_charts({"loss": {}}) == []
    one = {"loss": {"train": pd.DataFrame({"step": [0], "loss": [0.0]})}}
    assert len(curve_charts(one)[0].curves[0].points) == 1
