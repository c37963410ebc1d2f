"""How fast the batched engine of `sam2` is beside SAM2AutomaticMaskGenerator, in one run.

`python benchmarks/masks.py` draws photographs, builds the network with random weights (or reads
`--weights`), chooses thresholds that let about `--survivors` masks through, and segments the same
photographs with both engines, one after the other, several times. It prints images a second, the
ratio, where the batched engine's time goes, and how many masks of the reference it finds again.
The published settings are 32 points a side and 2 layers of crops: 21 crops and 21,504 points. On a
CPU take fewer.
"""

import platform
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any

import numpy as np
import pandas as pd
import torch
import typer
import yaml
from numpy.typing import NDArray
from PIL import Image as Pillow
from pycocotools import mask as rle
from rich.console import Console
from rich.table import Table
from sam2.modeling.sam2_base import SAM2Base
from scipy.optimize import linear_sum_assignment
from skimage.data import astronaut, chelsea, coffee, rocket
from torch.utils.flop_counter import FlopCounterMode

from pipeline.datasets.image_file import read_image
from pipeline.datasets.index import IMAGE_FILES, ImageFiles
from pipeline.files import sha256
from pipeline.masks.mask_cache import MaskCache
from pipeline.masks.masks import Masks, Region
from pipeline.masks.segmenter import Machine
from pipeline.masks.segmenters.sam2 import batched
from pipeline.masks.segmenters.sam2.batched import BatchedGenerator
from pipeline.masks.segmenters.sam2.filters import Proposals, distinct_in_crop
from pipeline.masks.segmenters.sam2.model import ModelName, build
from pipeline.masks.segmenters.sam2.reference import ReferenceGenerator
from pipeline.masks.segmenters.sam2.segmenter import Generator, Sam2
from pipeline.masks.store import write_store

PRESET = Path(__file__).parents[1] / "conf" / "segmenter" / "sam2.yaml"
SIZE = 375, 500
Image = NDArray[np.uint8]


def main(
    model: Annotated[ModelName, typer.Option(help="One of four.")] = "sam2.1_hiera_base_plus",
    weights: Annotated[Path | None, typer.Option(help="A checkpoint; random if none.")] = None,
    points_per_side: int = 32,
    crop_n_layers: int = 2,
    survivors: Annotated[int, typer.Option(help="Masks a photograph, about.")] = 100,
    images: int = 4,
    rounds: int = 3,
    bfloat16: Annotated[bool, typer.Option(help="Measure the batched engine in it, too.")] = False,
    compiled: Annotated[bool, typer.Option(help="Measure torch.compile, too.")] = False,
) -> None:
    console = Console()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    network = _network(model, weights, device)
    photographs = [image[: SIZE[0], : SIZE[1]].copy() for image in _photographs()][:images]
    common: dict[str, Any] = yaml.safe_load(PRESET.read_text()) | {
        "model": model,
        "weights_sha256": "0" * 64,
        "points_per_side": points_per_side,
        "crop_n_layers": crop_n_layers,
    }
    if weights is None:
        common |= _thresholds(network, photographs[0], common, survivors)
    settings = Sam2(**common)
    full = BatchedGenerator(network, settings, Machine(device))
    engines: dict[str, Generator] = {
        "SAM2AutomaticMaskGenerator": ReferenceGenerator(network, settings),
        "batched": full,
    }
    half = settings.model_copy(update={"precision": "bfloat16"})
    if bfloat16:
        engines["SAM2AutomaticMaskGenerator, bfloat16"] = ReferenceGenerator(network, half)
        engines["batched, bfloat16"] = BatchedGenerator(network, half, Machine(device))
    if compiled:
        precision = half if bfloat16 else settings
        engines["batched, compiled"] = BatchedGenerator(
            network, precision, Machine(device, compile=True)
        )
    console.print(_machine(device), f"{model}, {points_per_side} points a side,")
    console.print(f"{crop_n_layers} layers of crops, {len(photographs)} photographs of {SIZE}")
    seconds, found = _measure(engines, photographs, rounds)
    console.print(_table(seconds, found, photographs))
    console.print(_breakdown(full, photographs, settings, device))


