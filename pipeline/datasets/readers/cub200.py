"""CUB-200-2011 (Wah et al., 2011) in its official layout, with its segmentations when present."""

import math
from pathlib import Path, PurePosixPath

import numpy as np
from numpy.typing import NDArray

from pipeline.datasets.dataset import (
    Annotations,
    Archive,
    DataSet,
    Publication,
    read_table,
    register,
)
from pipeline.datasets.image_file import upper_half
from pipeline.datasets.index import Image, Part

NAME = "CUB-200-2011"


@register
class Cub200(DataSet):
    """CUB-200-2011."""

    name = "cub200"
    # Hashes and sizes are those by which TensorFlow Datasets verifies its downloads.
    publication = Publication(
        (
            Archive(
                "https://data.caltech.edu/records/65de6-vp158/files/CUB_200_2011.tgz?download=1",
                "0c685df5597a8b24909f6a7c9db6d11e008733779a671760afef78feb49bf081",
                1150585339,
            ),
            Archive(
                "https://data.caltech.edu/records/w9d68-gec53/files/segmentations.tgz?download=1",
                "dc77f6cffea0cbe2e41d4201115c8f29a6320ecb04fffd2444f51b8066e4b84f",
                39272883,
                into="CUB_200_2011",
            ),
        ),
        root="CUB_200_2011",
    )

    def read(self, root: Path) -> Annotations:
        """Reads images.txt and its neighbours.

        The class `001.Black_footed_Albatross` is named `Black footed Albatross`. Part locations are
        used where CUB marks the part as visible.

        Args:
            root: the data set's folder.

        Raises:
            ProtoMaskError: a file is missing or damaged.
        """
        paths = dict(read_table(root / "images.txt", NAME, 2))
        classes = dict(read_table(root / "classes.txt", NAME, 2))
        class_of = dict(read_table(root / "image_class_labels.txt", NAME, 2))
        in_train = dict(read_table(root / "train_test_split.txt", NAME, 2))
        boxes = {number: box for number, *box in read_table(root / "bounding_boxes.txt", NAME, 5)}
        part_names = _part_names(root)
        parts = _parts(root, part_names)
        names = {number: _plain(name) for number, name in classes.items()}
        images = [
            Image(
                id=str(PurePosixPath(path).with_suffix("")),
                path=f"images/{path}",
                class_name=names[class_of[number]],
                split="train" if in_train[number] == "1" else "test",
                object_box=_half_open(boxes[number]),
                object_mask_path=_segmentation(root, path),
                parts=tuple(parts.get(number, ())),
            )
            for number, path in paths.items()
        ]
        order = sorted(names, key=int)
        return Annotations(images, [names[number] for number in order], list(part_names.values()))

    def object_mask(self, labels: NDArray[np.uint8]) -> NDArray[np.bool_]:
        """Returns the object mask of a segmentation, bool height×width.

        The segmentation is min–max normalised and thresholded at 0.5, as the metrics threshold a
        mask that they have resized: where the annotators agree little, so does the largest value.

        Args:
            labels: agreement of CUB's annotators, uint8 height×width, 0..255.
        """
        return upper_half(labels)


def _plain(class_folder: str) -> str:
    return class_folder.split(".", 1)[-1].replace("_", " ")


def _part_names(root: Path) -> dict[str, str]:
    return dict(read_table(root / "parts" / "parts.txt", NAME, 2))


def _parts(root: Path, names: dict[str, str]) -> dict[str, list[Part]]:
    parts: dict[str, list[Part]] = {}
    for image, part, x, y, visible in read_table(root / "parts" / "part_locs.txt", NAME, 5):
        seen = parts.setdefault(image, [])
        if visible == "1":
            seen.append(Part(names[part], float(x), float(y)))
    return parts


def _half_open(box: list[str]) -> tuple[int, int, int, int]:
    x, y, width, height = map(float, box)
    return math.floor(x), math.floor(y), math.ceil(x + width), math.ceil(y + height)


def _segmentation(root: Path, path: str) -> str | None:
    relative = PurePosixPath("segmentations") / PurePosixPath(path).with_suffix(".png")
    return str(relative) if (root / relative).is_file() else None
