"""artifacts/push/ → artifacts/finetune/: the finished model."""

from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from pipeline.errors import ProtoMaskError, rerun
from pipeline.files import atomic_folder
from pipeline.model.base.saved import load_model, save_model
from pipeline.model.base.typicality import calibrated
from pipeline.training import learning
from pipeline.training.finetune import (
    class_scores,
    classes_below_threshold,
    finetune_and_prune,
)
from pipeline.training.prototype_sources import kept_rows, read_sources, write_sources
from stages import provenance
from stages.workspace import Workspace


def run(workspace: Workspace) -> None:
    params = workspace.read_params()
    index = workspace.read_index()
    network, about = load_model(workspace.push)
    about.refuse_unless(index.image_files)
    provenance.refuse_contradictions(about.made_with, params, workspace.push, "push")
    sources = read_sources(workspace.push / "prototypes.csv")
    labels = torch.from_numpy(index.labels[index.rows("train")])
    similarities, validation = _read_similarities(
        workspace.push / "similarities.safetensors",
        (len(labels), len(index.rows("val"))),
        network.num_prototypes,
    )
    if len(sources) != network.num_prototypes:
        raise ProtoMaskError(
            f"{workspace.push / 'prototypes.csv'} lists {len(sources)} prototypes, and the model "
            f"has {network.num_prototypes}: {rerun('push')}"
        )
    kept, alike, accuracy = finetune_and_prune(
        network, similarities, labels, params.finetune, params.prune, params.seed
    )
    doubts = about.not_learned + learning.doubts_of_accuracy(accuracy, network.num_classes)
    made_with = {**about.made_with, "finetune": provenance.tracked("finetune", params)}
    largest = class_scores(network, validation[:, kept]).amax(dim=1)
    typical = calibrated(largest.numpy())
    found = {"made_with": made_with, "not_learned": doubts, "typical": typical}
    with atomic_folder(workspace.finetune) as folder:
        save_model(folder, network, about.model_copy(update=found))
        write_sources(kept_rows(sources, kept, alike), folder / "prototypes.csv")
    several = alike[alike > 1]
    if len(several):
        print(f"{len(several)} prototypes stand for {several.sum()} that are alike")
    unweighted = len(sources) - int(alike.sum())
    if unweighted and not params.prune.enabled:
        print(f"{unweighted} prototypes have no weight for any class and were removed")
    if params.prune.enabled:
        print(f"{len(kept)} of {len(sources)} prototypes kept")
        for label in classes_below_threshold(labels, network.class_of, params.prune):
            print(
                f"{about.class_names[label]} has fewer training images than prune.threshold, "
                f"{params.prune.threshold}: no prototype can pass, and one was kept"
            )
    if doubts:
        print(learning.said(doubts))
    print(f"training accuracy {accuracy:.4f}")


def _read_similarities(
    path: Path, images: tuple[int, int], prototypes: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Returns those of the training and of the validation images, of which there are so many."""
    try:
        found = load_file(path)
        similarities = found["similarity"], found["validation"]
        for tensor, count in zip(similarities, images, strict=True):
            if tensor.shape != (count, prototypes):
                raise ValueError(f"shape {tuple(tensor.shape)} instead of {(count, prototypes)}")
    except (OSError, KeyError, ValueError, SafetensorError) as error:
        raise ProtoMaskError(f"{path} cannot be read ({error}): {rerun('push')}") from None
    return similarities
