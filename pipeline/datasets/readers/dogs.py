"""Stanford Dogs (Khosla et al., 2011) in its official layout."""

from pathlib import Path, PurePosixPath
from xml.etree import ElementTree

import numpy as np

from pipeline.datasets.dataset import (
    Annotations,
    Archive,
    DataSet,
    Publication,
    missing,
    read_mat,
    register,
)
from pipeline.datasets.index import Image, Split
from pipeline.errors import ProtoMaskError

NAME = "Stanford Dogs"
ARCHIVES = "http://vision.stanford.edu/aditya86/ImageNetDogs"
SIDES = ("xmin", "ymin", "xmax", "ymax")


@register
class Dogs(DataSet):
    """Stanford Dogs."""

    name = "dogs"
    # Hashes and sizes are those by which TensorFlow Datasets verifies its downloads.
    publication = Publication(
        (
            Archive(
                f"{ARCHIVES}/images.tar",
                "a443fc2f9a851aa1a7b8e4fa4af94b8459fce2c9f5a2f4dd4669cf9673a4ec58",
                793579520,
            ),
            Archive(
                f"{ARCHIVES}/annotation.tar",
                "662ed36f707be6b195c2fda392d8e153e83af28cedc8e2134a649f198def30fd",
                21852160,
            ),
            Archive(
                f"{ARCHIVES}/lists.tar",
                "34b47cacd9a98b5d150e084f24d29391c084c55272295ec65c85651bc35f4d6c",
                481280,
            ),
        )
    )

    def read(self, root: Path) -> Annotations:
        """Reads train_list.mat and test_list.mat, and each image's file below Annotation/.

        The lists lie in `root`, as in their archive, or in its folder lists/. The class
        `n02085620-Chihuahua` is named `Chihuahua`. The object box of an image with several dogs is
        the tight box around all of them, as all are of its class.

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
