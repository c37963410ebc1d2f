"""COCO files: every form of a mask is read, what is wrong is named."""

import codecs
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from pycocotools import mask as rle

from pipeline.errors import ProtoMaskError
from pipeline.masks.layouts.coco import CocoMasks
from pipeline.masks.masks import Masks

HEIGHT, WIDTH = 6, 9


# x from 2 to 6, y from 1 to 4, as corners of pixels.
RECTANGLE = [2, 1, 6, 1, 6, 4, 2, 4]


def _coco(*segmentations: Any, **more: Any) -> dict[str, Any]:
    image = {"id": 3, "file_name": "a/b.jpg", "height": HEIGHT, "width": WIDTH}
    annotations = [
        {"id": 70 + number, "image_id": 3, "segmentation": segmentation, **more}
        for number, segmentation in enumerate(segmentations)
    ]
    return {"images": [image], "annotations": annotations}


def _written(folder: Path, content: Any) -> Path:
    path = folder / "masks.json"
    path.write_text(json.dumps(content))
    return path


def _opened(path: Path) -> CocoMasks:
    return CocoMasks(path, [""])


def _read(folder: Path, content: Any) -> Masks:
    regions = _opened(_written(folder, content)).regions("a/b.jpg", HEIGHT, WIDTH)
    return Masks.of(HEIGHT, WIDTH, regions, 1)


def _rectangle() -> NDArray[np.uint8]:
    pixels = np.zeros((HEIGHT, WIDTH), np.uint8, order="F")
    pixels[1:4, 2:6] = 1
    return pixels


def test_a_polygon_has_the_pixels_inside_it(tmp_path: Path) -> None:
    masks = _read(tmp_path, _coco([RECTANGLE]))
    assert masks.boxes.tolist() == [[2, 1, 6, 4]]
    assert masks.areas.tolist() == [12]
    assert np.array_equal(masks.full(0), _rectangle())


def test_several_polygons_are_one_mask(tmp_path: Path) -> None:
    masks = _read(tmp_path, _coco([RECTANGLE, [0, 4, 3, 4, 3, 6, 0, 6]]))
    expected = _rectangle()
    expected[4:6, 0:3] = 1
    assert np.array_equal(masks.full(0), expected)


def test_all_forms_of_a_mask_are_the_same_mask(
    tmp_path: Path, same_masks: Callable[[Masks, Masks], bool]
) -> None:
    # Columns 0 and 1 and a pixel of column 2 lie outside, then 3 of every 6 pixels inside.
    counts = [13, 3, 3, 3, 3, 3, 3, 3, 20]
    compressed = rle.encode(_rectangle())["counts"].decode()
    forms = [
        [RECTANGLE],
        {"size": [HEIGHT, WIDTH], "counts": counts},
        {"size": [HEIGHT, WIDTH], "counts": compressed},
    ]
    found = [_read(tmp_path, _coco(form)) for form in forms]
    assert found[0].areas.tolist() == [12]
    assert all(same_masks(found[0], masks) for masks in found)


def test_the_order_of_equal_areas_is_kept(tmp_path: Path) -> None:
    def square(x: int) -> list[list[int]]:
        return [[x, 1, x + 2, 1, x + 2, 3, x, 3]]

    masks = _read(tmp_path, _coco(square(4), square(0), [RECTANGLE], square(6)))
    assert masks.boxes[:, 0].tolist() == [2, 4, 0, 6]


def test_masks_one_pixel_wide_and_empty_ones_are_dropped(tmp_path: Path) -> None:
    line = {"size": [HEIGHT, WIDTH], "counts": [0, 6, 48]}
    empty = {"size": [HEIGHT, WIDTH], "counts": [54]}
    assert len(_read(tmp_path, _coco(line, empty, [RECTANGLE]))) == 1


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ({"score": 0.25, "predicted_iou": 0.5}, 0.25),
        ({"predicted_iou": 0.5}, 0.5),
        ({"score": None, "predicted_iou": 0.5}, 0.5),
        ({"score": 0, "predicted_iou": 0.5}, 0.0),
        ({}, 1.0),
    ],
    ids=str,
)
def test_scores(tmp_path: Path, said: dict[str, Any], expected: float) -> None:
    assert _read(tmp_path, _coco([RECTANGLE], **said)).scores.tolist() == [[expected]]


def test_what_is_no_mask_is_passed_over(tmp_path: Path) -> None:
    content = _coco([RECTANGLE], iscrowd=1, area=3.5, bbox=None, attributes={"a": []})
    content |= {"info": None, "licenses": [], "categories": "none"}
    content["images"][0]["coco_url"] = "http://127.0.0.1/"
    path = _written(tmp_path, content)
    path.write_bytes(codecs.BOM_UTF8 + path.read_bytes())
    assert len(_opened(path).regions("a/b.jpg", HEIGHT, WIDTH)) == 1


