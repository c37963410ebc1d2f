"""What a stage says: progress bars with the remaining time, and counts with a few examples."""

from collections.abc import Iterable, Iterator, Sequence, Sized
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
FEW = 3
console = Console(stderr=True)


def track(items: Iterable[T], what: str, total: int | None = None) -> Iterator[T]:
    """Yields the items and shows a progress bar with the remaining time.

    Args:
        items: the items to iterate over.
        what: the bar's label, such as "Segmenting images".
        total: number of items, if `items` has no length. For 0 there is no bar.
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


def examples(items: Sequence[object]) -> str:
    """Returns the first few of a count's items, and how many more there are.

    Args:
        items: names, or other things that a person can look up; at least one.
    """
    few = ", ".join(repr(item) for item in items[:FEW])
    more = len(items) - FEW
    return f"{few} and {more} more" if more > 0 else few
