"""A user's own photographs: one folder for each class, optionally below train/, val/ and test/."""

from pathlib import Path, PurePosixPath

import numpy as np
from numpy.typing import NDArray

from pipeline.datasets.dataset import Annotations
from pipeline.datasets.index import SPLITS, Image, Split
from pipeline.datasets.listing import visible_files
from pipeline.datasets.photograph import SUFFIXES
from pipeline.errors import ProtoMaskError

LIKE_SPLITS = frozenset([*SPLITS, "training", "valid", "validation", "testing"])


def read(root: Path) -> Annotations:
    """Lists `root/[split/]class/**/photograph`; a class is named after its folder.

    Without folders for splits, every image is listed under "train", and `prepare` cuts the other
    splits from it. Files beside the class folders belong to no class and are ignored.

    Args:
        root: the data set's folder.

    Raises:
        ProtoMaskError: there are no photographs in folders, or folders of splits are misnamed or
            mixed with others.
    """
    paths = [PurePosixPath(path) for path in visible_files(root)]
    photographs = [path for path in paths if path.suffix.lower() in SUFFIXES]
    folders = {path.parts[0] for path in photographs if len(path.parts) > 1}
    if misnamed := {name for name in folders - {*SPLITS} if name.lower() in LIKE_SPLITS}:
        raise ProtoMaskError(
            f"dataset.root: {root} has folders that look like splits "
            f"({', '.join(sorted(misnamed))}); name the splits' folders train, val and test"
        )
    splits, others = sorted(folders & {*SPLITS}), sorted(folders - {*SPLITS})
    if splits and others:
        raise ProtoMaskError(
            f"dataset.root: {root} has folders of splits ({', '.join(splits)}) "
            f"beside others ({', '.join(others)}); "
            "use either one folder a class, or only train, val and test"
        )
    level = 1 if splits else 0
    images = [
        Image(str(path), str(path), path.parts[level], _split(path) if splits else "train")
        for path in photographs
        if len(path.parts) > level + 1
    ]
    if not images:
        raise ProtoMaskError(
            f"dataset.root: no photographs found in folders of {root}; "
            "put the photographs of each class into a folder named as the class"
        )
    return Annotations(images, sorted({image.class_name for image in images}), [])


def object_mask(labels: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Raises `NotImplementedError`: a folder of photographs has no object masks."""
    raise NotImplementedError("a folder of photographs has no object masks")


def _split(path: PurePosixPath) -> Split:
    return next(split for split in SPLITS if split == path.parts[0])
