"""A tiny finished experiment, without a network: stores, prototypes, outputs."""

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import pytest
import torch
from settings import crop_settings, patches
from torch import Tensor

from pipeline.crops.extraction import extract_crops, whole_image
from pipeline.crops.store import CropStore
from pipeline.crops.writing import write_crops
from pipeline.datasets.image_file import read_image
from pipeline.datasets.index import Index
from pipeline.datasets.listing import list_files
from pipeline.datasets.prepare import build_index
from pipeline.files import atomic_folder
from pipeline.masks.masks import NO_PART
from pipeline.masks.store import MaskStore, write_store
from pipeline.report.image_page import Prediction, write_image_page
from pipeline.report.image_renderer import ImageRenderer
from pipeline.report.metric_table import Measured
from pipeline.report.report import Report, Run
from pipeline.report.score_lines import Explainer
from pipeline.saliency.margin import margin_of
from pipeline.saliency.prototypes import Prototypes
from pipeline.saliency.stored_outputs import StoredOutputs
from pipeline.saliency.views import Views

C, M, K, S = 3, 2, 4, 24
CROP_VIEWS = Views("crops", (1, 1))
EVERYWHERE, IN_EVERY_SECOND, BEHIND = 7, 3, 5
PART_P = [BEHIND, BEHIND, EVERYWHERE, IN_EVERY_SECOND, NO_PART, EVERYWHERE]
"""Of crops 2, 2, 0, 1, 3 and 0."""
NAMES = ["Grünspecht & Co", "<b>bold</b>", 'the "quoted" one']
NUM_DRAWN = 3
FACTS = {"Data set": "folder, 3 classes", "Seed": "0"}
RUN = Run(
    FACTS,
    "dvc exp run -S dataset=folder",
    {"train": {"train.epochs": "3"}},
    {"loss": {"train": pd.DataFrame({"step": [0, 1, 2], "loss": [3.0, 1.5, 0.75]})}},
)
METRICS = {
    "general": {"accuracy": 0.5, "f1_macro": 0.25},
    "complexity": {"ior": -0.125, "ior_prp": 0.5, "oirr_undefined": 3.0},
    "truth": {
        "purity": 60.0,
        "deletion_auc": 70.0,
        "purity_random_weights": 61.0,
        "purity_random_weights_undefined": 2.0,
    },
    "weather": {"rain": 1.0},
}
INTERVALS = {
    "general": {"accuracy": {"low": 0.4049, "high": 0.5951}},
    "complexity": {"ior": {"low": -0.2, "high": -0.05}},
    "truth": {"purity": {"low": 55.0, "high": 65.7}},
}
PLOTS = {
    "object_coverage": {"rank": [1, 2], "coverage": [50.0, 25.0], "union": [50.0, 70.0]},
    "mask_areas": {"rank": [1, 2], "area": [25.0, 2.5]},
}
MEASURED = Measured(
    METRICS,
    INTERVALS,
    {"complexity": {"consistency": "the data set has no part locations"}},
    {"random_weights": ["purity"]},
    {"complexity": "folder has no object masks: boxes stand in for them"},
    {name: pd.DataFrame(columns) for name, columns in PLOTS.items()},
)


class Brightness:
    """Stands for a network's relevance: bright pixels speak for a prototype, dark ones against."""

    rule = "prp"

    def __call__(
        self, crops_nSS3: Tensor, prototypes_n: Tensor, inside_nSS: Tensor | None = None
    ) -> Tensor:
        assert len(crops_nSS3) == len(prototypes_n)
        return crops_nSS3.float().mean(-1) - 100


