"""Backbone features of a crop store's images, computed once and cached, and their embeddings."""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pipeline.backbone.engine import version
from pipeline.crops.loading import load_batches
from pipeline.crops.store import CropStore
from pipeline.errors import ProtoMaskError
from pipeline.files import atomic_file, sweep
from pipeline.model.base.network import PrototypeNetwork
from pipeline.progress import track
from pipeline.training.fabric import Fabric
from pipeline.training.processes import summed

IMAGES_PER_BLOCK = 32
CROPS_PER_PASS_ON_CPU = 64
CONVERTED_FROM = 2048
"""Crops whose features an engine computes so much faster that its conversion of the backbone
pays."""


Block = Callable[[NDArray[np.float32]], NDArray[np.float32]]
"""What is made of the features of a block of images, n×V×F."""


@torch.inference_mode()
def stored_features(
    network: PrototypeNetwork,
    store: CropStore,
    rows: NDArray[np.int64],
    fabric: Fabric,
    cache: Path | None = None,
    among: NDArray[np.int64] | None = None,
    made_of: Block | None = None,
) -> Tensor:
    """Computes the backbone features of images, or reads them from the cache.

    The blocks of images are distributed over the processes. Fewer crops than `CONVERTED_FROM` are
    left to PyTorch, whatever the engine.

    Args:
        network: the model whose backbone computes the features, on any device.
        store: the crops as the model sees them (`PrototypeNetwork.seen`).
        rows: the images, int64 n, as rows of the store.
        fabric: the device, the precision and the processes.
        cache: folder of the cache of finished blocks, so that neither an interrupted run nor a
            later stage computes them again; None caches nothing.
        among: int64, sorted, the images that cached blocks are composed of; each block that
            contains one of `rows` is computed whole. None: `rows`. With all images outside the test
            split, cross-validation folds share their blocks.
        made_of: makes what is held of a block's features; None: these themselves are.

    Returns:
        float32 n×V×F on the CPU, zeros for missing crops; or what `made_of` makes of it.

    Raises:
        ProtoMaskError: a feature is not a finite number, or another process has died.
    """
    with torch.inference_mode(False):  # or no gradient could go through it any more
        network = network.to(fabric.device).eval()
    few = store.valid[rows if among is None else among].sum() < CONVERTED_FROM
    network.backbone.use("pytorch" if few else fabric.engine, cache and cache / "converted")
    rows_of_cells, columns = network.grid(store.settings.side)
    shape = store.valid.shape[1] * rows_of_cells * columns, network.num_features
    folder = cache / _key(network, store, fabric) if cache is not None else None
    if folder is not None:
        sweep(folder)
    wanted = rows if folder is None or among is None else _whole_blocks(rows, among)
    parts = [wanted[at : at + IMAGES_PER_BLOCK] for at in range(0, len(wanted), IMAGES_PER_BLOCK)]
    made: Block = made_of or np.asarray
    found = np.zeros((len(wanted), *made(np.zeros((1, *shape), np.float32)).shape[1:]), np.float32)

    def put(number: int, features_BVF: NDArray[np.float32]) -> None:
        at = number * IMAGES_PER_BLOCK
        found[at : at + IMAGES_PER_BLOCK] = made(features_BVF)

    missing = []
    mine = range(fabric.global_rank, len(parts), fabric.world_size)
    for number in mine:
        block = _cached(folder, parts[number], shape)
        if block is None:
            missing.append(number)
        else:
            put(number, block)
    if missing:
        # Only the last part can be shorter than a block, so these batches are the missing parts.
        unknown = np.concatenate([parts[number] for number in missing])
        batches = load_batches(
            store, unknown, IMAGES_PER_BLOCK, fabric.device, network.settings.pools_inside
        )
        if fabric.is_global_zero:
            batches = track(batches, "Embedding", len(missing))
        for number, batch in zip(missing, batches, strict=True):
            with fabric.autocast():
                features = in_passes(network, batch.crops_BKSS3, batch.valid_BK, batch.inside_BKSS)
            block = features.float().cpu().numpy()
            put(number, block)
            _cache(folder, parts[number], block)
    # Each process has filled in its own blocks; those of the others are zeros.
    found_n = summed(torch.from_numpy(found), fabric).cpu()
    if not all(block.isfinite().all() for block in found_n.split(IMAGES_PER_BLOCK)):
        raise ProtoMaskError(
            f"model.backbone: the features of {network.settings.backbone} are no finite numbers: "
            "lower train.lr_backbone if it is trained, else change model.pretrained, whose weights "
            "must be damaged"
        )
    return found_n if wanted is rows else found_n[np.searchsorted(wanted, rows)]


