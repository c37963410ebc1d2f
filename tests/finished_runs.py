"""A small experiment, run through its stages once in this process."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from filelock import FileLock
from PIL import Image as Pillow

from pipeline.datasets.readers.demo import data_set as demo
from pipeline.datasets.readers.demo.classes import CLASS_NAMES
from stages import crops, evaluate, finetune, masks, prepare, push, scan, train
from stages.workspace import Workspace

PARAMS = """
seed: 0
dataset: {name: folder, code: pipeline/datasets/readers/folder.py,
  root: photographs, num_classes: null, fold: 0, folds: 3,
  max_bad_fraction: 0.01, source: artifacts/listing.json, scanned: [photographs]}
segmenter: {name: patches, version: 1, grid: 2}
crops: {version: 3, choose: largest, side: 32, per_image: 3, background: original,
  min_box_area: 0.0, max_box_area: 1.0, storage: jpeg}
model: {backbone: test_resnet, pretrained: none, name: protomask,
  code: pipeline/model/protomask, embedding_dim: 8,
  prototypes_per_class: 2, standardise: true, epsilon: 0.0001,
  pooling: box, stages: [-1]}
train: {precision: float32,
  epochs: 1, warmup_epochs: 0, freeze_backbone: true, freeze_until: 0, drop_crops: 0.0,
  batch_norm: batch, augment: false, batch_size: 8, accumulate: 1, lr_backbone: 0.0,
  lr_projection: 0.001, lr_prototypes: 0.003, step_size: 1, start: random,
  loss: {cluster: 0.8, separation: 0.2, diversity: 0.2}}
finetune: {merge: false, reach: 1.0, epochs: 1, lr: 0.0003, batch_size: 8, sparsity: penalty,
  penalty: 0.001}
prune: {enabled: false, nearest: 6, threshold: 3}
evaluate: {top_k: 2, groups: [general, compactness, contrastivity, segmentation],
  explanations: [mask]}
explain: {only_mask: false, images: 4}
runtime: {device: cpu, engine: pytorch, devices: 1, workers: 1, weights: null, masks: null,
  codebook: null, memory_fraction: 0.9, compile: false, scheduler: null}
"""


@pytest.fixture(scope="session")
def finished_run(
    tmp_path_factory: pytest.TempPathFactory, make_photographs: Callable[..., Path]
) -> Path:
    """The folder of a run on 3 classes of 8 photographs, up to `evaluate`; not to be changed."""
    folder = tmp_path_factory.mktemp("run")
    make_photographs(folder / "photographs", classes=3, per_class=8, width=60, height=40)
    (folder / "params.yaml").write_text(yaml.safe_dump(yaml.safe_load(PARAMS)))
    for stage in (scan, prepare, masks, crops, train, push, finetune, evaluate):
        stage.run(Workspace(folder))
    return folder


@pytest.fixture
def run_folder(finished_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the finished run that a test may change; it is the current folder."""
    folder = tmp_path / "run"
    shutil.copytree(finished_run, folder)
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture(scope="session")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of three classes with 14 drawings each, one for all of pytest-xdist's workers."""
    return once(tmp_path_factory, "photographs", draw_classes)


def draw_classes(folder: Path) -> None:
    """Draws 14 photographs of each of three classes into a folder, one folder a class."""
    for name in CLASS_NAMES[:3]:
        (folder / name).mkdir(parents=True)
        for number in range(1, 15):
            picture = Pillow.fromarray(demo.draw_image(1, name, number).image)
            picture.save(folder / name / f"{number:03d}.jpg")


def once(
    tmp_path_factory: pytest.TempPathFactory, name: str, make: Callable[[Path], object]
) -> Path:
    """Returns a folder that the first worker of pytest-xdist who asks for it makes, and all share.

    Args:
        tmp_path_factory: of the worker.
        name: of the folder.
        make: fills the folder, which does not exist yet.
    """
    base = tmp_path_factory.getbasetemp()
    shared = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    with FileLock(shared / f"{name}.lock"):
        finished = shared / f"{name}.finished"
        if not finished.exists():
            shutil.rmtree(shared / name, ignore_errors=True)
            make(shared / name)
            finished.touch()
    return shared / name
