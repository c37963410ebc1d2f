"""How well segmenters find objects and parts, and what they cost, side by side in one run.

`python benchmarks/segmenters.py --pets FOLDER --cub FOLDER` draws `demo`, reads the data sets whose
folders are given, and segments the same images of each with every segmenter, as its preset in
`conf/` says: `--images` of the test split, chosen by the seed. A segmenter that learns from images
is fitted to the others of the data set. The metrics are those of the group `segmentation`
(docs/metrics.md). Seconds are CPU time in one process and one thread, so none of a GPU: those of
the fit and of segmenting all images, for one image. What a fit keeps of its images makes their own
segmentation faster, so as many of them are timed as of the test split.
"""

import os
import resource
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, NamedTuple

import numpy as np
import torch
import typer
from dvc.utils.hydra import compose_and_dump
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table
from threadpoolctl import threadpool_limits

from pipeline.datasets.dataset import DATASETS
from pipeline.datasets.image_file import read_label_image
from pipeline.datasets.index import Index
from pipeline.datasets.listing import list_files
from pipeline.datasets.prepare import build_index
from pipeline.errors import ProtoMaskError
from pipeline.files import sha256
from pipeline.masks.masks import Masks
from pipeline.masks.segmenter import Machine, Segmenter, Source
from pipeline.metrics.gathering import parts_of
from pipeline.metrics.judging import Knowledge, Known, judge, mean_part_iou, over_images
from pipeline.progress import track
from pipeline.workers import cores
from stages.params import read_params

CONF = Path(__file__).parents[1] / "conf"
SEGMENTERS = ("patches", "felzenszwalb", "parts", "drawn")
ROWS = {
    "masks": "masks an image",
    "seconds": "s an image and core",
    "fit": "of these, of the fit",
    "object_iou": "object IoU",
    "boundary_f": "boundary F",
    "foreground_area": "foreground, of the image",
    "parts_on_foreground": "parts on foreground",
    "best_object_iou": "best mask of the object, IoU",
    "best_part_iou": "best mask of a part, IoU",
    "aimed_part_iou": "best mask of 7 parts, IoU",
    "part_nmi": "part NMI",
    "part_ari": "part ARI",
}
Figures = Mapping[str, float]
"""Numbers by the names of `ROWS`."""
AllFigures = dict[tuple[str, str], Figures]
"""(Data set, segmenter) → numbers."""


class Aim(NamedTuple):
    """What the segmenter `parts` has to reach.

    Args:
        dataset: the data set that it is measured on.
        row: the name of the number in `ROWS`.
        limit: what the number must reach, or must not exceed.
        wanted: what it should reach; None for no more than the limit.
        at_most: whether the limit must not be exceeded.
    """

    dataset: str
    row: str
    limit: float
    wanted: float | None = None
    at_most: bool = False


AIMED_PARTS = ("crown", "beak", "throat", "breast", "belly", "wing", "tail")
"""The parts in which classes of `demo` differ, but for the wing bar."""
AIMS = (
    Aim("pets", "object_iou", 82, wanted=88),
    Aim("demo", "object_iou", 70, wanted=85),
    Aim("cub200", "part_nmi", 45, wanted=60),
    Aim("demo", "aimed_part_iou", 45, wanted=60),
    Aim("cub200", "parts_on_foreground", 92),
    Aim("cub200", "foreground_area", 50, at_most=True),
    Aim("demo", "seconds", 0.25, at_most=True),
)
JUDGED, BESIDE = "parts", "felzenszwalb"


@dataclass(frozen=True)
class Sample:
    """The images of a data set that segmenters are measured on.

    Args:
        index: index of all its images.
        root: the folder that their paths are relative to.
        rows: int64, the images that are measured, as rows of the index.
    """

    index: Index
    root: Path
    rows: NDArray[np.int64]

    @property
    def others(self) -> NDArray[np.int64]:
        return self.index.rows("train", "val")

    def sources(self, rows: NDArray[np.int64]) -> list[Source]:
        table = self.index.table.iloc[rows]
        pairs = zip(table["path"], table["sha256"], strict=True)
        return [Source(self.root, path, digest) for path, digest in pairs]

    def known(self, row: int) -> Known:
        """Returns what is labelled in an image; boxes are no object masks."""
        index, labels = self.index, self.index.table["part_mask_path"].iloc[row]
        return Known(
            index.object_mask(row) if index.object_masks_from == "mask" else None,
            parts_of(index, row).numpy() if index.part_names else None,
            None if labels is None else read_label_image(self.root / labels),
            len(index.part_names),
        )


