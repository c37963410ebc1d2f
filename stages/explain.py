"""Everything before it → artifacts/report/index.html, one page."""

import json

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file

from pipeline.crops.store import CropStore
from pipeline.datasets.index import SPLITS, Index
from pipeline.errors import ProtoMaskError
from pipeline.explain.gallery import Gallery
from pipeline.explain.prototypes import Prototypes
from pipeline.explain.report import ImageAnswers, Report
from pipeline.files import whole_folder
from pipeline.masks.store import MaskStore
from stages import workspace
from stages.finished import Finished
from stages.params import Params, read_params


def run() -> None:
    params = read_params(workspace.PARAMS)
    finished = Finished.read()
    index, crops, masks = finished.index, finished.crops, finished.masks()
    prototypes = finished.prototypes()
    gallery = Gallery(index, workspace.root_of(params), masks, crops)
    report = Report(index, gallery, prototypes, _read_answers(index))
    facts, metrics = _facts(params, index, masks, crops, prototypes), _read_metrics()
    with whole_folder(workspace.REPORT) as folder:
        report.write(folder / "index.html", facts, metrics)
    page = workspace.REPORT / "index.html"
    print(f"{page}: {page.stat().st_size / 1e6:.1f} MB, {len(prototypes)} prototypes")
    if gallery.missing:
        print(
            f"{len(gallery.missing)} photographs are not in {workspace.root_of(params)}, or are "
            "others there; the page shows only the crops of these"
        )


def _facts(
    params: Params, index: Index, masks: MaskStore, crops: CropStore, prototypes: Prototypes
) -> dict[str, str]:
    """Says what was run: nothing that changes from machine to machine."""
    images = ", ".join(
        f"{len(index.rows(split))} {purpose}"
        for split, purpose in zip(SPLITS, ("training", "validation", "test"), strict=True)
    )
    made = {key: value for key, value in masks.about["segmenter"].items() if value is not None}
    name = made.pop("name")
    cut, model, train = crops.settings, params.model, params.train
    grown = cut.min_box_area > 0
    trained = "frozen" if train.freeze_backbone else "trained"
    return {
        "Data set": f"{index.dataset}, {len(index.class_names)} classes",
        "Images": f"{len(index)}: {images}",
        "Segmenter": f"{name} ({_listed(made)})",
        "Masks": f"{masks.num_masks().sum()}, {masks.num_masks().mean():.1f} an image",
        "Crops": f"at most {cut.per_image} an image, {cut.size}×{cut.size} pixels, background "
        f"{cut.background}" + f", boxes of at least {cut.min_box_area:.3g} of the image" * grown,
        "Backbone": f"{model.backbone}, weights {_weights(model.pretrained)}, {trained}",
        "Embedding": f"{model.embedding_dim} numbers a crop",
        "Prototypes": f"{len(prototypes)}, of {model.prototypes_per_class} a class"
        + (
            f", pruned (nearest {params.prune.nearest}, threshold {params.prune.threshold})"
            if params.prune.enabled
            else ", not pruned"
        ),
        "Epochs": f"{train.warmup_epochs} warm-up, {train.epochs} joint, "
        f"{params.finetune.epochs} fine-tuning",
        "Seed": str(params.seed),
    }


def _weights(pretrained: str) -> str:
    """Names a file of weights without the folder it lies in on this machine."""
    return pretrained.replace("\\", "/").rsplit("/", 1)[-1]


def _listed(values: dict) -> str:
    return ", ".join(
        f"{key} {'/'.join(f'{item:g}' for item in value) if isinstance(value, list) else value}"
        for key, value in values.items()
    )


def _read_answers(index: Index) -> ImageAnswers:
    path = workspace.EVALUATE / "answers.safetensors"
    try:
        found = load_file(path)
        names = ("logits_NC", "similarity_NP", "crop_NP")
        logits_NC, similarity_NP, crop_NP = (np.asarray(found[name]) for name in names)
    except (OSError, KeyError, SafetensorError) as error:
        raise ProtoMaskError(f"{path} cannot be read ({error}): run `dvc repro evaluate`") from None
    return ImageAnswers(index.rows("test"), logits_NC, similarity_NP, crop_NP)


def _read_metrics() -> dict[str, dict[str, float]]:
    try:
        return json.loads(workspace.METRICS.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ProtoMaskError(
            f"{workspace.METRICS} cannot be read ({error}): run `dvc repro evaluate`"
        ) from None
