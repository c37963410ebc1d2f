"""The index survives its file, is the same everywhere, and finds images by name."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from pycocotools import mask as rle

from pipeline.datasets.index import Image, ImageFiles, Index, Part
from pipeline.errors import ProtoMaskError

MASK = np.zeros((4, 6), bool)
MASK[1:3, 2:5] = True


def _image(name: str, **fields: object) -> Image:
    defaults = {"class_name": "tit", "split": "train", "sha256": name * 32, "width": 6, "height": 4}
    return Image(f"id {name}", f"images/{name}.jpg", **{**defaults, **fields})  # type: ignore[arg-type]


IMAGES = [
    _image("c", class_name="wren", split="test", held_out=True),
    _image(
        "a",
        object_box=(2, 1, 5, 3),
        object_mask_path="masks/a.png",
        object_mask=rle.encode(np.asfortranarray(MASK, np.uint8))["counts"],
        part_mask_path="parts/a.png",
        parts=(Part("beak", 1.5, 2.0), Part("left wing", 0.0, 3.25)),
    ),
    _image("b", split="val", parts=()),
]


@pytest.fixture
def index() -> Index:
    return Index.of("birds", IMAGES, ["wren", "tit"], ["beak", "left wing"])


def test_rows_are_sorted_and_numbered(index: Index) -> None:
    assert index.ids == ["id a", "id b", "id c"]
    assert index.labels.tolist() == [1, 1, 0]
    assert index.rows("train").tolist() == [0]
    assert index.rows("val").tolist() == [1]
    assert index.rows("test").tolist() == [2]
    assert len(index) == 3


def test_labels_are_the_callers_own(index: Index) -> None:
    index.labels[:] = 7
    assert index.labels.tolist() == [1, 1, 0]


def test_round_trip(index: Index, tmp_path: Path) -> None:
    index.write(tmp_path / "x.parquet")
    found = Index.read(tmp_path / "x.parquet")
    assert found.dataset == "birds"
    assert found.class_names == ["wren", "tit"]
    assert found.part_names == ["beak", "left wing"]
    records, expected = found.table.to_dict("records"), index.table.to_dict("records")
    for record, wanted in zip(records, expected, strict=True):
        for key, value in wanted.items():
            value = list(value) if isinstance(value, tuple) else value
            assert record[key] == value or (record[key] is None and value is None), key
    assert records[0]["parts"] == [
        {"name": "beak", "x": 1.5, "y": 2.0},
        {"name": "left wing", "x": 0.0, "y": 3.25},
    ]
    assert records[1]["parts"] == []
    assert records[2]["parts"] is None
    assert found.table["held_out"].tolist() == [False, False, True]
    mask = found.object_mask(0)
    assert mask is not None
    assert np.array_equal(mask, MASK)
    assert found.object_mask(1) is None


def test_where_object_masks_come_from(index: Index) -> None:
    def of(*images: Image) -> str | None:
        return Index.of("birds", list(images), ["wren", "tit"], []).object_masks_from

    drawn = IMAGES[1]
    assert index.object_masks_from == of(drawn) == "mask"
    assert of(IMAGES[0], replace(drawn, object_mask_path=None)) == "box"
    assert of(IMAGES[0], replace(drawn, object_mask=None, object_mask_path=None)) is None


def test_the_same_images_give_the_same_bytes(index: Index, tmp_path: Path) -> None:
    index.write(tmp_path / "1.parquet")
    Index.of("birds", IMAGES[::-1], ["wren", "tit"], ["beak", "left wing"]).write(
        tmp_path / "2.parquet"
    )
    Index.read(tmp_path / "1.parquet").write(tmp_path / "3.parquet")
    first = (tmp_path / "1.parquet").read_bytes()
    assert (tmp_path / "2.parquet").read_bytes() == first
    assert (tmp_path / "3.parquet").read_bytes() == first


def test_photographs_do_not_change_with_the_split(index: Index, tmp_path: Path) -> None:
    """The mask stage depends on them; a new fold or class name must cost no masks."""
    other = [
        Image(**{**vars(image), "split": "train", "class_name": "x", "parts": None})
        for image in IMAGES
    ]
    index.image_files.write(tmp_path / "1.parquet")
    Index.of("birds", other, ["x"], []).image_files.write(tmp_path / "2.parquet")
    assert (tmp_path / "1.parquet").read_bytes() == (tmp_path / "2.parquet").read_bytes()
    found = ImageFiles.read(tmp_path / "1.parquet")
    assert found.ids == ["id a", "id b", "id c"]
    assert found.table.to_dict("records") == index.image_files.table.to_dict("records")
    assert found.digest() == index.image_files.digest()


def test_the_digest_follows_contents_ids_and_order(index: Index) -> None:
    image_files = index.image_files
    table = image_files.table
    digests = {
        ImageFiles("birds", changed).digest()
        for changed in (
            table,
            table.assign(sha256=["0" * 64, *table["sha256"][1:]]),
            table.assign(id=["other", *table["id"][1:]]),
            table.iloc[::-1],
            table.iloc[:2],
        )
    }
    assert len(digests) == 5
    assert ImageFiles("other name", table.assign(path="x")).digest() == image_files.digest()


@pytest.mark.parametrize("kind", [Index, ImageFiles])
def test_no_file(kind: type[Index] | type[ImageFiles], tmp_path: Path) -> None:
    with pytest.raises(ProtoMaskError, match=r"no index at .*x\.parquet: run `dvc repro prepare`"):
        kind.read(tmp_path / "x.parquet")


@pytest.mark.parametrize("kind", [Index, ImageFiles])
@pytest.mark.parametrize("content", [b"", b"these are notes", b"PAR1\0\0\0\0PAR1"])
def test_a_file_that_is_no_index(
    kind: type[Index] | type[ImageFiles], content: bytes, tmp_path: Path
) -> None:
    (tmp_path / "x.parquet").write_bytes(content)
    with pytest.raises(ProtoMaskError, match="no such table of images"):
        kind.read(tmp_path / "x.parquet")


@pytest.mark.parametrize("about", [b'{"dataset": "x", "classes": [], "parts": []}', b"{", b"\xff"])
def test_a_table_that_says_too_little(index: Index, about: bytes, tmp_path: Path) -> None:
    """As one of an earlier version."""
    index.write(tmp_path / "x.parquet")
    table = pq.read_table(tmp_path / "x.parquet")
    pq.write_table(table.replace_schema_metadata({b"protomask": about}), tmp_path / "x.parquet")
    with pytest.raises(ProtoMaskError, match="no such table of images"):
        Index.read(tmp_path / "x.parquet")


def test_a_table_of_something_else(index: Index, tmp_path: Path) -> None:
    pd.DataFrame({"id": ["x"]}).to_parquet(tmp_path / "x.parquet")
    with pytest.raises(ProtoMaskError, match="no such table of images"):
        Index.read(tmp_path / "x.parquet")
    index.image_files.write(tmp_path / "photographs.parquet")
    with pytest.raises(ProtoMaskError, match="no such table of images"):
        Index.read(tmp_path / "photographs.parquet")
    index.write(tmp_path / "index.parquet")
    with pytest.raises(ProtoMaskError, match="no such table of images"):
        ImageFiles.read(tmp_path / "index.parquet")


def test_a_repository_in_a_folder_that_looks_like_a_partition(index: Index, tmp_path: Path) -> None:
    """Parquet readers take a folder `run=3` for a column of the table."""
    folder = tmp_path / "id=3" / "run=4"
    folder.mkdir(parents=True)
    index.write(folder / "x.parquet")
    assert Index.read(folder / "x.parquet").ids == index.ids
