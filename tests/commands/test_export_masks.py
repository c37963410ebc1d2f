"""`protomask masks export` and `hash`."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from pycocotools.coco import COCO
from settings import imported
from typer.testing import CliRunner, Result

from commands.app import app
from pipeline.errors import ProtoMaskError
from pipeline.masks.segmenter import Machine, Source
from pipeline.masks.store import MaskStore
from stages.workspace import Workspace

workspace = Workspace()


def _masks(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["masks", *arguments])


def test_export_and_hash_and_import(run_folder: Path) -> None:
    """As a person does it, up to the segmenter's masks."""
    result = _masks("export", "--coco", "out/masks.json")
    assert result.exit_code == 0
    assert result.stdout == "96 masks of 24 images in out/masks.json\n"
    store, table = MaskStore(workspace.masks), workspace.read_image_files().table
    coco = COCO("out/masks.json")
    assert [image["file_name"] for image in coco.loadImgs(coco.getImgIds())] == list(table["path"])
    assert np.array_equal(coco.annToMask(coco.anns[1]), store.masks(0).full(0))
    segmenter = imported(sha256=_masks("hash", "out/masks.json").stdout.strip())
    sources = [
        Source(run_folder / "photographs", path, digest)
        for path, digest in zip(table["path"], table["sha256"], strict=True)
    ]
    found = segmenter.segment_sources(sources, Machine(masks=Path("out/masks.json")))
    for row, masks in enumerate(found):
        expected = store.masks(row)
        assert list(masks.counts) == list(expected.counts)
        assert np.array_equal(masks.boxes, expected.boxes)
        assert np.array_equal(masks.scores, expected.scores)


def test_paths_are_those_of_the_index(run_folder: Path) -> None:
    image_files = workspace.read_image_files()
    image_files.table["path"] = [f"elsewhere/{path}" for path in image_files.table["path"]]
    image_files.table.loc[3, "sha256"] = "0" * 64
    image_files.write(workspace.image_files)
    result = _masks("export", "--coco", "masks.json")
    assert "1 images are named by their ids, because artifacts/index/" in result.stdout
    names = [image["file_name"] for image in json.loads(Path("masks.json").read_text())["images"]]
    ids = MaskStore(workspace.masks).ids
    assert names[2:5] == [f"elsewhere/{ids[2]}", ids[3], f"elsewhere/{ids[4]}"]


def test_a_store_without_its_index(run_folder: Path) -> None:
    workspace.masks.rename("team.zarr")
    shutil.rmtree(workspace.artifacts)
    result = _masks("export", "team.zarr", "--coco", "masks.json")
    assert "24 images are named by their ids" in result.stdout
    names = [image["file_name"] for image in json.loads(Path("masks.json").read_text())["images"]]
    assert names == MaskStore(Path("team.zarr")).ids


def test_export_says_what_is_wrong(run_folder: Path) -> None:
    for arguments, said in (
        (["nothing.zarr", "--coco", "a.json"], "no mask store at nothing.zarr"),
        (["--coco", "photographs"], "photographs is a folder; --coco names the file to write"),
    ):
        error = _masks("export", *arguments).exception
        assert isinstance(error, ProtoMaskError)
        assert said in str(error)
    assert "Missing option '--coco'" in _masks("export").stderr


def test_a_damaged_store_leaves_the_earlier_file(run_folder: Path) -> None:
    Path("masks.json").write_text("earlier")
    (workspace.masks / "counts" / "c" / "0").write_bytes(b"damaged")
    error = _masks("export", "--coco", "masks.json").exception
    assert isinstance(error, ProtoMaskError)
    assert "counts is damaged" in str(error)
    assert Path("masks.json").read_text() == "earlier"


def test_hash_says_what_is_wrong(tmp_path: Path) -> None:
    error = _masks("hash", str(tmp_path / "nothing")).exception
    assert isinstance(error, ProtoMaskError)
    assert "name a COCO JSON file or a folder of PNG files" in str(error)


@pytest.mark.parametrize("command", ["export", "hash"])
def test_help(command: str) -> None:
    result = _masks(command, "--help")
    assert result.exit_code == 0
    assert "COCO JSON" in result.stdout
