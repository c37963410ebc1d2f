"""The stage `masks`: what it says of what it did not use, and what it refuses."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from finished_runs import PARAMS
from PIL import Image

from pipeline.errors import ProtoMaskError
from pipeline.masks.segmenters.imported import content_hash
from pipeline.masks.store import MaskStore
from stages import masks, prepare, scan
from stages.workspace import Workspace

workspace = Workspace()


@pytest.fixture
def prepared(
    tmp_path: Path, make_photographs: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> Path:
    """The current folder, with an index of 6 photographs of 60×40 pixels in 3 classes."""
    make_photographs(tmp_path / "photographs", classes=3, per_class=2, width=60, height=40)
    _write_params(tmp_path, {"name": "patches", "version": 1, "grid": 2})
    monkeypatch.chdir(tmp_path)
    scan.run(workspace)
    prepare.run(workspace)
    return tmp_path


def _write_params(folder: Path, segmenter: dict[str, Any], **runtime: str) -> None:
    params = yaml.safe_load(PARAMS)
    params["segmenter"] = segmenter
    params["runtime"] |= runtime
    (folder / "params.yaml").write_text(yaml.safe_dump(params))


def _import(folder: Path, segmentations: dict[str, Any]) -> None:
    _write_params(folder, _imported(folder, segmentations), masks="masks.json")
    masks.run(workspace)


def _imported(folder: Path, segmentations: dict[str, Any]) -> dict[str, Any]:
    """Writes a COCO file, and returns the segmenter that imports it."""
    images = [
        {"id": number, "file_name": name, "width": 60, "height": 40}
        for number, name in enumerate(segmentations)
    ]
    annotations = [
        {"id": number, "image_id": number, "segmentation": segmentation}
        for number, segmentation in enumerate(segmentations.values())
    ]
    (folder / "masks.json").write_text(json.dumps({"images": images, "annotations": annotations}))
    return {
        "name": "import",
        "version": 4,
        "sha256": content_hash(folder / "masks.json"),
        "png": "mask",
    }


SQUARE = [[0, 0, 20, 0, 20, 30, 0, 30]]
LINE = [[0, 0, 20, 0, 20, 1, 0, 1]]


def test_everything_is_used(prepared: Path, capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    masks.run(workspace)
    (said,) = capsys.readouterr().out.splitlines()
    assert said.startswith("6 images segmented; ")
    assert said.endswith("24 masks of 6 images in artifacts/masks.zarr")


def test_what_was_not_used_is_said(prepared: Path, capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    segmentations = {"class 0/000.PNG": SQUARE, "class%201/000.png": SQUARE, "class 0/001.png": []}
    _import(prepared, segmentations | {"class 1/001.png": LINE, "owl/001.png": SQUARE})
    said, *remarks = capsys.readouterr().out.splitlines()
    assert said.endswith("2 masks of 6 images in artifacts/masks.zarr")
    assert MaskStore(workspace.masks).areas().tolist() == [600, 600]
    masks_file, photographs = Path("masks.json").absolute(), Path("photographs").absolute()
    assert remarks == [
        f"{masks_file} is read as COCO JSON: 5 images",
        f"1 of 5 images in {masks_file} are of no photograph in {photographs}: 'owl/001.png'",
        f"1 annotations in {masks_file} have no mask in `segmentation` (run lengths, or polygons "
        "of 3 points): 2",
        "1 regions of 1 images are empty or less than 2 pixels wide or high, and give no mask: "
        "'class 1/001.png'",
        "4 of 6 images have no mask: 'class 0/001.png', 'class 1/001.png', 'class 2/000.png' and "
        "1 more",
    ]


def test_names_of_categories_reach_the_store(
    prepared: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Also of masks that are remembered, and lie here no longer."""
    path, names = prepared / "masks.json", {0: "wing", 1: "beak"}
    segmenter = _imported(prepared, {"class 0/000.png": SQUARE, "class 0/001.png": []})
    content = json.loads(path.read_text())
    content["categories"] = [{"id": 3, "name": "wing"}, {"id": 1, "name": "beak"}]
    for annotation in content["annotations"]:
        annotation["category_id"] = 1
    path.write_text(json.dumps(content))
    _write_params(prepared, segmenter | {"sha256": content_hash(path)}, masks="masks.json")
    for _ in range(2):
        masks.run(workspace)
        store = MaskStore(workspace.masks)
        assert store.part_names == names
        assert store.parts().tolist() == [1]
        path.unlink(missing_ok=True)
    assert "COCO JSON: 2 images, with the parts 'beak', 'wing'" in capsys.readouterr().out


@pytest.mark.parametrize("segmentation", [[], LINE, None])
def test_masks_of_which_none_is_left_are_refused(prepared: Path, segmentation: Any) -> None:
    with pytest.raises(ProtoMaskError, match=r"'import' gives none of the 6 images a mask; .*; 1 "):
        _import(prepared, {"class 0/000.png": segmentation})
    assert not workspace.masks.exists()


def test_a_segmenter_that_finds_nothing_is_refused(prepared: Path) -> None:
    """Boxes of one pixel are no masks."""
    _write_params(prepared, {"name": "patches", "version": 1, "grid": 32})
    for path in Path("photographs").glob("*/*.png"):
        path.unlink()
    for number, name in enumerate(["class 0/0.png", "class 1/0.png", "class 1/1.png"]):
        Image.new("RGB", (30, 30), (number, 0, 0)).save(Path("photographs") / name)
    scan.run(workspace)
    prepare.run(workspace)
    with pytest.raises(ProtoMaskError, match="'patches' gives none of the 3 images a mask; 3"):
        masks.run(workspace)
