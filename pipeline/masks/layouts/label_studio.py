"""Label Studio's brush labels as PNG files, with the project's JSON, which has the photographs."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, ClassVar

from pydantic import Field, TypeAdapter

from pipeline.datasets.image_file import SUFFIXES
from pipeline.errors import ProtoMaskError
from pipeline.masks.json_files import parse
from pipeline.masks.layout import NamedLayout, Place, register
from pipeline.masks.masks import NO_PART, Region
from pipeline.masks.png import Reading, read_png
from pipeline.progress import examples

PNG = re.compile(r"task-(?P<task>\d+)-annotation-(?P<annotation>\d+)-by-.*?\.png", re.I)
PNGS = "export the project as PNG, too, and put both into one folder, or export it as COCO"
LACK = (
    "its PNG files are, they do not say: export the project as JSON, too, and put that file into "
    "the folder of PNG files"
)


@dataclass(frozen=True, slots=True)
class Result:
    """What was drawn with a tool."""

    from_name: str = ""
    value: Any = None
    type: str = ""


@dataclass(frozen=True, slots=True)
class Drawing:
    """What one person drew on a photograph."""

    id: int
    result: list[Result]


@dataclass(frozen=True, slots=True)
class Task:
    """A photograph with what was drawn on it."""

    id: int
    data: dict[str, Any]
    annotations: Annotated[list[Drawing], Field(default_factory=list)]


FORM = TypeAdapter(list[Task])


@register
class LabelStudioMasks(NamedLayout[list[str]]):
    """Reads the PNG files of brush labels, whose names say the task and the annotation."""

    name: ClassVar[str] = "label_studio"
    title: ClassVar[str] = "Label Studio's brush labels in PNG files"
    what: ClassVar[str] = "photographs"
    rank: ClassVar[int] = 1

    def __init__(self, path: Path, files: Sequence[str], reading: Reading) -> None:
        super().__init__(path, files, reading)
        tasks = {task.id: task for file in files if _is_json(file) for task in _tasks(path / file)}
        pngs = [file for file in files if not _is_json(file)]
        if not pngs or not tasks:
            lacking = f"the masks are missing: {PNGS}" if tasks else f"of which photographs {LACK}"
            raise ProtoMaskError(f"{path} is an export of Label Studio, but {lacking}")
        labels = dict.fromkeys(name for task in tasks.values() for name in _labels(task))
        self._numbers = {name: number for number, name in enumerate(labels)}
        self.part_names = {number: name for name, number in self._numbers.items()}
        self._strangers = [file for file in pngs if _task_of(file) not in tasks]
        photographs: dict[str, list[str]] = {}
        self._parts: dict[str, int] = {}
        for file in sorted(set(pngs) - set(self._strangers), key=_in_order):
            task = tasks[_task_of(file)]
            photographs.setdefault(_photograph(task), []).append(file)
            self._parts[file] = self._numbers.get(_label_of(file, task), NO_PART)
        if not photographs:
            raise ProtoMaskError(
                f"{path}: no PNG file is of a task in the JSON: {examples(self._strangers)}: "
                "export both from the same project"
            )
        self.hold(photographs)
        self._others = [
            f"{item.type} in task {task.id}"
            for task in tasks.values()
            for drawing in task.annotations
            for item in drawing.result
            if not _names(item)
        ]

    @classmethod
    def reads(cls, place: Place) -> list[str]:
        """Returns the PNG files, and the JSON with their photographs; see `Layout.reads`."""
        pngs = [f for f in place.ending(".png") if PNG.fullmatch(PurePosixPath(f).name)]
        return sorted([*pngs, *(file for file, kind in place.jsons.items() if kind == "tasks")])

    def advice(self, image: str) -> str:
        """Returns how a photograph has to be named in Label Studio."""
        return f"the task's photograph has to be called {image!r}, or an end of that"

    def remarks(self) -> list[str]:
        """Returns which files are not read or of no task, and what was drawn with no brush."""
        said = {
            "PNG files are of no task in the JSON": self._strangers,
            "annotations in the JSON have no mask, since they are no brush labels": self._others,
        }
        found = [
            f"{len(items)} {what} ({self.path}): {examples(items)}"
            for what, items in said.items()
            if items
        ]
        return [*super().remarks(), *found]

    def regions(self, name: str, height: int, width: int) -> list[Region]:
        """Returns the masks of an image; see `Layout.regions`."""
        return [self._region(file, height, width) for file in self.entries[name]]

    def _region(self, file: str, height: int, width: int) -> Region:
        inside = read_png(self.path / file, "mask")
        if inside.shape != (height, width):
            raise ProtoMaskError(
                f"{self.path / file} has {inside.shape[1]}×{inside.shape[0]} pixels, but the "
                f"upright photograph {width}×{height}"
            )
        return Region(0, 0, inside.astype(bool), (1.0,), self._parts[file])


def _tasks(path: Path) -> list[Task]:
    return parse(path, FORM, "JSON of a Label Studio project")


def _is_json(file: str) -> bool:
    return not PNG.fullmatch(PurePosixPath(file).name)


def _task_of(file: str) -> int:
    return _numbers(file)[0]


def _numbers(file: str) -> tuple[int, int]:
    """Returns the ids of a PNG file's task and annotation."""
    found = PNG.fullmatch(PurePosixPath(file).name)
    assert found is not None, file
    return int(found["task"]), int(found["annotation"])


def _in_order(file: str) -> tuple[tuple[int, int], str]:
    return _numbers(file), file


def _photograph(task: Task) -> str:
    """Returns the first of a task's data that is an image's path or address, without its query.

    Files of the machine stand as `/data/local-files/?d=PATH`.
    """
    for value in task.data.values():
        path = str(value).rpartition("?d=")[2].partition("?")[0]
        if PurePosixPath(path).suffix.lower() in SUFFIXES:
            return path
    raise ProtoMaskError(f"task {task.id} of Label Studio names no photograph")


def _labels(task: Task) -> Iterator[str]:
    for drawing in task.annotations:
        for item in drawing.result:
            yield from filter(None, [", ".join(_names(item))])


def _names(item: Result) -> list[str]:
    """Returns the labels of what was drawn with a brush; none of other things."""
    value = item.value if isinstance(item.value, dict) else {}
    names = value.get("brushlabels") or value.get("labels") or []
    return [str(name) for name in names] if "rle" in value else []


def _label_of(file: str, task: Task) -> str:
    """Returns the labels of a PNG file, whose name ends with the tool, them and a number."""
    _, annotation = _numbers(file)
    stem = PurePosixPath(file).stem.rpartition("-")[0]
    for drawing in task.annotations:
        for item in drawing.result if drawing.id == annotation else []:
            names = _names(item)
            end = "-".join([item.from_name, *names]).replace("/", "-").replace("\\", "-")
            if names and stem.endswith(f"-{end}"):
                return ", ".join(names)
    return ""
