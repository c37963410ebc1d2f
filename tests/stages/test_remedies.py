"""What an error advises is enough: its commands, run as they stand, mend what it says."""

import contextlib
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from clones import STAGE, Clone, ran

from pipeline.crops.store import CropStore
from pipeline.errors import ProtoMaskError
from pipeline.masks.store import MaskStore
from pipeline.model.base.saved import load_model
from pipeline.training.prototype_sources import read_sources
from stages import crops, train
from stages.finished import Finished
from stages.workspace import Workspace

workspace = Workspace()

pytestmark = pytest.mark.slow

WRITABLE = "chmod -R u+w artifacts"
FORMAT = re.compile(r"^FORMAT = (\d+)$", re.MULTILINE)


@pytest.fixture(autouse=True)
def _in_the_clone(clone: Clone, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(clone.folder)


def remedies(said: str) -> list[str]:
    """Returns the commands that an error advises, in order."""
    return re.findall(r"`((?:dvc|chmod) [^`]+)`", said)


def advised(read: Callable[[], object]) -> list[str]:
    """Returns the commands that the error advises with which something cannot be read."""
    with pytest.raises(ProtoMaskError) as caught:
        read()
    return remedies(str(caught.value))


def follow(clone: Clone, read: Callable[[], object]) -> list[str]:
    """Does what errors advise until something can be read; returns the commands that it took."""
    done: list[str] = []
    for command in advised(read):
        clone.run(*command.split())
        done.append(command)
        with contextlib.suppress(ProtoMaskError):
            read()
            return done
    raise AssertionError(f"{done} were not enough")


def test_other_crops(clone: Clone) -> None:
    """The cache stays: with crops.size, DVC restored the crops of the earlier size from it."""
    assert "crops" in ran(clone.exp_run("-S", "crops.side=64", "crops"))
    assert CropStore(workspace.crops).settings.side == 64
    clone.params("crops.side=32")
    assert follow(clone, lambda: train.run(workspace)) == ["dvc repro crops"]
    assert CropStore(workspace.crops).settings.side == 32


def test_other_crops_where_dvc_takes_them_for_right(clone: Clone) -> None:
    """As if its run cache had given other crops for these parameters."""
    right = (clone.folder / "params.yaml").read_text()
    clone.params("crops.side=40")
    crops.run(workspace)
    (clone.folder / "params.yaml").write_text(right)
    clone.run("dvc", "commit", "--force", "crops")
    with pytest.raises(ProtoMaskError, match="side=40 instead of 48"):
        train.run(workspace)
    done = follow(clone, lambda: train.run(workspace))
    assert done == ["dvc repro crops", WRITABLE, "dvc repro --force --single-item crops"]


@pytest.mark.parametrize(
    ("file", "stage"),
    [
        ("pipeline/masks/store.py", "masks"),
        ("pipeline/crops/store.py", "crops"),
        ("pipeline/model/base/saved.py", "train"),
    ],
)
def test_what_has_another_format_is_made_anew(clone: Clone, file: str, stage: str) -> None:
    code = clone.folder / file
    text = code.read_text()
    assert len(FORMAT.findall(text)) == 1
    code.write_text(f"# a comment\n{text}")
    status = clone.run("dvc", "status", stage)
    assert (f"{stage}:\n" in status) == (stage == "train")
    code.write_text(FORMAT.sub(r"FORMAT = 1\1", text))
    assert f"{stage}:\n" in clone.run("dvc", "status", stage)


def test_the_remedy_for_another_format_works(clone: Clone) -> None:
    code = clone.folder / "pipeline/masks/store.py"
    text = code.read_text()
    (now,) = FORMAT.findall(text)
    code.write_text(FORMAT.sub(r"FORMAT = 1\1", text))
    said = clone.run(*STAGE, "crops", ok=False)
    assert f"has format {now} of the mask store; this version of ProtoMask reads 1{now}: " in said
    first, *_ = remedies(said)
    assert "0 images segmented" in clone.run(*first.split())
    clone.run(*STAGE, "crops")


READERS: dict[str, tuple[str, Callable[[], object]]] = {
    "index/index.parquet": ("prepare", workspace.read_index),
    "masks.zarr/regions/c/0/0": ("masks", lambda: MaskStore(workspace.masks).masks(0)),
    "crops.zarr/inside/c/0/0/0/0": ("crops", lambda: CropStore(workspace.crops).inside(0)),
    "train/model.json": ("train", lambda: load_model(workspace.train)),
    "push/prototypes.csv": ("push", lambda: read_sources(workspace.push / "prototypes.csv")),
    "finetune/model.safetensors": ("finetune", lambda: Finished.read(workspace)),
    "evaluate/answers.safetensors": ("evaluate", lambda: Finished.read(workspace).outputs()),
}
"""A file → the stage that makes it, and what reads it."""


def damage(number: int, name: str) -> None:
    """Removes the output in which a file lies, or cuts the file short where the number is odd."""
    path = workspace.artifacts / name
    content = path.read_bytes()
    path.unlink()  # which may be a link to the file in DVC's cache
    if number % 2:
        path.write_bytes(content[: len(content) // 2])
    else:
        shutil.rmtree(workspace.artifacts / Path(name).parts[0])


def test_the_remedies_for_what_is_missing_or_damaged_work(clone: Clone, finished: Clone) -> None:
    """Each is advised where nothing else is wrong; they are followed together."""
    for number, (name, (stage, read)) in enumerate(READERS.items()):
        damage(number, name)
        assert advised(read)[0] == f"dvc repro {stage}", name
        shutil.rmtree(workspace.artifacts)
        shutil.copytree(finished.folder / workspace.artifacts, workspace.artifacts)
        read()
    for number, name in enumerate(READERS):
        damage(number, name)
    clone.run("dvc", "repro", *(stage for stage, _ in READERS.values()))
    assert clone.bytes() == finished.bytes()


def test_the_remedy_where_dvc_takes_what_is_damaged_for_right_works(clone: Clone) -> None:
    path = workspace.masks / "regions/c/0/0"
    content = path.read_bytes()
    path.unlink()
    path.write_bytes(content[: len(content) // 2])
    clone.run("dvc", "commit", "--force", "masks")
    done = follow(clone, lambda: MaskStore(workspace.masks).masks(0))
    assert done == ["dvc repro masks", WRITABLE, "dvc repro --force --single-item masks"]
    assert path.read_bytes() == content