def main(
    demo: Annotated[Path | None, typer.Option(help="Drawn already; drawn anew if none.")] = None,
    pets: Annotated[Path | None, typer.Option(help="Its folder; left out if none.")] = None,
    cub: Annotated[Path | None, typer.Option(help="Its folder; left out if none.")] = None,
    images: Annotated[int, typer.Option(min=1, help="Test images a data set, at most.")] = 100,
    segmenter: Annotated[
        list[str] | None, typer.Option(help=f"A preset; {', '.join(SEGMENTERS)} if none.")
    ] = None,
    weights: Annotated[
        list[str] | None, typer.Option(help="PRESET=FILE: sam2 or slit with its weights, too.")
    ] = None,
    device: Annotated[str, typer.Option(help="For segmenters that use one.")] = "cpu",
    seed: Annotated[int, typer.Option(min=0, help="Of the drawings and of the sample.")] = 0,
) -> None:
    console = Console(soft_wrap=True)
    machines = {name: Machine(device) for name in segmenter or SEGMENTERS}
    machines |= {name: Machine(device, weights=file) for name, file in _files(weights or [])}
    torch.set_num_threads(1)
    figures: AllFigures = {}
    with TemporaryDirectory() as folder, threadpool_limits(1):
        made = dict(_presets(machines, Path(folder), console))
        folders = {"demo": demo or _draw(Path(folder) / "demo", seed), "pets": pets, "cub200": cub}
        for dataset, root in folders.items():
            if root is None:
                console.print(f"{dataset}: left out, no folder is given")
                continue
            sample = _sample(dataset, root, images, seed)
            console.print(f"{dataset}: {len(sample.rows)} of {len(sample.index)} images")
            for name, of_preset in made.items():
                cache = Path(folder) / dataset / name
                try:
                    figures[dataset, name] = _measure(of_preset, sample, machines[name], cache)
                except ProtoMaskError as error:
                    console.print(f"{name} on {dataset}: left out, {error}")
    console.print(_table(figures, list(folders), list(made)))
    if JUDGED in made:
        console.print(_aims(figures))


def _files(weights: list[str]) -> Iterator[tuple[str, Path]]:
    """Yields the presets and files that PRESET=FILE names."""
    for given in weights:
        name, _, file = given.partition("=")
        if not Path(file).is_file():
            raise typer.BadParameter(f"--weights {given}: PRESET=FILE expected, and such a file")
        yield name, Path(file)


def _presets(
    machines: Mapping[str, Machine], folder: Path, console: Console
) -> Iterator[tuple[str, Segmenter]]:
    """Yields the segmenters of presets, with the hashes of the weights that are given."""
    for name, machine in machines.items():
        if not (CONF / "segmenter" / f"{name}.yaml").is_file():
            console.print(f"{name}: left out, there is no such preset")
            continue
        overrides = [f"segmenter={name}"]
        if machine.weights is not None:
            overrides.append(f"segmenter.weights_sha256={sha256(machine.weights)}")
        path = folder / f"{name}.yaml"
        compose_and_dump(path, str(CONF), None, "config", "", overrides)
        yield name, read_params(path).segmenter


def _draw(folder: Path, seed: int) -> Path:
    folder.mkdir()
    DATASETS["demo"].draw(folder, seed, workers=cores())
    return folder


def _sample(dataset: str, root: Path, images: int, seed: int) -> Sample:
    index, *_ = build_index(dataset, root, list_files(root), seed=seed)
    rows = index.rows("test")
    chosen = np.random.default_rng(seed).permutation(rows)[:images]
    return Sample(index, root, np.sort(chosen))


