"""Which layout masks have, by what is in a file or a folder."""

import json
from pathlib import Path

import pytest
from PIL import Image

from pipeline.errors import ProtoMaskError
from pipeline.masks.layout import LAYOUTS, Layout, layout_of

COCO = {"images": [{"id": 1}], "annotations": []}
SA_1B = {"image": {"image_id": 1}, "annotations": []}
TASKS = [{"id": 1, "data": {"image": "a.jpg"}, "annotations": []}]
PNG = "PNG"


def _write(folder: Path, files: dict[str, object]) -> Path:
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if content == PNG:
            Image.new("L", (2, 2)).save(path, "PNG")
        else:
            path.write_text(content if isinstance(content, str) else json.dumps(content))
    return folder


BRUSHED = "task-1-annotation-2-by-3-tag-wing-0.png"


@pytest.mark.parametrize(
    ("files", "name", "read"),
    [
        ({"a/0.png": PNG}, "png", ["a/0.png"]),
        ({"a/0.png": PNG, "a/notes.json": {"a": 1}}, "png", ["a/0.png"]),
        ({"labels.json": COCO, "data/0.png": PNG}, "coco", ["labels.json"]),
        ({"t/a.json": COCO, "v/a.JSON": COCO}, "coco", ["t/a.json", "v/a.JSON"]),
        ({"a.json": {"annotations": ["x" * 9999], **COCO}, "b.json": SA_1B}, "coco", ["a.json"]),
        ({"sa_1.json": SA_1B, "sa_2.json": SA_1B, "0.png": PNG}, "sam", ["sa_1.json", "sa_2.json"]),
        ({"1.json": [], "2.json": "  [{}]"}, "sam", ["1.json", "2.json"]),
        ({BRUSHED: PNG, "x.json": TASKS}, "label_studio", [BRUSHED, "x.json"]),
        ({"SegmentationObject/a.png": PNG, "a.json": COCO}, "voc", ["SegmentationObject/a.png"]),
        ({"SegmentationClass/a.png": PNG}, "png", ["SegmentationClass/a.png"]),
    ],
    ids=str,
)
def test_a_folder(tmp_path: Path, files: dict[str, object], name: str, read: list[str]) -> None:
    layout, found = layout_of(_write(tmp_path, files))
    assert (layout.name, found) == (name, read)


@pytest.mark.parametrize(
    ("content", "name"),
    [(COCO, "coco"), (SA_1B, "sam"), ([], "sam"), (TASKS, "label_studio"), ("no JSON", "coco")],
    ids=str,
)
def test_a_file(tmp_path: Path, content: object, name: str) -> None:
    layout, found = layout_of(_write(tmp_path, {"masks": content}) / "masks")
    assert (layout.name, found) == (name, [""])


@pytest.mark.parametrize("files", [{}, {"readme.txt": ""}, {"a.json": {"masks": []}}], ids=str)
def test_a_folder_without_masks_is_refused(tmp_path: Path, files: dict[str, object]) -> None:
    with pytest.raises(ProtoMaskError, match="holds no masks: no PNG files, and no JSON files of"):
        layout_of(_write(tmp_path, files))


def test_every_layout_has_a_rank_and_a_name_of_its_own() -> None:
    layouts: list[type[Layout]] = [LAYOUTS[name] for name in LAYOUTS.names()]
    assert len({layout.rank for layout in layouts}) == len(layouts) == 5
    assert [layout.name for layout in layouts] == LAYOUTS.names()
