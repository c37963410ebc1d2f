import pytest

from pipeline.progress import examples, track


def test_shows_how_many_are_done(capfd: pytest.CaptureFixture[str]) -> None:
    assert list(track("abc", "Reading letters")) == ["a", "b", "c"]
    shown = capfd.readouterr().err
    assert "Reading letters" in shown
    assert "3/3" in shown


def test_no_bar_for_nothing(capfd: pytest.CaptureFixture[str]) -> None:
    assert list(track(iter(()), "Reading letters", 0)) == []
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize(
    ("items", "said"),
    [
        (["a b"], "'a b'"),
        ([1, 2, 3], "1, 2, 3"),
        (["a", "b", "c", "d", "e"], "'a', 'b', 'c' and 2 more"),
    ],
)
def test_a_few_examples(items: list[object], said: str) -> None:
    assert examples(items) == said
