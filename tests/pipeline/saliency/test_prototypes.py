"""What a class score is made of, on numbers worked out by hand."""

from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from settings import model_settings

from pipeline.backbone.backbone import Backbone
from pipeline.errors import ProtoMaskError
from pipeline.model.protopnet.model import ProtoPNet
from pipeline.saliency.prototypes import Points, Prototypes, Score, figure
from pipeline.saliency.views import Views

SIMILARITY = np.array([0.5, 0.25, 0.5, 2.0])
CROP = np.array([3, 1, 3, 0])
CROP_VIEWS = Views("crops", (1, 1))


@pytest.fixture
def prototypes() -> Prototypes:
    """Prototypes 0, 1, 2 of class 0 and 3 of class 1; 0 and 2 are the same crop."""
    return Prototypes(
        ["wren", "crow", "owl"],
        np.array([0, 0, 0, 1]),
        np.array([[1.0, 2.0, 0.5, 0.0], [0.0, -1.0, 0.0, 1.0], [0.0] * 4]),
        np.array([7, 4, 7, 9]),
        np.array([1, 0, 1, 1]),
        np.zeros(4, int),
        np.zeros(4),
        CROP_VIEWS,
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
        ["wren"],
        np.zeros(P, int),
        np.array([points]),
        np.arange(P),
        *np.zeros((2, P), int),
        np.zeros(P),
        CROP_VIEWS,
    )
    score = prototypes.score(0, np.ones(P), np.zeros(P, int), top)
    assert score.score == pytest.approx(sum(points), abs=1e-9)
    shown = score.rounded()
    cents = [round(100 * row.points) for row in shown.rows] + [round(100 * shown.rest)]
    assert sum(cents) == round(100 * shown.score)
    assert abs(shown.score - sum(points)) <= 0.005 + 1e-9


def test_figures_have_a_true_minus_and_no_negative_zero() -> None:
    assert [figure(value) for value in (-1.005, -0.001, 2)] == ["−1.00", "0.00", "2.00"]


def test_sources_of_another_model_are_refused(tiny: Any) -> None:
    network = ProtoPNet(
        model_settings("protopnet", prototypes_per_class=1), 2, Backbone("test_resnet", "none")
    )
    names = tiny.index.class_names
    sources = pd.DataFrame(
        {"class_name": [names[0], names[1]], "image": ["nowhere/1", tiny.index.ids[0]]}
    )
    sources["crop"], sources["cell"], sources["distance"] = 0, 3, 0.0
    sources[["alike", "part"]] = 1, 7
    with pytest.raises(ProtoMaskError, match="nowhere/1"):
        Prototypes.of(network, sources, names, tiny.index.ids, 64)
    with pytest.raises(ProtoMaskError, match="not the model's 2"):
        Prototypes.of(network, sources[:1], names, tiny.index.ids, 64)
    sources["image"] = tiny.index.ids[5]
    found = Prototypes.of(network, sources, names, tiny.index.ids, 64)
    assert found.rows_P.tolist() == [5, 5]
    assert found.views == Views("cells", (2, 2))
    assert found.view_P.tolist() == [3, 3]
    assert found.part_P.tolist() == [7, 7]


def shared(distance_P: np.ndarray) -> Prototypes:
    """Prototypes 0, 1 and 2 of class 0, all shown by the same cell; 2 has no weight."""
    weights_CP = np.array([[2.0, 1.0, 0.0, 0.0], [1.0, 0.0, 0.0, 3.0]])
    return Prototypes(
        ["wren", "crow"],
        np.array([0, 0, 0, 1]),
        weights_CP,
        np.array([7, 7, 7, 9]),
        np.zeros(4, int),
        np.array([5, 5, 5, 5]),
        distance_P,
        Views("cells", (3, 3), shared=True, pushed=not np.isnan(distance_P).any()),
    )


def test_pushed_prototypes_of_one_cell_are_one_and_others_only_look_so() -> None:
    assert shared(np.zeros(4)).distinct(0) == [(0, 1)]
    shown = shared(np.full(4, np.nan))
    assert shown.distinct(0) == [(0,), (1,)]
    score = shown.score(0, np.array([0.5, 0.25, 0.75, 1.0]), np.array([4, 8, 0, 1]), top=5)
    # 0.5·2 and 0.25·1; prototypes 2 and 3 have no weight, and no row
    assert score.rows == [Points((0,), 4, 0.5, 2.0, 1.0), Points((1,), 8, 0.25, 1.0, 0.25)]
    assert (score.score, score.rest, score.num_rest) == (1.25, 0, 2)


def test_a_black_box_has_its_logit_as_the_only_row() -> None:
    logits = Prototypes(
        ["wren", "crow"],
        np.arange(2),
        np.eye(2),
        np.array([4, 4]),
        *np.zeros((2, 2), int),
        np.full(2, np.nan),
        Views("image", (1, 1), pushed=False),
    )
    for logit in (-0.5, 0.0):
        score = logits.score(1, np.array([3.0, logit]), np.zeros(2, int), top=4)
        assert score.rows == [Points((1,), 0, logit, 1.0, logit)] and score.score == logit
    assert logits.distinct(0) == [(0,)] and logits.distinct(1) == [(1,)]
