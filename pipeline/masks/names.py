"""Which photograph a name in masks from elsewhere means.

Names are compared on levels, from the most to the least exact, so that two photographs whose names
differ in nothing but case or Unicode form can each have masks of their own.
"""

import unicodedata
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Protocol
from urllib.parse import unquote

from pipeline.errors import ProtoMaskError


class Named(Protocol):
    """Masks that belong to photographs by name."""

    path: Path

    def related(self, image: str) -> Sequence[Sequence[str]]:
        """Returns the names that may mean a photograph: a list for each level, the exact first."""


class Meanings:
    """Finds the name that means a photograph, and the photographs that a name means.

    A name means the photographs that it matches best, and a photograph has the name that matches it
    best of those that mean it. So a name that is one photograph's whole path means no other.

    Args:
        masks: the masks with their names.
        root: the data set's folder.
        images: paths of all image files relative to it.
    """

    def __init__(self, masks: Named, root: Path, images: Iterable[str]) -> None:
        self._masks, self._root = masks, root
        self._names: dict[str, list[str]] = {}
        self._images: dict[str, list[str]] = {}
        self._levels: dict[str, int] = {}
        for image in images:
            for level, names in enumerate(masks.related(image)):
                for name in names:
                    self._relate(image, name, level)
        for name, meant in self._images.items():
            for image in meant:
                self._names.setdefault(image, []).append(name)

    def __len__(self) -> int:
        """Returns the number of names that mean a photograph."""
        return len(self._images)

    def images(self, name: str) -> list[str]:
        """Returns the photographs that a name means; several if it is ambiguous."""
        return self._images.get(name, [])

    def name(self, image: str) -> str | None:
        """Returns the name that means a photograph; None without one.

        Raises:
            ProtoMaskError: several names do, or the name may mean another photograph as well.
        """
        known = self._names.get(image, [])
        if not known:
            return None
        best = min(self._levels[name] for name in known)
        names = [name for name in known if self._levels[name] == best]
        images = [image] if len(names) > 1 else self.images(names[0])
        if len(names) > 1 or len(images) > 1:
            raise ProtoMaskError(
                f"{self._masks.path}: {_said(names)} may mean {_said(images)} in "
                f"{self._root}; name each image there by its whole path below the data set's "
                "folder, and once"
            )
        return names[0]

    def _relate(self, image: str, name: str, level: int) -> None:
        best = self._levels.get(name, level)
        if level < best or name not in self._levels:
            self._images[name], self._levels[name] = [image], level
        elif level == best and image not in self._images[name]:
            self._images[name].append(image)


def form(name: str) -> str:
    """Returns what two spellings of a name have in common.

    Spellings differ in their Unicode form (NFC, or NFD as on a Mac), in percent-encoding (`%C3%A9`
    for `é`, as in an address), and in upper and lower case (`.JPG`).
    """
    composed = unicodedata.normalize("NFC", unquote(name))
    return unicodedata.normalize("NFC", composed.casefold())


def _said(names: Sequence[str]) -> str:
    """Joins names; those that look the same are written with the codes of their characters."""
    alike = len({unicodedata.normalize("NFC", name) for name in names}) < len(names)
    return " and ".join(map(ascii if alike else repr, sorted(names)))
