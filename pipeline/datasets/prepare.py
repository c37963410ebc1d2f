"""From a data set's folder to its index: the work of the stage prepare."""

import traceback
from collections import Counter
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from pycocotools import mask as rle

from pipeline.datasets.dataset import DATASETS, Annotations, DataSet
from pipeline.datasets.image_file import (
    SUFFIXES,
    UnreadableImageError,
    examine_image,
    read_label_image,
)
from pipeline.datasets.index import SPLITS, Image, Index
from pipeline.datasets.remarks import Remark
from pipeline.datasets.splits import cut_test, cut_validation
from pipeline.errors import ProtoMaskError
from pipeline.progress import track

NO_IMAGE = "class of which no image can be read, and left out"
UNNAMED = "a photograph by its name, but not in the annotations, and passed over"


@dataclass(frozen=True)
class Unreadable:
    """An image that was left out.

    Args:
        path: path of its file relative to the data set's root.
        reason: why it could not be read.
    """

    path: str
    reason: str


def build_index(
    name: str,
    root: Path,
    listing: Mapping[str, str | None],
    *,
    num_classes: int | None = None,
    seed: int = 0,
    fold: int = 0,
    folds: int = 5,
    max_bad_fraction: float = 0.01,
    threads: int = 4,
) -> tuple[Index, list[Unreadable], list[Remark]]:
    """Reads a data set's annotations, opens every image once, and cuts the splits.

    Args:
        name: the data set's name, as registered.
        root: the data set's folder.
        listing: SHA-256 of every file below `root`, by relative path, from `list_files`; None for a
            link to what is not there.
        num_classes: number of classes to keep, the first ones; None keeps all.
        seed: seed of the splits.
        fold: index of the fold that becomes the validation split, 0..folds−1.
        folds: number of folds, at least 2.
        max_bad_fraction: largest share of unreadable images that is accepted, 0..1.
        threads: number of images that are opened at a time.

    Returns:
        The index, the images that were left out, and remarks on what else was not used, or not as
        it is.

    Raises:
        ProtoMaskError: there is no such data set, the layout is wrong, there are too few classes, a
            class has no training image, or too many images are unreadable.
    """
    annotations = _read_annotations(name, root)
    remarks = [*annotations.remarks, *_unnamed(annotations, listing)]
    class_names = annotations.class_names[:num_classes]
    listed = [image for image in annotations.images if image.class_name in set(class_names)]
    images, unreadable, of_images = _open_all(listed, root, listing, DATASETS[name], threads)
    remarks += of_images
    _refuse_too_many(unreadable, len(listed), max_bad_fraction)
    if not any(image.object_mask_path for image in images):
        images = _boxed(images)
    present = {image.class_name for image in images}
    remarks += [Remark(name, NO_IMAGE) for name in class_names if name not in present]
    class_names = [class_name for class_name in class_names if class_name in present]
    if len(class_names) < 2:
        raise ProtoMaskError(
            f"{root} holds {len(class_names)} class(es) with readable images "
            f"({', '.join(class_names) or 'none'}); a classifier needs at least two"
        )
    images = [replace(image, held_out=image.split == "test") for image in images]
    images = cut_validation(cut_test(images, seed), seed, fold, folds)
    untrained = set(class_names) - {image.class_name for image in images if image.split == "train"}
    if untrained:
        raise ProtoMaskError(
            f"no training image of {', '.join(sorted(untrained))}: add some, or remove the class"
        )
    index = Index.of(name, images, class_names, annotations.part_names)
    return index, unreadable, remarks


def write_unreadable(unreadable: list[Unreadable], path: Path) -> None:
    """Writes a CSV file with the columns path and reason; the header alone if all were readable."""
    rows = [vars(image) for image in unreadable]
    pd.DataFrame(rows, columns=["path", "reason"]).to_csv(path, index=False)


def _read_annotations(name: str, root: Path) -> Annotations:
    try:
        annotations = DATASETS[name].read(root)
    except (LookupError, TypeError, ValueError) as error:
        where = traceback.extract_tb(error.__traceback__)[-1]
        raise ProtoMaskError(
            f"dataset.root: the annotations in {root} contradict each other or are damaged "
            f"({error!r}, found by {Path(where.filename).name}, line {where.lineno}); fetch the "
            "data set anew"
        ) from error
    twice = [
        image for image, n in Counter(image.id for image in annotations.images).items() if n > 1
    ]
    if twice:
        raise ProtoMaskError(
            f"dataset.root: the annotations in {root} list {len(twice)} images more than once, "
            f"such as {twice[0]}"
        )
    _refuse_unknown_names(name, annotations)
    return annotations


