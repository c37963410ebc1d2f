"""COCO JSON: every form of a mask is read, what is wrong is named, what is written is COCO's."""

import codecs
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from numpy.typing import NDArray
from pycocotools import mask as rle
from pycocotools.coco import COCO
from settings import patches

from pipeline.datasets.index import ImageFiles
from pipeline.errors import ProtoMaskError
from pipeline.masks.coco import CocoMasks, RunLengths, _runs, _tight, write_coco
from pipeline.masks.masks import Masks, Region
from pipeline.masks.segmenter import Segmenter
from pipeline.masks.segmenters.patches import Patches
from pipeline.masks.store import MaskStore, write_store

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


def _read(folder: Path, content: Any) -> Masks:
    regions = CocoMasks(_written(folder, content)).regions("a/b.jpg", HEIGHT, WIDTH)
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


@given(arrays(np.uint8, array_shapes(min_dims=2, max_dims=2, max_side=40), elements=st.booleans()))
def test_compressed_run_lengths_of_any_mask(pixels: NDArray[np.uint8]) -> None:
    _same_pixels(rle.encode(np.asfortranarray(pixels))["counts"].decode(), pixels)


def test_run_lengths_of_large_images() -> None:
    """Numbers of up to six digits, and negative differences."""
    pixels = np.zeros((3000, 2000), np.uint8, order="F")
    pixels[100:2900, 700:703] = 1
    pixels[5, 1800] = pixels[2999, 1999] = 1
    _same_pixels(rle.encode(pixels)["counts"].decode(), pixels)


@given(st.lists(st.integers(0, 9), max_size=20), st.integers(1, 7))
def test_uncompressed_run_lengths_may_be_zero(counts: list[int], height: int) -> None:
    counts.append(-sum(counts) % height)
    width = sum(counts) // height
    ends = np.cumsum(counts)
    flat = [np.searchsorted(ends, place, "right") % 2 for place in range(height * width)]
    pixels = np.array(flat, np.uint8).reshape(width, height).T
    if width:
        _same_pixels(counts, pixels)


def _same_pixels(counts: str | list[int], pixels: NDArray[np.uint8]) -> None:
    height, width = pixels.shape
    region = _tight(_runs(RunLengths((height, width), counts), height, width), height, 1.0)
    found = np.zeros((height, width), bool)
    rows, columns = region.bitmap.shape
    found[region.y0 : region.y0 + rows, region.x0 : region.x0 + columns] = region.bitmap
    assert np.array_equal(found, pixels.astype(bool))


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
    assert len(CocoMasks(path).regions("a/b.jpg", HEIGHT, WIDTH)) == 1


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
    masks = CocoMasks(_written(tmp_path, _coco(segmentation, [RECTANGLE], segmentation)))
    assert len(masks.regions("a/b.jpg", HEIGHT, WIDTH)) == 1
    (said,) = masks.remarks()
    assert said.startswith("2 annotations in ")
    assert said.endswith(
        " have no mask in `segmentation` (run lengths, or polygons of 3 points): 70, 72"
    )


def test_an_annotation_of_a_box_alone_has_no_mask(tmp_path: Path) -> None:
    content = _without(_coco([RECTANGLE], [RECTANGLE]), "annotations", 1, "segmentation")
    masks = CocoMasks(_written(tmp_path, content))
    assert len(masks.regions("a/b.jpg", HEIGHT, WIDTH)) == 1
    assert "1 annotations in " in masks.remarks()[0]


def test_a_polygon_without_an_area_adds_nothing_to_the_others(tmp_path: Path) -> None:
    masks = CocoMasks(_written(tmp_path, _coco([RECTANGLE, [0, 0, 9, 6], []])))
    assert masks.regions("a/b.jpg", HEIGHT, WIDTH)[0].bitmap.sum() == 12
    assert masks.remarks() == []


FRACTIONS = [0.2, 0.1, 0.7, 0.1, 1.02, 0.9, -0.01, 0.6]


def test_fractions_are_refused(tmp_path: Path) -> None:
    content = _coco([FRACTIONS], [], [FRACTIONS, FRACTIONS])
    with pytest.raises(
        ProtoMaskError, match=r"masks\.json: all polygons lie .* multiply each x by"
    ):
        CocoMasks(_written(tmp_path, content))


