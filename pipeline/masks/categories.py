"""Categories of annotations as parts: numbered by name, in the order in which they are listed."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any


class Categories:
    """The categories of several files; the same name is the same part in all of them.

    A category that only groups others, as the first one of a Roboflow export does, is no part: one
    that is named as another's `supercategory` and that no mask has.

    Args:
        listed: what `categories` is in each file; what is no list of objects with `id` and `name`
            says nothing.
        used: the ids of the categories that masks have, in each file.
    """

    def __init__(self, listed: Sequence[Any], used: Sequence[Iterable[int | None]]) -> None:
        self._names = [
            _without_groups(its, set(ids)) for its, ids in zip(listed, used, strict=True)
        ]
        names = dict.fromkeys(name for its in self._names for name in its.values())
        self._numbers = {name: number for number, name in enumerate(names)}

    @property
    def part_names(self) -> dict[int, str]:
        """The names of the parts by their numbers, 0, 1, …."""
        return {number: name for name, number in self._numbers.items()}

    def parts(self, file: int) -> dict[int, int]:
        """Returns the part of each category of a file, by its id.

        Args:
            file: number of the file, 0..F−1.
        """
        return {category: self._numbers[name] for category, name in self._names[file].items()}


def _without_groups(listed: Any, used: set[int | None]) -> dict[int, str]:
    """Returns the names of a file's categories that may be parts, by id."""
    entries = [entry for entry in listed if _is_category(entry)] if isinstance(listed, list) else []
    groups = [
        entry.get("supercategory")
        for entry in entries
        if entry.get("supercategory") != entry["name"]
    ]
    return {
        entry["id"]: entry["name"]
        for entry in entries
        if entry["id"] in used or entry["name"] not in groups
    }


def _is_category(entry: Any) -> bool:
    if not isinstance(entry, Mapping):
        return False
    number, name = entry.get("id"), entry.get("name")
    return type(number) is int and isinstance(name, str) and name != ""
