"""Two runs' outputs on the same images, worked by hand."""

from math import comb

import numpy as np
import pandas as pd
import pytest

from pipeline.errors import ProtoMaskError
from pipeline.study.paired import (
    Outcome,
    by_class,
    choose,
    differences,
    leads,
    outcome,
    pair,
)


def bools(text: str) -> np.ndarray:
    return np.array([letter == "+" for letter in text])


def test_pairs_by_id_whatever_the_order() -> None:
    pairs = pair(["a", "b", "c", "d"], ["d", "x", "b"])
    assert (pairs.a_N.tolist(), pairs.b_N.tolist()) == ([1, 3], [2, 0])
    assert (pairs.only_a, pairs.only_b) == (2, 1)


def test_nothing_in_common() -> None:
    with pytest.raises(ProtoMaskError, match="no image is among"):
        pair(["a"], ["b", "c"])


def test_outcome() -> None:
    found = outcome(bools("++++-+--"), bools("++--+---"))
    assert found == Outcome(both=2, only_a=3, only_b=1, neither=2)
    assert (found.images, found.right_a, found.right_b) == (8, 5, 3)


@pytest.mark.parametrize(("only_a", "only_b"), [(3, 1), (1, 3), (9, 0), (5, 5), (17, 6)])
def test_mcnemar_is_the_binomial_sum(only_a: int, only_b: int) -> None:
    tossed, fewer = only_a + only_b, min(only_a, only_b)
    tail = sum(comb(tossed, k) for k in range(fewer + 1)) / 2**tossed
    assert Outcome(40, only_a, only_b, 7).p == pytest.approx(min(1.0, 2 * tail))


def test_mcnemar_by_hand() -> None:
    assert Outcome(10, 3, 1, 0).p == pytest.approx(10 / 16)
    assert Outcome(0, 9, 0, 0).p == pytest.approx(2 / 512)
    assert Outcome(5, 0, 0, 5).p == 1.0


def test_leads() -> None:
    logits = np.array([[3.0, 1.0, 2.5], [3.0, 1.0, 2.5], [3.0, 1.0, 2.5]], np.float32)
    assert leads(logits, np.array([0, 1, 2])).tolist() == [0.5, -2.0, -0.5]


def test_clearest_first() -> None:
    lead_a = np.array([1.0, 4.0, -2.0, -1.0, -3.0, -1.0])
    lead_b = np.array([-1.0, -9.0, 5.0, 6.0, -1.0, -40.0])
    chosen = choose(lead_a > 0, lead_b > 0, lead_a, lead_b)
    assert (chosen.only_a, chosen.only_b) == ([1, 0], [3, 2])
    # Mean leads are 2 and 62/6: 3/2 + 6/62 is less than 1/2 + 240/62.
    assert chosen.neither == [5, 4]


def test_size_of_a_runs_logits_does_not_matter() -> None:
    lead_a, lead_b = np.array([-1.0, -3.0]), np.array([-3.0, -2.0])
    wrong = bools("--")
    first = choose(wrong, wrong, lead_a, lead_b).neither
    assert first == choose(wrong, wrong, lead_a, 1000 * lead_b).neither == [1, 0]


def test_classes_that_differ_most_first() -> None:
    labels = np.array([0, 0, 0, 0, 1, 1, 3, 3])
    found = by_class(labels, bools("++++-++-"), bools("+++--++-"))
    assert [tuple(of) for of in found] == [(0, 4, 4, 3)]
    found = by_class(labels, bools("++++--+-"), bools("+++-++-+"))
    assert [tuple(of) for of in found] == [(1, 2, 0, 2), (0, 4, 4, 3)]


def test_differences_are_over_images_that_both_have() -> None:
    ids = [f"i{number}" for number in range(30)]
    values = np.arange(30.0)
    a = pd.DataFrame(
        {
            "image": ids,
            "general.accuracy": 1.0,
            "general.top3_accuracy": 0.5,
            "complexity.iou": values,
            "truth.purity_random_weights": values,
            "complexity.oirr": np.where(values < 15, np.inf, values),
            "contrastivity.vlc": values,
        }
    )
    b = a.drop(columns="contrastivity.vlc").iloc[::-1]
    b["complexity.iou"] = np.where(b["image"] == "i29", np.nan, b["complexity.iou"] - 2)
    found = {of.column.name: of for of in differences(a, b, ids)}
    assert list(found) == ["general.top3_accuracy", "complexity.iou", "complexity.oirr"]
    share, iou, oirr = found.values()
    assert (share.a, share.b, share.images, share.p) == (50.0, 50.0, 30, 1.0)
    assert (iou.a, iou.b, iou.images) == (14.0, 12.0, 29) and iou.p and iou.p < 0.001
    assert (oirr.images, oirr.p) == (15, None)
    assert {of.images for of in differences(a, b, ids[:10])} == {10}
