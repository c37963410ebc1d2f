"""Stanford Dogs (Khosla et al., 2011) in its official layout."""

from pathlib import Path, PurePosixPath
from xml.etree import ElementTree

import numpy as np
from numpy.typing import NDArray

from pipeline.datasets.dataset import Annotations, missing, read_mat
from pipeline.datasets.index import Image, Split
from pipeline.errors import ProtoMaskError

NAME = "Stanford Dogs"
SIDES = ("xmin", "ymin", "xmax", "ymax")


def read(root: Path) -> Annotations:
    """Reads train_list.mat and test_list.mat, and each image's file below Annotation/.

    The lists lie in `root`, as in their archive, or in its folder lists/. The class
    `n02085620-Chihuahua` is named `Chihuahua`. The object box of an image with several dogs is the
    tight box around all of them, as all are of its class.

    Args:
        root: the data set's folder.

    Raises:
        ProtoMaskError: a file is missing or damaged.
    """
    rows: list[tuple[Split, PurePosixPath]] = [
        *(("train", path) for path in _listed(root, "train_list.mat")),
        *(("test", path) for path in _listed(root, "test_list.mat")),
    ]
    folders = sorted({path.parts[0] for _, path in rows})
    names = {folder: _plain(folder) for folder in folders}
    images = [
        Image(
            id=str(path.with_suffix("")),
            path=f"Images/{path}",
            class_name=names[path.parts[0]],
            split=split,
            object_box=_box(root / "Annotation" / path.with_suffix("")),
        )
        for split, path in rows
    ]
    return Annotations(images, list(names.values()), [])


def object_mask(labels: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Raises `NotImplementedError`: the data set has no object masks."""
    raise NotImplementedError(f"{NAME} has boxes, and no object masks")


def _listed(root: Path, name: str) -> list[PurePosixPath]:
    folder = root / "lists" if (root / "lists").is_dir() else root
    return [
        PurePosixPath(path) for path in np.atleast_1d(read_mat(folder / name, NAME)["file_list"])
    ]


def _plain(class_folder: str) -> str:
    return class_folder.split("-", 1)[-1].replace("_", " ")


def _box(annotation: Path) -> tuple[int, int, int, int] | None:
    """Returns the tight box around all boxes of an annotation, or None if it has none."""
    try:
        boxes = [
            [int(box.findtext(side, "")) for side in SIDES]
            for box in ElementTree.parse(annotation).iter("bndbox")
        ]
    except FileNotFoundError:
        raise missing(annotation, NAME) from None
    except (ElementTree.ParseError, ValueError) as error:
        raise ProtoMaskError(
            f"{annotation} is no XML file with boxes of whole numbers ({error}); fetch {NAME} anew"
        ) from None
    if not boxes:
        return None
    x0, y0, x1, y1 = zip(*boxes, strict=True)
    return min(x0), min(y0), max(x1), max(y1)