@torch.inference_mode()
def stored_embeddings(
    network: PrototypeNetwork,
    store: CropStore,
    rows: NDArray[np.int64],
    fabric: Fabric,
    cache: Path | None = None,
    among: NDArray[np.int64] | None = None,
) -> Tensor:
    """Embeds images by their features, of which it holds one block; arguments: `stored_features`.

    Returns:
        float32 n×V×D on the CPU; rows of missing views are arbitrary.

    Raises:
        ProtoMaskError: a feature is not a finite number, or another process has died.
    """

    def embed(features_BVF: NDArray[np.float32]) -> NDArray[np.float32]:
        if not np.isfinite(features_BVF).all():
            features_BVF = np.full_like(features_BVF, np.nan)
        return network.embed(torch.from_numpy(features_BVF).to(fabric.device)).cpu().numpy()

    return stored_features(network, store, rows, fabric, cache, among, embed)


def _whole_blocks(rows: NDArray[np.int64], among: NDArray[np.int64]) -> NDArray[np.int64]:
    """Returns the rows of all blocks of `among` that contain one of `rows`."""
    block_of = np.arange(len(among)) // IMAGES_PER_BLOCK
    return among[np.isin(block_of, block_of[np.searchsorted(among, rows)])]


def in_passes(
    network: PrototypeNetwork,
    crops_BKSS3: Tensor,
    valid_BK: Tensor,
    inside_BKSS: Tensor | None = None,
) -> Tensor:
    """Computes the features of crops in passes small enough for the CPU's caches.

    Args:
        network: the model whose backbone computes the features.
        crops_BKSS3: RGB crops on the network's device, uint8, or float in [0, 1].
        valid_BK: bool B×K, false for missing crops.
        inside_BKSS: the masks inside the crops, as for `PrototypeNetwork.features`.

    Returns:
        Features, B×V×F; zeros for missing crops.
    """
    K = valid_BK.shape[1]
    on_cpu = crops_BKSS3.device.type == "cpu"
    images = max(1, CROPS_PER_PASS_ON_CPU // K) if on_cpu else len(valid_BK)
    given = [crops_BKSS3, valid_BK] + ([] if inside_BKSS is None else [inside_BKSS])
    passes = zip(*(tensor.split(images) for tensor in given), strict=True)
    return torch.cat([network.features(*some) for some in passes])


def _block_name(rows: NDArray[np.int64]) -> str:
    return f"{hashlib.sha256(rows.tobytes()).hexdigest()[:32]}.npz"


def _cache(folder: Path | None, rows: NDArray[np.int64], block: NDArray[np.float32]) -> None:
    if folder is not None:
        with atomic_file(folder / _block_name(rows)) as part, part.open("wb") as file:
            np.savez(file, features=block)


def _cached(
    folder: Path | None, rows: NDArray[np.int64], shape: tuple[int, int]
) -> NDArray[np.float32] | None:
    """Returns a block from the cache; None if it is missing or damaged (by the file's checksum)."""
    if folder is None:
        return None
    try:
        with np.load(folder / _block_name(rows)) as file:
            block = file["features"]
    except Exception:  # a damaged archive makes NumPy and zipfile raise all kinds of errors
        return None
    return block if block.shape == (len(rows), *shape) else None


def _rounding(fabric: Fabric) -> str:
    """Returns what the cache's keys call a precision.

    These are the names in caches that there are, in which a GPU's float32 was rounded as TF32.
    """
    if fabric.precision == "bfloat16":
        return "bf16-mixed"
    exact_on_gpu = fabric.device.type == "cuda" and fabric.precision == "float32"
    return "32-exact" if exact_on_gpu else "32-true"


def _key(network: PrototypeNetwork, store: CropStore, fabric: Fabric) -> str:
    pixels = json.dumps(store.pixels_from, sort_keys=True)
    parts = (
        network.backbone.fingerprint(),
        f"in cells: {network.in_cells}",
        f"stages: {network.settings.feature_stages}, inside masks: {network.settings.pools_inside}",
        pixels,
        fabric.device.type,
        _rounding(fabric),
        torch.__version__,
        *([f"OpenVINO {version()}"] if network.backbone.engine == "openvino" else []),
    )
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:32]
