"""A user's own photographs: one folder for each class, optionally below train/, val/ and test/."""

import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePosixPath

from pipeline.datasets.dataset import Annotations, DataSet, register
from pipeline.datasets.image_file import SUFFIXES, is_image
from pipeline.datasets.index import SPLITS, Image, Split
from pipeline.datasets.listing import look_through
from pipeline.datasets.remarks import Remark, counted
from pipeline.errors import ProtoMaskError

LIKE_SPLIT = re.compile(
    r"(train(ing)?|test(ing)?|val(id(ation)?)?|dev|eval(uation)?)(set|data|split|images)?"
)
FILE_SUFFIX = re.compile(r"\.[A-Za-z0-9]{1,4}")
"""What ends a file's name, and not a class's such as `001.Black_footed_Albatross`."""
NO_IMAGE = "no photograph by its content, and passed over"
NO_IMAGES = "a folder without a photograph: no class"
NO_CLASS = "beside the class folders: of no class, and passed over"
UNLABELLED = "in {}/, but in no class folder: unlabelled, and passed over"
ONE_CLASS = "the same word as another class folder in other Unicode characters: read as one class"
LIKE_ANOTHER = "but for capitals and spaces the same word as another class"


@register
class Folder(DataSet):
    """A user's own photographs."""

    name = "folder"

    def read(self, root: Path) -> Annotations:
        """Lists `root/[split/]class/**/photograph`; a class is named after its folder.

        Without folders for splits, every image is listed under "train", and `prepare` cuts the
        other splits from it. What is a photograph is determined by the content; files that are
        named as photographs, and links to what is not there, are listed as well, for `prepare` to
        report. Files beside the class folders belong to no class.

        Args:
            root: the data set's folder.

        Raises:
            ProtoMaskError: there are no photographs in folders, most photographs lie beside them,
                or folders may be splits but are not named so.
        """
        contents = look_through(root)
        links = frozenset(map(PurePosixPath, contents.dangling))
        paths = sorted({*map(PurePosixPath, contents.files), *links})
        images, others = _told_apart(root, paths, links)
        folders = {path.parts[0] for path in images if len(path.parts) > 1}
        in_splits = _has_splits(root, folders, images)
        level = 1 if in_splits else 0
        _refuse_lost_folders(root, [path for path in links if len(path.parts) <= level + 1])
        classified = [path for path in images if len(path.parts) > level + 1]
        stray = [path for path in images if len(path.parts) <= level + 1]
        _refuse_mostly_stray(root, classified, stray)
        names = {path: _same_word(path.parts[level]) for path in classified}
        class_folders = {path.parents[-level - 2] for path in classified}
        empty = {path.parents[-level - 2] for path in others if len(path.parts) > level + 1}
        listed = [
            Image(str(path), str(path), name, _split(path) if in_splits else "train")
            for path, name in names.items()
        ]
        remarks = [
            *(Remark(str(path), NO_IMAGE) for path in others),
            *(Remark(str(path), _why_stray(path)) for path in stray),
            *(Remark(str(path), NO_IMAGES) for path in sorted(empty - class_folders)),
            *_alike(class_folders),
        ]
        return Annotations(listed, sorted(set(names.values()), key=_by_number), [], remarks)


def _told_apart(
    root: Path, paths: list[PurePosixPath], links: frozenset[PurePosixPath]
) -> tuple[list[PurePosixPath], list[PurePosixPath]]:
    """Returns the paths that are, or by their names should be, photographs, and the others."""
    by_name = {path for path in paths if path.suffix.lower() in SUFFIXES or path in links}
    unknown = [path for path in paths if path not in by_name]
    with ThreadPoolExecutor() as pool:
        found = pool.map(lambda path: is_image(root / path), unknown)
        by_content = {path for path, is_one in zip(unknown, found, strict=True) if is_one}
    images = by_name | by_content
    return [path for path in paths if path in images], [
        path for path in paths if path not in images
    ]


