"""The index: a Parquet file with one row for each image, which later stages read.

Its rows are sorted by id and contain no path of the machine that wrote it, so that two machines
with the same images write the same bytes.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from pycocotools import mask as rle

from pipeline.errors import ProtoMaskError, make, rerun

Split = Literal["train", "val", "test"]
SPLITS: tuple[Split, ...] = get_args(Split)

PART = pa.struct([("name", pa.string()), ("x", pa.float32()), ("y", pa.float32())])
SCHEMA = pa.schema(
    [
        ("id", pa.string()),
        ("path", pa.string()),
        ("sha256", pa.string()),
        ("label", pa.int32()),
        ("class_name", pa.string()),
        ("split", pa.string()),
        ("held_out", pa.bool_()),
        ("width", pa.int32()),
        ("height", pa.int32()),
        ("object_box", pa.list_(pa.int32())),
        ("object_mask_path", pa.string()),
        ("object_mask", pa.binary()),
        ("part_mask_path", pa.string()),
        ("parts", pa.list_(PART)),
    ]
)

IMAGE_FILES = pa.schema(
    [SCHEMA.field(name) for name in ("id", "path", "sha256", "width", "height", "held_out")]
)


@dataclass(frozen=True)
class Part:
    """The location of a named part in an image.

    Args:
        name: name of the part.
        x, y: its location in pixels from the image's upper left corner.
    """

    name: str
    x: float
    y: float


@dataclass(frozen=True)
class Image:
    """An image's annotations.

    Args:
        id: the image's id, unique in the data set and the same on every machine.
        path: path of its file relative to the data set's root, with forward slashes.
        class_name: name of the image's class.
        split: "train", "val" or "test"; without a validation split, one is cut from "train" later.
        sha256: SHA-256 of the file's content, 64 hex digits.
        width, height: size in pixels, after the EXIF orientation has been applied.
        object_box: the object's box, half-open (x0, y0, x1, y1) in pixels; None if unknown.
        object_mask_path: path of the object mask's file relative to the root; None without one.
        object_mask: the object mask as COCO's compressed run lengths; None without one.
        part_mask_path: path of a label image of parts (0 is background, i the i-th part); None
            without one.
        parts: the visible parts; None if the data set has no part locations.
        held_out: whether the data set itself puts the image into its test split.
    """

    id: str
    path: str
    class_name: str
    split: Split
    sha256: str = ""
    width: int = 0
    height: int = 0
    object_box: tuple[int, int, int, int] | None = None
    object_mask_path: str | None = None
    object_mask: bytes | None = None
    part_mask_path: str | None = None
    parts: tuple[Part, ...] | None = None
    held_out: bool = False


@dataclass(frozen=True)
class ImageFiles:
    """The columns of an index that segmentation and cropping use, which no split changes.

    Args:
        dataset: name of the data set.
        table: one row for each image, sorted by id; columns id, path, sha256, width, height,
            and held_out: whether the data set itself puts the image into its test split.
    """

    dataset: str
    table: pd.DataFrame = field(repr=False)

    def __len__(self) -> int:
        return len(self.table)

    @property
    def ids(self) -> list[str]:
        """The images' ids, in order."""
        return self.table["id"].tolist()

    def digest(self) -> str:
        """Returns a hash of the images' ids and file contents, in order: 64 hex digits."""
        pairs = zip(self.ids, self.table["sha256"], strict=True)
        lines = "\n".join(f"{digest} {image}" for image, digest in pairs)
        return hashlib.sha256(lines.encode()).hexdigest()

    def write(self, path: Path) -> None:
        """Writes a Parquet file; the same rows give the same bytes."""
        schema = IMAGE_FILES.with_metadata({"protomask": json.dumps({"dataset": self.dataset})})
        table = pa.Table.from_pylist(self.table.to_dict("records"), schema=schema)
        pq.write_table(table, path, compression="zstd")

    @classmethod
    def read(cls, path: Path) -> "ImageFiles":
        """Reads a file written by `write`.

        Raises:
            ProtoMaskError: the file is missing or is no such table.
        """
        table, about = _read_table(path, IMAGE_FILES, ["dataset"])
        return cls(about["dataset"], pd.DataFrame(table.to_pylist(), columns=IMAGE_FILES.names))