def _network(name: ModelName, weights: Path | None, device: str) -> SAM2Base:
    torch.manual_seed(0)
    network = build(name, device)
    if weights is not None:
        network.load_state_dict(torch.load(weights, weights_only=True)["model"])
        return network.requires_grad_(False)
    # Random weights give flat logits; larger ones let thresholds tell masks apart.
    with torch.no_grad():
        for part in network.sam_mask_decoder.output_hypernetworks_mlps:
            part.layers[-1].weight *= 60
        network.sam_mask_decoder.iou_prediction_head.layers[-1].weight *= 20
    return network.requires_grad_(False)


def _photographs() -> Iterator[Image]:
    """The photographs that scikit-image brings."""
    yield from (chelsea()[:, :, :3], coffee(), astronaut(), rocket())


def _thresholds(
    network: SAM2Base, image: Image, common: dict[str, Any], survivors: int
) -> dict[str, float]:
    """Finds thresholds with which random weights give post-processing as much to do as trained
    ones: half of all masks pass their predicted IoU, and suppression leaves about so many."""
    chosen = {"pred_iou_thresh": 0.0, "stability_score_thresh": 0.05, "box_nms_thresh": 1.0}
    probe = Sam2.model_validate({**common, **chosen, "crop_n_layers": 0, "points_per_side": 8})
    generator = BatchedGenerator(network, probe, Machine(network.device.type))
    proposals: list[Proposals] = []

    def noted(found: Proposals, settings: Sam2) -> Proposals:
        proposals.append(found)
        return found

    with _replaced(batched, {"distinct_in_crop": noted}):
        generator([image])
    chosen["pred_iou_thresh"] = float(proposals[0].iou.median())
    passing = proposals[0][proposals[0].iou > chosen["pred_iou_thresh"]]
    for threshold in np.linspace(0.5, 1.0, 101):
        settings = probe.model_copy(update={"box_nms_thresh": float(threshold)})
        if len(distinct_in_crop(passing, settings)) >= min(survivors, len(passing)):
            break
    return {**chosen, "box_nms_thresh": float(threshold), "crop_nms_thresh": float(threshold)}


@contextmanager
def _replaced(owner: Any, names: dict[str, Callable]) -> Iterator[None]:
    kept = {name: getattr(owner, name) for name in names}
    for name, work in names.items():
        setattr(owner, name, work)
    try:
        yield
    finally:
        for name, work in kept.items():
            setattr(owner, name, work)


def _measure(
    engines: dict[str, Generator], photographs: Sequence[Image], rounds: int
) -> tuple[dict[str, list[float]], dict[str, list[Masks]]]:
    """Runs all engines by turns, after a first round that is not counted on a GPU."""
    seconds: dict[str, list[float]] = {name: [] for name in engines}
    found: dict[str, list[Masks]] = {}
    if torch.cuda.is_available():
        for generate in engines.values():
            generate(photographs[:1])
    for _ in range(rounds):
        for name, generate in engines.items():
            start = time.perf_counter()
            found[name] = _encoded(photographs, generate(photographs))
            seconds[name].append(time.perf_counter() - start)
    return seconds, found


def _encoded(photographs: Sequence[Image], regions: list[list[Region]]) -> list[Masks]:
    return [
        Masks.of(image.shape[0], image.shape[1], of_image, 2)
        for image, of_image in zip(photographs, regions, strict=True)
    ]


def _table(
    seconds: dict[str, list[float]],
    found: dict[str, list[Masks]],
    photographs: Sequence[Image],
) -> Table:
    reference = next(iter(seconds))
    table = Table("engine", "images/s (median)", "times", "masks an image", "found again")
    for name, taken in seconds.items():
        shares = map(_share, found[reference], found[name])
        table.add_row(
            name,
            f"{len(photographs) / np.median(taken):.4f}",
            f"{np.median(seconds[reference]) / np.median(taken):.2f}",
            f"{np.mean([len(masks) for masks in found[name]]):.0f}",
            f"{np.mean(list(shares)):.2%}",
        )
    return table


def _share(theirs: Masks, ours: Masks) -> float:
    """The share of the masks, matched one to one, with an IoU of at least 0.99."""
    if not len(theirs) or not len(ours):
        return float(len(theirs) == len(ours))
    one, other = ([masks.coco(mask) for mask in range(len(masks))] for masks in (theirs, ours))
    iou = np.asarray(rle.iou(one, other, np.zeros(len(other), np.uint8)))
    matched = iou[linear_sum_assignment(-iou)]
    return float((matched >= 0.99).sum() / max(len(one), len(other)))


