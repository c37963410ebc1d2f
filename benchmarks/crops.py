"""How fast crops are read, beside reading them as the published code keeps them.

`python benchmarks/crops.py` writes stores of random crops of 224×224 below a temporary folder (up
to 10,000 images, 12 GB with 8 crops each) and reads batches of 16 random images. The other way, a
folder of full-size masked PNGs that are decoded, cropped to their box and resized, is timed on
images of 500×375 in the same run.
"""

import tempfile
import time
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
import zarr
from PIL import Image
from rich.console import Console
from rich.table import Table

from pipeline.crops import writing
from pipeline.crops.settings import CropSettings
from pipeline.crops.store import FORMAT, CropStore

BATCH = 16


def main(
    sizes: Annotated[list[int] | None, typer.Option("--images", help="Images in a store.")] = None,
    crops: Annotated[int, typer.Option(help="Crops an image.")] = 8,
    batches: Annotated[int, typer.Option(help="Batches that are timed.")] = 200,
) -> None:
    table = Table("how crops are kept", "images", "crops a second", "again", title="one process")
    with tempfile.TemporaryDirectory() as folder:
        png = _png_rate(Path(folder), crops)
        table.add_row("masked PNGs", "20", f"{png:,.0f}", "")
        for images in sizes or [100, 1_000, 10_000]:
            path = Path(folder) / f"{images}.zarr"
            _write_random(path, images, _published(crops))
            first, again = _store_rates(CropStore(path), batches)
            table.add_row("crop store", f"{images:,}", f"{first:,.0f}", f"{again:,.0f}")
    Console().print(table)


def _published(per_image: int) -> CropSettings:
    return CropSettings(
        version=3,
        side=224,
        per_image=per_image,
        choose="largest",
        background="original",
        min_box_area=0.0,
        max_box_area=1.0,
    )


def _write_random(path: Path, images: int, settings: CropSettings) -> None:
    rng = np.random.default_rng(0)
    group = zarr.create_group(path, zarr_format=3)
    arrays = writing._create_arrays(group, images, settings)
    block = rng.integers(0, 256, arrays["crops"].chunks, np.uint8)
    for at in range(0, images, len(block)):
        arrays["crops"][at : at + len(block)] = block[: images - at]
        arrays["inside"][at : at + len(block)] = 255
    for name in ("valid", "boxes", "masks", "parts", "whole", "sizes"):
        arrays[name][...] = 1
    group.attrs.update(
        {"format": FORMAT, "settings": settings.model_dump(mode="json"), "part_names": {}}
    )


def _store_rates(store: CropStore, batches: int) -> tuple[float, float]:
    """Returns crops a second of random batches, and of the same batches again: what does not fit
    into the page cache, or was dropped from it, comes from the disk the first time."""
    rows = np.random.default_rng(1).integers(0, len(store), (batches, BATCH))
    rates = []
    for _ in range(2):
        start = time.perf_counter()
        for batch in rows:
            store.crops(batch)
        seconds = time.perf_counter() - start
        rates.append(batches * BATCH * store.valid.shape[1] / seconds)
    return rates[0], rates[1]


def _png_rate(folder: Path, crops: int) -> float:
    rng = np.random.default_rng(2)
    smooth = Image.fromarray(rng.integers(0, 256, (24, 32, 3), np.uint8)).resize((500, 375))
    boxes = []
    for number in range(20):
        low = rng.integers(0, 150, 2)
        high = low + rng.integers(100, 220, 2)
        pixels = np.zeros((375, 500, 3), np.uint8)
        box = (int(low[0]), int(low[1]), int(high[0]), int(high[1]))
        pixels[box[1] : box[3], box[0] : box[2]] = np.asarray(smooth.crop(box))
        Image.fromarray(pixels).save(folder / f"{number}.png")
        boxes.append(box)
    start = time.perf_counter()
    for number, box in enumerate(boxes):
        for _ in range(crops):
            with Image.open(folder / f"{number}.png") as image:
                np.asarray(image.crop(box).resize((224, 224), Image.Resampling.BILINEAR))
    return len(boxes) * crops / (time.perf_counter() - start)


if __name__ == "__main__":
    typer.run(main)
