"""Which photograph a name means: by how exactly they are the same, and never by chance."""

import unicodedata
from collections.abc import Sequence
from pathlib import Path

import pytest

from pipeline.errors import ProtoMaskError
from pipeline.masks.names import Meanings, form

COMPOSED = unicodedata.normalize("NFC", "Éider/bécasse.jpg")
DECOMPOSED = unicodedata.normalize("NFD", "Éider/bécasse.jpg")


class Flat:
    """Names of two levels: the same, and the same form."""

    path = Path("masks")

    def __init__(self, *names: str) -> None:
        self.names = names

    def related(self, image: str) -> Sequence[Sequence[str]]:
        same = [name for name in self.names if name == image]
        return [same, [name for name in self.names if form(name) == form(image)]]


@pytest.mark.parametrize(
    "other",
    [
        DECOMPOSED,
        "%C3%89ider/b%C3%A9casse.jpg",
        "E%CC%81ider/be%cc%81casse.jpg",
        "Éider/bécasse.JPG",
        DECOMPOSED.upper(),
    ],
)
def test_spellings_of_a_name(other: str) -> None:
    assert other != COMPOSED
    assert form(other) == form(COMPOSED)


@pytest.mark.parametrize("other", ["Eider/becasse.jpg", "Éider/bécasse.jpeg", "Éider/bécasse"])
def test_other_names(other: str) -> None:
    assert form(other) != form(COMPOSED)


@pytest.mark.parametrize("name", ["100%.jpg", "50%_off.jpg", "%zz.jpg"])
def test_a_percent_sign_may_be_part_of_a_name(name: str) -> None:
    assert form(name) == name


def _names(masks: Flat, *images: str) -> list[str | None]:
    meanings = Meanings(masks, Path("birds"), images)
    return [meanings.name(image) for image in images]


def test_another_spelling_will_do() -> None:
    assert _names(Flat("a.jpg", DECOMPOSED), COMPOSED, "b.jpg") == [DECOMPOSED, None]


def test_photographs_that_differ_in_spelling_have_their_own() -> None:
    images = ["a.jpg", "a.JPG", COMPOSED, DECOMPOSED]
    assert _names(Flat(*images[::-1]), *images) == images


def test_a_name_that_is_a_photographs_own_means_no_other() -> None:
    assert _names(Flat("a.jpg"), "a.JPG", "a.jpg", "A.jpg") == [None, "a.jpg", None]


def test_of_two_spellings_the_exact_one_counts() -> None:
    masks = Flat("a.JPG", "a.jpg")
    assert _names(masks, "a.jpg") == ["a.jpg"]
    assert Meanings(masks, Path("birds"), ["a.jpg"]).images("a.JPG") == ["a.jpg"]


def test_two_spellings_of_a_photograph_are_refused() -> None:
    with pytest.raises(ProtoMaskError, match=r"'A\.jpg' and 'a\.JPG' may mean 'a\.jpg' in birds"):
        _names(Flat("a.JPG", "A.jpg"), "a.jpg")


def test_names_that_look_the_same_are_told_apart() -> None:
    """Where a name may mean one photograph or the other."""
    with pytest.raises(ProtoMaskError) as error:
        _names(Flat("éÉ"), "éé", unicodedata.normalize("NFD", "éé"))
    assert r"'\xe9\xe9' and 'e\u0301e\u0301' in birds" in str(error.value).replace(
        r"'e\u0301e\u0301' and '\xe9\xe9'", r"'\xe9\xe9' and 'e\u0301e\u0301'"
    )
