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
