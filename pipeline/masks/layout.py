"""The interface of a layout: how masks from elsewhere lie in files, and whose they are."""

import re
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import ClassVar, Generic, Literal, TypeVar

from pipeline.datasets import listing
from pipeline.datasets.image_file import SUFFIXES
from pipeline.errors import ProtoMaskError
from pipeline.masks.masks import Region
from pipeline.masks.path_ends import PathEnds
from pipeline.masks.png import Reading
from pipeline.progress import examples
from pipeline.registry import Registry

Json = Literal["coco", "image", "list", "tasks", "other"]
HEAD = 4096
IMAGES = rb'"images"\s*:'


class Place:
    """A file or a folder that may hold masks.

    Args:
        path: path of the file or the folder.

    Attributes:
        files: the paths in the folder, sorted; of a file the empty path.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.files = listing.visible_files(path) if path.is_dir() else [""]

    def ending(self, suffix: str) -> list[str]:
        """Returns the files with a suffix in lower case, such as `.png`."""
        return [file for file in self.files if (self.path / file).suffix.lower() == suffix]

    @cached_property
    def jsons(self) -> dict[str, Json]:
        """What each JSON file holds; a single file counts as one whatever it is called."""
        files = self.ending(".json") if self.path.is_dir() else self.files
        return {file: holds(self.path / file) for file in files}


class Layout(ABC):
    """Masks in files of one layout, found by names that mean photographs.

    Args:
        path: path of the file or the folder.
        files: the files of it that hold masks, as `reads` returns them.
        reading: what a PNG file holds that nothing else is said of.

    Attributes:
        name: name that the layout is registered under.
        title: what is said of masks that were recognised.
        what: what has the names, in the plural.
        rank: of the layouts that a folder may have, the lowest counts.
        example: one of the names.
        part_names: names of the parts by their numbers (`Region.part`); empty if there are none.

    Raises:
        ProtoMaskError: a file is damaged, has another format, or contradicts another.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    what: ClassVar[str]
    rank: ClassVar[int]
    example: str

    def __init__(self, path: Path, files: Sequence[str], reading: Reading) -> None:
        self.path, self.files, self.reading = path, files, reading
        self.part_names: Mapping[int, str] = {}

    @classmethod
    @abstractmethod
    def reads(cls, place: Place) -> list[str]:
        """Returns the files that determine the masks; none where the place has another layout."""

    @abstractmethod
    def __contains__(self, name: str) -> bool:
        """Whether something has a name."""

    @abstractmethod
    def __len__(self) -> int:
        """Returns the number of things that have names."""

    @abstractmethod
    def related(self, image: str) -> Sequence[Sequence[str]]:
        """Returns the names that may mean a photograph: a list for each level, the exact first.

        Args:
            image: path of the image relative to the data set's root.
        """

    @abstractmethod
    def advice(self, image: str) -> str:
        """Returns how the masks of a photograph have to be named."""

    @abstractmethod
    def unused(self, used: set[str]) -> list[str]:
        """Returns what belongs to none of the names in use."""

    def names_of(self, name: str) -> list[str]:
        """Returns the names that the masks of something may be found by: its own."""
        return [name]

    def remarks(self) -> list[str]:
        """Returns what is to be said of all files: which of them are not read.

        Photographs may lie beside masks.
        """
        if not self.path.is_dir():
            return []
        others = sorted({*listing.visible_files(self.path)} - {*self.files})
        said = [file for file in others if PurePosixPath(file).suffix.lower() not in SUFFIXES]
        return [f"{len(said)} files in {self.path} are not read: {examples(said)}"] if said else []

    @abstractmethod
    def regions(self, name: str, height: int, width: int) -> list[Region]:
        """Returns the masks of an image, with one score each.

        Args:
            name: a name that means the image.
            height: height of the image in pixels.
            width: width of the image in pixels.

        Raises:
            ProtoMaskError: a mask is damaged, or of an image of another size.
        """

    def recognised(self) -> str:
        """Says in one line what the masks were taken for."""
        names = sorted(self.part_names.values())
        parts = f", with the parts {examples(names)}" if names else ""
        return f"{self.path} is read as {self.title}: {len(self)} {self.what}{parts}"


Entry = TypeVar("Entry")


class NamedLayout(Layout, Generic[Entry]):
    """Masks whose files give each photograph a name: its path, or the end of it.

    Attributes:
        entries: what the masks of each name are read from; a layout fills them with `hold`.
    """

    entries: dict[str, Entry]

    def hold(
        self,
        entries: dict[str, Entry],
        spellings: Mapping[str, Iterable[str]] | None = None,
        suffixes: bool = True,
    ) -> None:
        """Takes the entries, which have to be some.

        Args:
            entries: what the masks of each name are read from.
            spellings: the spellings of each name; its own alone if not given.
            suffixes: whether the spellings have the photographs' suffixes; see `PathEnds`.
        """
        self.entries = entries
        self._ends = PathEnds(spellings or {name: [name] for name in entries}, suffixes)
        self.example = next(iter(entries))

    def __contains__(self, name: str) -> bool:
        return name in self.entries

    def __len__(self) -> int:
        """Returns the number of names."""
        return len(self.entries)

    def related(self, image: str) -> list[list[str]]:
        """Returns the names that may mean a photograph; see `Layout.related`."""
        return self._ends.related(image)

    def unused(self, used: set[str]) -> list[str]:
        """Returns the names that are not in use."""
        return [name for name in self.entries if name not in used]


LAYOUTS: Registry[type[Layout]] = Registry(
    "layout of masks", "pipeline.masks.layouts", "protomask.layouts"
)


def layout_of(path: Path) -> tuple[type[Layout], list[str]]:
    """Returns the layout of masks, and those of their files that determine them.

    Args:
        path: path of a file or a folder.

    Raises:
        ProtoMaskError: there is no such file or folder, or no layout that it has.
    """
    if not path.exists():
        raise ProtoMaskError(
            f"no masks at {path}: name a COCO JSON file or a folder of PNG files, or what else "
            "docs/import.md lists"
        )
    place = Place(path)
    for layout in sorted((LAYOUTS[name] for name in LAYOUTS.names()), key=lambda kind: kind.rank):
        if files := layout.reads(place):
            return layout, files
    raise ProtoMaskError(
        f"{path} holds no masks: no PNG files, and no JSON files of a layout that docs/import.md "
        f"lists. The PNG masks of class/photo.jpg belong into {path}/class/photo.jpg or "
        f"{path}/class/photo, or into the one file {path}/class/photo.png"
    )


Kind = TypeVar("Kind", bound=type[Layout])


def register(layout: Kind) -> Kind:
    """Registers a layout under its `name`; a decorator of its class."""
    LAYOUTS.add(layout.name, layout)
    return layout


def holds(path: Path) -> Json:
    """Returns what a JSON file seems to hold, by its first bytes or its keys.

    That is COCO's `images`, SA-1B's one `image`, a list of masks, or one of Label Studio's tasks.
    """
    with path.open("rb") as file:
        head = file.read(HEAD)
        if head.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"["):
            return "tasks" if re.search(rb'"(data|annotations)"\s*:', head) else "list"
        if re.search(rb'"image"\s*:\s*\{', head):
            return "image"
        found = re.search(IMAGES, head) or re.search(IMAGES, head + file.read())
    return "coco" if found else "other"