@dataclass(frozen=True)
class Index:
    """The images of a data set, sorted by id.

    Args:
        dataset: name of the data set.
        class_names: names of the C classes; an image's `label` is its class's position in this
            list.
        part_names: names of all parts; empty if the data set has none.
        table: one row for each image, with the columns of `SCHEMA`.
        made_with: the parameters that the index was made with, by name.
    """

    dataset: str
    class_names: list[str]
    part_names: list[str]
    table: pd.DataFrame = field(repr=False)
    made_with: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def of(
        cls, dataset: str, images: list[Image], class_names: list[str], part_names: list[str]
    ) -> "Index":
        """Sorts images by id and assigns each its class's number.

        Args:
            dataset: name of the data set.
            images: the images in any order.
            class_names: names of the C classes in the order of their numbers.
            part_names: names of all parts; empty if the data set has none.
        """
        labels = {name: label for label, name in enumerate(class_names)}
        rows: list[dict[str, Any]] = [
            {**vars(image), "label": labels[image.class_name], "parts": _as_dicts(image.parts)}
            for image in sorted(images, key=lambda image: image.id)
        ]
        return cls(dataset, class_names, part_names, _frame(rows))

    def __len__(self) -> int:
        return len(self.table)

    @property
    def ids(self) -> list[str]:
        """The images' ids, in order."""
        return self.table["id"].tolist()

    @property
    def labels(self) -> NDArray[np.int64]:
        """The images' classes, int64 N in 0..C−1."""
        return self.table["label"].to_numpy(np.int64, copy=True)

    @property
    def image_files(self) -> ImageFiles:
        """The part of the index that segmentation and cropping use."""
        return ImageFiles(self.dataset, self.table[IMAGE_FILES.names])

    def rows(self, *splits: Split) -> NDArray[np.int64]:
        """Returns the rows of the images of one or more splits: int64, ascending."""
        return np.flatnonzero(self.table["split"].isin(splits).to_numpy()).astype(np.int64)

    @property
    def object_masks_from(self) -> Literal["mask", "box"] | None:
        """Source of the object masks, the data set's own masks or its boxes; None without any."""
        if self.table["object_mask"].isna().all():
            return None
        return "box" if self.table["object_mask_path"].isna().all() else "mask"

    def object_mask(self, row: int) -> NDArray[np.bool_] | None:
        """Returns the object mask of the image in a row, bool height×width; None without one."""
        image = self.table.iloc[row]
        counts = image["object_mask"]
        if counts is None:
            return None
        size = [int(image["height"]), int(image["width"])]
        return rle.decode({"size": size, "counts": counts}).astype(bool)

    def write(self, path: Path) -> None:
        """Writes a Parquet file; the same rows give the same bytes."""
        about = {
            "dataset": self.dataset,
            "classes": self.class_names,
            "parts": self.part_names,
            "made_with": self.made_with,
        }
        schema = SCHEMA.with_metadata({"protomask": json.dumps(about, sort_keys=True)})
        table = pa.Table.from_pylist(self.table.to_dict("records"), schema=schema)
        pq.write_table(table, path, compression="zstd")

    @classmethod
    def read(cls, path: Path) -> "Index":
        """Reads a file written by `write`.

        Raises:
            ProtoMaskError: the file is missing or is no index.
        """
        table, about = _read_table(path, SCHEMA, ["dataset", "classes", "parts", "made_with"])
        rows = _frame(table.to_pylist())
        return cls(about["dataset"], about["classes"], about["parts"], rows, about["made_with"])


def _read_table(
    path: Path, schema: pa.Schema, facts: Sequence[str]
) -> tuple[pa.Table, dict[str, Any]]:
    try:
        # With partitioning, a repository in a folder run=3 would add a column "run" to the table.
        table = pq.read_table(path, partitioning=None)
        if table.schema.names != schema.names:
            raise KeyError(f"its columns are {', '.join(table.schema.names)}")
        about = json.loads(table.schema.metadata[b"protomask"])
        return table, {name: about[name] for name in facts}
    except FileNotFoundError:
        raise ProtoMaskError(f"no index at {path}: {make('prepare')}") from None
    except (OSError, pa.ArrowException, KeyError, TypeError, ValueError) as error:
        raise ProtoMaskError(
            f"{path} is no such table of images ({error}): {rerun('prepare')}"
        ) from None


def _as_dicts(parts: tuple[Part, ...] | None) -> list[dict[str, Any]] | None:
    return None if parts is None else [vars(part) for part in parts]


def _frame(records: list[dict[str, Any]]) -> pd.DataFrame:
    """Returns the table; with dtype object, since pandas would otherwise turn None into NaN."""
    frame = pd.DataFrame(records, columns=SCHEMA.names, dtype=object)
    return frame.astype({"label": "int64", "width": "int64", "height": "int64"})
