"""Names that mean a photograph by the end of a path."""

import re
from collections.abc import Iterable, Mapping
from pathlib import PurePosixPath

from pipeline.masks.names import form

UPLOADED = re.compile(r"[0-9a-f]{8}(?:-|__)(?=.)")
"""What Label Studio puts before the name of an uploaded or a downloaded file."""
VERSION = re.compile(r"(?P<stem>.+)_(?P<suffix>[^._]+)\.rf\.[^.]+(?:\.[^.]+)?")
"""What Roboflow makes of `name.jpg`: `name_jpg.rf.HASH.jpg`."""
TURNED = re.compile(r"(?P<stem>.+)_(?P<suffix>jpe?g|png|bmp|webp|tiff?|mpo|avif|heic)", re.I)
"""What Roboflow leaves of `name.jpeg`, beside the suffix that it gives: `name_jpeg`."""


class PathEnds:
    """Names with their spellings, of which each is a path, or the end of one.

    Args:
        spellings: the spellings of each name: paths, the name itself among them or not.
        suffixes: whether the spellings have the photographs' suffixes, as in `001.jpg`.
    """

    def __init__(self, spellings: Mapping[str, Iterable[str]], suffixes: bool = True) -> None:
        self._suffixes = suffixes
        self._spellings = {name: list(dict.fromkeys(its)) for name, its in spellings.items()}
        self._by_last: dict[str, list[str]] = {}
        self._bare: dict[str, list[str]] = {}
        for name, its in self._spellings.items():
            for last in dict.fromkeys(split(form(spelling))[-1] for spelling in its):
                self._by_last.setdefault(last, []).append(name)
            for bare in dict.fromkeys(bare for spelling in its for bare in undecorated(spelling)):
                self._bare.setdefault(form(bare), []).append(name)

    def related(self, image: str) -> list[list[str]]:
        """Returns the names that may mean an image: one path is the end of the other.

        Args:
            image: path of the image relative to the data set's root.

        Returns:
            The levels of `Named.related`; in the last one are names that do when what a tool has
            added to them is taken away.
        """
        spelled = image if self._suffixes else str(PurePosixPath(image).with_suffix(""))
        wanted, parts = PurePosixPath(spelled).parts, split(form(spelled))
        same_last = self._by_last.get(parts[-1], [])
        loose = [
            name
            for name in same_last
            if any(_one_ends_the_other(split(form(its)), parts) for its in self._spellings[name])
        ]
        near = [
            name
            for name in loose
            if any(_one_ends_the_other(split(its), wanted) for its in self._spellings[name])
        ]
        tidied = (parts[-1], form(_tidied(wanted[-1])))
        bare = [name for last in dict.fromkeys(tidied) for name in self._bare.get(last, [])]
        exact = [spelled] if spelled in self._spellings else []
        return [exact, near, loose, list(dict.fromkeys(bare))]


def undecorated(spelling: str) -> list[str]:
    """Returns what a file may have been called before a tool changed its name; mostly nothing.

    Args:
        spelling: the name, or a path that ends with it.
    """
    last = split(spelling)[-1]
    found = []
    while uploaded := UPLOADED.match(last):
        last = last[uploaded.end() :]
        found.append(last)
    if version := VERSION.fullmatch(last):
        stem, suffix = version["stem"], version["suffix"]
        found.append(f"{stem}.{suffix}")
        if turned := TURNED.fullmatch(stem):
            found.append(f"{turned['stem']}.{turned['suffix']}")
    return found


def split(name: str) -> tuple[str, ...]:
    """Splits a path that may have Windows separators."""
    return PurePosixPath("/", name.replace("\\", "/")).parts[1:] or (name,)


def _tidied(name: str) -> str:
    """Returns what Label Studio makes of the name of a file that is uploaded."""
    return re.sub(r"[^-\w.]", "", name.strip().replace(" ", "_"))


def _one_ends_the_other(one: tuple[str, ...], other: tuple[str, ...]) -> bool:
    shared = min(len(one), len(other))
    return one[-shared:] == other[-shared:]