def _has_splits(root: Path, folders: set[str], images: list[PurePosixPath]) -> bool:
    """Returns whether the folders are splits, not classes.

    Raises:
        ProtoMaskError: they may be either.
    """
    choice = (
        f"If they are splits, name them train, val and test. If they are classes, put all class "
        f"folders into one folder, {root}/train, from which the other splits are then cut."
    )
    splits, others = sorted(folders & {*SPLITS}), sorted(folders - {*SPLITS})
    if misnamed := [name for name in others if _is_like_split(name)]:
        raise ProtoMaskError(
            f"dataset.root: {root} has folders that look like splits ({counted(misnamed)}). "
            f"{choice}"
        )
    if splits and others:
        raise ProtoMaskError(
            f"dataset.root: {root} has folders of splits ({', '.join(splits)}) "
            f"beside others ({counted(others)}). Use either one folder a class, or only train, val "
            f"and test. {choice}"
        )
    if not splits and (shared := _shared_folders(images)):
        raise ProtoMaskError(
            f"dataset.root: {root} has folders ({counted(others)}) that share the sub-folders "
            f"{counted(shared)}. {choice} If the sub-folders are the classes, put each one's "
            f"photographs into one folder of {root}."
        )
    return bool(splits)


def _is_like_split(name: str) -> bool:
    words = re.findall(r"[^\W\d_]+", name.casefold())
    return any(LIKE_SPLIT.fullmatch(word) for word in words)


def _shared_folders(images: list[PurePosixPath]) -> list[str]:
    """Returns the names of sub-folders that occur in several folders, if they are at least two."""
    below = defaultdict(set)
    for path in images:
        if len(path.parts) > 2:
            below[path.parts[0]].add(_same_word(path.parts[1]))
    times = Counter(name for names in below.values() for name in names)
    shared = sorted(name for name, count in times.items() if count > 1)
    return shared if len(shared) > 1 else []


def _refuse_lost_folders(root: Path, links: list[PurePosixPath]) -> None:
    """Raises if a link to what is not there may be one to a class's folder."""
    lost = sorted(str(path) for path in links if not FILE_SUFFIX.fullmatch(path.suffix))
    if lost:
        raise ProtoMaskError(
            f"dataset.root: {root} has links to what is not there ({counted(lost)}). If they are "
            "folders of classes, mount or fetch what they point to; else remove them"
        )


def _refuse_mostly_stray(
    root: Path, classified: list[PurePosixPath], stray: list[PurePosixPath]
) -> None:
    if not classified:
        raise ProtoMaskError(
            f"dataset.root: no photographs found in folders of {root}; "
            "put the photographs of each class into a folder named as the class"
        )
    lost = [str(path) for path in stray if path.parts[0] not in ("val", "test")]
    if len(lost) > len(classified):
        raise ProtoMaskError(
            f"dataset.root: most photographs in {root} lie beside the class folders "
            f"({counted(lost)}), and only {len(classified)} in them; put the photographs of each "
            "class into a folder named as the class, and move others elsewhere"
        )


def _why_stray(path: PurePosixPath) -> str:
    return NO_CLASS if len(path.parts) == 1 else UNLABELLED.format(path.parts[0])


def _alike(folders: Iterable[PurePosixPath]) -> list[Remark]:
    """Returns remarks on class folders of one split whose names can hardly be told apart."""
    spelt: dict[tuple[PurePosixPath, str], list[PurePosixPath]] = defaultdict(list)
    for folder in sorted(folders):
        spelt[folder.parent, _same_word(folder.name).casefold().strip()].append(folder)
    remarks = []
    for first, *more in spelt.values():
        for folder in more:
            same = _same_word(folder.name) == _same_word(first.name)
            remarks.append(Remark(str(folder), ONE_CLASS if same else LIKE_ANOTHER))
    return remarks


def _same_word(name: str) -> str:
    """Returns a name in the Unicode form NFC; file systems and archives keep other forms."""
    return unicodedata.normalize("NFC", name)


def _by_number(name: str) -> tuple[list[str | int], str]:
    """Returns a key by which names sort as people number them: 2 before 10."""
    pieces = re.split("([0-9]+)", name)
    return [int(piece) if place % 2 else piece for place, piece in enumerate(pieces)], name


def _split(path: PurePosixPath) -> Split:
    return next(split for split in SPLITS if split == path.parts[0])
