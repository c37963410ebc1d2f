"""Names that mean a photograph by the end of a path, also where a tool has changed them."""

import pytest

from pipeline.masks.path_ends import PathEnds, undecorated


@pytest.mark.parametrize(
    ("spelling", "bare"),
    [
        ("001.jpg", []),
        ("images/0abcdef0-001.jpg", ["001.jpg"]),
        ("images/0abcdef0__001.jpg", ["001.jpg"]),
        ("0abcdef0__0abcdef1-001.jpg", ["0abcdef1-001.jpg", "001.jpg"]),
        (r"upload\1\0abcdef0-a-b.jpg", ["a-b.jpg"]),
        ("0abcdefg-001.jpg", []),
        ("0abcdef-001.jpg", []),
        ("0abcdef0-", []),
        ("train/001_jpg.rf.0123456789abcdef.jpg", ["001.jpg"]),
        ("001_png.rf.AbC123.jpg", ["001.png"]),
        ("IMG_3147_jpeg_jpg.rf.fc46.jpg", ["IMG_3147_jpeg.jpg", "IMG_3147.jpeg"]),
        ("001_jpg.rf", []),
    ],
)
def test_what_tools_add_is_taken_away(spelling: str, bare: list[str]) -> None:
    assert undecorated(spelling) == bare


@pytest.mark.parametrize(
    ("image", "level"),
    [
        ("crow/001.jpg", 0),
        ("birds/crow/001.jpg", 1),
        ("001.jpg", 1),
        ("Birds/Crow/001.JPG", 2),
        ("owl/001.jpg", None),
        ("crow/002.jpg", None),
    ],
)
def test_the_more_exact_levels_come_first(image: str, level: int | None) -> None:
    levels = PathEnds({"crow/001.jpg": ["crow/001.jpg"]}).related(image)
    assert next((at for at, names in enumerate(levels) if names), None) == level


@pytest.mark.parametrize(
    "image", ["crow/a b (1).jpg", "crow/a_b_1.jpg", "crow/A_B_1.JPG"], ids=repr
)
def test_a_name_with_additions_is_of_the_last_level(image: str) -> None:
    name = "../upload/1/0abcdef0-a_b_1.jpg"
    assert PathEnds({name: [name]}).related(image) == [[], [], [], [name]]


def test_any_spelling_will_do() -> None:
    ends = PathEnds({"x": ["x", "train/7.jpg", "crow/001.jpg"]})
    assert ends.related("crow/001.jpg") == [[], ["x"], ["x"], []]
    assert ends.related("birds/train/7.jpg") == [[], ["x"], ["x"], []]
    assert ends.related("train/001.jpg") == [[], [], [], []]


def test_names_without_suffixes() -> None:
    ends = PathEnds({"001": ["001"], "wren/a.b": ["wren/a.b"]}, suffixes=False)
    assert ends.related("crow/001.jpg") == [[], ["001"], ["001"], []]
    assert ends.related("wren/a.b.png")[0] == ["wren/a.b"]
