"""How seconds, memory and disk of each stage grow with the number of images.

`python benchmarks/scale.py` makes data sets of small pictures below a temporary folder, runs the
stages on each as a user would, one process a stage, and deletes all of it.
"""

import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
import yaml
from costs import Cost, folder_bytes, measured
from PIL import Image as Pillow
from rich.console import Console
from rich.table import Table

from pipeline.progress import track
from stages.overrides import composed_of

REPOSITORY = Path(__file__).parents[1]
SIDE, CLASSES, TEST = 48, 10, 5
"""Of the pictures: pixels a side, classes, and of how many images one is a test image."""
STAGES = ("scan", "prepare", "masks", "crops", "train", "push", "finetune", "evaluate")
SETTINGS = (
    "experiment=frozen",
    "dataset=folder",
    "segmenter=patches",
    "crops.choose=largest",
    "crops.per_image=4",
    f"crops.side={SIDE}",
    "train.epochs=1",
    "finetune.epochs=1",
    "evaluate=quick",
)


def main(
    images: Annotated[list[int] | None, typer.Option(help="May be repeated.")] = None,
    stage: Annotated[str, typer.Option(help="The last stage that is run.")] = STAGES[-1],
) -> None:
    sizes = images or [1_000, 10_000]
    stages = STAGES[: STAGES.index(stage) + 1]
    costs, outputs = {}, {}
    for size in sizes:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            draw(folder / "pictures", size)
            clone(folder / "repository", folder / "pictures")
            costs[size] = [run(folder / "repository", stage) for stage in stages]
            outputs[size] = folder_bytes(folder / "repository" / "artifacts")
    show(stages, costs, outputs)


def draw(folder: Path, images: int) -> None:
    """Draws squares of the class's colour on noise, with a test image in every TEST."""
    for number in track(range(images), "Drawing pictures", images):
        chance = np.random.default_rng(number)
        kind, place = number % CLASSES, chance.integers(0, SIDE // 2, 2)
        pixels = chance.integers(0, 256, (SIDE // 8, SIDE // 8, 3), np.uint8)
        picture = Pillow.fromarray(pixels).resize((SIDE, SIDE))
        colour = tuple(int(v) for v in np.random.default_rng(kind).integers(0, 256, 3))
        picture.paste(colour, (*place.tolist(), *(place + SIDE // 3).tolist()))
        split = "test" if number // CLASSES % TEST == 0 else "train"
        path = folder / split / f"class-{kind}" / f"{number:06d}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        picture.save(path)


def clone(folder: Path, pictures: Path) -> None:
    """Copies the repository, with parameters for the pictures."""
    subprocess.run(["git", "clone", "-q", str(REPOSITORY), str(folder)], check=True)
    params = composed_of([*SETTINGS, f"dataset.root={pictures}"], folder / "conf")
    (folder / "params.yaml").write_text(yaml.safe_dump(params))


def run(repository: Path, stage: str) -> Cost:
    print(stage, flush=True)
    return measured([sys.executable, "-m", "stages", stage], repository, PYTHONPATH=str(repository))


def show(
    stages: tuple[str, ...],
    costs: dict[int, list[Cost]],
    outputs: dict[int, int],
) -> None:
    table = Table("stage", title="CPU seconds, peak memory in MB")
    for size in costs:
        table.add_column(f"{size:,} images", justify="right")
    for place, stage in enumerate(stages):
        of_stage = [its[place] for its in costs.values()]
        cells = [f"{cost.cpu:.0f} s, {cost.peak / 1e6:.0f}" for cost in of_stage]
        table.add_row(stage, *cells)
    made = [f"{total / 1e6:.0f} MB" for total in outputs.values()]
    table.add_row("artifacts/", *made)
    Console().print(table)


if __name__ == "__main__":
    typer.run(main)
