"""How much of a joint training step is not the backbone's own computing.

`python benchmarks/train.py` writes a store of random crops of 224×224, 11 an image as published,
below a temporary folder and trains a ProtoMask on it: the published loss, augmentation and
accumulation. In turns with it runs what cannot be saved, the backbone forwards and backwards on
as many crops that lie on the device already, and each of the other parts alone.
"""

import math
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer
from dvc.utils.hydra import compose_and_dump
from PIL import Image as Pillow
from rich.console import Console
from rich.table import Table
from torch import Tensor

from pipeline.crops.extraction import Crops, whole_image
from pipeline.crops.loading import load_batches
from pipeline.crops.settings import NO_PART, CropSettings
from pipeline.crops.store import CropStore
from pipeline.crops.writing import write_store
from pipeline.datasets.index import Image, Index
from pipeline.model.base.models import build
from pipeline.training.fabric import make_fabric
from pipeline.training.train import Input, Training
from stages.params import Params, read_params

PUBLISHED_LOADER = 65
"""Crops a second and process of the published code's loader, with augmentation (docs/method.md)."""
CLASSES = 200
CONF = Path(__file__).parents[1] / "conf"


def main(
    backbone: Annotated[str, typer.Option(help="A timm model, without its weights.")] = "resnet50",
    images: Annotated[int, typer.Option(help="Images in the store, seen once a round.")] = 64,
    batch_size: Annotated[int, typer.Option(help="Images a batch; four batches make a step.")] = 16,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    precision: Annotated[str, typer.Option(help="float32, tf32 or bfloat16.")] = "float32",
    compile: Annotated[bool, typer.Option(help="Compile the backbone.")] = False,
    rounds: Annotated[int, typer.Option(help="Rounds that are timed, after one that is not.")] = 5,
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "crops.zarr"
        changes = {
            "model.backbone": backbone,
            "model.pretrained": "none",
            "train.batch_size": batch_size,
            "train.precision": precision,
            "runtime.device": device,
            "runtime.compile": compile,
        }
        params = _published(Path(folder) / "params.yaml", changes)
        _write_random(path, images, params.crops)
        training = _training(CropStore(path), params)
        _report(training, _time_in_turns(_parts(training), rounds))


def _published(path: Path, changes: dict[str, Any]) -> Params:
    """Composes the published experiment's parameters in a file, and reads them."""
    overrides = [f"{name}={value}" for name, value in changes.items()]
    compose_and_dump(path, str(CONF), None, "config", "", ["experiment=cub200-sam2", *overrides])
    return read_params(path)


def _training(store: CropStore, params: Params) -> Training:
    names = [f"{number:03d}" for number in range(CLASSES)]
    images = [
        Image(f"{row:06d}", f"{row:06d}.png", names[row % CLASSES], "train")
        for row in range(len(store))
    ]
    network = build(params.model, CLASSES)
    training = Training(
        network,
        store,
        Index.of("random", images, names, []),
        params.train,
        params.seed,
        make_fabric(params.runtime, params.train.precision),
        checkpoints=store.path.parent,
        cache=store.path.parent,
        compile=params.runtime.compile,
    )
    network.train()
    return training


def _parts(training: Training) -> dict[str, Callable[[], object]]:
    """Returns what is timed, by name; each goes once over all images."""
    network, fabric, store = training.network, training.fabric, training.store
    size, order = training.settings.batch_size, training.train_rows
    numbers = list(range(math.ceil(len(order) / size)))
    rows = torch.from_numpy(order[:size]).to(fabric.device)
    crops_BKSS3 = torch.from_numpy(store.crops(order[:size])).to(fabric.device)
    valid_BK = training.valid[rows]
    seen = crops_BKSS3[valid_BK].permute(0, 3, 1, 2) / 255
    with torch.no_grad(), fabric.autocast():
        features_BVF = network.features(crops_BKSS3, valid_BK).float()
    gradient = torch.ones(len(seen), features_BVF.shape[-1], device=fabric.device)
    augmentation = training.augmentation
    assert augmentation is not None

    def of_each_batch(work: Callable[[], object]) -> Callable[[], object]:
        return lambda: [work() for _ in numbers]

    def backbone() -> None:
        with fabric.autocast():
            found: Tensor = network.backbone(seen)
        found.backward(gradient.to(found.dtype))

    def head() -> None:
        training._backward(Input(rows, features_BVF.detach().requires_grad_(), valid_BK), 1)

    steps = range(0, len(numbers), training.settings.accumulate)
    return {
        "training": lambda: training._steps(0, order, True),
        "backbone alone": of_each_batch(backbone),
        "reading": lambda: list(load_batches(store, order, size, fabric.device)),
        "augmentation": of_each_batch(lambda: augmentation(crops_BKSS3, valid_BK)),
        "head and loss": of_each_batch(head),
        "optimiser": lambda: [training.optimizer.step() for _ in steps],
        "reading and augmentation": lambda: list(training._inputs(0, numbers, order, True)),
    }


def _time_in_turns(parts: dict[str, Callable[[], object]], rounds: int) -> dict[str, list[float]]:
    """Returns each part's seconds in every round."""
    seconds: dict[str, list[float]] = {name: [] for name in parts}
    for number in range(rounds + 1):
        for name, work in parts.items():
            _wait()
            start = time.perf_counter()
            work()
            _wait()
            if number > 0:
                seconds[name].append(time.perf_counter() - start)
    return seconds


def _wait() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def _report(training: Training, seconds: dict[str, list[float]]) -> None:
    whole, alone = (np.array(seconds[name]) for name in ("training", "backbone alone"))
    crops = int(training.store.valid.sum())
    table = Table("what", "seconds (median)", "of a step", "crops a second", title=f"{crops} crops")
    for name, taken in seconds.items():
        share = float(np.median(np.array(taken) / whole))
        median = float(np.median(taken))
        table.add_row(name, f"{median:.3f}", f"{share:.1%}", f"{crops / median:,.0f}")
    console = Console()
    console.print(table)
    console.print(f"not the backbone's computing: {1 - np.median(alone / whole):.1%} of a step")
    rate = crops / np.median(seconds["reading and augmentation"])
    console.print(f"the loader: {rate / PUBLISHED_LOADER:.1f} × the published one's rate")


def _write_random(path: Path, images: int, settings: CropSettings) -> None:
    """Writes a store of smooth random crops, every one valid."""
    numbers = np.random.default_rng(0)
    K, S = settings.per_image, settings.side
    small = numbers.integers(0, 256, (images, K, 14, 14, 3), np.uint8)

    def image(row: int) -> tuple[Crops, Crops]:
        pixels = np.stack([np.asarray(Pillow.fromarray(one).resize((S, S))) for one in small[row]])
        boxes = np.tile(np.array([0, 0, S, S], np.int32), (K, 1))
        inside, masks = np.ones((K, S, S), bool), np.arange(K, dtype=np.int32)
        parts = np.full(K, NO_PART, np.int32)
        crops = Crops(pixels, inside, boxes, masks, parts, np.ones(K, bool))
        return crops, whole_image(pixels[0], 1, S)

    write_store(path, images, settings, image, {"part_names": {}}, threads=2)


if __name__ == "__main__":
    typer.run(main)
