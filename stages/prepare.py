"""Photographs → artifacts/index/: the index of images."""

import json
from dataclasses import replace
from pathlib import Path

from pipeline.datasets.dataset import DATASETS
from pipeline.datasets.index import SPLITS
from pipeline.datasets.listing import list_files
from pipeline.datasets.prepare import build_index, write_unreadable
from pipeline.datasets.remarks import summarised, write_remarks
from pipeline.datasets.repeats import find_repeats
from pipeline.errors import ProtoMaskError
from pipeline.files import atomic_folder
from stages import provenance
from stages.workspace import Workspace


def run(workspace: Workspace) -> None:
    params = workspace.read_params()
    dataset = params.dataset
    with atomic_folder(workspace.index_folder) as folder:
        data_set = DATASETS[dataset.name]
        if data_set.drawn:
            data_set.draw(folder, params.seed, params.runtime.workers)
            root, listing = folder, list_files(folder)
        else:
            root, listing = workspace.images_root(params), _read_listing(workspace.listing)
        index, unreadable, remarks = build_index(
            dataset.name,
            root,
            listing,
            num_classes=dataset.num_classes,
            seed=params.seed,
            fold=dataset.fold,
            folds=dataset.folds,
            max_bad_fraction=dataset.max_bad_fraction,
            threads=params.runtime.workers,
        )
        index = replace(index, made_with=provenance.tracked("prepare", params))
        index.write(folder / workspace.index.name)
        index.image_files.write(folder / workspace.image_files.name)
        write_unreadable(unreadable, folder / "unreadable.csv")
        write_remarks(remarks, folder / "remarks.csv")
    sizes = ", ".join(f"{len(index.rows(split))} {split}" for split in SPLITS)
    print(f"{len(index)} images of {len(index.class_names)} classes: {sizes}")
    for image in unreadable:
        print(f"left out: {image.path}: {image.reason}")
    for line in [*summarised(remarks), *map(str, find_repeats(index))]:
        print(line)


def _read_listing(path: Path) -> dict[str, str | None]:
    try:
        listing = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ProtoMaskError(f"no {path}: run `protomask scan` first") from None
    except ValueError:
        listing = None
    if not isinstance(listing, dict):
        raise ProtoMaskError(f"{path} is no listing: run `protomask scan` again")
    return listing
