"""artifacts/push/ → artifacts/finetune/: the finished model."""

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from pipeline.errors import ProtoMaskError
from pipeline.files import whole_folder
from pipeline.model.saved import load_model, save_model
from pipeline.training.finetune import finetune, prototypes_to_keep
from pipeline.training.record import read_record, write_record
from stages import workspace
from stages.params import read_params


def run() -> None:
    params = read_params(workspace.PARAMS)
    index = workspace.read_index()
    network, about = load_model(workspace.PUSH)
    about.refuse_unless(index.photographs)
    record = read_record(workspace.PUSH / "prototypes.csv")
    labels = torch.from_numpy(index.labels[index.rows("train")])
    distances = _distances((len(labels), len(network.prototypes)))
    if len(record) != len(network.prototypes):
        raise ProtoMaskError(
            f"{workspace.PUSH / 'prototypes.csv'} lists {len(record)} prototypes, and the model "
            f"has {len(network.prototypes)}: run `dvc repro push`"
        )
    finetune(network, distances, labels, params.finetune, params.seed)
    if params.prune.enabled:
        kept = prototypes_to_keep(distances, labels, network.class_of, params.prune)
        print(f"{len(kept)} of {len(record)} prototypes kept")
        network.keep(kept)
        distances = distances[:, kept]
        record = record.iloc[kept.tolist()].assign(prototype=range(len(kept)))
        finetune(network, distances, labels, params.finetune, params.seed)
    with whole_folder(workspace.FINETUNE) as folder:
        save_model(folder, network, about)
        write_record(record, folder / "prototypes.csv")
    logits = network.logits(network.similarity(distances))
    accuracy = (logits.argmax(1) == labels).float().mean()
    print(f"training accuracy {accuracy:.4f}")


def _distances(shape: tuple[int, int]) -> torch.Tensor:
    path = workspace.PUSH / "distances.safetensors"
    try:
        distances = load_file(path)["distance"]
        if distances.shape != shape:
            raise ValueError(f"shape {tuple(distances.shape)} instead of {shape}")
    except (OSError, KeyError, ValueError, SafetensorError) as error:
        raise ProtoMaskError(f"{path} cannot be read ({error}): run `dvc repro push`") from None
    return distances
