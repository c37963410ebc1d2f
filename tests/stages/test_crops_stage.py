"""The stage crops says which images have nothing to crop."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import yaml
from settings import patches

from pipeline.crops.store import CropStore
from pipeline.masks.store import MaskStore, write_store
from stages import crops
from stages.workspace import Workspace

workspace = Workspace()


def _choose_parts(objects: dict[int, list[bool]]) -> None:
    """Sets crops.choose, and marks masks of some images as objects; all others are background."""
    params = yaml.safe_load(workspace.params_file.read_text())
    params["crops"]["choose"] = "parts"
    workspace.params_file.write_text(yaml.safe_dump(params))
    store = MaskStore(workspace.masks)
    marked = [
        replace(store.masks(image), foreground=np.array(objects.get(image, [False] * 4)))
        for image in range(len(store))
    ]
    write_store(workspace.masks, workspace.read_image_files(), patches(), marked)


def test_images_of_background_alone_are_counted_and_named(
    run_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of 24 images all but the first 22; of the first, two masks are objects."""
    _choose_parts({0: [False, True, False, True], **dict.fromkeys(range(1, 22), [True] * 4)})
    crops.run(workspace)
    ids = MaskStore(workspace.masks).ids
    assert capsys.readouterr().out.splitlines()[-1] == (
        "2 of 24 images have no foreground mask to crop, and give themselves as their one crop: "
        f"{ids[22]!r}, {ids[23]!r}"
    )
    store = CropStore(workspace.crops)
    assert store.masks[0].tolist() == [1, 3, -1]
    assert store.masks[1].tolist() == [0, 1, 2]
    assert store.masks[22].tolist() == [-1, -1, -1]
    assert store.valid[22].tolist() == [True, False, False]


def test_background_everywhere_leaves_whole_images(
    run_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _choose_parts({})
    crops.run(workspace)
    assert "24 of 24 images have no foreground mask to crop" in capsys.readouterr().out
    assert CropStore(workspace.crops).valid.sum() == 24


def test_nothing_is_said_where_every_image_has_a_mask(
    run_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    crops.run(workspace)
    assert len(capsys.readouterr().out.splitlines()) == 1