def _breakdown(
    generator: BatchedGenerator, photographs: Sequence[Image], settings: Sam2, device: str
) -> Table:
    """Times the parts of the stage `masks`, one after the other; in the stage, files are read,
    encoded and written while the device works."""
    spent: dict[str, float] = {}

    def timed(name: str, work: Callable) -> Callable:
        def run(*args: Any) -> Any:
            with _clock(spent, name, device):
                return work(*args)

        return run

    parts = {"encoder": "encoder", "decoder": "decoder", "upscaler": "decoder, masks"}
    functions = {
        "fill": "post-processing, holes and specks",
        "may_be_stable": "post-processing, thresholds",
        "propose": "post-processing, thresholds",
        "distinct_in_crop": "post-processing, suppression",
        "distinct": "post-processing, suppression",
        "regions": "post-processing, bitmaps",
    }
    in_engine = {part: timed(name, getattr(generator, part)) for part, name in parts.items()}
    in_module = {part: timed(name, getattr(batched, part)) for part, name in functions.items()}
    with TemporaryDirectory() as folder:
        listed = _write_photographs(Path(folder), photographs)
        start = time.perf_counter()
        with _clock(spent, "decoding of image files", "cpu"):
            read = [read_image(Path(folder) / name) for name in listed.table["path"]]
        with _replaced(generator, in_engine), _replaced(batched, in_module):
            found = generator(read)
        with _clock(spent, "run lengths", "cpu"):
            masks = _encoded(read, found)
        with _clock(spent, "store", "cpu"):
            mask_cache = MaskCache(Path(folder) / "cache", len(settings.score_names))
            mask_cache.write(dict(zip(listed.ids, masks, strict=True)))
            write_store(Path(folder) / "masks.zarr", listed, settings, masks)
        whole = time.perf_counter() - start
    table = Table("part of the stage, batched engine", "share", "ms an image")
    for name, taken in [*spent.items(), ("the rest", whole - sum(spent.values()))]:
        table.add_row(name, f"{taken / whole:.1%}", f"{1000 * taken / len(photographs):.0f}")
    crops = sum(4**layer for layer in range(settings.crop_n_layers + 1))
    rate = crops * len(photographs) * _encoder_flops(generator.model) / spent["encoder"]
    peak = _peak_rate(device, generator.dtype)
    table.caption = (
        f"encoder: {rate / 1e12:.2f} TFLOP/s, {rate / peak:.0%} of the {peak / 1e12:.2f} "
        f"that a product of large matrices reaches; at a time: {generator.crops.value} crops, "
        f"{generator.points.value} points"
    )
    return table


def _write_photographs(folder: Path, photographs: Sequence[Image]) -> ImageFiles:
    rows = []
    for number, image in enumerate(photographs):
        path = folder / f"{number}.jpg"
        Pillow.fromarray(image).save(path, quality=92)
        rows.append((path.stem, path.name, sha256(path), image.shape[1], image.shape[0]))
    return ImageFiles("benchmark", pd.DataFrame(rows, columns=IMAGE_FILES.names))


def _peak_rate(device: str, dtype: torch.dtype) -> float:
    """Measures the floating-point operations a second of a product of large square matrices, the
    best of several."""
    side = 8192 if device == "cuda" else 2048
    matrix = torch.randn(side, side, device=device, dtype=dtype)
    spent = []
    for _ in range(6):
        taken: dict[str, float] = {}
        with _clock(taken, "product", device):
            matrix @ matrix
        spent.append(taken["product"])
    return 2 * side**3 / min(spent)


@contextmanager
def _clock(spent: dict[str, float], name: str, device: str) -> Iterator[None]:
    if device == "cuda":
        torch.cuda.synchronize()
    start = time.perf_counter()
    yield
    if device == "cuda":
        torch.cuda.synchronize()
    spent[name] = spent.get(name, 0.0) + time.perf_counter() - start


def _encoder_flops(model: SAM2Base) -> int:
    """Counts the floating-point operations that encoding one crop takes."""
    size = model.image_size
    with FlopCounterMode(display=False) as counter, torch.inference_mode():
        model.forward_image(torch.zeros(1, 3, size, size, device=model.device))
    return counter.get_total_flops()


def _machine(device: str) -> str:
    name = torch.cuda.get_device_name() if device == "cuda" else platform.processor() or "CPU"
    return f"{name}, torch {torch.__version__}, sam2 {version('sam2')}, "


if __name__ == "__main__":
    typer.run(main)
