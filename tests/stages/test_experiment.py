"""The experiment as its users run it: real DVC, real stages, real processes, in a copy of the
repository with a small folder of drawn photographs."""

import contextlib
import json
import os
import random
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from clones import STAGE, STAGES, Clone, ran

from pipeline.crops.store import CropStore
from pipeline.errors import ProtoMaskError
from pipeline.masks.store import MaskStore
from pipeline.model.base.saved import load_model
from pipeline.training.prototype_sources import read_sources
from stages import provenance
from stages.finished import Finished
from stages.params import read_params
from stages.workspace import Workspace

workspace = Workspace()

pytestmark = pytest.mark.slow

FORMAT = re.compile(r"^FORMAT = (\d+)$", re.MULTILINE)


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory, photographs: Path) -> Clone:
    """A clone in which `dvc repro` has run once; not to be changed."""
    clone = Clone(tmp_path_factory.mktemp("finished"), photographs)
    clone.run("dvc", "repro")
    return clone


@pytest.fixture
def clone(tmp_path: Path, finished: Clone) -> Clone:
    """A copy of the finished clone, to do anything with."""
    return finished.copy(tmp_path / "clone")


def test_second_run_recomputes_nothing(clone: Clone) -> None:
    assert ran(clone.run("dvc", "repro")) == ["scan@root"]


def test_another_clone_gives_the_same_bytes(
    tmp_path: Path, photographs: Path, finished: Clone
) -> None:
    other = Clone(tmp_path, photographs)
    other.run("dvc", "repro")
    assert other.bytes() == finished.bytes()


def test_training_parameter_leaves_masks_and_crops_alone(clone: Clone) -> None:
    output = clone.exp_run("-S", "train.epochs=4", "train")
    assert "train" in ran(output) and not {"prepare", "masks", "crops"} & set(ran(output))


def test_crops_of_another_side_are_cut_anew(clone: Clone) -> None:
    """The cache stays: with crops.size, DVC restored the crops of the earlier size from it."""
    for side in (64, 32):
        assert "crops" in ran(clone.exp_run("-S", f"crops.side={side}", "crops"))
        assert CropStore(clone.folder / "artifacts/crops.zarr").settings.side == side
    clone.run(*STAGE, "train")


def test_the_remedy_for_other_crops_works(clone: Clone) -> None:
    clone.params("crops.side=32")
    assert "`dvc repro crops`" in clone.run(*STAGE, "train", ok=False)
    clone.run("dvc", "repro", "crops")
    clone.run(*STAGE, "train")
    # As if DVC's run cache had given other crops for these parameters.
    right = (clone.folder / "params.yaml").read_text()
    clone.params("crops.side=40")
    clone.run(*STAGE, "crops")
    (clone.folder / "params.yaml").write_text(right)
    clone.run("dvc", "commit", "--force", "crops")
    said = clone.run(*STAGE, "train", ok=False)
    assert "side=40 instead of 32" in said
    clone.run("dvc", "repro", "crops")
    remedy = re.search(r"`(dvc repro --force --single-item crops)`", said)
    clone.run(*remedy[1].split())
    clone.run(*STAGE, "train")


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
    code.write_text(FORMAT.sub(r"FORMAT = 1\1", code.read_text()))
    said = clone.run(*STAGE, "crops", ok=False)
    assert "has format 1 of the mask store; this version of ProtoMask reads 11: " in said
    first, _ = remedies(said)
    assert "0 images segmented" in clone.run(*first.split())
    clone.run(*STAGE, "crops")


def remedies(said: str) -> list[str]:
    """Returns the commands that an error advises, in order."""
    return re.findall(r"`(dvc [^`]+)`", said)


def follow(clone: Clone, read: Callable[[], object]) -> list[str]:
    """Does what errors advise until something can be read; returns the commands that it took."""
    with pytest.raises(ProtoMaskError) as caught:
        read()
    done: list[str] = []
    for command in remedies(str(caught.value)):
        clone.run(*command.split())
        done.append(command)
        with contextlib.suppress(ProtoMaskError):
            read()
            return done
    raise caught.value


