"""Stanford Dogs in its official layout, made small."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from scipy.io import savemat

from pipeline.datasets.index import Index
from pipeline.datasets.listing import list_files
from pipeline.datasets.prepare import build_index
from pipeline.datasets.readers import dogs
from pipeline.errors import ProtoMaskError

CHIHUAHUA = "n02085620-Chihuahua/n02085620"
MALTESE = "n02085936-Maltese_dog/n02085936"


def _build(root: Path) -> Index:
    index, unreadable, _ = build_index("dogs", root, list_files(root))
    assert unreadable == []
    return index


def test_dogs(dogs_root: Path) -> None:
    images, classes, parts, _ = dogs.Dogs().read(dogs_root)
    assert classes == ["Chihuahua", "Maltese dog"]  # by number
    assert parts == []
    assert [(image.id, image.split, image.class_name) for image in images] == [
        (f"{MALTESE}_7", "train", "Maltese dog"),
        (f"{CHIHUAHUA}_2", "train", "Chihuahua"),
        (f"{CHIHUAHUA}_3", "train", "Chihuahua"),
        (f"{CHIHUAHUA}_1", "test", "Chihuahua"),
        (f"{MALTESE}_8", "test", "Maltese dog"),
    ]
    assert [image.path for image in images] == [f"Images/{image.id}.jpg" for image in images]
    assert {image.parts for image in images} == {None}


def test_the_box_of_several_dogs_holds_them_all(dogs_root: Path) -> None:
    boxes = {image.id: image.object_box for image in dogs.Dogs().read(dogs_root).images}
    assert boxes[f"{CHIHUAHUA}_1"] == (4, 3, 12, 20)
    assert boxes[f"{CHIHUAHUA}_2"] == (10, 2, 30, 28)
    assert boxes[f"{CHIHUAHUA}_3"] is None


def test_lists_in_their_folder(dogs_root: Path) -> None:
    beside = dogs.Dogs().read(dogs_root)
    (dogs_root / "lists").mkdir()
    for path in dogs_root.glob("*.mat"):
        path.rename(dogs_root / "lists" / path.name)
    assert dogs.Dogs().read(dogs_root) == beside


def test_a_list_of_one_image(dogs_root: Path) -> None:
    files = np.empty((1, 1), object)
    files[0, 0] = f"{MALTESE}_7.jpg"
    savemat(dogs_root / "train_list.mat", {"file_list": files})
    assert [image.split for image in dogs.Dogs().read(dogs_root).images] == [
        "train",
        "test",
        "test",
    ]


def test_boxes_serve_as_object_masks(dogs_root: Path, tmp_path: Path) -> None:
    """Cut to the image where they reach beyond it."""
    index = _build(dogs_root)
    assert index.object_masks_from == "box"
    row = index.ids.index(f"{MALTESE}_8")
    expected = np.zeros((30, 40), bool)
    expected[6:30, 5:40] = True
    found = index.object_mask(row)
    assert found is not None
    assert np.array_equal(found, expected)
    assert list(index.table.at[row, "object_box"]) == [5, 6, 40, 30]
    without = index.ids.index(f"{CHIHUAHUA}_3")
    assert index.object_mask(without) is None
    assert index.table.at[without, "object_box"] is None
    index.write(tmp_path / "x.parquet")
    assert Index.read(tmp_path / "x.parquet").object_masks_from == "box"


def test_a_box_beside_the_image_is_none(dogs_root: Path) -> None:
    path = dogs_root / "Annotation" / f"{CHIHUAHUA}_1"
    path.write_text(path.read_text().replace(">12<", ">-2<"))
    index = _build(dogs_root)
    row = index.ids.index(f"{CHIHUAHUA}_1")
    assert index.object_mask(row) is None
    assert index.table.at[row, "object_box"] is None


@pytest.mark.parametrize(
    "name", ["train_list.mat", "test_list.mat", f"Annotation/{CHIHUAHUA}_2", "Annotation"]
)
def test_without_one_of_its_files(dogs_root: Path, name: str) -> None:
    path = dogs_root / name
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    with pytest.raises(ProtoMaskError, match=r"dataset\.root: .* is missing .*Stanford Dogs"):
        _build(dogs_root)


@pytest.mark.parametrize("keep", [0, 100, 200])
def test_a_damaged_list(dogs_root: Path, keep: int) -> None:
    path = dogs_root / "train_list.mat"
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(ProtoMaskError, match=r"train_list\.mat is no MATLAB file .*anew"):
        _build(dogs_root)


@pytest.mark.parametrize("content", [{"labels": [1, 2]}, {"file_list": [1, 2]}, {"file_list": []}])
def test_a_list_of_something_else(dogs_root: Path, content: dict[str, list[int]]) -> None:
    for name in ("train_list.mat", "test_list.mat"):
        savemat(dogs_root / name, content)
    with pytest.raises(ProtoMaskError, match=r"contradict each other or are damaged|0 class"):
        _build(dogs_root)


@pytest.mark.parametrize(
    "content",
    [
        "",
        "<annotation>",
        "<annotation><object><bndbox><xmin>3</xmin></bndbox></object></annotation>",
        "<annotation><bndbox><xmin>wide</xmin></bndbox></annotation>",
        '<!DOCTYPE a [<!ENTITY e SYSTEM "file:///etc/hostname">]><a><bndbox>&e;</bndbox></a>',
    ],
)
def test_a_damaged_annotation(dogs_root: Path, content: str) -> None:
    (dogs_root / "Annotation" / f"{CHIHUAHUA}_2").write_text(content)
    with pytest.raises(ProtoMaskError, match=r"n02085620_2 is no XML file with boxes .*anew"):
        _build(dogs_root)


def test_an_annotation_that_would_fill_the_memory(dogs_root: Path) -> None:
    """Each of 30 entities is the one before, ten times."""
    entities = "".join(f'<!ENTITY e{i + 1} "{f"&e{i};" * 10}">' for i in range(30))
    bomb = f'<!DOCTYPE a [<!ENTITY e0 "x">{entities}]><a><bndbox><xmin>&e30;</xmin></bndbox></a>'
    (dogs_root / "Annotation" / f"{CHIHUAHUA}_2").write_text(bomb)
    with pytest.raises(ProtoMaskError, match="is no XML file with boxes"):
        _build(dogs_root)
