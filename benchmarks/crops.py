"""How fast crops are read and what they take, beside raw pixels and the published code's PNGs.

`python benchmarks/crops.py` writes stores of crops of 224×224 below a temporary folder and reads
batches of 16 random images. The crops are cut from scikit-image's photographs, or from those of
`--photographs`. In the same run come the same crops as an array in a file, read by offset, and a
folder of full-size masked PNGs that are decoded, cropped to their box and resized.
"""

import os
import tempfile
import time
from collections.abc import Callable
from itertools import cycle, islice
from pathlib import Path
from typing import Annotated, NamedTuple

import numpy as np
import typer
from costs import folder_bytes
from numpy.typing import NDArray
from PIL import Image
from rich.console import Console
from rich.table import Table
from skimage import data

from pipeline.crops.extraction import Crops, whole_image
from pipeline.crops.settings import NO_MASK, NO_PART, CropSettings, Storage
from pipeline.crops.store import CropStore
from pipeline.crops.writing import write_store
from pipeline.datasets.image_file import read_image

BATCH, SIDE = 16, 224
STORAGE: tuple[Storage, ...] = ("jpeg", "lossless")
CUT_IMAGES = 64
"""Images whose crops are cut; larger stores repeat them."""
PNG_IMAGES, PNG_SIZE, PNG_BATCHES = 20, (500, 375), 5


def main(
    sizes: Annotated[
        list[int] | None,
        typer.Option("--images", help="Images in a store; a lossless one is of the first number."),
    ] = None,
    crops: Annotated[int, typer.Option(help="Crops an image.")] = 8,
    batches: Annotated[int, typer.Option(help="Batches that are timed.")] = 200,
    raw: Annotated[int, typer.Option(help="Images in the array of raw pixels.")] = 1_000,
    photographs: Annotated[Path | None, typer.Option(help="A folder of them.")] = None,
) -> None:
    sizes = sizes or [100, 1_000, 10_000]
    columns = ("kB a crop", "of raw", "crops a second", "again", "of raw", "a second of CPU")
    table = Table("how crops are kept", "images", *columns, title="one process")
    known = cut_crops(read_photographs(photographs), crops)
    raw_size = SIDE**2 * 3
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        png, size = png_rates(folder / "pngs", known[0], min(batches, PNG_BATCHES))
        kept = (f"{size / 1000:.1f}", f"{size / raw_size:.2f}")
        rates = (f"{png.first:,.0f}", f"{png.again:,.0f}", "", f"{png.of_cpu:,.0f}")
        table.add_row("masked PNGs", str(PNG_IMAGES), *kept, *rates)
        plain = _raw_rates(folder / "raw", known, raw, batches)
        rates = (f"{plain.first:,.0f}", f"{plain.again:,.0f}", "", f"{plain.of_cpu:,.0f}")
        table.add_row("raw pixels", f"{raw:,}", f"{raw_size / 1000:.1f}", "", *rates)
        for storage in STORAGE:
            for images in sizes if storage == "jpeg" else sizes[:1]:
                path = folder / f"{storage} {images}.zarr"
                write_crops(path, known, images, storage)
                found = rates_of(CropStore(path).crops, images, crops, batches)
                size = folder_bytes(path / "crops") / images / crops
                table.add_row(
                    f"crop store, {storage}",
                    f"{images:,}",
                    f"{size / 1000:.1f}",
                    f"{size / raw_size:.2f}",
                    f"{found.first:,.0f}",
                    f"{found.again:,.0f}",
                    f"{found.again / plain.again:.2f}",
                    f"{found.of_cpu:,.0f}",
                )
    Console().print(table)


