"""The map of prototypes."""

from itertools import combinations

import numpy as np
import pytest

from pipeline.report import prototype_map as module
from pipeline.report.prototype_map import (
    HEIGHT,
    LETTER,
    WIDE,
    WIDTH,
    PrototypeMap,
    map_prototypes,
    project,
)
from pipeline.saliency.prototypes import Prototypes
from pipeline.saliency.views import Views


def clusters(C: int, M: int, seed: int = 0) -> tuple[Prototypes, np.ndarray]:
    """C classes of M prototypes, each class in a corner of its own."""
    random = np.random.default_rng(seed)
    class_of_P = np.repeat(np.arange(C), M)
    names = [f"class number {label}" for label in range(C)]
    P = C * M
    prototypes = Prototypes(
        names,
        class_of_P,
        np.zeros((C, P)),
        np.arange(P),
        *np.zeros((2, P), int),
        np.zeros(P),
        Views("crops", (1, 1)),
    )
    return prototypes, np.eye(C)[class_of_P] + 0.01 * random.normal(size=(P, C))


def test_few_are_laid_out_by_their_principal_components() -> None:
    """Points on a line of direction (3, 4): the first coordinate is the distance along it."""
    place = project(np.outer([-2.0, 0.0, 2.0], [0.6, 0.8, 0.0]), 0)
    assert np.abs(place[:, 0]) == pytest.approx([2, 0, 2])
    assert place[:, 1] == pytest.approx([0, 0, 0])


@pytest.mark.parametrize(("X", "D"), [(1, 4), (2, 4), (5, 1)])
def test_the_smallest_models_have_a_map(X: int, D: int) -> None:
    place = project(np.random.default_rng(0).random((X, D)), 0)
    assert place.shape == (X, 2) and np.isfinite(place).all()


def test_many_keep_their_neighbours_and_every_run_is_the_same() -> None:
    prototypes, embedding_PD = clusters(6, 10)
    place = project(embedding_PD, 3)
    assert np.array_equal(place, project(embedding_PD, 3))
    distance = np.linalg.norm(place[:, None] - place, axis=-1)
    np.fill_diagonal(distance, np.inf)
    assert (prototypes.class_of_P[distance.argmin(1)] == prototypes.class_of_P).all()


def drawn(C: int, M: int) -> PrototypeMap:
    return map_prototypes(*clusters(C, M), seed=0)


def test_every_dot_and_name_lies_on_the_map() -> None:
    found = drawn(12, 4)
    assert found.method == "t-SNE" and drawn(5, 2).method == "PCA"
    assert sum(len(cluster.points) for cluster in found.clusters) == 48
    for cluster in found.clusters:
        for x, y in [*cluster.points, (cluster.x, cluster.y)]:
            assert 0 <= x <= WIDTH and 0 <= y <= HEIGHT


def test_names_that_are_written_do_not_touch() -> None:
    written = [cluster for cluster in drawn(40, 3).clusters if cluster.wide]
    assert len(written) > 5
    for one, other in combinations(written, 2):
        width = LETTER * WIDE * (len(one.name) + len(other.name)) / 2
        assert abs(one.x - other.x) > width - 2 or abs(one.y - other.y) > WIDE


def test_prototypes_of_one_crop_are_one_dot_and_a_class_without_any_has_none() -> None:
    prototypes = Prototypes(
        ["wren", "crow", "owl"],
        np.array([0, 0, 2]),
        np.zeros((3, 3)),
        np.array([7, 7, 9]),
        np.array([1, 1, 1]),
        np.zeros(3, int),
        np.zeros(3),
        Views("crops", (1, 1)),
    )
    found = map_prototypes(prototypes, np.array([[0.0, 1.0], [0.0, 1.0], [1.0, 0.0]]), 0)
    assert [(cluster.name, len(cluster.points)) for cluster in found.clusters] == [
        ("wren", 1),
        ("owl", 1),
    ]


def test_names_avoid_dots() -> None:
    x, y = 500.0, 300.0
    dots = np.array([[x, y]] * 3)
    cluster = module._cluster(0, "wren", dots, dots)
    assert cluster.x == x and abs(cluster.y - y) > 11
