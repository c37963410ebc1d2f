"""What a stage says while it works, in a terminal and in a log."""

import io
import re
import time

import pytest
from rich.console import Console

from pipeline import progress
from pipeline.progress import duration, examples, track


class Clock:
    """A clock that goes on by what is slept."""

    now = 0.0

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(progress, "time", clock)
    return clock


def test_in_a_log_a_line_a_minute_says_what_is_left(
    capfd: pytest.CaptureFixture[str], clock: Clock
) -> None:
    for _ in track(range(40), "Segmenting images"):
        clock.sleep(4)
    assert capfd.readouterr().err.splitlines() == [
        "Segmenting images: 15 of 40, 1:40 left",
        "Segmenting images: 30 of 40, 0:40 left",
        "Segmenting images: 40 of 40 in 2:40",
    ]


def test_in_a_log_without_a_known_number(capfd: pytest.CaptureFixture[str], clock: Clock) -> None:
    for _ in track(iter("abc"), "Unpacking"):
        clock.sleep(61)
    assert capfd.readouterr().err.splitlines() == [
        *(f"Unpacking: {done}" for done in (1, 2, 3)),
        "Unpacking: 3 in 3:03",
    ]


def test_a_line_is_there_as_soon_as_it_is_said(clock: Clock, monkeypatch) -> None:
    """Not when a buffer is full: somebody follows the log."""
    raw = io.BytesIO()
    log = io.TextIOWrapper(raw, write_through=False)
    monkeypatch.setattr(progress, "console", Console(file=log))
    for _ in track(range(3), "Reading"):
        clock.sleep(60)
        seen = raw.getvalue()
    assert seen == b"Reading: 1 of 3, 2:00 left\nReading: 2 of 3, 1:00 left\n"


def test_in_a_terminal_a_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = io.StringIO()
    monkeypatch.setattr(
        progress,
        "console",
        Console(file=terminal, force_terminal=True, width=80, color_system=None),
    )
    for _ in track(range(3), "Reading letters"):
        time.sleep(0.2)
    assert re.search(r"Reading letters .*3/3 in 0:01", terminal.getvalue())


@pytest.mark.parametrize(
    ("seconds", "said"), [(0.2, "0:00"), (5, "0:05"), (133, "2:13"), (3599.7, "1:00:00")]
)
def test_durations(seconds: float, said: str) -> None:
    assert duration(seconds) == said


def test_nothing_for_nothing(capfd: pytest.CaptureFixture[str]) -> None:
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
