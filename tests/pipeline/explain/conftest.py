"""A tiny finished experiment, without a network: stores, prototypes, answers."""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

from pipeline.crops.extraction import CropSettings
from pipeline.crops.store import CropStore, write_crops
from pipeline.datasets.index import Index
from pipeline.datasets.listing import list_files
from pipeline.datasets.prepare import build_index
from pipeline.explain.gallery import Gallery
from pipeline.explain.prototypes import Prototypes
from pipeline.explain.report import ImageAnswers, Report
from pipeline.files import whole_folder
from pipeline.masks.patches import Patches
from pipeline.masks.store import MaskStore, write_store

C, M, K, S = 3, 2, 4, 24
NAMES = ["Grünspecht & Co", "<b>bold</b>", 'the "quoted" one']
FACTS = {"Data set": "folder, 3 classes", "Seed": "0"}
METRICS = {
    "general": {"accuracy": 0.5, "f1_macro": 0.25},
    "complexity": {"ior": -0.125, "oirr_undefined": 3.0},
    "weather": {"rain": 1.0},
}


class Tiny(NamedTuple):
    root: Path
    index: Index
    masks: MaskStore
    crops: CropStore
    prototypes: Prototypes
    answers: ImageAnswers

    def report(self, root: Path | None = None) -> Report:
        gallery = Gallery(self.index, root or self.root, self.masks, self.crops)
        return Report(self.index, gallery, self.prototypes, self.answers)

    def write(self, folder: Path, root: Path | None = None) -> Path:
        """Writes the page as the stage does; returns it."""
        with whole_folder(folder) as part:
            self.report(root).write(part / "index.html", FACTS, METRICS)
        return folder / "index.html"


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory, make_photographs: Callable[..., Path]) -> Tiny:
    """3 classes with 2 prototypes each; prototypes 0 and 1 are the same crop."""
    folder = tmp_path_factory.mktemp("tiny")
    root = make_photographs(folder / "photographs", classes=C, per_class=12, width=60, height=40)
    index, _ = build_index("folder", root, list_files(root), threads=1)
    segmenter = Patches()
    images = [np.zeros((40, 60, 3), np.uint8)] * len(index)
    write_store(folder / "masks.zarr", index.photographs, segmenter, segmenter.segment(images))
    masks = MaskStore(folder / "masks.zarr")
    settings = CropSettings(size=S, per_image=K)
    write_crops(folder / "crops.zarr", index.photographs, root, masks, settings)
    prototypes = _prototypes(index)
    return Tiny(
        root,
        index,
        masks,
        CropStore(folder / "crops.zarr"),
        prototypes,
        _answers(index, prototypes),
    )


def _prototypes(index: Index) -> Prototypes:
    random = np.random.default_rng(0)
    train = index.rows("train")
    rows = [[row for row in train if index.labels[row] == label][:M] for label in range(C)]
    rows_P = np.array(rows).ravel()
    rows_P[1] = rows_P[0]
    crop_P = np.array([2, 2, 0, 1, 3, 0])
    weights_CP = random.normal(0, 0.05, (C, C * M))
    weights_CP[np.repeat(np.arange(C), M), np.arange(C * M)] += 1
    return Prototypes(
        NAMES, np.repeat(np.arange(C), M), weights_CP, rows_P, crop_P, random.random(C * M)
    )


def _answers(index: Index, prototypes: Prototypes) -> ImageAnswers:
    random = np.random.default_rng(1)
    rows_N = index.rows("test")
    similarity_NP = random.random((len(rows_N), C * M)).astype(np.float32)
    similarity_NP[:, 1] = similarity_NP[:, 0]
    crop_NP = random.integers(0, K, (len(rows_N), C * M))
    crop_NP[:, 1] = crop_NP[:, 0]
    logits_NC = (similarity_NP @ prototypes.weights_CP.T).astype(np.float32)
    return ImageAnswers(rows_N, logits_NC, similarity_NP, crop_NP)
