"""What a class score is made of, on numbers worked out by hand."""

from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import ProtoMaskError
from pipeline.explain.prototypes import Points, Prototypes, Score, figure

SIMILARITY = np.array([0.5, 0.25, 0.5, 2.0])
CROP = np.array([3, 1, 3, 0])


@pytest.fixture
def prototypes() -> Prototypes:
    """Prototypes 0, 1, 2 of class 0 and 3 of class 1; 0 and 2 are the same crop."""
    return Prototypes(
        ["wren", "crow", "owl"],
        np.array([0, 0, 0, 1]),
        np.array([[1.0, 2.0, 0.5, 0.0], [0.0, -1.0, 0.0, 1.0], [0.0] * 4]),
        np.array([7, 4, 7, 9]),
        np.array([1, 0, 1, 1]),
        np.zeros(4),
    )


def test_prototypes_of_one_crop_share_a_row(prototypes: Prototypes) -> None:
    score = prototypes.score(0, SIMILARITY, CROP, top=5)
    assert score == Score(
        0,
        1.25,
        [
            Points((0, 2), 3, 0.5, 1.5, 0.75),
            Points((1,), 1, 0.25, 2.0, 0.5),
            Points((3,), 0, 2.0, 0.0, 0.0),
        ],
        0.0,
        0,
    )


def test_the_rest_is_what_is_not_shown(prototypes: Prototypes) -> None:
    score = prototypes.score(1, SIMILARITY, CROP, top=1)
    assert score == Score(1, 1.75, [Points((3,), 0, 2.0, 1.0, 2.0)], -0.25, 3)


def test_the_same_crop_number_of_another_image_is_another_crop(prototypes: Prototypes) -> None:
    assert prototypes.distinct(0) == [(1,), (0, 2)]
    assert prototypes.distinct(1) == [(3,)]
    assert prototypes.distinct(2) == []


def test_rounded_rows_add_up() -> None:
    rows = [Points((number,), 0, 1.0, 0.333, 0.333) for number in range(3)]
    with_rest = Score(0, 1.332, rows, 0.333, 9).rounded()
    assert [row.points for row in with_rest.rows] == [0.33, 0.33, 0.33]
    assert (with_rest.rest, with_rest.score) == (0.34, 1.33)
    without = Score(0, 0.999, rows, 0.0, 0).rounded()
    assert [row.points for row in without.rows] == [0.34, 0.33, 0.33]
    assert (without.rest, without.score) == (0.0, 1.0)


@given(st.lists(st.floats(-5, 5), min_size=1, max_size=8), st.integers(1, 8))
def test_rounded_scores_always_add_up(points: list[float], top: int) -> None:
    P = len(points)
    prototypes = Prototypes(
        ["wren"], np.zeros(P, int), np.array([points]), np.arange(P), np.zeros(P, int), np.zeros(P)
    )
    score = prototypes.score(0, np.ones(P), np.zeros(P, int), top)
    assert score.score == pytest.approx(sum(points), abs=1e-9)
    shown = score.rounded()
    cents = [round(100 * row.points) for row in shown.rows] + [round(100 * shown.rest)]
    assert sum(cents) == round(100 * shown.score)
    assert abs(shown.score - sum(points)) <= 0.005 + 1e-9


def test_figures_have_a_true_minus_and_no_negative_zero() -> None:
    assert [figure(value) for value in (-1.005, -0.001, 2)] == ["−1.00", "0.00", "2.00"]


def test_a_record_of_another_model_is_refused(tiny: Any) -> None:
    class Network:
        class_of = torch.tensor([0, 1])
        classifier = torch.ones(3, 2)

    names = tiny.index.class_names
    record = pd.DataFrame(
        {"class_name": [names[0], names[1]], "image": ["nowhere/1", tiny.index.ids[0]]}
    )
    record["crop"], record["distance"] = 0, 0.0
    with pytest.raises(ProtoMaskError, match="nowhere/1"):
        Prototypes.of(Network, record, tiny.index)
    with pytest.raises(ProtoMaskError, match="not the model's 2"):
        Prototypes.of(Network, record[:1], tiny.index)
    record["image"] = tiny.index.ids[5]
    found = Prototypes.of(Network, record, tiny.index)
    assert found.rows_P.tolist() == [5, 5]