@pytest.mark.parametrize("other", [[RECTANGLE], {"size": [HEIGHT, WIDTH], "counts": [13, 10, 31]}])
def test_a_few_fractions_are_named(tmp_path: Path, other: Any) -> None:
    masks = CocoMasks(_written(tmp_path, _coco(other, [FRACTIONS], [[0, 0, 1, 0, 1, 1, 0, 1]])))
    (said,) = masks.remarks()
    assert said.startswith("2 annotations in ")
    assert said.endswith(" first 2 pixels, as fractions of its sides would: 71, 72")


def test_counts_that_end_early_are_refused(tmp_path: Path) -> None:
    counts = rle.encode(_rectangle())["counts"].decode()
    for end in range(len(counts)):
        damaged = {"size": [HEIGHT, WIDTH], "counts": counts[:end]}
        with pytest.raises(ProtoMaskError, match=r"annotation 70: .* damaged"):
            _read(tmp_path, _coco(damaged))


@given(st.text(st.characters(max_codepoint=127), max_size=12))
def test_any_text_is_a_mask_that_pycocotools_reads_or_is_refused(counts: str) -> None:
    try:
        runs = _runs(RunLengths((3, 4), counts), 3, 4)
    except ValueError as error:
        assert "damaged" in str(error)
    else:
        expected = rle.decode({"size": [3, 4], "counts": counts})
        _same_pixels(runs.tolist(), expected)


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
        CocoMasks(_written(tmp_path, content))


def test_images_that_contradict_each_other(tmp_path: Path) -> None:
    content = _coco([RECTANGLE])
    (image,) = content["images"]
    content["images"].append(image | {"file_name": "c.jpg"})
    with pytest.raises(ProtoMaskError, match=r"masks\.json: two images have the same id"):
        CocoMasks(_written(tmp_path, content))
    content["images"][1] = image | {"id": 4}
    with pytest.raises(ProtoMaskError, match=r"images 3 and 4 are both called 'a/b\.jpg'"):
        CocoMasks(_written(tmp_path, content))


@pytest.mark.parametrize("share", [0.0, 0.3, 0.99])
def test_a_truncated_file(tmp_path: Path, share: float) -> None:
    path = _written(tmp_path, _coco([RECTANGLE]))
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    with pytest.raises(ProtoMaskError, match=r"masks\.json is damaged: Invalid JSON"):
        CocoMasks(path)


def test_bytes_that_are_no_text(tmp_path: Path) -> None:
    path = tmp_path / "masks.json"
    path.write_bytes(b'{"images": "\xff\xfe"}')
    with pytest.raises(ProtoMaskError, match=r"masks\.json"):
        CocoMasks(path)


def test_another_size_is_named(tmp_path: Path) -> None:
    masks = CocoMasks(_written(tmp_path, _coco([RECTANGLE])))
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
    assert any(CocoMasks(_written(tmp_path, content)).related(photograph)) == related


def _store(
    path: Path, image_files: ImageFiles, masks: list[Masks], segmenter: Segmenter
) -> MaskStore:
    write_store(path, image_files, segmenter, masks)
    return MaskStore(path)


@pytest.fixture
def store(
    tmp_path: Path,
    photograph_folder: Path,
    image_files_in: Callable[[Path], ImageFiles],
    make_masks: Callable[..., Masks],
) -> MaskStore:
    """Ten images of 40×30 pixels with 0 to 9 random masks."""
    image_files = image_files_in(photograph_folder)
    masks = [make_masks(seed, count=seed) for seed in range(10)]
    return _store(tmp_path / "store", image_files, masks, patches())


