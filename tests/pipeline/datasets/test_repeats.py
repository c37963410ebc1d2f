"""The same picture in two splits or under two classes."""

from pipeline.datasets.index import Image, Index, Split
from pipeline.datasets.repeats import Repeat, find_repeats, numbers


def _index(*rows: tuple[str, str, Split, str]) -> Index:
    images = [
        Image(id=name, path=name, class_name=of, split=split, sha256=digest)
        for name, of, split, digest in rows
    ]
    return Index.of("folder", images, ["crow", "jay"], [])


def test_none() -> None:
    """Two of one class and split are no concern."""
    index = _index(
        ("1", "crow", "train", "a"), ("2", "crow", "train", "a"), ("3", "jay", "test", "b")
    )
    assert find_repeats(index) == []
    assert numbers([]) == "none in two splits or under two classes"


def test_each_kind() -> None:
    index = _index(
        ("1", "crow", "train", "a"),
        ("2", "crow", "test", "a"),
        ("3", "crow", "val", "b"),
        ("4", "jay", "test", "b"),
        ("5", "jay", "train", "c"),
        ("6", "crow", "train", "c"),
        ("7", "jay", "test", "d"),
        ("8", "jay", "val", "e"),
        ("9", "jay", "train", "e"),
    )
    found = find_repeats(index)
    assert found == [
        Repeat("in both train and test", [["1", "2"]]),
        Repeat("in both val and test", [["3", "4"]]),
        Repeat("in both train and val", [["8", "9"]]),
        Repeat("under two classes", [["3", "4"], ["5", "6"]]),
    ]
    assert numbers(found) == (
        "1 in both train and test, 1 in both val and test, 1 in both train and val, "
        "2 under two classes"
    )
    assert str(found[3]) == "the same picture under two classes: 3 = 4, 5 = 6"


def test_many_are_counted() -> None:
    rows: list[tuple[str, str, Split, str]] = []
    for number in range(5):
        rows += [
            (f"{number}a", "jay", "train", str(number)),
            (f"{number}b", "jay", "test", str(number)),
        ]
    [repeat] = find_repeats(_index(*rows))
    assert str(repeat) == (
        "the same picture in both train and test: 5, such as 0a = 0b, 1a = 1b, 2a = 2b"
    )