READERS: dict[str, tuple[str, Callable[[], object]]] = {
    "index/index.parquet": ("prepare", workspace.read_index),
    "masks.zarr/regions/c/0/0": ("masks", lambda: MaskStore(workspace.masks).masks(0)),
    "crops.zarr/inside/c/0/0/0/0": ("crops", lambda: CropStore(workspace.crops).inside(0)),
    "train/model.json": ("train", lambda: load_model(workspace.train)),
    "push/prototypes.csv": ("push", lambda: read_sources(workspace.push / "prototypes.csv")),
    "finetune/model.safetensors": ("finetune", Finished.read),
    "evaluate/answers.safetensors": ("evaluate", lambda: Finished.read(workspace).outputs()),
}
"""A file → the stage that makes it, and what reads it."""


def test_the_remedies_for_what_is_missing_or_damaged_work(
    clone: Clone, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every second one is missing altogether, the others are cut short."""
    monkeypatch.chdir(clone.folder)
    for number, (name, (stage, read)) in enumerate(READERS.items()):
        path = workspace.artifacts / name
        content = path.read_bytes()
        path.unlink()  # which may be a link to the file in DVC's cache
        if number % 2:
            path.write_bytes(content[: len(content) // 2])
        else:
            shutil.rmtree(workspace.artifacts / Path(name).parts[0])
        assert follow(clone, read) == [f"dvc repro {stage}"], name
        assert path.read_bytes() == content


def test_the_remedy_where_dvc_takes_what_is_damaged_for_right_works(
    clone: Clone, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(clone.folder)
    path = workspace.masks / "regions/c/0/0"
    content = path.read_bytes()
    path.unlink()
    path.write_bytes(content[: len(content) // 2])
    clone.run("dvc", "commit", "--force", "masks")
    done = follow(clone, lambda: MaskStore(workspace.masks).masks(0))
    assert done == ["dvc repro masks", "dvc repro --force --single-item masks"]
    assert path.read_bytes() == content


def test_every_output_says_what_it_was_made_with(clone: Clone) -> None:
    made_with = json.loads((clone.folder / "artifacts/evaluate/made_with.json").read_text())
    params = read_params(clone.folder / "params.yaml")
    assert made_with == {stage: provenance.tracked(stage, params) for stage in provenance.TRACKED}


@pytest.mark.parametrize(
    ("override", "stage", "blamed"),
    [
        ("dataset.fold=1", "train", "prepare"),
        ("segmenter.sigma=0.5", "train", "crops"),
        ("train.epochs=4", "push", "train"),
        ("model.epsilon=0.01", "finetune", "push"),
        ("finetune.lr=0.1", "evaluate", "finetune"),
        ("evaluate.top_k=3", "explain", "evaluate"),
    ],
)
def test_a_stage_refuses_what_was_made_with_other_parameters(
    clone: Clone, override: str, stage: str, blamed: str
) -> None:
    clone.params(override)
    said = clone.run(*STAGE, stage, ok=False)
    name, _, value = override.partition("=")
    assert f"instead of {value}: run `dvc repro {blamed}`" in said and name in said


def test_another_fold_leaves_masks_and_crops_alone(clone: Clone) -> None:
    output = clone.exp_run("-S", "dataset.fold=1", "train")
    assert "prepare" in ran(output) and "train" in ran(output)
    assert not {"masks", "crops"} & set(ran(output))


@pytest.mark.parametrize(
    ("file", "comment", "rerun"),
    [
        ("pipeline/model/pipnet/model.py", "# a comment", []),
        (
            "pipeline/model/protomask/model.py",
            "# a comment",
            ["train", "push", "finetune", "evaluate"],
        ),
        ("pipeline/report/templates/report.html.jinja", "{# a comment #}", ["explain"]),
        ("pipeline/datasets/readers/demo/bird.py", "# a comment", ["evaluate"]),
        ("commands/predict.py", "# a comment", []),
    ],
)
def test_an_edit_reruns_what_it_can_change(
    clone: Clone, file: str, comment: str, rerun: list[str]
) -> None:
    with (clone.folder / file).open("a") as text:
        text.write(f"{comment}\n")
    status = clone.run("dvc", "status")
    changed = [stage for stage in STAGES if f"{stage}:\n" in status]
    with_explain = ["explain"] if rerun == ["train", "push", "finetune", "evaluate"] else []
    assert changed == ["scan@root", *rerun, *with_explain]


def test_runtime_is_nobodys_dependency(clone: Clone) -> None:
    assert ran(clone.exp_run("-S", "runtime.workers=1")) == ["scan@root"]


def test_queued_copy_finds_relative_root_and_finished_masks(
    tmp_path: Path, photographs: Path
) -> None:
    shutil.copytree(photographs, tmp_path / "pictures")
    clone = Clone(tmp_path / "clone", "../pictures")
    clone.run("dvc", "repro", "masks")
    output = clone.exp_run("--temp", "-S", "crops.side=32", "crops")
    assert "crops" in ran(output) and "masks" not in ran(output)
    shutil.rmtree(clone.folder / ".dvc" / "cache")
    output = clone.exp_run("--temp", "-S", "crops.side=40", "crops")
    assert "0 images segmented" in output


def test_changed_folder_is_noticed(tmp_path: Path, photographs: Path) -> None:
    folder = tmp_path / "photographs"
    shutil.copytree(photographs, folder)
    clone = Clone(tmp_path / "clone", folder)
    clone.run("dvc", "repro", "masks")
    first, second = sorted(sorted(folder.iterdir())[0].iterdir())[:2]

    def images_segmented() -> int:
        output = clone.run("dvc", "repro", "masks")
        assert ran(output) == ["scan@root", "prepare", "masks"]
        return int(re.search(r"(\d+) images segmented", output)[1])

    first.with_name("new.jpg").write_bytes(first.read_bytes() + b"\0")
    assert images_segmented() == 1
    first.write_bytes(second.read_bytes() + b"\0\0")
    assert images_segmented() == 1
    second.unlink()
    assert images_segmented() == 0


def test_colleague_with_another_root_segments_and_trains_nothing(
    tmp_path: Path, photographs: Path, clone: Clone
) -> None:
    mine = clone
    mine.run("dvc", "remote", "add", "-d", "team", str(tmp_path / "team"))
    mine.run("dvc", "push")
    mine.git("add", "dvc.lock", ".dvc/config")
    mine.commit("a finished experiment")
    elsewhere = tmp_path / "elsewhere" / "my photographs"
    shutil.copytree(photographs, elsewhere)
    subprocess.run(["git", "clone", "-q", mine.folder, tmp_path / "theirs"], check=True)
    theirs = mine.at(tmp_path / "theirs")
    params = theirs.folder / "params.yaml"
    params.write_text(params.read_text().replace(str(photographs), str(elsewhere)))
    output = theirs.run("dvc", "repro", "--pull")
    assert ran(output) == ["scan@root"]
    assert theirs.bytes() == mine.bytes()


def test_killed_in_every_stage_ends_with_the_same_bytes(
    tmp_path: Path, photographs: Path, finished: Clone
) -> None:
    clone = Clone(tmp_path, photographs)
    lottery = random.Random(0)
    for stage in STAGES[1:]:
        for _ in range(2):
            process = subprocess.Popen(
                ["dvc", "repro", stage],
                cwd=clone.folder,
                start_new_session=True,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
            time.sleep(lottery.uniform(1.5, 8.0))
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            _remove_torn_lock(clone)
    clone.run("dvc", "repro")
    assert clone.bytes() == finished.bytes()


def _remove_torn_lock(clone: Clone) -> None:
    """Does what docs/segmenters.md says of a kill that hits DVC while it writes its own lock."""
    lock = clone.folder / ".dvc" / "tmp" / "rwlock"
    if lock.exists() and not lock.read_bytes():
        lock.unlink()


def test_metrics_are_strict_json_by_group(finished: Clone) -> None:
    def refuse(constant: str) -> None:
        raise AssertionError(constant)

    text = (finished.folder / "artifacts/evaluate/metrics.json").read_text()
    metrics = json.loads(text, parse_constant=refuse)
    intervals = metrics.pop("intervals")
    groups = {"general", "compactness", "contrastivity", "complexity", "segmentation"}
    assert set(metrics) == set(intervals) == groups
    assert 0 <= metrics["general"]["accuracy"] <= 1
    assert "iou" not in metrics["complexity"]


def test_dvc_shows_metrics_and_plots(finished: Clone) -> None:
    assert "general.accuracy" in finished.run("dvc", "metrics", "show")
    said = finished.run("dvc", "plots", "show", "-o", str(finished.folder / "plots"))
    assert "failed" not in said
    page = (finished.folder / "plots" / "index.html").read_text()
    assert "Confusion matrix" in page and "Accuracy" in page
