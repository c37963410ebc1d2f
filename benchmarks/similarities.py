"""How far test images are from prototypes, what the similarity makes of it, and what a reach does.

Run in a repository in which `dvc repro` has finished a model whose prototypes are points in the
embedding space: `python benchmarks/similarities.py`. The pushed model is finished again with each
reach, all else as `params.yaml` has it.
"""

import copy

import torch
import typer
from rich.console import Console
from rich.table import Table
from torch import Tensor

from pipeline.metrics.groups.compactness import local_size, sparsity
from pipeline.model.base.inference import infer
from pipeline.model.base.network import valid_views
from pipeline.model.base.saved import load_model
from pipeline.training.fabric import make_fabric
from pipeline.training.features import stored_embeddings
from pipeline.training.finetune import finetune_and_prune
from stages.finished import Finished
from stages.workspace import Workspace

workspace = Workspace()

SHARES = torch.tensor([0.05, 0.5, 0.95], dtype=torch.float64)
REACHES = (1.0, 0.5, 0.2, 0.1, 0.05)


def main() -> None:
    params, finished = workspace.read_params(), Finished.read(workspace)
    index, crops = finished.index, finished.crops
    pushed, about = load_model(workspace.push)
    train, test = index.rows("train"), index.rows("test")
    train_N, test_N = (torch.from_numpy(index.labels[rows]) for rows in (train, test))
    fabric, cache = make_fabric(params.runtime, about.precision), workspace.feature_cache(params)
    among = index.rows("train", "val")
    known = stored_embeddings(pushed, crops, train, fabric, cache, among)
    unknown = stored_embeddings(pushed, crops, test, fabric, cache)
    valid = torch.from_numpy(crops.valid)
    valid_train, valid_test = valid_views(valid[train], known), valid_views(valid[test], unknown)
    train_NP = infer(pushed, known, valid_train).similarity_NP
    test_NP = infer(pushed, unknown, valid_test).similarity_NP
    size = pushed.head().prototypes_PD.shape[1]
    table = Table(
        "test images and prototypes",
        *(f"{share:.0%}" for share in SHARES.tolist()),
        title=f"{index.dataset}, D = {size}: quantiles",
    )
    own_NP = pushed.own_CP.cpu()[test_N]
    for name, chosen in (("of a class", own_NP), ("of two classes", ~own_NP)):
        found = test_NP[chosen].double().quantile(SHARES)
        distance = _distances(found.flip(0), params.model.model_dump()["epsilon"])
        table.add_row(f"squared distance, {name}", *_said(distance))
        table.add_row(f"similarity, {name}", *_said(found))
    Console().print(table)
    table = Table("reach", "local size", "sparsity", "test accuracy")
    for reach in REACHES:
        network = copy.deepcopy(pushed).cpu()
        settings = params.finetune.model_copy(update={"reach": reach})
        finetune_and_prune(network, train_NP, train_N, settings, params.prune, params.seed)
        outputs = infer(network, unknown, valid_test)
        accuracy = (outputs.logits_NC.argmax(1) == test_N).float().mean()
        local = local_size(outputs.similarity_NP).mean()
        V = network.head().weights_CP
        table.add_row(f"{reach:g}", f"{local:.1f}", f"{sparsity(V):.1f}", f"{accuracy:.3f}")
    Console().print(table)


def _distances(similarity: Tensor, epsilon: float) -> Tensor:
    """Returns the squared distances of similarities: s = log((d + 1)/(d + ε)), solved for d."""
    ratio = similarity.exp()
    return (1 - epsilon * ratio) / (ratio - 1)


def _said(values: Tensor) -> list[str]:
    return [f"{value:.3g}" for value in values.tolist()]


if __name__ == "__main__":
    typer.run(main)