def test_pycocotools_reads_what_is_written(store: MaskStore, tmp_path: Path) -> None:
    write_coco(tmp_path / "out.json", store, [f"{image}!" for image in store.ids])
    coco = COCO(str(tmp_path / "out.json"))
    assert coco.dataset["info"]["segmenter"] == patches().fingerprint()
    assert [category["name"] for category in coco.loadCats(coco.getCatIds())] == ["mask"]
    assert sorted(coco.getImgIds()) == list(range(1, 11))
    assert len(coco.getAnnIds()) == sum(range(10))
    for row in range(10):
        (image,) = coco.loadImgs(row + 1)
        assert image["file_name"] == f"{store.ids[row]}!"
        found = store.masks(row)
        annotations = coco.imgToAnns[row + 1]
        assert len(annotations) == len(found) == row
        for number, annotation in enumerate(annotations):
            assert np.array_equal(coco.annToMask(annotation), found.full(number))
            assert annotation["area"] == found.areas[number]
            assert annotation["score"] == found.scores[number, 0]
            assert annotation.get("part", -1) == found.parts[number]
            assert annotation["level"] == found.levels[number]
            assert annotation["foreground"] == found.foreground[number]
            x, y, width, height = annotation["bbox"]
            assert [x, y, x + width, y + height] == found.boxes[number].tolist()


def test_the_same_store_gives_the_same_bytes(store: MaskStore, tmp_path: Path) -> None:
    for name in ("a.json", "b.json"):
        write_coco(tmp_path / name, store, store.ids)
    assert (tmp_path / "a.json").read_bytes() == (tmp_path / "b.json").read_bytes()


def test_a_name_in_any_script(store: MaskStore, tmp_path: Path) -> None:
    names = [f'ä鳥"{number}\n' for number in range(10)]
    write_coco(tmp_path / "out.json", store, names)
    assert list(CocoMasks(tmp_path / "out.json").images) == names


class NamedParts(Patches):
    @property
    def part_names(self) -> dict[int, str]:
        return {7: "wing"}


class TwoScores(Patches):
    score_names: ClassVar[tuple[str, ...]] = ("predicted_iou", "stability")


def test_parts_and_their_names_are_written(
    photograph_folder: Path, image_files_in: Callable[[Path], ImageFiles], tmp_path: Path
) -> None:
    image_files = image_files_in(photograph_folder)
    square = np.ones((3, 3), bool)
    regions = [Region(0, 0, square, (1.0,), 7, 2, False), Region(9, 9, square, (1.0,))]
    masks = [Masks.of(30, 40, regions, 1)] * len(image_files)
    store = _store(tmp_path / "store", image_files, masks, NamedParts(version=1, grid=2))
    write_coco(tmp_path / "out.json", store, store.ids)
    content = json.loads((tmp_path / "out.json").read_text())
    assert content["info"]["part_names"] == {"7": "wing"}
    known, unknown = content["annotations"][:2]
    assert (known["part"], known["level"], known["foreground"]) == (7, 2, False)
    assert "part" not in unknown
    assert (unknown["level"], unknown["foreground"]) == (0, True)


def test_several_scores_keep_their_names(
    photograph_folder: Path, image_files_in: Callable[[Path], ImageFiles], tmp_path: Path
) -> None:
    image_files = image_files_in(photograph_folder)
    regions = [Region(0, 0, np.ones((3, 3), bool), (0.1, 0.7))]
    masks = [Masks.of(30, 40, regions, 2)] * len(image_files)
    store = _store(tmp_path / "store", image_files, masks, TwoScores(version=1, grid=2))
    write_coco(tmp_path / "out.json", store, store.ids)
    first = json.loads((tmp_path / "out.json").read_text())["annotations"][0]
    one, other = np.array([0.1, 0.7], np.float32).tolist()
    assert (first["score"], first["predicted_iou"], first["stability"]) == (one, one, other)


def test_a_score_that_json_lacks_leaves_what_was_there(
    photograph_folder: Path, image_files_in: Callable[[Path], ImageFiles], tmp_path: Path
) -> None:
    image_files = image_files_in(photograph_folder)
    regions = [Region(0, 0, np.ones((3, 3), bool), (float("nan"),))]
    masks = [Masks.of(30, 40, regions, 1)] * len(image_files)
    store = _store(tmp_path / "store", image_files, masks, patches())
    (tmp_path / "out.json").write_text("earlier")
    with pytest.raises(ProtoMaskError, match=r"class 0/000\.png is no finite number"):
        write_coco(tmp_path / "out.json", store, store.ids)
    assert (tmp_path / "out.json").read_text() == "earlier"
    assert not list(tmp_path.glob("*.part"))
