"""artifacts/crops.zarr → artifacts/train/: the trained model and its curves."""

import hashlib
import json
import os
import shutil
from functools import partial
from pathlib import Path
from typing import Any

import torch
import yaml

from pipeline.backbone.backbone import Backbone
from pipeline.backbone.engine import version as openvino_version
from pipeline.crops.store import CropStore
from pipeline.datasets.index import Index
from pipeline.files import atomic_folder, sha256
from pipeline.model.base.models import build
from pipeline.model.base.network import PrototypeNetwork
from pipeline.model.base.saved import About, save_model
from pipeline.parameters import flat
from pipeline.training import learning
from pipeline.training.curve import VARIABLE
from pipeline.training.fabric import Fabric
from pipeline.training.processes import in_processes
from pipeline.training.train import Progress, Training
from stages import provenance
from stages.params import Params
from stages.workspace import Workspace


def run(workspace: Workspace) -> None:
    params = workspace.read_params()
    index = workspace.read_index()
    store = CropStore(workspace.crops)
    store.refuse_unless(params.crops, index.image_files)
    about = About(
        class_names=index.class_names,
        segmenter=store.about["segmenter"],
        crops=params.crops,
        images=index.image_files.digest(),
        precision=params.train.precision,
        made_with=_made_with(workspace, params, index, store),
    )
    in_processes(
        partial(_train, workspace, params, index, store, about),
        params.runtime,
        params.train.precision,
        params.train.accumulate,
    )


def _train(
    workspace: Workspace,
    params: Params,
    index: Index,
    store: CropStore,
    about: About,
    fabric: Fabric,
) -> None:
    """Trains as one of the processes; the first of them writes the model."""
    torch.manual_seed(params.seed)
    backbone = Backbone(params.model.backbone, workspace.weights(params))
    network = build(params.model, len(index.class_names), backbone)
    training = Training(
        network,
        network.seen(store),
        index,
        params.train,
        params.seed,
        fabric,
        workspace.cache / "training" / _key(workspace, params, store, network, fabric),
        workspace.cache / "features",
        params.runtime.compile,
        os.environ.get(VARIABLE),
    )
    if fabric.is_global_zero:
        _write(training, about, workspace.train)
    else:
        training.run(None)


def _made_with(
    workspace: Workspace, params: Params, index: Index, store: CropStore
) -> dict[str, dict[str, Any]]:
    """Returns what the model will have been made with.

    Raises:
        ProtoMaskError: the index or the crops were made with other parameters.
    """
    index_made = {"prepare": index.made_with}
    crops_made = {
        "masks": flat({"segmenter": store.about["segmenter"]}),
        "crops": flat({"crops": store.settings.model_dump(mode="json")}),
    }
    provenance.refuse_contradictions(index_made, params, workspace.index, "prepare")
    provenance.refuse_contradictions(crops_made, params, workspace.crops, "crops")
    return {**index_made, **crops_made, "train": provenance.tracked("train", params)}


def _write(training: Training, about: About, path: Path) -> None:
    with atomic_folder(path) as folder:
        progress = training.run(folder / "curves")
        doubts = _doubts(progress, len(about.class_names))
        save_model(folder, training.network, about.model_copy(update={"not_learned": doubts}))
    shutil.rmtree(training.checkpoints, ignore_errors=True)
    if progress.best_epoch >= 0:
        last = progress.history[progress.best_epoch]
        said = ", ".join(f"{name} {value:.4g}" for name, value in last.items())
        print(f"epoch {progress.best_epoch + 1} of {progress.epoch} taken: {said}")
    if doubts:
        print(learning.said(doubts))


def _doubts(progress: Progress, num_classes: int) -> list[str]:
    if progress.best_epoch < 0:
        return []
    accuracy = progress.history[progress.best_epoch]["train/accuracy"]
    return learning.doubts_of_accuracy(accuracy, num_classes)


def _key(
    workspace: Workspace,
    params: Params,
    store: CropStore,
    network: PrototypeNetwork,
    fabric: Fabric,
) -> str:
    """Names a run by everything that decides its result: an interrupted one that differs in any of
    it, were it a line of code, is not continued."""
    decides = [
        params.seed,
        params.model.model_dump(),
        params.train.model_dump(),
        network.seen(store).pixels_from,
        hashlib.sha256(workspace.index.read_bytes()).hexdigest(),
        network.backbone.fingerprint(),
        fabric.device.type,
        f"{fabric.engine} {openvino_version()}",
        torch.__version__,
        [sha256(path) for path in _code(params)],
    ]
    return hashlib.sha256(json.dumps(decides, sort_keys=True).encode()).hexdigest()[:32]


def _code(params: Params) -> list[Path]:
    """Returns the files of code that dvc.yaml says the training depends on."""
    root = Path(__file__).parents[1]
    stage = yaml.safe_load((root / "dvc.yaml").read_text(encoding="utf-8"))["stages"]["train"]
    listed = [root / dep.replace("${model.code}", params.model.code) for dep in stage["deps"]]
    code = [path for path in listed if "artifacts" not in path.relative_to(root).parts]
    return sorted(
        file for path in code for file in ([path] if path.is_file() else path.rglob("*.py"))
    )
