"""What the model says of each test image: numbers worked out by hand, and which are drawn."""

from typing import Any

import numpy as np
import pytest

from pipeline.report.answers import answer, chosen, confidence, lines
from pipeline.saliency.stored_outputs import StoredOutputs


def outputs(labels: list[int], logits: list[list[float]]) -> StoredOutputs:
    N = len(labels)
    found = np.array(logits, np.float32)
    nothing = np.zeros((N, 6), np.float32)
    return StoredOutputs(np.arange(N), np.array(labels), found, nothing, nothing.astype(np.int64))


def test_confidence_is_the_softmax_of_the_largest_logit() -> None:
    found = confidence(np.array([[0, np.log(3), 0], [1000, 0, 0], [2, 2, 2]], np.float32))
    assert found == pytest.approx([0.6, 1, 1 / 3])


def test_half_of_those_drawn_are_mistakes_the_worst_first() -> None:
    labels = [0, 0, 0, 0, 1, 1, 1, 1]
    logits = [[1.0, 0], [0, 9], [0, 1], [0, 5], [0, 1], [0, 1], [0, 1], [0, 1]]
    answers = outputs(labels, logits)
    assert chosen(answers, 0) == set()
    assert chosen(answers, 4) == {1, 3, 0, 4}
    assert chosen(answers, 8) == chosen(answers, 99) == set(range(8))


def test_lines_by_prototype_add_up_to_the_margin(tiny: Any) -> None:
    contrasts = tiny.report().contrasts
    for place in range(len(tiny.outputs.rows_N)):
        margin = contrasts.plain(place).margin
        similarity_P, view_P = tiny.outputs.similarity_NP[place], tiny.outputs.view_NP[place]
        found = lines(tiny.prototypes, margin.labels, similarity_P, view_P, margin.points)
        cents = [round(100 * line.points.points) for line in found.lines]
        assert sum(cents) + round(100 * found.rest) == round(100 * margin.points)
        assert cents == sorted(cents, reverse=True) and 0 not in cents
        for line in found.lines:
            exact = line.points.similarity * line.points.weight
            assert line.points.points == pytest.approx(exact, abs=0.0051)


def test_an_answer_says_what_decided_and_compares_a_mistake_with_the_right_class(
    tiny: Any,
) -> None:
    contrasts, sure_N = tiny.report().contrasts, confidence(tiny.outputs.logits_NC)
    background_N = np.full(len(sure_N), 12.5)
    background_N[1] = np.nan
    seen = set()
    for place, (actual, named) in enumerate(
        zip(tiny.outputs.labels_N, tiny.outputs.predicted_N, strict=True)
    ):
        found = answer(place, tiny.outputs, contrasts, sure_N, background_N)
        assert found.contrast is not None
        assert (found.actual, found.named, found.right) == (actual, named, actual == named)
        assert found.contrast.margin.labels == (named, found.second if found.right else actual)
        assert found.background == (None if place == 1 else 12.5)
        assert found.decisive == found.contrast.margin.regions[0].called
        assert all(row.picture is None for row in found.contrast.rows)
        seen.add(found.right)
    assert seen == {True, False}
    assert answer(0, tiny.outputs, contrasts, sure_N, None).background is None