def read_photographs(folder: Path | None) -> list[NDArray[np.uint8]]:
    if folder is None:
        return [data.astronaut(), data.chelsea(), data.coffee(), data.rocket()]
    files = sorted(path for path in folder.rglob("*") if path.suffix in (".jpg", ".jpeg", ".png"))
    return [read_image(path) for path in files[:: max(1, len(files) // CUT_IMAGES)]]


def cut_crops(photographs: list[NDArray[np.uint8]], K: int) -> list[NDArray[np.uint8]]:
    """Cuts K random boxes, of a tenth to all of a side, of each of `CUT_IMAGES` images."""
    rng = np.random.default_rng(0)
    found = []
    for pixels in islice(cycle(photographs), CUT_IMAGES):
        image, size = Image.fromarray(pixels), np.array(pixels.shape[1::-1])
        wanted = (rng.uniform(0.1, 1, (K, 2)) * size).astype(int).clip(2)
        corners = (rng.uniform(0, 1, (K, 2)) * (size - wanted)).astype(int)
        boxes = np.concatenate([corners, corners + wanted], axis=1).tolist()
        bilinear = Image.Resampling.BILINEAR
        cut = [image.resize((SIDE, SIDE), bilinear, box) for box in boxes]
        found.append(np.stack([np.asarray(crop) for crop in cut]))
    return found


def write_crops(path: Path, known: list[NDArray[np.uint8]], images: int, storage: Storage) -> None:
    K = len(known[0])
    settings = CropSettings(
        version=3,
        side=SIDE,
        per_image=K,
        choose="largest",
        background="original",
        min_box_area=0.0,
        max_box_area=1.0,
        storage=storage,
    )
    inside, valid = np.ones((K, SIDE, SIDE), bool), np.ones(K, bool)
    boxes, masks = np.zeros((K, 4), np.int32), np.full(K, NO_MASK, np.int32)
    parts = np.full(K, NO_PART, np.int32)

    def cut(image: int) -> tuple[Crops, Crops]:
        pixels = known[image % len(known)]
        return Crops(pixels, inside, boxes, masks, parts, valid), whole_image(pixels[0], 1, SIDE)

    write_store(path, images, settings, cut, {"part_names": {}}, threads=2)


class Rates(NamedTuple):
    """Crops a second.

    Args:
        first: of random batches.
        again: of the same batches again; what is not in the page cache comes from the disk the
            first time.
        of_cpu: of both, a second that a core was busy: what other work on the machine spares.
    """

    first: float
    again: float
    of_cpu: float


def rates_of(
    read: Callable[[NDArray[np.int64]], object], images: int, K: int, batches: int
) -> Rates:
    rows = np.random.default_rng(1).integers(0, images, (batches, BATCH))
    rates, busy = [], time.process_time()
    for _ in range(2):
        start = time.perf_counter()
        for batch in rows:
            read(batch)
        rates.append(rows.size * K / (time.perf_counter() - start))
    return Rates(rates[0], rates[1], 2 * rows.size * K / (time.process_time() - busy))


def _raw_rates(path: Path, known: list[NDArray[np.uint8]], images: int, batches: int) -> Rates:
    with path.open("wb") as written:
        for crops in islice(cycle(known), images):
            written.write(crops.tobytes())
    shape, size = known[0].shape, known[0].nbytes
    with path.open("rb", buffering=0) as file:

        def read(batch: NDArray[np.int64]) -> None:
            pixels = np.empty((len(batch), *shape), np.uint8)
            for place, image in enumerate(batch.tolist()):
                os.preadv(file.fileno(), [pixels[place]], image * size)

        rates = rates_of(read, images, shape[0], batches)
    path.unlink()
    return rates


def png_rates(folder: Path, crops: NDArray[np.uint8], batches: int) -> tuple[Rates, float]:
    """Returns how fast crops are read as the published code does it, and the bytes of each."""
    boxes = _write_pngs(folder, crops[0])

    def read(batch: NDArray[np.int64]) -> None:
        for number in batch.tolist():
            for _ in crops:
                with Image.open(folder / f"{number}.png") as image:
                    cut = image.crop(boxes[number])
                    np.asarray(cut.resize((SIDE, SIDE), Image.Resampling.BILINEAR))

    found = rates_of(read, PNG_IMAGES, len(crops), batches)
    return found, folder_bytes(folder) / PNG_IMAGES


def _write_pngs(folder: Path, pixels: NDArray[np.uint8]) -> list[tuple[int, int, int, int]]:
    """Writes a picture for each mask, black outside its box; returns the boxes."""
    folder.mkdir()
    rng = np.random.default_rng(2)
    scene = Image.fromarray(pixels).resize(PNG_SIZE)
    boxes = []
    for number in range(PNG_IMAGES):
        low = rng.integers(0, 150, 2)
        high = low + rng.integers(100, 220, 2)
        masked = np.zeros((*PNG_SIZE[::-1], 3), np.uint8)
        box = (int(low[0]), int(low[1]), int(high[0]), int(high[1]))
        masked[box[1] : box[3], box[0] : box[2]] = np.asarray(scene.crop(box))
        Image.fromarray(masked).save(folder / f"{number}.png")
        boxes.append(box)
    return boxes


if __name__ == "__main__":
    typer.run(main)
