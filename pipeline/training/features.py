"""The pooled features of a crop store's images, computed once."""

import hashlib
import json
from pathlib import Path

import numpy as np
import torch
from lightning_fabric import Fabric
from numpy.typing import NDArray
from torch import Tensor

from pipeline.crops.batches import read_batches
from pipeline.crops.store import CropStore
from pipeline.files import sweep, whole_file
from pipeline.model.network import PrototypeNetwork
from pipeline.progress import track

IMAGES_PER_BLOCK = 32


@torch.inference_mode()
def pooled_features(
    network: PrototypeNetwork,
    store: CropStore,
    rows: NDArray[np.int64],
    fabric: Fabric,
    memory: Path | None = None,
) -> Tensor:
    """Passes the crops of some images through the backbone, once.

    Args:
        network: whose backbone, on any device.
        store: the crops.
        rows: int64 n, which images.
        fabric: says on which device and in which precision.
        memory: a folder that keeps finished blocks, so that neither a killed run nor a later stage
            computes them again; None keeps nothing.

    Returns:
        float32, n×K×F, on the CPU; zeros for missing crops.
    """
    network = network.to(fabric.device).eval()
    folder = memory / _key(network, store, fabric) if memory is not None else None
    if folder is not None:
        sweep(folder)
    parts = [rows[at : at + IMAGES_PER_BLOCK] for at in range(0, len(rows), IMAGES_PER_BLOCK)]
    blocks = [_block(network, store, part, fabric, folder) for part in track(parts, "Embedding")]
    K, F = store.valid.shape[1], network.backbone.num_features
    return torch.from_numpy(np.concatenate([np.zeros((0, K, F), np.float32), *blocks]))


def _block(
    network: PrototypeNetwork,
    store: CropStore,
    rows: NDArray[np.int64],
    fabric: Fabric,
    folder: Path | None,
) -> NDArray[np.float32]:
    path = folder and folder / f"{hashlib.sha256(rows.tobytes()).hexdigest()[:32]}.npy"
    if path and path.exists():
        return np.load(path)
    (batch,) = read_batches(store, rows, IMAGES_PER_BLOCK, fabric.device)
    with fabric.autocast():
        features = network.features(batch.crops_BKSS3, batch.valid_BK)
    values = features.float().cpu().numpy()
    if path:
        with whole_file(path) as part, part.open("wb") as file:
            np.save(file, values)
    return values


def _key(network: PrototypeNetwork, store: CropStore, fabric: Fabric) -> str:
    about = json.dumps(store.about, sort_keys=True)
    precision = type(fabric.strategy.precision).__name__
    parts = (network.backbone.fingerprint(), about, fabric.device.type, precision, torch.__version__)
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:32]
