"""Everything before it → artifacts/report/: index.html, a page a class, one of the parts."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pipeline.crops.settings import CropSettings
from pipeline.datasets.index import SPLITS
from pipeline.datasets.repeats import find_repeats, numbers
from pipeline.errors import ProtoMaskError, rerun
from pipeline.files import atomic_folder
from pipeline.masks.part_names import read_part_names
from pipeline.masks.store import MaskStore
from pipeline.report.heatmaps import relevance_of
from pipeline.report.image_renderer import ImageRenderer
from pipeline.report.metric_table import Measured
from pipeline.report.report import Report, Run
from pipeline.saliency.maps import SimilarPlaces
from pipeline.saliency.prototypes import Prototypes
from pipeline.saliency.views import Views
from pipeline.training.fabric import device_of
from stages import provenance, reproduction
from stages.finished import Finished
from stages.params import Params
from stages.workspace import Workspace

BACKGROUND = "complexity.background_overlap"


def run(workspace: Workspace) -> None:
    params = workspace.read_params()
    finished = Finished.read(workspace)
    finished.refuse_unless_evaluated_with(params)
    index, crops, masks = finished.index, finished.crops, finished.masks()
    prototypes = finished.prototypes()
    network = finished.network.to(device_of(params.runtime))
    root = workspace.images_root(params)
    names = read_part_names(workspace.part_names, masks.about["segmenter"], masks.part_names)
    renderer = ImageRenderer(index, root, masks, crops, prototypes.views)
    report = Report(
        index,
        renderer,
        prototypes,
        network.head().prototypes_PD.cpu().numpy(),
        finished.outputs(),
        relevance_of(network),
        params.explain.only_mask,
        SimilarPlaces(network) if network.in_cells else None,
        finished.about.not_learned,
        names,
    )
    ran = Run(
        _facts(params, finished, masks, prototypes) | _made_from(workspace, finished),
        reproduction.command(workspace, params),
        reproduction.parameters(provenance.read_made_with(workspace.made_with), params),
        _read_curves(workspace),
    )
    with atomic_folder(workspace.report) as folder:
        report.write(
            folder,
            ran,
            _read_measured(workspace),
            params.seed,
            params.explain.images,
            _read_background(workspace, finished),
        )
    _say_sizes(workspace.report)
    for remark in filter(None, (names.remark, names.unknown(masks.parts().tolist()))):
        print(remark)
    if renderer.missing:
        print(
            f"{len(renderer.missing)} photographs are not in {root}, or are others there; the "
            "pages show only the crops of these"
        )


def _made_from(workspace: Workspace, finished: Finished) -> dict[str, str]:
    """Says which code and which photographs the report is of."""
    code, images = reproduction.code(workspace), finished.index.image_files.digest()
    return ({"Code": code} if code else {}) | {"Hash of the images": images[:16]}


def _read_curves(workspace: Workspace) -> dict[str, dict[str, pd.DataFrame]]:
    """Reads the training curves: metric → split → table."""
    folder = workspace.train / "curves" / "plots" / "metrics"
    return {
        metric: {
            split: pd.read_csv(path, sep="\t")
            for split in ("train", "val")
            for path in [folder / split / f"{metric}.tsv"]
            if path.is_file()
        }
        for metric in ("loss", "accuracy")
    }


def _say_sizes(folder: Path) -> None:
    for name, what in (
        ("index.html", "the report"),
        ("classes/*.html", "pages of classes"),
        ("images/*.html", "pages of test images, which images.html lists"),
    ):
        sizes = [path.stat().st_size / 1e6 for path in folder.glob(name)]
        several = f" at most, {sum(sizes):.1f} MB together" * (len(sizes) > 1)
        print(f"{folder / name}: {what}, {max(sizes):.1f} MB{several}")


def _facts(
    params: Params, finished: Finished, masks: MaskStore, prototypes: Prototypes
) -> dict[str, str]:
    """Says what was run: nothing that changes from machine to machine."""
    index, network = finished.index, finished.network
    images = ", ".join(
        f"{len(index.rows(split))} {purpose}"
        for split, purpose in zip(SPLITS, ("training", "validation", "test"), strict=True)
    )
    made = {key: value for key, value in masks.about["segmenter"].items() if value is not None}
    name = made.pop("name")
    model, train = params.model, params.train
    said = {"name", "code", "backbone", "pretrained"}
    own = model.model_dump(exclude=said, exclude_none=True)
    trained = "frozen" if train.freeze_backbone else "trained"
    return {
        "Data set": f"{index.dataset}, {len(index.class_names)} classes",
        "Images": f"{len(index)}: {images}",
        "Repeated pictures": numbers(find_repeats(index)),
        "Segmenter": f"{name} ({_listed(made)})",
        "Masks": f"{masks.num_masks().sum()}, {masks.num_masks().mean():.1f} an image",
        **_seen(prototypes.views, finished.crops.settings),
        "Backbone": f"{model.backbone}, weights {_weights(model.pretrained)}, {trained}",
        "Model": f"{model.name} ({_listed(own)})" if own else model.name,
        "Prototypes": _counted(params, prototypes),
        "Epochs": f"{train.warmup_epochs} warm-up, {train.epochs} joint"
        + f", {params.finetune.epochs} fine-tuning" * network.finetunes,
        "Seed": str(params.seed),
    }


def _seen(views: Views, cut: CropSettings) -> dict[str, str]:
    """Says what the model looks at."""
    pixels = f"{cut.side}×{cut.side} pixels"
    if views.kind == "cells":
        rows, columns = views.grid
        return {"Images seen": f"whole, {pixels}, in {rows}×{columns} cells"}
    if views.kind == "image":
        return {"Images seen": f"whole, {pixels}"}
    return {
        "Crops": f"at most {cut.per_image} an image, {pixels}, background {cut.background}"
        + ", foreground masks only" * (cut.choose == "parts")
        + f", boxes of at least {cut.min_box_area:.3g} of the image" * (cut.min_box_area > 0)
        + f", boxes of at most {cut.max_box_area:.3g} of the image" * (cut.max_box_area < 1)
    }


def _counted(params: Params, prototypes: Prototypes) -> str:
    if prototypes.views.kind == "image":
        return "none"
    prune, alike = params.prune, int(prototypes.alike_P.sum())
    merged = f", which stand for {alike}" * (alike > len(prototypes))
    pruned = f", pruned (nearest {prune.nearest}, threshold {prune.threshold})"
    return f"{len(prototypes)}{merged}" + (pruned if prune.enabled else ", not pruned")


def _weights(pretrained: str) -> str:
    """Names a file of weights without the folder it lies in on this machine."""
    return pretrained.replace("\\", "/").rsplit("/", 1)[-1]


def _listed(values: dict) -> str:
    return ", ".join(
        f"{key} {'/'.join(f'{item:g}' for item in value) if isinstance(value, list) else value}"
        for key, value in values.items()
    )


def _read_measured(workspace: Workspace) -> Measured:
    notes = _read_json(workspace.evaluate / "notes.json", "unavailable", "no_better", "remarks")
    plots = sorted((workspace.evaluate / "ranks").glob("*.csv"))
    return Measured(
        _read_json(workspace.metrics),
        _read_json(workspace.intervals),
        notes["unavailable"],
        notes["no_better"],
        notes["remarks"],
        {path.stem: pd.read_csv(path) for path in plots},
    )


def _read_background(workspace: Workspace, finished: Finished) -> NDArray[np.float64] | None:
    """Reads the background overlap of the test images, in the order of the model's outputs."""
    path = workspace.evaluate / "images.parquet"
    try:
        table = pd.read_parquet(path).set_index("image")
    except (OSError, KeyError, ValueError) as error:
        raise ProtoMaskError(f"{path} cannot be read ({error}): {rerun('evaluate')}") from None
    if BACKGROUND not in table:
        return None
    ids = finished.index.ids
    tested = [ids[row] for row in finished.index.rows("test").tolist()]
    return table[BACKGROUND].reindex(tested).to_numpy(np.float64)


def _read_json(path: Path, *wanted: str) -> dict[str, dict]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        missing = [key for key in wanted if key not in found]
        if missing:
            raise ValueError(f"it lacks {', '.join(missing)}")
        return found
    except (OSError, TypeError, ValueError) as error:
        raise ProtoMaskError(f"{path} cannot be read ({error}): {rerun('evaluate')}") from None