def _refuse_unknown_names(name: str, annotations: Annotations) -> None:
    """Checks that images have the splits, classes and parts that there are."""
    known: dict[str, set[str]] = {
        "split": set(SPLITS),
        "class": set(annotations.class_names),
        "part": set(annotations.part_names),
    }
    for image in annotations.images:
        parts = {part.name for part in image.parts or ()}
        given: dict[str, set[str]] = {
            "split": {image.split},
            "class": {image.class_name},
            "part": parts,
        }
        for kind, names in given.items():
            if unknown := names - known[kind]:
                raise ProtoMaskError(
                    f"the reader of {name} gives image {image.id} the {kind} "
                    f"{sorted(unknown)[0]!r}, and knows {', '.join(sorted(known[kind])) or 'none'}"
                )


def _unnamed(annotations: Annotations, listing: Mapping[str, str | None]) -> list[Remark]:
    """Returns remarks on files that look like photographs and of which nothing has been said."""
    known = {remark.path for remark in annotations.remarks}
    for image in annotations.images:
        known |= {image.path, image.object_mask_path or "", image.part_mask_path or ""}
    return [
        Remark(path, UNNAMED)
        for path in listing
        if path not in known and PurePosixPath(path).suffix.lower() in SUFFIXES
    ]


def _open_all(
    images: list[Image],
    root: Path,
    listing: Mapping[str, str | None],
    dataset: DataSet,
    threads: int,
) -> tuple[list[Image], list[Unreadable], list[Remark]]:
    def open_one(image: Image) -> tuple[Image, list[str]] | Unreadable:
        try:
            return _measured(image, root, listing, dataset.object_mask)
        except UnreadableImageError as error:
            reason = str(error).removeprefix(f"{root / image.path}: ")
            return Unreadable(image.path, reason.replace(f"{root}/", ""))

    with ThreadPoolExecutor(threads) as pool:
        opened = list(track(pool.map(open_one, images), "Reading images", len(images)))
    unreadable = [image for image in opened if isinstance(image, Unreadable)]
    good = [image for image in opened if not isinstance(image, Unreadable)]
    remarks = [Remark(image.path, remark) for image, said in good for remark in said]
    return [image for image, _ in good], unreadable, remarks


def _measured(
    image: Image,
    root: Path,
    listing: Mapping[str, str | None],
    object_of: Callable[[NDArray[np.uint8]], NDArray[np.bool_]],
) -> tuple[Image, list[str]]:
    pixels, remarks = examine_image(root / image.path)
    height, width = pixels.shape[:2]
    digest = listing.get(image.path)
    if digest is None:
        raise ProtoMaskError(
            f"{root / image.path} was not there when the folder was listed: run `dvc repro` to "
            "list it anew (hidden files are never listed)"
        )
    mask = None
    box = image.object_box
    if image.object_mask_path is not None:
        inside = object_of(read_label_image(root / image.object_mask_path))
        if inside.shape != (height, width):
            raise UnreadableImageError(
                f"{root / image.object_mask_path}: its size "
                f"{inside.shape[1]}×{inside.shape[0]} is not the image's {width}×{height}"
            )
        encoded = rle.encode(np.asfortranarray(inside, dtype=np.uint8))
        mask = bytes(encoded["counts"])
        box = box or _box(encoded)
    measured = replace(
        image, sha256=digest, width=width, height=height, object_mask=mask, object_box=box
    )
    return measured, remarks


def _boxed(images: list[Image]) -> list[Image]:
    """Clips the object boxes to their images, and makes the rectangles the object masks.

    If all boxes cover their whole images, there are no object masks: every overlap with them would
    be perfect.
    """
    boxed = [_cut(image) for image in images]
    if all(image.object_box in (None, (0, 0, image.width, image.height)) for image in boxed):
        return boxed
    return [replace(image, object_mask=_rectangle(image)) for image in boxed]


def _cut(image: Image) -> Image:
    if image.object_box is None:
        return image
    x0, y0, x1, y1 = (max(0, side) for side in image.object_box)
    x1, y1 = min(x1, image.width), min(y1, image.height)
    return replace(image, object_box=(x0, y0, x1, y1) if x0 < x1 and y0 < y1 else None)


def _rectangle(image: Image) -> bytes | None:
    if image.object_box is None:
        return None
    x0, y0, x1, y1 = image.object_box
    mask = np.zeros((image.height, image.width), np.uint8, order="F")
    mask[y0:y1, x0:x1] = 1
    return bytes(rle.encode(mask)["counts"])


def _box(encoded: dict) -> tuple[int, int, int, int] | None:
    x, y, width, height = (int(value) for value in rle.toBbox(encoded))
    return (x, y, x + width, y + height) if width and height else None


def _refuse_too_many(unreadable: list[Unreadable], total: int, max_bad_fraction: float) -> None:
    if len(unreadable) > max_bad_fraction * total:
        shown = "\n".join(f"  {image.path}: {image.reason}" for image in unreadable[:10])
        more = f"\n  … and {len(unreadable) - 10} more" if len(unreadable) > 10 else ""
        raise ProtoMaskError(
            f"{len(unreadable)} of {total} images cannot be read, more than "
            f"dataset.max_bad_fraction={max_bad_fraction:g} allows:\n{shown}{more}\n"
            "Mend or remove them, or raise dataset.max_bad_fraction."
        )