def test_an_image_without_annotations_has_no_masks(tmp_path: Path) -> None:
    assert len(_read(tmp_path, _coco())) == 0


@pytest.mark.parametrize(
    ("segmentation", "said"),
    [
        ([[1, 2, 3, 4, 5]], "annotation 71: a polygon of 5 numbers"),
        ([[1, 2, 3, 4, 5, 6, 7]], "annotation 71: a polygon of 7 numbers"),
        ([[0, 0, 5, 5, 1e9, 0]], "annotation 71: a polygon reaches far out of the image"),
        (RECTANGLE, r"annotation 71: segmentation\.0: Input should be a valid array"),
        ([[1, 2, 3, 4, 5, "x"]], r"annotation 71: segmentation\.0\.5: .*valid number"),
        ([[0, 0, 5, 5, float("nan"), 0]], r"annotation 71: segmentation\.0\.4: .*finite number"),
        ("o", "annotation 71: segmentation: "),
        ({"size": [6, 9]}, r"annotation 71: segmentation\.counts: Field required"),
        ({"counts": [54]}, r"annotation 71: segmentation\.size: Field required"),
        ({"size": [6, 9], "counts": None}, r"annotation 71: segmentation\.counts"),
        ({"size": [6, 9], "counts": [-1, 55]}, r"segmentation\.counts\.0: .*equal to 0"),
        ({"size": [6, 9], "counts": [10**30]}, r"segmentation\.counts\.0: "),
        ({"size": [9, 6], "counts": [54]}, "71: its mask has 9 rows and 6 columns, its image 6"),
        ({"size": [6, 9], "counts": [53]}, "71: its run lengths are damaged: .* cover 6×9 pixels"),
        ({"size": [6, 9], "counts": [3, 52]}, "71: its run lengths are damaged"),
        ({"size": [6, 9], "counts": []}, "71: its run lengths are damaged"),
        # 30, -6, 30
        ({"size": [6, 9], "counts": "n0Jn0"}, "71: its run lengths are damaged"),
        ({"size": [6, 9], "counts": ""}, "71: its compressed run lengths are damaged"),
        ({"size": [6, 9], "counts": "é"}, "71: its compressed run lengths are damaged"),
        ({"size": [6, 9], "counts": "o" * 90}, "71: its compressed run lengths are damaged"),
        ({"size": [6, 9], "counts": "o" * 90 + "1"}, "71: its compressed run lengths are damaged"),
    ],
    ids=lambda value: str(value)[:30],
)
def test_a_wrong_mask_is_named(tmp_path: Path, segmentation: Any, said: str) -> None:
    with pytest.raises(ProtoMaskError, match=rf"masks\.json.* {said}"):
        _read(tmp_path, _coco([RECTANGLE], segmentation))


@pytest.mark.parametrize("segmentation", [[], [[]], [[1, 2, 3, 4]], [[3, 3], []], None])
def test_an_annotation_without_a_mask_is_named(tmp_path: Path, segmentation: Any) -> None:
    masks = _opened(_written(tmp_path, _coco(segmentation, [RECTANGLE], segmentation)))
    assert len(masks.regions("a/b.jpg", HEIGHT, WIDTH)) == 1
    (said,) = masks.remarks()
    assert said.startswith("2 annotations in ")
    assert said.endswith(
        " have no mask in `segmentation` (run lengths, or polygons of 3 points): 70, 72"
    )


def test_an_annotation_of_a_box_alone_has_no_mask(tmp_path: Path) -> None:
    content = _without(_coco([RECTANGLE], [RECTANGLE]), "annotations", 1, "segmentation")
    masks = _opened(_written(tmp_path, content))
    assert len(masks.regions("a/b.jpg", HEIGHT, WIDTH)) == 1
    assert "1 annotations in " in masks.remarks()[0]


def test_a_polygon_without_an_area_adds_nothing_to_the_others(tmp_path: Path) -> None:
    masks = _opened(_written(tmp_path, _coco([RECTANGLE, [0, 0, 9, 6], []])))
    assert masks.regions("a/b.jpg", HEIGHT, WIDTH)[0].bitmap.sum() == 12
    assert masks.remarks() == []


FRACTIONS = [0.2, 0.1, 0.7, 0.1, 1.02, 0.9, -0.01, 0.6]


def test_fractions_are_refused(tmp_path: Path) -> None:
    content = _coco([FRACTIONS], [], [FRACTIONS, FRACTIONS])
    with pytest.raises(
        ProtoMaskError, match=r"masks\.json: all polygons lie .* multiply each x by"
    ):
        _opened(_written(tmp_path, content))