class LeftHalf:
    """Stands for where a network finds prototypes: in the left half of every image."""

    def __call__(self, crops_nSS3: Tensor, prototypes_n: Tensor) -> Tensor:
        assert len(crops_nSS3) == len(prototypes_n)
        places_nSS = torch.zeros(crops_nSS3.shape[:3], dtype=torch.bool)
        places_nSS[..., : S // 2] = True
        return places_nSS


class Tiny(NamedTuple):
    root: Path
    index: Index
    masks: MaskStore
    crops: CropStore
    prototypes: Prototypes
    embedding_PD: np.ndarray
    outputs: StoredOutputs

    def report(self, root: Path | None = None) -> Report:
        renderer = ImageRenderer(
            self.index, root or self.root, self.masks, self.crops, self.prototypes.views
        )
        return Report(
            self.index,
            renderer,
            self.prototypes,
            self.embedding_PD,
            self.outputs,
            Brightness(),
            places=self.places,
        )

    @property
    def places(self) -> LeftHalf | None:
        return LeftHalf() if self.prototypes.views.kind == "cells" else None

    def seeing(self, views: Views) -> "Tiny":
        """Returns the same with a model that sees whole images, and that was pushed if its
        prototypes lie in the embedding; a black box has a class in the place of a prototype."""
        random, cells = np.random.default_rng(3), math.prod(views.grid)
        P = C if views.kind == "image" else C * M
        ours, pushed = self.prototypes, views.pushed
        prototypes = Prototypes(
            NAMES,
            np.arange(C) if views.kind == "image" else ours.class_of_P,
            np.eye(C) if views.kind == "image" else np.maximum(ours.weights_CP, 0),
            ours.rows_P[:P],
            np.zeros(P, np.int64),
            random.integers(0, cells, P),
            random.random(P) if pushed else np.full(P, np.nan),
            views,
        )
        rows_N, labels_N = self.outputs.rows_N, self.outputs.labels_N
        similarity_NP = self.outputs.similarity_NP[:, :P]
        logits_NC = (similarity_NP @ prototypes.weights_CP.T).astype(np.float32)
        view_NP = random.integers(0, cells, similarity_NP.shape)
        return self._replace(
            crops=self.crops.whole(),
            prototypes=prototypes,
            embedding_PD=self.embedding_PD[:P],
            outputs=StoredOutputs(rows_N, labels_N, logits_NC, similarity_NP, view_NP),
        )

    def write(self, folder: Path, root: Path | None = None) -> Path:
        """Writes the pages as the stage does; returns index.html."""
        with atomic_folder(folder) as part:
            self.report(root).write(part, RUN, MEASURED, 0, NUM_DRAWN)
        return folder / "index.html"

    def write_photograph(self, page: Path) -> Path:
        """Writes the page of a photograph; returns it."""
        image = read_image(self.root / self.index.table["path"][0])
        masks, crops = None, whole_image(image, 1, S)
        if self.prototypes.views.kind == "crops":
            (masks,) = patches().segment([image])
            crops = extract_crops(image, masks, self.crops.settings)
        scores = [
            self.prototypes.score(
                label, self.outputs.similarity_NP[0], self.outputs.view_NP[0], 3
            ).rounded()
            for label in (1, 0)
        ]
        ranking = [(NAMES[score.label], score.score) for score in scores]
        outputs = self.outputs.similarity_NP[0], self.outputs.view_NP[0]
        margin = margin_of(self.prototypes, (1, 0), *outputs, 3).rounded()
        prediction = Prediction(
            "<photo>.png",
            image,
            masks,
            crops,
            ranking,
            scores,
            margin,
            self.outputs.logits_NC[0],
            *outputs,
        )
        explainer = Explainer(
            self.prototypes, Brightness(), self.crops, self.index.ids, places=self.places
        )
        write_image_page(page, prediction, explainer)
        return page


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory, make_photographs: Callable[..., Path]) -> Tiny:
    """3 classes with 2 prototypes each; prototypes 0 and 1 are the same crop."""
    folder = tmp_path_factory.mktemp("tiny")
    root = make_photographs(folder / "photographs", classes=C, per_class=12, width=60, height=40)
    index, *_ = build_index("folder", root, list_files(root), threads=1)
    segmenter = patches()
    images = [np.zeros((40, 60, 3), np.uint8)] * len(index)
    write_store(folder / "masks.zarr", index.image_files, segmenter, segmenter.segment(images))
    masks = MaskStore(folder / "masks.zarr")
    settings = crop_settings(side=S, per_image=K)
    write_crops(folder / "crops.zarr", index.image_files, root, masks, settings)
    prototypes = _prototypes(index)
    return Tiny(
        root,
        index,
        masks,
        CropStore(folder / "crops.zarr"),
        prototypes,
        np.random.default_rng(2).random((C * M, 8))[[0, 0, 2, 3, 4, 5]],
        _outputs(index, prototypes),
    )


@pytest.fixture(scope="session")
def parted(tiny: Tiny, tmp_path_factory: pytest.TempPathFactory) -> Tiny:
    """The tiny experiment with parts: a whole object and background in all images, a part in every
    second one, and a mask of which nothing is known."""
    folder = tmp_path_factory.mktemp("parted")
    masks = [
        replace(
            tiny.masks.masks(row),
            parts=np.array(
                [EVERYWHERE, NO_PART if row % 2 else IN_EVERY_SECOND, BEHIND, NO_PART], np.int32
            ),
            levels=np.array([0, 1, 1, 0], np.int32),
            foreground=np.array([True, True, False, True]),
        )
        for row in range(len(tiny.index))
    ]
    files = tiny.index.image_files
    write_store(folder / "masks.zarr", files, patches(), masks)
    store = MaskStore(folder / "masks.zarr")
    settings = crop_settings(side=S, per_image=K)
    write_crops(folder / "crops.zarr", files, tiny.root, store, settings)
    ours = tiny.prototypes
    prototypes = Prototypes(
        NAMES,
        ours.class_of_P,
        ours.weights_CP,
        ours.rows_P,
        ours.crop_P,
        ours.cell_P,
        ours.distance_P,
        ours.views,
        ours.alike_P,
        np.array(PART_P),
    )
    crops = CropStore(folder / "crops.zarr")
    return tiny._replace(masks=store, crops=crops, prototypes=prototypes)


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
        NAMES,
        np.repeat(np.arange(C), M),
        weights_CP,
        rows_P,
        crop_P,
        np.zeros(C * M, np.int64),
        random.random(C * M),
        CROP_VIEWS,
        np.array([1, 1, 1, 1, 3, 1]),
    )


def _outputs(index: Index, prototypes: Prototypes) -> StoredOutputs:
    random = np.random.default_rng(1)
    rows_N = index.rows("test")
    similarity_NP = random.random((len(rows_N), C * M)).astype(np.float32)
    similarity_NP[:, 1] = similarity_NP[:, 0]
    view_NP = random.integers(0, K, (len(rows_N), C * M))
    view_NP[:, 1] = view_NP[:, 0]
    logits_NC = (similarity_NP @ prototypes.weights_CP.T).astype(np.float32)
    return StoredOutputs(rows_N, index.labels[rows_N], logits_NC, similarity_NP, view_NP)
