"""What other tools export is read: whose masks they are, their pixels, parts, names and scores.

How the exports were made, and of what, say `exports/make.py` and `exports/drawn.py`.
"""

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from pycocotools.coco import COCO
from settings import imported

from pipeline.datasets.index import ImageFiles
from pipeline.errors import ProtoMaskError
from pipeline.files import sha256
from pipeline.masks.coco import write_coco
from pipeline.masks.masks import Masks
from pipeline.masks.segmenter import Machine, Segmenter, Source
from pipeline.masks.segmenters.imported import content_hash
from pipeline.masks.store import MaskStore, write_store

EXPORTS = Path(__file__).parent / "exports"
sys.path.insert(0, str(EXPORTS))

from drawn import BOX, HEIGHT, PARTS, PHOTOGRAPHS, WIDTH, drawn  # noqa: E402

SAM = "Segment Anything's JSON, a file an image"


class Export(NamedTuple):
    """What is known of an export.

    Args:
        read_as: what it is recognised as.
        parts: the names of its parts.
        scored: whether it has scores.
        alike: the smallest IoU of a mask with what was drawn; 1 where pixels are kept.
        photographs: which of the two photographs with masks it has.
        boxes: the number of annotations that are said to have no mask.
    """

    read_as: str
    parts: tuple[str, ...] = PARTS
    scored: bool = False
    alike: float = 1.0
    photographs: tuple[bool, bool] = (True, True)
    boxes: int = 0