@pytest.mark.parametrize("other", [[RECTANGLE], {"size": [HEIGHT, WIDTH], "counts": [13, 10, 31]}])
def test_a_few_fractions_are_named(tmp_path: Path, other: Any) -> None:
    masks = _opened(_written(tmp_path, _coco(other, [FRACTIONS], [[0, 0, 1, 0, 1, 1, 0, 1]])))
    (said,) = masks.remarks()
    assert said.startswith("2 annotations in ")
    assert said.endswith(" first 2 pixels, as fractions of its sides would: 71, 72")


def test_counts_that_end_early_are_refused(tmp_path: Path) -> None:
    counts = rle.encode(_rectangle())["counts"].decode()
    for end in range(len(counts)):
        damaged = {"size": [HEIGHT, WIDTH], "counts": counts[:end]}
        with pytest.raises(ProtoMaskError, match=r"annotation 70: .* damaged"):
            _read(tmp_path, _coco(damaged))


def _without(content: dict[str, Any], *keys: str | int) -> dict[str, Any]:
    place: Any = content
    for key in keys[:-1]:
        place = place[key]
    del place[keys[-1]]
    return content


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ([], "the file: Input should be"),
        ({"annotations": []}, "images: Field required"),
        ({"images": [], "annotations": []}, "images: .*at least 1 item"),
        (_without(_coco([RECTANGLE]), "annotations"), "annotations: Field required"),
        (_without(_coco([RECTANGLE]), "images", 0, "height"), "image 3: height: Field required"),
        (_without(_coco([RECTANGLE]), "images", 0, "file_name"), "image 3: file_name: Field"),
        (_without(_coco([RECTANGLE]), "images", 0, "id"), r"images\.0: id: Field required"),
        (_without(_coco([RECTANGLE]), "annotations", 0, "id"), r"annotations\.0: id: Field"),
        (_coco([RECTANGLE], image_id=8), "annotation 70 is of image 8, which .* not list"),
        (_coco([RECTANGLE], id=-1), "annotation -1: id: .*greater than or equal to 0"),
        (_coco([RECTANGLE], image_id=-1), "annotation 70: image_id: .*equal to 0"),
        (_coco([RECTANGLE], image_id="x"), "annotation 70: image_id: .*valid integer"),
        (_coco([RECTANGLE], score="high"), "annotation 70: score: .*valid number"),
        (_coco([RECTANGLE], score=float("inf")), "annotation 70: score: .*finite number"),
        (_coco([RECTANGLE], part="wing"), "annotation 70: part: .*valid integer"),
        (_coco([RECTANGLE], level=-1), "annotation 70: level: .*equal to 0"),
        (_coco([RECTANGLE], foreground=3), "annotation 70: foreground: .*valid boolean"),
        ({"images": [3], "annotations": []}, r"images\.0: Input should be"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_wrong_file_is_named(tmp_path: Path, content: Any, said: str) -> None:
    with pytest.raises(ProtoMaskError, match=rf"masks\.json.*: {said}"):
        _opened(_written(tmp_path, content))


def test_images_that_contradict_each_other(tmp_path: Path) -> None:
    content = _coco([RECTANGLE])
    (image,) = content["images"]
    content["images"].append(image | {"file_name": "c.jpg"})
    with pytest.raises(ProtoMaskError, match=r"masks\.json: two images have the same id"):
        _opened(_written(tmp_path, content))
    content["images"][1] = image | {"id": 4}
    with pytest.raises(ProtoMaskError, match=r"images 3 and 4 are both called 'a/b\.jpg'"):
        _opened(_written(tmp_path, content))


@pytest.mark.parametrize("share", [0.0, 0.3, 0.99])
def test_a_truncated_file(tmp_path: Path, share: float) -> None:
    path = _written(tmp_path, _coco([RECTANGLE]))
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    with pytest.raises(ProtoMaskError, match=r"masks\.json is damaged: Invalid JSON"):
        _opened(path)


def test_bytes_that_are_no_text(tmp_path: Path) -> None:
    path = tmp_path / "masks.json"
    path.write_bytes(b'{"images": "\xff\xfe"}')
    with pytest.raises(ProtoMaskError, match=r"masks\.json"):
        _opened(path)


def test_another_size_is_named(tmp_path: Path) -> None:
    masks = _opened(_written(tmp_path, _coco([RECTANGLE])))
    with pytest.raises(ProtoMaskError, match=r"a/b\.jpg has 9×6 pixels there, but .* 6×9"):
        masks.regions("a/b.jpg", WIDTH, HEIGHT)


@pytest.mark.parametrize(
    ("name", "photograph", "related"),
    [
        ("a/b.jpg", "a/b.jpg", True),
        ("b.jpg", "a/b.jpg", True),
        ("B.JPG", "a/b.jpg", True),
        ("birds%2FA%2fb.jpg", "a/b.jpg", True),
        ("/data/birds/a/b.jpg", "a/b.jpg", True),
        (r"birds\a\b.jpg", "a/b.jpg", True),
        ("./a/b.jpg", "a/b.jpg", True),
        ("c/b.jpg", "a/b.jpg", False),
        ("ab.jpg", "b.jpg", False),
        ("b.png", "a/b.jpg", False),
        ("b", "a/b.jpg", False),
        ("/", "a/b.jpg", False),
    ],
)
def test_which_names_may_mean_a_photograph(
    tmp_path: Path, name: str, photograph: str, related: bool
) -> None:
    content = _coco()
    content["images"][0]["file_name"] = name
    assert any(_opened(_written(tmp_path, content)).related(photograph)) == related


@pytest.mark.parametrize(("height", "width"), [(None, None), (0, 0)])
def test_a_size_that_the_tool_did_not_know_says_nothing(
    tmp_path: Path, height: int | None, width: int | None
) -> None:
    content = _coco([RECTANGLE])
    content["images"][0] |= {"height": height, "width": width}
    (region,) = _opened(_written(tmp_path, content)).regions("a/b.jpg", HEIGHT, WIDTH)
    assert region.bitmap.sum() == 12


def _parts(folder: Path, content: dict[str, Any]) -> tuple[list[int], dict[int, str]]:
    masks = _opened(_written(folder, content))
    regions = masks.regions("a/b.jpg", HEIGHT, WIDTH)
    return [region.part for region in regions], dict(masks.part_names)


CATEGORIES = [{"id": 5, "name": "wing"}, {"id": 0, "name": "beak"}]


def test_categories_are_parts(tmp_path: Path) -> None:
    content = _coco(*[[RECTANGLE]] * 4) | {"categories": CATEGORIES}
    for annotation, category in zip(content["annotations"], (0, 5, None, 7), strict=True):
        annotation["category_id"] = category
    assert _parts(tmp_path, content) == ([1, 0, -1, -1], {0: "wing", 1: "beak"})


def test_a_part_that_is_said_counts_and_not_the_category(tmp_path: Path) -> None:
    content = _coco([RECTANGLE], [RECTANGLE], category_id=5) | {"categories": CATEGORIES}
    content["annotations"][0]["part"] = 7
    assert _parts(tmp_path, content) == ([7, -1], {})
    content["info"] = {"part_names": {"7": "tail"}}
    assert _parts(tmp_path, content) == ([7, -1], {7: "tail"})
    del content["annotations"][0]["part"]
    assert _parts(tmp_path, content) == ([-1, -1], {7: "tail"})


def _folder(folder: Path, *files: str, **image: Any) -> CocoMasks:
    for file in files:
        content = _coco([RECTANGLE])
        content["images"][0] |= image
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        (folder / file).write_text(json.dumps(content))
    return CocoMasks(folder, files)


def test_photographs_of_one_name_lie_beside_their_files(tmp_path: Path) -> None:
    masks = _folder(tmp_path, "train/a.json", "test/a.json", file_name="b.jpg")
    assert list(masks.entries) == ["train/b.jpg", "test/b.jpg"]
    assert masks.related("train/b.jpg")[0] == ["train/b.jpg"]
    assert masks.related("crow/b.jpg")[1] == []


def test_two_files_about_one_image_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ProtoMaskError, match=r"images 3 and 3 are both called 'a/b\.jpg'"):
        _folder(tmp_path, "one.json", "two.json")


@pytest.mark.parametrize(
    "said",
    [
        {"path": "/data/local-files/?d=photos/crow/b.jpg"},
        {"path": "/datasets/crow/b.jpg"},
        {"extra": {"name": "crow/b.jpg"}},
    ],
    ids=str,
)
def test_a_longer_path_beside_the_name_counts(tmp_path: Path, said: dict[str, Any]) -> None:
    masks = _folder(tmp_path, "one.json", file_name="?d=b.jpg" if "extra" in said else "b.jpg")
    assert masks.related("crow/b.jpg")[1] == ([] if "extra" in said else ["b.jpg"])
    masks = _folder(tmp_path, "one.json", file_name="x.jpg", **said)
    assert masks.related("crow/b.jpg")[1] == ["x.jpg"]


@pytest.mark.parametrize("said", [{"path": 3}, {"extra": 3}, {"extra": {"name": 3}}], ids=str)
def test_what_is_no_path_says_nothing(tmp_path: Path, said: dict[str, Any]) -> None:
    masks = _folder(tmp_path, "one.json", **said)
    assert masks.related("a/b.jpg")[0] == ["a/b.jpg"]
