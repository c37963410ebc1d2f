"""What a stage says: progress with the remaining time, and counts with a few examples."""

import time
from collections.abc import Iterable, Iterator, Sequence, Sized
from typing import TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TextColumn
from rich.text import Text

T = TypeVar("T")
FEW = 3
EVERY = 60.0
"""Seconds between two lines where there is no terminal."""
console = Console(stderr=True)


def track(items: Iterable[T], what: str, total: int | None = None) -> Iterator[T]:
    """Yields the items and shows how many are done and how much time the others will take.

    In a terminal that is a bar; in a log, a line a minute, and one at the end.

    Args:
        items: the items to iterate over.
        what: what is done, such as "Segmenting images".
        total: number of items, if `items` has no length. For 0 nothing is shown.
    """
    if total is None and isinstance(items, Sized):
        total = len(items)
    if total == 0:
        yield from items
    elif console.is_terminal:
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), _Left())
        with Progress(*columns, console=console) as bar:
            yield from bar.track(items, total=total, description=what)
    else:
        yield from _in_lines(items, what, total)


def duration(seconds: float) -> str:
    """Returns a time as minutes and seconds, as in 2:13, or with hours, as in 1:02:13."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


class _Left(ProgressColumn):
    """The time that is left, or at the end the time that it took."""

    def render(self, task: Task) -> Text:
        if task.finished:
            return Text(f"in {duration(task.finished_time or 0)}")
        left = task.time_remaining
        return Text("" if left is None else f"{duration(left)} left")


def _in_lines(items: Iterable[T], what: str, total: int | None) -> Iterator[T]:
    start = said = time.monotonic()
    done = 0
    for item in items:
        yield item
        done += 1
        now = time.monotonic()
        if now - said >= EVERY and done != total:
            said = now
            left = "" if total is None else duration((now - start) / done * (total - done))
            _say(f"{what}: {_of(done, total)}" + (f", {left} left" if left else ""))
    _say(f"{what}: {_of(done, total)} in {duration(time.monotonic() - start)}")


def _of(done: int, total: int | None) -> str:
    return f"{done}" if total is None else f"{done} of {total}"


def _say(line: str) -> None:
    print(line, file=console.file, flush=True)


def examples(items: Sequence[object]) -> str:
    """Returns the first few of a count's items, and how many more there are.

    Args:
        items: names, or other things that a person can look up; at least one.
    """
    few = ", ".join(repr(item) for item in items[:FEW])
    more = len(items) - FEW
    return f"{few} and {more} more" if more > 0 else few
