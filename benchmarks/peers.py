"""ProtoMask beside what one would otherwise run, in one run: what each of them takes.

`python benchmarks/peers.py` draws a few images of the demo below a temporary folder, and compares
with ProtoMask, each in one thread:

- CaBRNet, whose ProtoPNet has the same images, backbone, size of images, epochs and learning rates.
  Both start from random weights and nothing is augmented, so time, memory and disk are compared,
  and no accuracy. ProtoMask's eight stages are processes, as are CaBRNet's two commands; with so
  few images, their starts are a large part. CaBRNet is installed in an environment of its own,
  which stays for the next time.
- The published code's way of reading crops, from masked pictures as large as the photograph.
- scikit-learn's logistic regression on the mean of the features of an image's crops, from the same
  frozen backbone.
- With `--masks`, sam2's own mask generator (`benchmarks/masks.py`), which takes minutes on a CPU.

A ratio is what the other takes over what ProtoMask takes. Of the seconds, those of the CPU are to
be trusted where other work runs on the machine.
"""

import io
import json
import math
import os
import sys
import tempfile
from collections.abc import Sequence
from contextlib import redirect_stdout
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import crops as crop_files
import numpy as np
import torch
import typer
from cabrnet_runs import VERSION, CaBRNet, installed
from costs import Cost, cpu_seconds, folder_bytes, measured, together
from dvc.utils.hydra import compose_and_dump
from numpy.typing import NDArray
from PIL import Image
from rich.console import Console
from rich.table import Table
from whole_images import fit

from pipeline.backbone.backbone import Backbone
from pipeline.crops.store import CropStore
from pipeline.datasets.readers.demo.classes import CLASS_NAMES
from pipeline.datasets.readers.demo.data_set import JPEG_QUALITY, draw_image
from pipeline.model.base.models import build
from pipeline.model.base.network import valid_views
from pipeline.training.fabric import make_fabric
from pipeline.training.features import stored_features
from stages import evaluate, finetune, push, train
from stages.workspace import Workspace

REPOSITORY = Path(__file__).parents[1]
ENVIRONMENT = Path(tempfile.gettempdir()) / "protomask-peers"
PROTOPNET = (
    "experiment=joint",
    "model=protopnet",
    "model.backbone=resnet18",
    "model.pretrained=none",
    "train.warmup_epochs=0",
    "train.augment=false",
    "train.accumulate=1",
)
BEFORE = ("scan", "prepare", "masks", "crops")
OUR_START = (sys.executable, "-c", "import stages.train, stages.evaluate, timm")
CROPS = 8
"""Crops of an image whose reading is timed."""


class Row(NamedTuple):
    """A step, and what it takes; the less the better."""

    step: str
    measure: str
    theirs: float | None
    ours: float


def main(
    environment: Annotated[
        Path, typer.Option(help="Where CaBRNet is, or is to be, installed.")
    ] = ENVIRONMENT,
    classes: Annotated[int, typer.Option(help="Classes of the demo's 12.")] = 4,
    train_images: Annotated[int, typer.Option(help="Training images a class.")] = 8,
    test_images: Annotated[
        int, typer.Option(help="Test images a class, and as many to validate.")
    ] = 4,
    side: Annotated[int, typer.Option(help="Pixels a side of images and crops.")] = 96,
    epochs: Annotated[int, typer.Option(help="Epochs of training.")] = 2,
    finetune_epochs: Annotated[int, typer.Option(help="Epochs of the last layer alone.")] = 10,
    batches: Annotated[int, typer.Option(help="Batches of 16 images' crops that are read.")] = 3,
    masks: Annotated[bool, typer.Option(help="Compare with sam2's generator, too.")] = False,
) -> None:
    torch.set_num_threads(1)
    program, console = installed(environment), Console()
    with tempfile.TemporaryDirectory() as name:
        folder, photographs = Path(name), Path(name) / "photographs"
        _draw(
            photographs, classes, {"train": train_images, "val": test_images, "test": test_images}
        )
        shared = [
            "dataset=folder",
            f"dataset.root={photographs}",
            f"crops.side={side}",
            "evaluate.groups=[general]",
            "runtime.device=cpu",
            "runtime.workers=1",
        ]
        own = [*PROTOPNET, f"train.epochs={epochs}", f"finetune.epochs={finetune_epochs}"]
        workspace = _composed(folder / "protomask", [*shared, *own])
        theirs = CaBRNet(program, photographs, workspace.read_params(), folder / "cabrnet")
        _report(console, f"ProtoPNet: CaBRNet {VERSION}", _protopnets(workspace, theirs))
        _report(console, "reading crops: the published code", _loaders(folder / "loaders", batches))
        workspace = _composed(workspace.root, [*shared, "experiment=frozen"])
        _report(console, "classifying crops' features: scikit-learn", _heads(workspace))
    if masks:
        _masks()


