"""artifacts/crops.zarr → artifacts/train/: the trained model and its curves."""

import hashlib
import json
import os
import shutil
from pathlib import Path

import torch
from lightning_fabric import Fabric

import pipeline
from pipeline.crops.store import CropStore
from pipeline.datasets.listing import sha256
from pipeline.files import whole_folder
from pipeline.model.backbone import Backbone
from pipeline.model.build import build
from pipeline.model.network import PrototypeNetwork
from pipeline.model.saved import About, save_model
from pipeline.training.curve import VARIABLE
from pipeline.training.devices import launched
from pipeline.training.train import Training
from stages import workspace
from stages.params import Params, read_params


def run() -> None:
    params = read_params(workspace.PARAMS)
    index = workspace.read_index()
    store = CropStore(workspace.CROPS)
    store.refuse_unless(params.crops, index.photographs)
    with launched(params.runtime, params.train.accumulate) as fabric:
        torch.manual_seed(params.seed)
        backbone = Backbone(params.model.backbone, workspace.weights_of(params))
        network = build(params.model, len(index.class_names), backbone)
        training = Training(
            network,
            network.seen(store),
            index,
            params.train,
            params.seed,
            fabric,
            workspace.memory() / "training" / _key(params, store, network, fabric),
            workspace.memory() / "features",
            params.runtime.compile,
            os.environ.get(VARIABLE),
        )
        if fabric.is_global_zero:
            about = About(
                class_names=index.class_names,
                segmenter=store.about["segmenter"],
                crops=params.crops,
                images=index.photographs.digest(),
            )
            _write(training, about)
        else:
            training.run(None)


def _write(training: Training, about: About) -> None:
    with whole_folder(workspace.TRAIN) as folder:
        progress = training.run(folder / "curves")
        save_model(folder, training.network, about)
    shutil.rmtree(training.checkpoints, ignore_errors=True)
    if progress.best_epoch >= 0:
        last = progress.history[progress.best_epoch]
        said = ", ".join(f"{name} {value:.4g}" for name, value in last.items())
        print(f"epoch {progress.best_epoch + 1} of {progress.epoch} taken: {said}")


def _key(params: Params, store: CropStore, network: PrototypeNetwork, fabric: Fabric) -> str:
    """Names a run by everything that decides its result: an interrupted one that differs in any of
    it, were it a line of code, is not continued."""
    decides = [
        params.seed,
        params.model.model_dump(),
        params.train.model_dump(),
        store.about,
        hashlib.sha256(workspace.INDEX.read_bytes()).hexdigest(),
        network.backbone.fingerprint(),
        fabric.device.type,
        torch.__version__,
        [sha256(path) for path in _code()],
    ]
    return hashlib.sha256(json.dumps(decides, sort_keys=True).encode()).hexdigest()[:32]


def _code() -> list[Path]:
    root = Path(pipeline.__file__).parent
    return sorted([*root.glob("model/*.py"), *root.glob("training/*.py")])
