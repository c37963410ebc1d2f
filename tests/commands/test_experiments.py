"""What a revision's outputs say of themselves, against its parameters."""

import json
from pathlib import Path

import pytest
import yaml
from fsspec.implementations.dirfs import DirFileSystem
from fsspec.implementations.local import LocalFileSystem

from commands.experiments import IN_REPOSITORY, contradicted

LEARNED = "22369c60"


@pytest.mark.parametrize(
    ("asked", "wrong"), [(None, []), (LEARNED, []), ("0", ["segmenter.codebook"])]
)
def test_masks_of_a_segmenter_that_learns_are_those_asked_for(
    tmp_path: Path, asked: str | None, wrong: list[str]
) -> None:
    params = {"segmenter": {"name": "parts", "codebook": asked}}
    stage = {
        "params": {"params.yaml": params},
        "outs": [{"path": IN_REPOSITORY.masks.as_posix(), "md5": "0"}],
    }
    (tmp_path / "dvc.lock").write_text(yaml.safe_dump({"stages": {"masks": stage}}))
    store = tmp_path / IN_REPOSITORY.masks
    store.mkdir(parents=True)
    fingerprint = {"name": "parts", "codebook": LEARNED}
    (store / "zarr.json").write_text(json.dumps({"attributes": {"segmenter": fingerprint}}))
    files = DirFileSystem(str(tmp_path), LocalFileSystem())
    assert [found.name for found in contradicted(files, params)] == wrong
