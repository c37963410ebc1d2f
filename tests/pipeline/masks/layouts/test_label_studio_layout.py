"""Brush labels in PNG files: whose they are, and what they are called."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from pipeline.errors import ProtoMaskError
from pipeline.masks.layout import Place
from pipeline.masks.layouts.label_studio import LabelStudioMasks


def _opened(
    folder: Path, image: str = "a.jpg", pngs: tuple[str, ...] = ("tag-wing-0",)
) -> LabelStudioMasks:
    """Opens the PNG files of annotation 2 of task 1, drawn with the tools `tag` and `t-2`."""
    drawn = [
        ("tag", {"rle": [1], "brushlabels": ["wing"]}),
        ("tag", {"rle": [1], "brushlabels": ["wing", "a/b"]}),
        ("t-2", {"rle": [1], "brushlabels": ["beak-tip"]}),
    ]
    results: list[dict[str, Any]] = [
        {"from_name": tool, "type": "brushlabels", "value": value} for tool, value in drawn
    ]
    data = {"note": "a bird", "image": image}
    task = {"id": 1, "data": data, "annotations": [{"id": 2, "result": results}]}
    (folder / "project.json").write_text(json.dumps([task]))
    for name in pngs:
        pixels = np.zeros((4, 6), np.uint8)
        pixels[:, :3] = 255
        Image.fromarray(pixels).save(folder / f"task-1-annotation-2-by-me@home-{name}.png")
    return LabelStudioMasks(folder, LabelStudioMasks.reads(Place(folder)), "mask")


@pytest.mark.parametrize(
    ("png", "part"),
    [
        ("tag-wing-0", "wing"),
        ("tag-wing-11", "wing"),
        ("tag-wing-a-b-0", "wing, a/b"),
        ("t-2-beak-tip-0", "beak-tip"),
        ("tag-other-0", None),
    ],
)
def test_labels_are_parts(tmp_path: Path, png: str, part: str | None) -> None:
    masks = _opened(tmp_path, pngs=(png,))
    assert list(masks.part_names.values()) == ["wing", "wing, a/b", "beak-tip"]
    (region,) = masks.regions("a.jpg", 4, 6)
    assert masks.part_names.get(region.part) == part
    assert region.bitmap.sum() == 12


@pytest.mark.parametrize(
    ("image", "level"),
    [
        ("/data/upload/1/0abcdef0-a.jpg", 3),
        ("/data/local-files/?d=photos/crow/a.jpg", 1),
        ("s3://bucket/crow/a.jpg", 1),
        ("https://host/crow/a.jpg?token=1", 1),
    ],
)
def test_a_task_names_its_photograph(tmp_path: Path, image: str, level: int) -> None:
    masks = _opened(tmp_path, image)
    levels = masks.related("crow/a.jpg")
    assert levels[level] == [masks.example]
    assert not any(levels[:level])


def test_files_of_other_tasks_are_said(tmp_path: Path) -> None:
    Image.new("L", (6, 4)).save(tmp_path / "task-9-annotation-2-by-1-tag-wing-0.png")
    (said,) = _opened(tmp_path).remarks()
    assert said.startswith("1 PNG files are of no task in the JSON")


def test_another_size_is_named(tmp_path: Path) -> None:
    with pytest.raises(ProtoMaskError, match=r"wing-0\.png has 6×4 pixels, .* 4×6"):
        _opened(tmp_path).regions("a.jpg", 6, 4)


def test_a_task_without_a_photograph_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ProtoMaskError, match="task 1 of Label Studio names no photograph"):
        _opened(tmp_path, "")


def test_pngs_of_another_project_are_refused(tmp_path: Path) -> None:
    masks = _opened(tmp_path)
    for png in tmp_path.glob("task-*.png"):
        png.rename(tmp_path / png.name.replace("task-", "task-9"))
    files = masks.reads(Place(tmp_path))
    with pytest.raises(ProtoMaskError, match="no PNG file is of a task"):
        LabelStudioMasks(tmp_path, files, "mask")
