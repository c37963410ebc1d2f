"""Ground truth of the built-in data set `demo`: part labels, and images with a replaced part."""

import json
from collections.abc import Mapping
from functools import lru_cache
from io import BytesIO
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image as Pillow
from torch import Tensor

from pipeline.crops.extraction import cut_as_stored
from pipeline.crops.store import CropStore
from pipeline.datasets.image_file import read_label_image
from pipeline.datasets.index import Index
from pipeline.datasets.readers.demo.classes import (
    CLASS_NAMES,
    CLASSES,
    distinguishing_parts,
    has_part,
)
from pipeline.datasets.readers.demo.data_set import JPEG_QUALITY, Drawing, draw_image
from pipeline.errors import ProtoMaskError, rerun
from pipeline.masks.store import MaskStore

IMAGES_KEPT = 512
"""Images whose parts, and whose redrawn crops, stay in memory; a model and its controls are asked
about the same."""


class DrawnTruth:
    """Ground truth of the images of a demo; implements `evidence.Truth`.

    On a machine that rounds differently from the one that drew the demo, one pixel in many
    thousands of a redrawn image may differ by 1 outside the replaced part.

    Args:
        folder: folder that the demo was drawn to.
        index: index of the demo's images.
        rows_N: int64 N, the images of the evidence, as rows of the index and the stores.
        masks: store of the images' masks.
        crops: store of the images' crops, cut from these masks.

    Attributes:
        seed: the seed that the demo was drawn with.
        distinguishing_CCQ: bool C×C×Q, the parts in which two classes differ.

    Raises:
        ProtoMaskError: the folder holds no demo, or one of another version.
    """

    def __init__(
        self,
        folder: Path,
        index: Index,
        rows_N: NDArray[np.int64],
        masks: MaskStore,
        crops: CropStore,
    ) -> None:
        self.folder, self.index, self.rows_N = folder, index, rows_N
        self.masks, self.store = masks, crops
        self.seed = _read_seed(folder)
        self.distinguishing_CCQ = _distinguishing(index)
        self._labels = lru_cache(maxsize=IMAGES_KEPT)(self._read_labels)
        self._of_sister = lru_cache(maxsize=IMAGES_KEPT)(self._draw_sister)
        self._place = lru_cache(maxsize=IMAGES_KEPT)(self._draw_place)

    def labels(self, images_B: Tensor) -> Tensor:
        """Returns the part that each pixel shows, uint8 B×S×S: 0 for none, q + 1 for part q.

        Args:
            images_B: int64 B, the images' positions in the evidence.
        """
        return torch.from_numpy(np.stack([self._labels(image) for image in images_B.tolist()]))

    def _read_labels(self, image: int) -> NDArray[np.uint8]:
        return self._resized(self.part_pixels(image))

    def labels_between(self, images_B: Tensor, first_B: Tensor, second_B: Tensor) -> Tensor:
        """Returns `labels`, and where the parts would be that tell two classes apart.

        A part that one of the two classes has and the image's own has not is where a bird of that
        class would have it; all else is as in `labels`.

        Args:
            images_B: int64 B, the images' positions in the evidence.
            first_B: int64 B, one class for each image, 0..C−1.
            second_B: int64 B, and the other.
        """
        labels_BSS = self.labels(images_B)
        of_images = (images_B.tolist(), first_B.tolist(), second_B.tolist(), labels_BSS)
        for image, first, second, labels_SS in zip(*of_images, strict=True):
            names = [self.index.class_names[label] for label in (first, second)]
            for part in distinguishing_parts(*names):
                if not has_part(self._column("class_name", image), part):
                    donor = next(name for name in names if has_part(name, part))
                    number = self.index.part_names.index(part)
                    labels_SS[self._place(image, part, donor)] = number + 1
        return labels_BSS

    def _draw_place(self, image: int, part: str, donor: str) -> Tensor:
        """Returns where an image would show a part if it had that of another class, bool S×S."""
        labels = self._draw(image, {part: donor}).labels
        return torch.from_numpy(self._resized(labels) == self.index.part_names.index(part) + 1)

    def part_pixels(self, image: int) -> NDArray[np.uint8]:
        """Returns the part that each pixel of an image shows, at its own resolution.

        Args:
            image: the image's position in the evidence, 0..N−1.

        Returns:
            uint8 height×width: 0 for none, q + 1 for part q.
        """
        return read_label_image(self.folder / self._column("part_mask_path", image))

    def redrawn(self, images_B: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Draws the images again with one part taken from the class that differs only in that part.

        Args:
            images_B: int64 B, the images' positions in the evidence.

        Returns:
            The changed images' crops (uint8 B×K×S×S×3), cut like the stored ones and with the same
            masks; the replaced part of each image (int64 B, 0..Q−1); and the part that each pixel
            shows afterwards (uint8 B×S×S: 0 for none, q + 1 for part q).
        """
        found = [self._of_sister(image) for image in images_B.tolist()]
        crops, parts, labels = zip(*found, strict=True)
        return (
            torch.from_numpy(np.stack(crops)),
            torch.tensor(parts),
            torch.from_numpy(np.stack(labels)),
        )

    def _draw_sister(self, image: int) -> tuple[NDArray[np.uint8], int, NDArray[np.uint8]]:
        part, donor = sister(self._column("class_name", image))
        drawing = self.drawn(image, {part: donor})
        number = self.index.part_names.index(part)
        return self.crops(image, drawing), number, self._resized(drawing.labels)

    def drawn(self, image: int, parts_from: Mapping[str, str] | None = None) -> Drawing:
        """Draws an image again and applies the same JPEG compression as to the stored one.

        Args:
            image: the image's position in the evidence, 0..N−1.
            parts_from: parts to take from other classes: part name → class name; None changes
                nothing.

        Returns:
            The image and its part labels, at its own resolution.
        """
        drawing = self._draw(image, parts_from)
        return Drawing(_compressed(drawing.image), drawing.labels)

    def _draw(self, image: int, parts_from: Mapping[str, str] | None) -> Drawing:
        number = int(self._column("id", image).rpartition("/")[2])
        return draw_image(self.seed, self._column("class_name", image), number, parts_from)

    def crops(self, image: int, drawing: Drawing) -> NDArray[np.uint8]:
        """Returns the crops of a drawing, cut with an image's masks: uint8 K×S×S×3.

        Args:
            image: the position in the evidence of the image whose masks are used, 0..N−1.
            drawing: the image to cut, at the resolution of the masks.
        """
        masks = self.masks.masks(int(self.rows_N[image]))
        return cut_as_stored(self.store, drawing.image, masks).pixels

    def _column(self, name: str, image: int) -> str:
        return str(self.index.table[name].iloc[self.rows_N[image]])

    def _resized(self, labels: NDArray[np.uint8]) -> NDArray[np.uint8]:
        side = self.store.settings.side
        return np.asarray(Pillow.fromarray(labels).resize((side, side), Pillow.Resampling.NEAREST))


def sister(class_name: str) -> tuple[str, str]:
    """Returns the first class that differs from a class in exactly one part.

    Args:
        class_name: name of a class of the demo; every class has such another one.

    Returns:
        The name of the part, and the name of the other class.
    """
    return next(
        (parts[0], other)
        for other in CLASS_NAMES
        if len(parts := distinguishing_parts(class_name, other)) == 1
    )


def _read_seed(folder: Path) -> int:
    try:
        about = json.loads((folder / "classes.json").read_text(encoding="utf-8"))
        if about["classes"] != CLASSES:
            raise ValueError("its classes are not those that this version draws")
        return int(about["seed"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ProtoMaskError(
            f"{folder} holds no drawing of the data set `demo` ({error}): {rerun('prepare')}"
        ) from None


def _distinguishing(index: Index) -> Tensor:
    """Returns the parts in which two classes differ, bool C×C×Q."""
    differ = [
        [distinguishing_parts(first, second) for second in index.class_names]
        for first in index.class_names
    ]
    return torch.tensor(
        [[[part in parts for part in index.part_names] for parts in row] for row in differ]
    )


def _compressed(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Returns an image as decoded from the JPEG file that the demo writes."""
    file = BytesIO()
    Pillow.fromarray(pixels).save(file, "JPEG", quality=JPEG_QUALITY)
    with Pillow.open(file) as image:
        return np.asarray(image)
