"""The library on a finished run that lies elsewhere: what the stages have written, value for value.

As in a notebook: objects in, results out, whatever the working directory.
"""

import json
from pathlib import Path

import pandas as pd
import pytest
import torch
import yaml
from safetensors.torch import load_file
from settings import prune_settings

from pipeline.crops.store import CropStore
from pipeline.datasets.image_file import read_image
from pipeline.datasets.index import Index
from pipeline.masks.segmenter import Machine
from pipeline.masks.store import MaskStore
from pipeline.metrics.evaluation import evaluate
from pipeline.model.base.network import PrototypeNetwork
from pipeline.model.base.saved import load_model
from pipeline.report.predictor import Predictor
from pipeline.saliency.prototypes import Prototypes
from pipeline.training.fabric import Fabric
from pipeline.training.finetune import finetune_and_prune
from pipeline.training.prototype_sources import read_sources
from pipeline.training.push import push_prototypes
from pipeline.training.settings import FinetuneSettings

FABRIC = Fabric(torch.device("cpu"), "float32")


@pytest.fixture
def artifacts(finished_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return finished_run / "artifacts"


@pytest.fixture
def index(artifacts: Path) -> Index:
    return Index.read(artifacts / "index" / "index.parquet")


@pytest.fixture
def crops(artifacts: Path) -> CropStore:
    return CropStore(artifacts / "crops.zarr")


@pytest.fixture
def finished(artifacts: Path) -> PrototypeNetwork:
    return load_model(artifacts / "finetune")[0]


@pytest.fixture
def prototypes(
    artifacts: Path, finished: PrototypeNetwork, index: Index, crops: CropStore
) -> Prototypes:
    sources = read_sources(artifacts / "finetune" / "prototypes.csv")
    return Prototypes.of(finished, sources, index.class_names, index.ids, crops.settings.side)


def same_weights(network: PrototypeNetwork, folder: Path) -> bool:
    found = network.state_dict()
    written = [load_file(folder / f"{file}.safetensors") for file in ("backbone", "model")]
    return all(torch.equal(found[name], value) for some in written for name, value in some.items())


def test_push_and_finetuning(
    artifacts: Path, index: Index, crops: CropStore, capsys: pytest.CaptureFixture[str]
) -> None:
    network, _ = load_model(artifacts / "train")
    pushed = push_prototypes(network, index, crops, FABRIC)
    assert same_weights(network, artifacts / "push")
    sources = read_sources(artifacts / "push" / "prototypes.csv")
    pd.testing.assert_frame_equal(pushed.sources, sources, check_dtype=False, check_exact=True)
    written = load_file(artifacts / "push" / "similarities.safetensors")["similarity"]
    assert torch.equal(pushed.similarity_NP, written)

    params = yaml.safe_load((artifacts.parent / "params.yaml").read_text())
    labels_N = torch.from_numpy(index.labels[index.rows("train")])
    settings = FinetuneSettings(**params["finetune"])
    found = finetune_and_prune(
        network, pushed.similarity_NP, labels_N, settings, prune_settings(), seed=0
    )
    assert same_weights(network, artifacts / "finetune")
    assert found.kept.tolist() == list(range(6)) and 0 <= found.accuracy <= 1
    assert capsys.readouterr().out == "" and not list(Path.cwd().iterdir())


def test_evaluation(
    artifacts: Path,
    finished: PrototypeNetwork,
    prototypes: Prototypes,
    index: Index,
    crops: CropStore,
    capsys: pytest.CaptureFixture[str],
) -> None:
    masks = MaskStore(artifacts / "masks.zarr")
    groups = ["general", "compactness", "contrastivity", "segmentation"]
    found = evaluate(finished, prototypes, index, crops, masks, FABRIC, groups, top_k=2)
    written = json.loads((artifacts / "evaluate" / "metrics.json").read_text())
    assert found.metrics == written
    images = pd.read_parquet(artifacts / "evaluate" / "images.parquet")
    pd.testing.assert_frame_equal(found.images(), images)
    predictions = pd.read_csv(artifacts / "evaluate" / "predictions.csv")
    pd.testing.assert_frame_equal(found.predictions(), predictions)
    assert capsys.readouterr().out == "" and not list(Path.cwd().iterdir())


def test_prediction(
    artifacts: Path,
    finished: PrototypeNetwork,
    prototypes: Prototypes,
    index: Index,
    crops: CropStore,
) -> None:
    about = load_model(artifacts / "finetune")[1]
    predictor = Predictor(finished, FABRIC, about, Machine(), prototypes, crops, index.ids)
    predictions = pd.read_csv(artifacts / "evaluate" / "predictions.csv")
    image = predictions["image"][0]
    prediction = predictor.predict(image, read_image(artifacts.parent / "photographs" / image))
    assert prediction.ranking[0][0] == predictions["predicted"][0]
    logits_C = load_file(artifacts / "evaluate" / "answers.safetensors")["logits_NC"][0]
    expected = logits_C.sort(descending=True).values.tolist()
    assert [score for _, score in prediction.ranking] == pytest.approx(expected, abs=1e-4)
    assert predictor.picture(prediction).width == 1200
    assert not list(Path.cwd().iterdir())
