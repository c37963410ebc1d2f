import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import bootstrap as scipy_bootstrap

from pipeline.metrics.summary import bootstrap, intervals, per_image, plot_tables, summarise


def test_summary_by_hand():
    values = {
        "a": {"mean": torch.tensor([1.0, 2.0, 6.0]), "plain": 4.0},
        "b": {"some": torch.tensor([1.0, math.inf, 2.0]), "none": torch.tensor([math.inf] * 3)},
        "c": {"nan": torch.tensor([math.nan, 5.0]), "infinite": math.inf},
    }
    assert summarise(values) == {
        "a": {"mean": 3.0, "plain": 4.0},
        "b": {"some": 1.5, "some_undefined": 1, "none_undefined": 3},
        "c": {"nan": 5.0, "nan_undefined": 1, "infinite_undefined": 1},
    }


def test_curves_are_for_plots_only():
    values = {"a": {"curve": torch.ones(3, 4), "mean": torch.tensor([1.0, 3.0, 5.0])}}
    assert summarise(values) == {"a": {"mean": 3.0}}
    assert list(intervals(values, 0)["a"]) == ["mean"]
    assert list(per_image(["x", "y", "z"], values)) == ["image", "a.mean"]


def test_interval_of_two_images_by_hand():
    # Resamples of (0, 1) have means 0, ½ and 1 with probabilities ¼, ½, ¼: the 2.5th percentile
    # is 0, the 97.5th 1.
    assert bootstrap(np.array([0.0, 1.0]), 0) == (0.0, 1.0)


def test_equal_values_have_no_width():
    assert bootstrap(np.full(5, 0.25), 0) == (0.25, 0.25)


def test_interval_agrees_with_scipy():
    values_N = np.random.default_rng(1).exponential(size=200)
    theirs = scipy_bootstrap(
        (values_N,), np.mean, n_resamples=9999, method="percentile", rng=0
    ).confidence_interval
    width = theirs.high - theirs.low
    assert bootstrap(values_N, 0) == pytest.approx(tuple(theirs), abs=0.05 * width)


def test_interval_leaves_undefined_images_out():
    values = {"a": {"some": torch.tensor([2.0, math.inf, 2.0, math.nan]), "plain": 3.0}}
    assert intervals(values, 0) == {"a": {"some": {"low": 2.0, "high": 2.0}}}


@given(values=st.lists(st.floats(-10, 10), min_size=1, max_size=20), seed=st.integers(0, 99))
def test_interval_lies_among_the_values_and_repeats(values, seed):
    values_N = np.array(values)
    low, high = bootstrap(values_N, seed)
    assert values_N.min() - 1e-9 <= low <= high <= values_N.max() + 1e-9
    assert bootstrap(values_N, seed) == (low, high)


def test_table_has_a_row_an_image():
    values = {"a": {"x": torch.tensor([1.0, math.inf]), "plain": 2.0}, "b": {"y": torch.ones(2)}}
    table = per_image(["first", "second"], values)
    assert table.to_dict("list") == {
        "image": ["first", "second"],
        "a.x": [1.0, math.inf],
        "b.y": [1.0, 1.0],
    }


def test_tables_for_plots():
    metrics = {"a": {"x": 1.0, "plain": 2.0}}
    tables = plot_tables(["a", "b"], metrics, {"a": {"x": {"low": 0.5, "high": 1.5}}})
    assert tables["a"].fillna(-1).to_dict("list") == {
        "metric": ["x", "plain"],
        "value": [1.0, 2.0],
        "low": [0.5, -1.0],
        "high": [1.5, -1.0],
    }
    assert list(tables["b"]) == ["metric", "value", "low", "high"] and len(tables["b"]) == 0