KNOWN = {
    "cvat": Export("COCO JSON: 3 images", boxes=1),
    "cvat_masks": Export("Pascal VOC's instance maps (CVAT's Segmentation mask): 2 instance maps"),
    "label_studio_coco": Export("COCO JSON: 3 images", photographs=(False, True), boxes=1),
    # Outlines through the centres of pixels, so that masks lose half a pixel on some sides.
    "label_studio_brush_coco": Export("COCO JSON: 2 images", alike=0.6, boxes=1),
    "label_studio_png": Export(
        "Label Studio's brush labels in PNG files: 1 photographs",
        photographs=(True, False),
        boxes=3,
    ),
    # Masks that are no crowds are simplified outlines.
    "fiftyone": Export("COCO JSON: 3 images", scored=True, alike=0.8, boxes=1),
    "roboflow": Export("COCO JSON: 3 images", boxes=1),
    "sa_1b": Export(f"{SAM}: 2 JSON files", parts=(), scored=True),
    "amg_rle": Export(f"{SAM}: 3 JSON files", parts=(), scored=True),
    "amg": Export("PNG files named after photographs: 4 PNG files", parts=(), scored=True),
}
every_export = pytest.mark.parametrize("name", KNOWN)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The photographs."""
    root = tmp_path_factory.mktemp("photographs")
    for number, name in enumerate(PHOTOGRAPHS):
        (root / name).parent.mkdir(exist_ok=True)
        Image.new("RGB", (WIDTH, HEIGHT), (number, 0, 0)).save(root / name)
    return root


def _sources(root: Path) -> list[Source]:
    return [Source(root, name, sha256(root / name)) for name in PHOTOGRAPHS]


def _import(path: Path, root: Path) -> tuple[list[Masks], list[str], Segmenter]:
    """Returns the masks of each photograph, what is said of them, and what names their parts."""
    segmenter, machine = imported(sha256=content_hash(path)), Machine(masks=path)
    masks = segmenter.segment_sources(_sources(root), machine)
    named = segmenter.named(_sources(root), root.parent / "cache", machine)
    return masks, segmenter.remarks(_sources(root), machine), named


def _alike(one: NDArray[np.bool_], other: NDArray[np.bool_]) -> float:
    return (one & other).sum() / (one | other).sum()


def test_every_export_is_known() -> None:
    folders = {path.name for path in EXPORTS.iterdir() if path.is_dir()}
    assert folders - {"__pycache__"} == set(KNOWN)


@every_export
def test_masks_are_those_of_their_photographs(name: str, root: Path) -> None:
    known, (masks, _, _) = KNOWN[name], _import(EXPORTS / name, root)
    for photograph, found, there in zip(
        PHOTOGRAPHS, masks, (*known.photographs, True), strict=True
    ):
        expected = drawn(photograph) if there else {}
        full = [found.full(number) for number in range(len(found))]
        extra = name == "cvat_masks" and photograph == PHOTOGRAPHS[0]
        assert len(full) == len(expected) + extra
        for mask in expected.values():
            assert max(_alike(mask, other) for other in full) >= known.alike


def test_a_box_is_a_mask_where_cvat_makes_it_one(root: Path) -> None:
    (masks, *_), _, _ = _import(EXPORTS / "cvat_masks", root)
    x, y, width, height = BOX
    assert [x, y, x + width, y + height] in masks.boxes.tolist()


@every_export
def test_categories_are_parts_with_names(name: str, root: Path) -> None:
    masks, _, segmenter = _import(EXPORTS / name, root)
    known = KNOWN[name]
    assert sorted(segmenter.part_names.values()) == sorted(known.parts)
    for photograph, found in zip(PHOTOGRAPHS, masks, strict=True):
        for number, part in enumerate(found.parts.tolist()):
            shown = max(
                drawn(photograph), key=lambda p: _alike(drawn(photograph)[p], found.full(number))
            )
            if _alike(drawn(photograph)[shown], found.full(number)) > 0.5:
                assert segmenter.part_names.get(part) == (shown if known.parts else None)


@every_export
def test_scores_are_kept(name: str, root: Path) -> None:
    (masks, *_), _, _ = _import(EXPORTS / name, root)
    if KNOWN[name].photographs[0]:
        expected = {0.875, 0.75} if KNOWN[name].scored else {1.0}
        assert set(masks.scores.ravel().tolist()) == expected


@every_export
def test_it_is_said_what_was_recognised_and_what_has_no_mask(name: str, root: Path) -> None:
    _, (recognised, *remarks), _ = _import(EXPORTS / name, root)
    known = KNOWN[name]
    assert f"{EXPORTS / name} is read as {known.read_as}" in recognised
    assert all(repr(part) in recognised for part in known.parts)
    said = [remark for remark in remarks if "have no mask" in remark]
    assert [remark.startswith(f"{known.boxes} annotations in ") for remark in said] == (
        [True] if known.boxes else []
    )
    (others,) = [remark for remark in remarks if remark not in said] or [""]
    assert others.endswith("'ImageSets/Segmentation/default.txt'" if name == "cvat_masks" else "")
    assert bool(others) == (name == "cvat_masks")


def test_names_of_parts_are_remembered_where_the_masks_are_not(tmp_path: Path, root: Path) -> None:
    export = tmp_path / "export"
    shutil.copytree(EXPORTS / "cvat", export)
    segmenter = imported(sha256=content_hash(export))
    cache, machine = tmp_path / "cache", Machine(masks=export)
    sources = _sources(root)
    assert segmenter.named(sources, cache, Machine()).part_names == {}
    known = segmenter.named(sources, cache, machine)
    assert known.part_names == {0: "wing", 1: "beak"}
    shutil.rmtree(export)
    for place in (machine, Machine()):
        remembered = segmenter.named(sources, cache, place)
        assert remembered.part_names == {0: "wing", 1: "beak"}
        assert [remembered.identity(source) for source in sources] == [
            known.identity(source) for source in sources
        ]
    (cache / "names.json").write_text("{")
    assert segmenter.named(sources, cache, Machine()).part_names == {}


@every_export
def test_there_and_back(
    name: str,
    tmp_path: Path,
    image_files_in: Callable[[Path], ImageFiles],
    root: Path,
    same_masks: Callable[[Masks, Masks], bool],
) -> None:
    """An import is exported; pycocotools reads it, and another import gives the same."""
    masks, _, segmenter = _import(EXPORTS / name, root)
    image_files = image_files_in(root)
    assert image_files.table["path"].tolist() == list(PHOTOGRAPHS)
    write_store(tmp_path / "store", image_files, segmenter, masks)
    store = MaskStore(tmp_path / "store")
    write_coco(tmp_path / "out.json", store, list(PHOTOGRAPHS))
    coco = COCO(str(tmp_path / "out.json"))
    for row, found in enumerate(masks):
        annotations = coco.imgToAnns[row + 1]
        assert len(annotations) == len(found)
        for number, annotation in enumerate(annotations):
            assert np.array_equal(coco.annToMask(annotation), found.full(number))
            (category,) = coco.loadCats(annotation["category_id"])
            part = int(found.parts[number])
            assert category["name"] == segmenter.part_names.get(part, "mask")
    again, _, named = _import(tmp_path / "out.json", root)
    assert all(same_masks(one, other) for one, other in zip(masks, again, strict=True))
    assert named.part_names == store.part_names == segmenter.part_names


def test_png_files_of_label_studio_need_the_json(tmp_path: Path, root: Path) -> None:
    for file in (EXPORTS / "label_studio_png").glob("*.png"):
        shutil.copy(file, tmp_path)
    with pytest.raises(ProtoMaskError, match="export the project as JSON, too"):
        _import(tmp_path, root)
    shutil.copy(EXPORTS / "label_studio_png" / "project.json", tmp_path / "alone.json")
    for file in tmp_path.glob("*.png"):
        file.unlink()
    for path in (tmp_path, tmp_path / "alone.json"):
        with pytest.raises(ProtoMaskError, match="the masks are missing"):
            _import(path, root)


def test_one_file_of_sa_1b_is_of_one_photograph(root: Path) -> None:
    masks, (said, *_), _ = _import(EXPORTS / "sa_1b" / "001.json", root)
    assert [len(found) for found in masks] == [2, 0, 0]
    assert said.endswith(": 1 JSON files")


@pytest.mark.parametrize("name", ["sa_1b", "amg_rle"])
def test_a_mask_that_is_damaged_is_named(name: str, tmp_path: Path, root: Path) -> None:
    shutil.copytree(EXPORTS / name, tmp_path / name)
    path = tmp_path / name / "001.json"
    content = json.loads(path.read_text())
    annotations = content["annotations"] if name == "sa_1b" else content
    annotations[1]["segmentation"]["counts"] = "o"
    path.write_text(json.dumps(content))
    with pytest.raises(ProtoMaskError, match=r"001\.json: annotation 1 \(from 0\): .* damaged"):
        _import(tmp_path / name, root)
    annotations[1]["segmentation"] = 3
    path.write_text(json.dumps(content))
    with pytest.raises(
        ProtoMaskError, match=r"001\.json is no JSON of Segment Anything: .*[12]: segm"
    ):
        _import(tmp_path / name, root)
    annotations[1]["segmentation"] = None
    path.write_text(json.dumps(content))
    _, (_, said), _ = _import(tmp_path / name, root)
    assert said.startswith("1 annotations in ")
    assert said.endswith("in 1 files: '001.json'")
