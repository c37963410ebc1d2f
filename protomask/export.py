"""A finished experiment → a folder that travels (see `protomask.exported`)."""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pipeline
from pipeline.errors import ProtoMaskError, rerun
from pipeline.files import atomic_folder, sha256
from pipeline.masks.segmenter import Machine, with_fingerprint
from pipeline.model.base.saved import save_model
from pipeline.report.heatmaps import read_cut
from pipeline.saliency.prototypes import Prototypes
from pipeline.training.prototype_sources import read_sources, write_sources
from protomask.card import write_card
from protomask.exported import (
    CODEBOOK,
    CONFIG,
    PICTURES,
    SOURCES,
    WEIGHTS,
    Config,
    draw_cut,
    hashes_below,
    picture_name,
)
from protomask.named_parts import named_parts
from stages.finished import Finished
from stages.workspace import Workspace


def export_model(workspace: Workspace, out: Path) -> None:
    """Writes the finished model of a workspace with all that its answers need.

    The same model gives the same bytes.

    Args:
        workspace: of the finished and evaluated experiment.
        out: the folder to write, which is not there yet or empty.

    Raises:
        ProtoMaskError: something is missing, damaged or made from something else, the folder is not
            empty, or the segmenter finds masks in no other images.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ProtoMaskError(f"{out} is there already: name a new folder, or remove it first")
    params, finished = workspace.read_params(), Finished.read(workspace)
    finished.refuse_unless_evaluated_with(params)
    prototypes, parts = finished.prototypes(), named_parts(finished).parts
    measured = {path.name: _read(path) for path in (workspace.metrics, workspace.intervals)}
    with atomic_folder(out) as folder:
        save_model(folder, finished.network, finished.about)
        write_sources(read_sources(workspace.finetune / SOURCES), folder / SOURCES)
        _draw(folder / PICTURES, finished, prototypes)
        for name, values in measured.items():
            _write(folder / name, values)
        needed = finished.network.sees == "crops"
        files = _write_segmenter(folder, finished, workspace.machine(params)) if needed else {}
        config = Config(
            version=pipeline.__version__,
            data_set=finished.index.dataset,
            only_mask=params.explain.only_mask,
            part_names=dict(sorted(parts.names.items())),
            part_shares=dict(sorted(parts.shares.items())),
            codebook=files.get(CODEBOOK),
            weights=files.get(WEIGHTS),
            files=dict(hashes_below(folder)),
        )
        _write(folder / CONFIG, config.model_dump(mode="json"))
        metrics, intervals = measured.values()
        write_card(folder / "README.md", finished, prototypes, metrics, intervals)


def _draw(folder: Path, finished: Finished, prototypes: Prototypes) -> None:
    """Draws the view that each prototype came from."""
    folder.mkdir()
    places = zip(prototypes.rows_P.tolist(), prototypes.crop_P.tolist(), strict=True)
    for number, (row, crop) in enumerate(places):
        cut = read_cut(finished.crops, row, crop)
        draw_cut(cut.pixels, cut.inside).save(folder / picture_name(number), "PNG")


def _write_segmenter(folder: Path, finished: Finished, machine: Machine) -> dict[str, str]:
    """Writes the files that the segmenter needs; returns their names by what they are.

    Weights travel if this machine was given them as a file; published ones are downloaded anew.
    """
    segmenter = with_fingerprint(finished.about.segmenter).with_learnt(machine)
    segmenter.segment([], machine)  # is refused by one that finds no masks in other images
    written = {}
    learnt = segmenter.learnt()
    if learnt is not None:
        (folder / CODEBOOK).write_bytes(learnt)
        written[CODEBOOK] = CODEBOOK
    if machine.weights is not None and sha256(machine.weights) in finished.about.segmenter.values():
        written[WEIGHTS] = f"{WEIGHTS}{machine.weights.suffix}"
        shutil.copyfile(machine.weights, folder / written[WEIGHTS])
    return written


def _read(path: Path) -> dict[str, Any]:
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ProtoMaskError(f"{path} cannot be read ({error}): {rerun('evaluate')}") from None
    if not isinstance(values, dict):
        raise ProtoMaskError(f"{path} holds no metrics: {rerun('evaluate')}")
    return values


def _write(path: Path, values: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(values, indent=2, allow_nan=False) + "\n", encoding="utf-8")
