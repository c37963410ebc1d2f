"""artifacts/finetune/ → metrics.json and artifacts/evaluate/."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from safetensors.torch import save_file
from torch import Tensor

from pipeline.crops.store import CropStore
from pipeline.datasets.index import Index
from pipeline.errors import ProtoMaskError
from pipeline.explain.saliency import MaskSaliency, resize_mask
from pipeline.files import whole_file, whole_folder
from pipeline.masks.store import MaskStore
from pipeline.metrics.evidence import Evidence
from pipeline.metrics.groups import measure, summarise
from pipeline.model.answers import Answers, answers
from pipeline.model.network import PrototypeNetwork
from pipeline.progress import console
from pipeline.training.devices import make_fabric
from pipeline.training.features import pooled_features
from stages import workspace
from stages.finished import Finished
from stages.params import read_params


def run() -> None:
    params = read_params(workspace.PARAMS)
    finished = Finished.read()
    index, crops, network = finished.index, finished.crops, finished.network
    masks = finished.masks()
    rows = index.rows("test")
    if len(rows) == 0:
        raise ProtoMaskError(f"{index.dataset} has no test images to measure on")
    fabric = make_fabric(params.runtime)
    features = pooled_features(network, crops, rows, fabric, workspace.features(params))
    found = answers(network, features, torch.from_numpy(crops.valid[rows]))
    evidence = _evidence(index, rows, network, found, crops, masks, params.evaluate.top_k)
    with console.status("Measuring"):
        metrics = summarise(measure(evidence, params.evaluate.groups))
    with whole_folder(workspace.EVALUATE) as folder:
        tensors = {name: getattr(found, name) for name in ("logits_NC", "similarity_NP", "crop_NP")}
        save_file(tensors, folder / "answers.safetensors")
        _write_predictions(index, rows, found.logits_NC, folder / "predictions.csv")
    with whole_file(workspace.METRICS) as part:
        part.write_text(json.dumps(metrics, indent=2, allow_nan=False) + "\n", encoding="utf-8")
    for group, values in metrics.items():
        print(f"{group}: " + ", ".join(f"{name} {value:.4g}" for name, value in values.items()))


def _evidence(
    index: Index,
    rows: np.ndarray,
    network: PrototypeNetwork,
    found: Answers,
    crops: CropStore,
    masks: MaskStore,
    top_k: int,
) -> Evidence:
    size = crops.settings.size
    return Evidence(
        ids=index.table["id"].iloc[rows].tolist(),
        labels_N=torch.from_numpy(index.labels[rows]),
        logits_NC=found.logits_NC,
        similarity_NP=found.similarity_NP,
        crop_NP=found.crop_NP,
        embedding_NKD=found.embedding_NKD,
        valid_NK=torch.from_numpy(crops.valid[rows]),
        prototypes_PD=network.prototypes.detach().cpu(),
        weights_CP=network.classifier.detach().cpu(),
        class_of_P=network.class_of.cpu(),
        top_k=min(top_k, len(network.prototypes)),
        explanation=MaskSaliency(rows, found.crop_NP, masks, crops, size),
        object_masks=_object_masks(index, rows, size),
        parts_NQ2=_parts(index, rows, size),
    )


def _object_masks(index: Index, rows: np.ndarray, size: int) -> Tensor | None:
    """Returns the object masks, N×S×S bool, or None unless every image has one."""
    found = [index.object_mask(int(row)) for row in rows]
    if any(mask is None for mask in found):
        return None
    return torch.from_numpy(np.stack([resize_mask(m, size) for m in found if m is not None]))


def _parts(index: Index, rows: np.ndarray, size: int) -> Tensor | None:
    """Returns part locations in S×S pixels, N×Q×2 float32, NaN where a part is not visible."""
    if not index.part_names:
        return None
    numbers = {name: number for number, name in enumerate(index.part_names)}
    parts_NQ2 = torch.full((len(rows), len(numbers), 2), torch.nan)
    images = index.table.iloc[rows]
    for place, (parts, width, height) in enumerate(
        zip(images["parts"], images["width"], images["height"], strict=True)
    ):
        for part in parts or ():
            x, y = part["x"] * size / width, part["y"] * size / height
            parts_NQ2[place, numbers[part["name"]]] = torch.tensor([x, y])
    return parts_NQ2


def _write_predictions(index: Index, rows: np.ndarray, logits_NC: Tensor, path: Path) -> None:
    """Writes what DVC draws the confusion matrix from: a row a test image."""
    names = np.array(index.class_names)
    predictions = pd.DataFrame(
        {
            "image": index.table["id"].to_numpy()[rows],
            "actual": names[index.labels[rows]],
            "predicted": names[logits_NC.argmax(1).numpy()],
        }
    )
    predictions.to_csv(path, index=False)
