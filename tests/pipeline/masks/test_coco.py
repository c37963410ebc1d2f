"""COCO JSON: what is written is COCO's, and has everything that the store has."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
from pycocotools.coco import COCO
from settings import patches

from pipeline.datasets.index import ImageFiles
from pipeline.errors import ProtoMaskError
from pipeline.masks.coco import write_coco
from pipeline.masks.layouts.coco import CocoMasks
from pipeline.masks.masks import Masks, Region
from pipeline.masks.segmenter import Segmenter
from pipeline.masks.segmenters.patches import Patches
from pipeline.masks.store import MaskStore, write_store


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
            part = annotation.get("part", -1)
            assert part == found.parts[number]
            (category,) = coco.loadCats(annotation["category_id"])
            assert category["name"] == ("mask" if part == -1 else f"part {part}")
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
    assert list(CocoMasks(tmp_path / "out.json", [""]).entries) == names


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
    assert CocoMasks(tmp_path / "out.json", [""]).part_names == {7: "wing"}
    assert content["categories"] == [
        {"id": 1, "name": "mask", "supercategory": ""},
        {"id": 9, "name": "wing", "supercategory": ""},
    ]
    known, unknown = content["annotations"][:2]
    assert (known["category_id"], unknown["category_id"]) == (9, 1)
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
