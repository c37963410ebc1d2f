"""Oxford-IIIT Pet (Parkhi et al., 2012) in its official layout, with trimaps as object masks."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pipeline.datasets.dataset import Annotations, DataSet, read_table, register
from pipeline.datasets.index import Image, Split

NAME = "Oxford-IIIT Pet"
BACKGROUND = 2


@register
class Pets(DataSet):
    """Oxford-IIIT Pet."""

    name = "pets"

    def read(self, root: Path) -> Annotations:
        """Reads annotations/trainval.txt and test.txt; images that neither lists are left out.

        Args:
            root: the data set's folder.

        Raises:
            ProtoMaskError: a file is missing or damaged.
        """
        rows: list[tuple[Split, list[str]]] = [
            *(("train", row) for row in read_table(root / "annotations" / "trainval.txt", NAME, 4)),
            *(("test", row) for row in read_table(root / "annotations" / "test.txt", NAME, 4)),
        ]
        breeds = {int(row[1]): _breed(row[0]) for _, row in rows}
        images = [
            Image(
                id=row[0],
                path=f"images/{row[0]}.jpg",
                class_name=breeds[int(row[1])],
                split=split,
                object_mask_path=_trimap(root, row[0]),
            )
            for split, row in rows
        ]
        return Annotations(images, [breeds[number] for number in sorted(breeds)], [])

    def object_mask(self, labels: NDArray[np.uint8]) -> NDArray[np.bool_]:
        """Returns the object mask of a trimap, bool height×width.

        The border is drawn along the animal's outline and counts as object.

        Args:
            labels: the trimap, uint8 height×width: 1 animal, 2 background, 3 border between them.
        """
        return labels != BACKGROUND


def _breed(image: str) -> str:
    return image.rsplit("_", 1)[0].replace("_", " ")


def _trimap(root: Path, image: str) -> str | None:
    relative = f"annotations/trimaps/{image}.png"
    return relative if (root / relative).is_file() else None
