"""Images that nobody picked: spread over the classes, without regard to anything else."""

from collections.abc import Sequence


def spread_over_classes(labels: Sequence[int], count: int) -> list[int]:
    """Returns places of images spread over their classes.

    They are the first image of each class, evenly spaced over the classes; with few classes, the
    second ones as well, and so on.

    Args:
        labels: numbers of the images' classes, in the images' order.
        count: the number of images wanted; all, if there are fewer.
    """
    seen: dict[int, int] = {}
    turns = []
    for place, label in enumerate(labels):
        turns.append((seen.get(label, 0), label, place))
        seen[label] = seen.get(label, 0) + 1
    turns.sort()
    first = turns[: max(count, len(seen))]
    count = min(count, len(first))
    return [first[at * len(first) // count][2] for at in range(count)]