def _draw(folder: Path, classes: int, splits: dict[str, int]) -> None:
    for class_name in CLASS_NAMES[:classes]:
        number = 0
        for split, images in splits.items():
            own = folder / split / class_name.replace(" ", "-")
            own.mkdir(parents=True)
            for _ in range(images):
                number += 1
                drawn = Image.fromarray(draw_image(0, class_name, number).image)
                drawn.save(own / f"{number:03d}.jpg", quality=JPEG_QUALITY)


def _composed(folder: Path, overrides: list[str]) -> Workspace:
    """Returns the folder as a workspace, in which `params.yaml` says this."""
    folder.mkdir(exist_ok=True)
    workspace = Workspace(folder)
    conf = str(REPOSITORY / "conf")
    compose_and_dump(workspace.params_file, conf, None, "config", "", overrides)
    return workspace


def _report(console: Console, title: str, rows: Sequence[Row]) -> None:
    """Prints what both take, and in a line where ProtoMask takes more."""
    peer = title.rpartition(": ")[2]
    table = Table("step", "what", peer, "ProtoMask", "ratio", title=title)
    more, step = [], None
    for row in rows:
        ratio = row.theirs / row.ours if row.theirs and row.ours else None
        if ratio is not None and ratio < 1:
            more.append(f"{row.step}, {row.measure} ({1 / ratio:.2g} times)")
        theirs = "" if row.theirs is None else _said(row.theirs)
        name = row.step if row.step != step else ""
        table.add_row(name, row.measure, theirs, _said(row.ours), f"{ratio:.2f}" if ratio else "")
        step = row.step
    console.print(table)
    console.print(f"ProtoMask takes more than {peer}: {'; '.join(more) or 'nothing of this'}.")


def _said(value: float) -> str:
    digits = max(0, 2 - math.floor(math.log10(value))) if value else 0
    return f"{value:,.{digits}f}"


def _protopnets(workspace: Workspace, theirs: CaBRNet) -> list[Row]:
    """Trains, pushes, fine-tunes and evaluates both; what goes before counts for ProtoMask."""
    theirs.folder.mkdir()
    before = together([_stage(workspace, name) for name in BEFORE])
    prepared = folder_bytes(workspace.root)
    costs = {name: _stage(workspace, name) for name in ("train", "push", "finetune", "evaluate")}
    pushed = together([costs["train"], costs["push"]])
    finished = together([pushed, costs["finetune"]])
    all_of_it = together([before, finished, costs["evaluate"]])
    tuned = folder_bytes(workspace.finetune)
    kept = folder_bytes(workspace.root) - folder_bytes(workspace.evaluate)
    epochs = theirs.params.finetune.epochs
    theirs.start()  # the first start after the installation is slower
    short, long = theirs.train("pushed", 0), theirs.train("tuned", epochs)
    disk, all_disk = (folder_bytes(theirs.folder / name) for name in ("pushed", "tuned"))
    measure = theirs.evaluate("tuned")
    return [
        *_rows("start a process", theirs.start(), measured(OUR_START, REPOSITORY)),
        *_rows("prepare", None, before, (None, prepared)),
        *_rows("train and push", short, pushed, (disk, kept - prepared - tuned)),
        *_rows("train, push, fine-tune", long, finished, (all_disk, kept - prepared)),
        *_rows("evaluate", measure, costs["evaluate"]),
        *_rows("do all of it", together([long, measure]), all_of_it, (all_disk, kept)),
    ]


