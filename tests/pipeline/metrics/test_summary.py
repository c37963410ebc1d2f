import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import bootstrap as scipy_bootstrap

from pipeline.metrics.summary import (
    bootstrap,
    intervals,
    per_image,
    plot_tables,
    summarise,
    wilson,
)


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


def test_interval_covers_95_percent_by_hand():
    """The variance of 1 to 97 is (97² − 1)/12 = 28², so that means of 97 of them are nearly normal
    with a deviation of 28/√97 = 2.843: 49 ± 1.960·2.843 (for 96 %, it would be 2.054·2.843, 0.27
    more). A limit from 2,000 resamples is off by 0.06 deviations, the mean of 25 such by 0.034."""
    limits = np.mean([bootstrap(np.arange(1.0, 98), seed) for seed in range(25)], axis=0)
    assert limits == pytest.approx([49 - 5.572, 49 + 5.572], abs=0.12)


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


def test_wilson_by_hand():
    # z = 1.959964, z² = 3.841459. All right: n / (n + z²) = 16 / 19.841459; none: z² / (n + z²).
    assert wilson(np.ones(16)) == pytest.approx((0.806392, 1.0), abs=1e-6)
    assert wilson(np.zeros(16)) == pytest.approx((0.0, 0.193608), abs=1e-6)
    # 3 of 4: centre (3 + z²/2) / (4 + z²) = 4.920730 / 7.841459 = 0.627527, half its width
    # z·√(4·¾·¼ + z²/4) / (4 + z²) = 1.959964 · √1.710365 / 7.841459 = 0.326884.
    some = np.array([1.0, 0.0, math.nan, 1.0, 1.0, math.inf])
    assert wilson(some) == pytest.approx((0.300643, 0.954411), abs=1e-5)


def test_only_proportions_have_wilsons_interval():
    every = torch.ones(16)
    found = intervals({"general": {"accuracy": every, "top3_accuracy": every}}, 0)["general"]
    for interval in found.values():
        assert interval == pytest.approx({"low": 0.806392, "high": 1.0}, abs=1e-6)
    # A share of pixels that is 0 or 1 in every image is a mean like others.
    shares = torch.tensor([0.0, 1.0])
    assert intervals({"complexity": {"iou": shares, "accuracy": every}}, 0) == {
        "complexity": {"iou": {"low": 0.0, "high": 1.0}, "accuracy": {"low": 1.0, "high": 1.0}}
    }


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
