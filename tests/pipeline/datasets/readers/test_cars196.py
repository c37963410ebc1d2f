"""Stanford Cars in both of its official layouts, made small."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image as Pillow
from scipy.io import savemat

from pipeline.datasets.index import Index
from pipeline.datasets.listing import list_files
from pipeline.datasets.prepare import build_index
from pipeline.datasets.readers import cars196
from pipeline.errors import ProtoMaskError

CLASSES = ["AM General Hummer SUV 2000", "Ram C/V Cargo Van Minivan 2012"]
SIDES = ("bbox_x1", "bbox_y1", "bbox_x2", "bbox_y2")
TRAIN = [(3, 2, 20, 10, 2, "00001.jpg"), (1, 1, 40, 30, 1, "00002.jpg")]
TEST = [(5, 6, 45, 33, 1, "00001.jpg"), (8, 9, 8, 9, 2, "00002.jpg")]


def _annotations(fields: tuple[str, ...], rows: list[tuple[Any, ...]]) -> np.ndarray:
    """A structure array, 1×N, whose numbers are as small as they can be, as MATLAB wrote them."""
    table = np.empty((1, len(rows)), [(field, object) for field in fields])
    for number, row in enumerate(rows):
        table[0, number] = tuple(
            np.array([[value]], np.uint8) if isinstance(value, int) else value for value in row
        )
    return table


def _names() -> np.ndarray:
    names = np.empty((1, len(CLASSES)), object)
    names[0] = CLASSES
    return names


def _draw(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(len(path.name)).integers(0, 256, (30, 40, 3), np.uint8)
    Pillow.fromarray(pixels).save(path)


@pytest.fixture
def devkit(tmp_path: Path) -> Path:
    root = tmp_path / "cars"
    (root / "devkit").mkdir(parents=True)
    savemat(root / "devkit" / "cars_meta.mat", {"class_names": _names()})
    for split, rows, name in (
        ("train", TRAIN, "cars_train_annos.mat"),
        ("test", TEST, "cars_test_annos_withlabels.mat"),
    ):
        table = _annotations((*SIDES, "class", "fname"), rows)
        savemat(root / "devkit" / name, {"annotations": table})
        for row in rows:
            _draw(root / f"cars_{split}" / row[-1])
    return root


@pytest.fixture
def one_table(tmp_path: Path) -> Path:
    root = tmp_path / "cars"
    rows = [
        *((f"car_ims/{i:06}.jpg", *row[:5], 0) for i, row in enumerate(TRAIN, 1)),
        *((f"car_ims/{i:06}.jpg", *row[:5], 1) for i, row in enumerate(TEST, 3)),
    ]
    for path, *_ in rows:
        _draw(root / path)
    table = _annotations(("relative_im_path", *SIDES, "class", "test"), rows)
    savemat(root / "cars_annos.mat", {"annotations": table, "class_names": _names()})
    return root


def _build(root: Path) -> Index:
    index, unreadable, _ = build_index("cars196", root, list_files(root))
    assert unreadable == []
    return index


def test_cars(devkit: Path) -> None:
    images, classes, parts, _ = cars196.Cars196().read(devkit)
    assert classes == CLASSES
    assert parts == []
    # From pixels counted from 1, the last one included.
    assert [(image.id, image.class_name, image.split, image.object_box) for image in images] == [
        ("cars_train/00001", CLASSES[1], "train", (2, 1, 20, 10)),
        ("cars_train/00002", CLASSES[0], "train", (0, 0, 40, 30)),
        ("cars_test/00001", CLASSES[0], "test", (4, 5, 45, 33)),
        ("cars_test/00002", CLASSES[1], "test", (7, 8, 8, 9)),
    ]
    assert [image.path for image in images] == [f"{image.id}.jpg" for image in images]


def test_cars_in_one_folder(devkit: Path, one_table: Path) -> None:
    (devkit / "cars_annos.mat").rename(devkit / "away.mat")
    expected = cars196.Cars196().read(devkit)
    (devkit / "away.mat").rename(devkit / "cars_annos.mat")
    images, classes, *_ = cars196.Cars196().read(one_table)
    assert classes == CLASSES
    assert [image.path for image in images] == [f"car_ims/{i:06}.jpg" for i in (1, 2, 3, 4)]
    for image, wanted in zip(images, expected.images, strict=True):
        assert (image.class_name, image.split) == (wanted.class_name, wanted.split)
        assert image.object_box == wanted.object_box
    assert _build(one_table).ids == [f"car_ims/{i:06}" for i in (1, 2, 3, 4)]


def test_test_labels_beside_the_devkit(devkit: Path) -> None:
    inside = cars196.Cars196().read(devkit)
    (devkit / "devkit" / cars196.TEST).rename(devkit / cars196.TEST)
    assert cars196.Cars196().read(devkit) == inside


def test_boxes_serve_as_object_masks(devkit: Path) -> None:
    index = _build(devkit)
    assert index.object_masks_from == "box"
    for name, (x0, y0, x1, y1) in {
        "cars_train/00001": (2, 1, 20, 10),
        "cars_train/00002": (0, 0, 40, 30),
        "cars_test/00001": (4, 5, 40, 30),  # it reaches beyond the image
        "cars_test/00002": (7, 8, 8, 9),
    }.items():
        row = index.ids.index(name)
        expected = np.zeros((30, 40), bool)
        expected[y0:y1, x0:x1] = True
        found = index.object_mask(row)
        assert found is not None
        assert np.array_equal(found, expected)
        assert list(index.table.at[row, "object_box"]) == [x0, y0, x1, y1]


def test_another_layout(tmp_path: Path) -> None:
    _draw(tmp_path / "train" / "AM General Hummer SUV 2000" / "00001.jpg")
    with pytest.raises(ProtoMaskError) as caught:
        _build(tmp_path)
    message = str(caught.value)
    assert "holds neither cars_annos.mat and car_ims/, nor devkit/" in message
    assert "https://github.com/pytorch/vision/issues/7545" in message


@pytest.mark.parametrize(
    "name", ["cars_meta.mat", "cars_train_annos.mat", "cars_test_annos_withlabels.mat"]
)
def test_without_one_of_its_files(devkit: Path, name: str) -> None:
    (devkit / "devkit" / name).unlink()
    with pytest.raises(ProtoMaskError, match=f"{name} is missing from .*devkit.*Stanford Cars"):
        _build(devkit)


@pytest.mark.parametrize(
    "name", ["cars_meta.mat", "cars_train_annos.mat", "cars_test_annos_withlabels.mat"]
)
@pytest.mark.parametrize("part", [0.0, 0.3, 0.6])
def test_a_damaged_file(devkit: Path, name: str, part: float) -> None:
    path = devkit / "devkit" / name
    content = path.read_bytes()
    path.write_bytes(content[: int(part * len(content))])
    with pytest.raises(ProtoMaskError, match=f"{name} is no MATLAB file that can be read .*anew"):
        _build(devkit)


@pytest.mark.parametrize(
    "row", [(1, 1, 5, 5, 3, "00001.jpg"), (1, 1, 5, 5, 0, "00001.jpg"), ("x", 1, 5, 5, 1, "1.jpg")]
)
def test_numbers_that_cannot_be(devkit: Path, row: tuple[Any, ...]) -> None:
    table = _annotations((*SIDES, "class", "fname"), [row, row])
    savemat(devkit / "devkit" / "cars_train_annos.mat", {"annotations": table})
    with pytest.raises(ProtoMaskError, match="contradict each other or are damaged"):
        _build(devkit)


def test_test_annotations_without_labels(devkit: Path) -> None:
    """What cars_test_annos.mat holds, under the other file's name."""
    table = _annotations((*SIDES, "fname"), [row[:4] + row[5:] for row in TEST])
    savemat(devkit / "devkit" / cars196.TEST, {"annotations": table})
    with pytest.raises(ProtoMaskError, match=r"damaged .*class"):
        _build(devkit)


@pytest.mark.parametrize("content", [{"annotations": [1, 2]}, {"annotations": "x"}, {"x": 1}])
def test_a_table_of_something_else(devkit: Path, content: dict[str, Any]) -> None:
    savemat(devkit / "devkit" / "cars_train_annos.mat", content)
    with pytest.raises(ProtoMaskError, match="contradict each other or are damaged"):
        _build(devkit)