def _measure(segmenter: Segmenter, sample: Sample, machine: Machine, cache: Path) -> Figures:
    """Fits a segmenter to the images outside the test split, segments the sample and judges it."""
    others = sample.sources(sample.others)
    start = _cpu_seconds()
    fitted = segmenter.fit(others, cache, machine) if hasattr(segmenter, "fit") else segmenter
    fit = (_cpu_seconds() - start) / len(sample.index)
    fitted.segment_sources(others[:1], machine)  # imports what it needs
    masks, seconds = _segment(fitted, sample.sources(sample.rows), machine)
    learned = {}
    if fitted is not segmenter:
        step = max(1, len(others) // len(masks))
        _, of_others = _segment(fitted, others[::step][: len(masks)], machine)
        share = len(others) / len(sample.index)
        seconds = fit + share * of_others + (1 - share) * seconds
        learned = {"fit": fit}
    number = float(np.mean([len(found) for found in masks]))
    return {"masks": number, "seconds": seconds, **learned, **_judge(sample, masks)}


def _cpu_seconds() -> float:
    """Returns the CPU time of this process and of the processes that it has waited for."""
    return sum(os.times()[:4])


def _segment(
    segmenter: Segmenter, sources: list[Source], machine: Machine
) -> tuple[list[Masks], float]:
    """Returns the masks of each image, and the CPU time for one."""
    size, masks = segmenter.images_per_batch, []
    start = _cpu_seconds()
    for at in track(range(0, len(sources), size), segmenter.name):
        masks += segmenter.segment_sources(sources[at : at + size], machine)
    return masks, (_cpu_seconds() - start) / len(masks)


def _judge(sample: Sample, masks: list[Masks]) -> Figures:
    names = sample.index.part_names
    parts, levels, foreground = (
        np.concatenate([getattr(found, field) for found in masks])
        for field in ("parts", "levels", "foreground")
    )
    knowledge = Knowledge.of(parts, levels, foreground, len(names))
    rows = [
        judge(found, sample.known(row), knowledge)
        for row, found in zip(sample.rows.tolist(), masks, strict=True)
    ]
    judged = {name: np.stack([row[name] for row in rows]) for name in rows[0]}
    means = {name: float(value.mean()) for name, value in judged.items() if value.ndim == 1}
    if "part_iou" in judged and set(AIMED_PARTS) <= set(names):
        of_part = mean_part_iou(judged["part_iou"])
        means["aimed_part_iou"] = float(of_part[[names.index(part) for part in AIMED_PARTS]].mean())
    return means | over_images(judged)


def _table(figures: AllFigures, datasets: list[str], segmenters: list[str]) -> Table:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    table = Table(
        "data set",
        "in %, if not said otherwise",
        caption=f"largest memory of the process: {peak:.1f} GB",
    )
    for name in segmenters:
        table.add_column(name, justify="right")
    for dataset in datasets:
        found = [figures.get((dataset, name), {}) for name in segmenters]
        for row, label in ROWS.items():
            if any(row in of for of in found):
                table.add_row(dataset, label, *(_number(row, of.get(row)) for of in found))
        table.add_section()
    return table


def _number(row: str, value: float | None) -> str:
    if value is None:
        return "–"
    return f"{value:.3f}" if row in ("seconds", "fit") else f"{value:.1f}"


def _aims(figures: AllFigures) -> Table:
    table = Table("what parts must reach (and should)", "parts", "reached", BESIDE)
    for aim in AIMS:
        value, beside = (figures.get((aim.dataset, of), {}).get(aim.row) for of in (JUDGED, BESIDE))
        bound = "at most" if aim.at_most else "at least"
        wanted = "" if aim.wanted is None else f" ({aim.wanted:g})"
        said = f"{aim.dataset}: {ROWS[aim.row]} {bound} {aim.limit:g}{wanted}"
        reached = "not measured" if value is None else "yes" if _is_reached(aim, value) else "no"
        table.add_row(said, _number(aim.row, value), reached, _number(aim.row, beside))
    return table


def _is_reached(aim: Aim, value: float) -> bool:
    return value <= aim.limit if aim.at_most else value >= aim.limit


if __name__ == "__main__":
    typer.run(main)
