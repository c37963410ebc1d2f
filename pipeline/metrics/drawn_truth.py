"""What is known of the built-in data set `demo`: every part, and how an image would look with one
part of another class."""

import json
from collections.abc import Mapping
from io import BytesIO
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image as Pillow
from torch import Tensor

from pipeline.crops.extraction import cut_as_stored
from pipeline.crops.store import CropStore
from pipeline.datasets.demo import JPEG_QUALITY, Drawing, draw_image
from pipeline.datasets.demo.classes import CLASS_NAMES, CLASSES, distinguishing_parts
from pipeline.datasets.index import Index
from pipeline.datasets.photograph import read_label_image
from pipeline.errors import ProtoMaskError
from pipeline.masks.store import MaskStore


class DrawnTruth:
    """Knows what the images of a demo show; an `evidence.Truth`.

    On a machine that rounds otherwise than the one that drew the demo, a pixel in many thousands of
    a redrawing may differ by 1 besides the replaced part.

    Args:
        folder: where the demo was drawn.
        index: its images.
        rows_N: int64, which of them the evidence is about.
        masks: their masks.
        crops: their crops, cut from these masks.

    Raises:
        ProtoMaskError: the folder holds no demo, or that of another version.
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

    def labels(self, images_B: Tensor) -> Tensor:
        """Returns which part each pixel shows: uint8 B×S×S, 0 for none, q + 1 for the q-th."""
        paths = [self.folder / self._column("part_mask_path", n) for n in images_B.tolist()]
        return torch.from_numpy(np.stack([self._resized(read_label_image(path)) for path in paths]))

    def redrawn(self, images_B: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Draws the images again, each with the one part in which its class's sister differs.

        Returns:
            Their crops (uint8, B×K×S×S×3), cut as the stored ones and with their masks; the part
            (int64 B); and what each pixel shows now (as `labels`).
        """
        crops, parts, labels = [], [], []
        for image in images_B.tolist():
            part, donor = sister(self._column("class_name", image))
            drawing = self.drawn(image, {part: donor})
            crops.append(self.crops(image, drawing))
            parts.append(self.index.part_names.index(part))
            labels.append(self._resized(drawing.labels))
        return (
            torch.from_numpy(np.stack(crops)),
            torch.tensor(parts),
            torch.from_numpy(np.stack(labels)),
        )

    def drawn(self, image: int, parts_from: Mapping[str, str] | None = None) -> Drawing:
        """Draws an image again and compresses it as the stored one, which would otherwise differ.

        Args:
            image: its number in the evidence.
            parts_from: parts to take from other classes (part: class).
        """
        number = int(self._column("id", image).rpartition("/")[2])
        drawing = draw_image(self.seed, self._column("class_name", image), number, parts_from)
        return Drawing(_compressed(drawing.image), drawing.labels)

    def crops(self, image: int, drawing: Drawing) -> NDArray[np.uint8]:
        """Cuts a drawing with the masks of an image of the evidence: uint8, K×S×S×3."""
        masks = self.masks.masks(int(self.rows_N[image]))
        return cut_as_stored(self.store, drawing.image, masks).pixels

    def _column(self, name: str, image: int) -> str:
        return str(self.index.table[name].iloc[self.rows_N[image]])

    def _resized(self, labels: NDArray[np.uint8]) -> NDArray[np.uint8]:
        side = self.store.settings.side
        return np.asarray(Pillow.fromarray(labels).resize((side, side), Pillow.Resampling.NEAREST))


def sister(class_name: str) -> tuple[str, str]:
    """Returns the one part in which a class differs from another, and that other class.

    Of several such classes, the first; every class of the demo has one.
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
            f"{folder} holds no drawing of the data set `demo` ({error}): set dataset.name to "
            "demo and run `dvc repro prepare`"
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
    """Returns an image as it comes out of the file that the demo writes of it."""
    file = BytesIO()
    Pillow.fromarray(pixels).save(file, "JPEG", quality=JPEG_QUALITY)
    with Pillow.open(file) as image:
        return np.asarray(image)
