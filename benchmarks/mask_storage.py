"""What masks cost on disk, kept in three ways, for the K largest masks of each image.

`python benchmarks/mask_storage.py` measures the artifacts/masks.zarr of the repository it
is run in; the photographs are read for the PNGs.
"""

import io
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from PIL import Image
from rich.console import Console
from rich.table import Table

from pipeline.datasets.image_file import read_image
from pipeline.masks.masks import Masks
from pipeline.masks.store import MaskStore, write_store
from pipeline.progress import track
from stages.workspace import Workspace

workspace = Workspace()

PNG_IMAGES = 20


def main(largest: Annotated[int, typer.Option(help="Masks an image.")] = 11) -> None:
    params, image_files = workspace.read_params(), workspace.read_image_files()
    store = MaskStore(workspace.masks)
    images = range(len(store))
    kept = [_first(store.masks(image), largest) for image in track(images, "Reading masks")]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "masks.zarr"
        write_store(path, image_files, params.segmenter, kept)
        files = [file for file in path.rglob("*") if file.is_file()]
        ours = sum(file.stat().st_size for file in files) / len(kept)
    root = workspace.images_root(params)
    some = range(0, len(kept), max(1, len(kept) // PNG_IMAGES))
    pngs = [_png_bytes(read_image(root / image_files.table["path"][i]), kept[i]) for i in some]
    runs = [sum(len(masks.coco(mask)["counts"]) for mask in range(len(masks))) for masks in kept]
    table = Table(
        "how masks are kept", "kB an image", title=f"{len(kept)} images, {largest} largest"
    )
    table.add_row("masked RGB PNGs", f"{np.mean(pngs) / 1000:.1f}")
    table.add_row("run lengths (COCO)", f"{np.mean(runs) / 1000:.1f}")
    table.add_row(f"mask store ({len(files)} files)", f"{ours / 1000:.1f}")
    Console().print(table)


def _first(masks: Masks, count: int) -> Masks:
    names = ("counts", "boxes", "areas", "scores", "parts", "levels", "foreground")
    return replace(masks, **{name: getattr(masks, name)[:count] for name in names})


def _png_bytes(image: np.ndarray, masks: Masks) -> int:
    total = 0
    for mask in range(len(masks)):
        buffer = io.BytesIO()
        Image.fromarray(image * masks.full(mask)[..., None]).save(buffer, "png")
        total += buffer.tell()
    return total


if __name__ == "__main__":
    typer.run(main)