def _stage(workspace: Workspace, name: str) -> Cost:
    command = [sys.executable, "-m", "stages", name]
    return measured(command, workspace.root, PYTHONPATH=str(REPOSITORY))


def _rows(
    step: str, theirs: Cost | None, ours: Cost, disk: tuple[int | None, int] | None = None
) -> list[Row]:
    found = [
        Row(step, "seconds", theirs and theirs.seconds, ours.seconds),
        Row(step, "CPU seconds", theirs and theirs.cpu, ours.cpu),
        Row(step, "MB of memory", theirs and theirs.peak / 1e6, ours.peak / 1e6),
    ]
    if disk is not None:
        found.append(Row(step, "MB on disk", disk[0] and disk[0] / 1e6, disk[1] / 1e6))
    return found


def _loaders(folder: Path, batches: int) -> list[Row]:
    """Reads random crops in both ways, of photographs that scikit-image brings."""
    folder.mkdir()
    known = crop_files.cut_crops(crop_files.read_photographs(None), CROPS)
    png, png_bytes = crop_files.png_rates(folder / "pngs", known[0], batches)
    path, images = folder / "crops.zarr", len(known)
    crop_files.write_crops(path, known, images, "jpeg")
    ours = crop_files.rates_of(CropStore(path).crops, images, CROPS, batches)
    size = folder_bytes(path / "crops") / images / CROPS
    step = f"read a crop of {crop_files.SIDE}×{crop_files.SIDE}"
    return [
        Row(step, "CPU milliseconds", 1000 / png.of_cpu, 1000 / ours.of_cpu),
        Row(step, "milliseconds, again", 1000 / png.again, 1000 / ours.again),
        Row(step, "kB on disk", png_bytes / 1000, size / 1000),
    ]


def _heads(workspace: Workspace) -> list[Row]:
    """Learns from the same features, which are computed before, by both."""
    index = workspace.read_index()
    learned, test = index.rows("train", "val"), index.rows("test")
    features, unknown = (_mean_features(workspace, rows) for rows in (learned, test))
    fitted: list[Any] = []
    theirs = cpu_seconds(lambda: fitted.append(fit(features, index.labels[learned])))
    their_accuracy = fitted[0].score(unknown, index.labels[test])
    with redirect_stdout(io.StringIO()):
        ours = cpu_seconds(lambda: [stage.run(workspace) for stage in (train, push, finetune)])
        evaluate.run(workspace)
    accuracy = json.loads(workspace.metrics.read_text())["general"]["accuracy"]
    step = f"learn {len(index.class_names)} classes of {len(learned)} images"
    wrong = [100 * (1 - found) for found in (their_accuracy, accuracy)]
    return [
        Row(step, "CPU seconds", theirs, ours),
        Row(step, "test images wrong, %", *wrong),
    ]


def _mean_features(workspace: Workspace, rows: NDArray[np.int64]) -> NDArray[np.float32]:
    """Returns the means over the crops of images, N×F, and leaves the features in the cache that
    the stages read."""
    params, store = workspace.read_params(), CropStore(workspace.crops)
    backbone = Backbone(params.model.backbone, workspace.weights(params))
    network = build(params.model, len(workspace.read_index().class_names), backbone)
    seen, fabric = network.seen(store), make_fabric(params.runtime, params.train.precision)
    features_NVF = stored_features(network, seen, rows, fabric, workspace.feature_cache(params))
    valid_NV1 = valid_views(torch.from_numpy(seen.valid)[rows], features_NVF)[..., None]
    return ((features_NVF * valid_NV1).sum(1) / valid_NV1.sum(1)).numpy()


def _masks() -> None:
    """Prints the tables of `benchmarks/masks.py` of few points of one photograph."""
    import masks  # imports sam2

    masks.main(model="sam2.1_hiera_tiny", points_per_side=8, crop_n_layers=0, images=1, rounds=1)


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    typer.run(main)
