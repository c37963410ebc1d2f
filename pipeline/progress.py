"""Progress bars with the time left, on standard error."""

from collections.abc import Iterable, Iterator, Sized
from typing import TypeVar

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

T = TypeVar("T")
console = Console(stderr=True)


def track(items: Iterable[T], what: str, total: int | None = None) -> Iterator[T]:
    """Yields the items and shows how many are done and how long the rest will take.

    Args:
        items: what is worked on.
        what: what the bar is called, such as "Segmenting images".
        total: how many there are, where `items` does not know. For none there is no bar.
    """
    if total is None and isinstance(items, Sized):
        total = len(items)
    if total == 0:
        yield from items
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console) as bar:
        yield from bar.track(items, total=total, description=what)
