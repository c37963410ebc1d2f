"""What outputs say of themselves, against what is asked for."""

from typing import Any

import pytest

from stages.provenance import asked, contradictions

LEARNED = "22369c60"


@pytest.mark.parametrize(
    ("given", "learned", "wrong"),
    [
        ({"segmenter.codebook": None}, ["codebook"], []),
        ({"segmenter.codebook": LEARNED}, ["codebook"], []),
        ({"segmenter.codebook": "0"}, ["codebook"], ["segmenter.codebook"]),
        # Of a segmenter that learns none, null is a value.
        ({"segmenter.codebook": None}, [], ["segmenter.codebook"]),
        ({"segmenter.codebook": None, "crops.side": 64}, ["codebook"], ["crops.side"]),
    ],
)
def test_what_a_segmenter_has_learned_contradicts_nothing_unless_it_was_asked_for(
    given: dict[str, Any], learned: list[str], wrong: list[str]
) -> None:
    made = {"masks": {"segmenter.codebook": LEARNED}, "crops": {"crops.side": 96}}
    assert [found.name for found in contradictions(made, asked(given, learned))] == wrong


def test_what_several_stages_were_made_with_is_said_once() -> None:
    made = {"prepare": {"seed": 0}, "train": {"seed": 0}, "evaluate": {"seed": 2}}
    said = [str(found) for found in contradictions(made, {"seed": 1})]
    assert said == ["seed=0 instead of 1", "seed=2 instead of 1"]
