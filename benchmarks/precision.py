"""What a precision costs and gives on a GPU: `python benchmarks/precision.py`.

Of each backbone and precision: images a second through the backbone, and through a step of training
it; how far features are from a CPU's in float32, and those of eight images from those of the same
images in a larger batch, both as shares of the largest feature; whether two steps have the same
gradients to the bit.
"""

import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple, get_args

import torch
import typer
from rich.console import Console
from rich.table import Table
from torch import Tensor

from pipeline.backbone.backbone import Backbone
from pipeline.backbone.weights import PACKAGED
from pipeline.model.base.settings import Precision
from pipeline.training.fabric import Fabric, make_fabric
from pipeline.training.settings import Runtime
from stages.params import read_params

FEW = 8


class Case(NamedTuple):
    """A backbone, its weights, and the images it is given."""

    backbone: str
    pretrained: str
    side: int
    images: int


CASES = [Case(PACKAGED, "imagenet", 128, 256), Case("resnet50", "none", 224, 128)]


def main(rounds: int = 20) -> None:
    if not torch.cuda.is_available():
        sys.exit("PyTorch finds no GPU here, whose precisions are compared")
    table = Table(title=f"{torch.cuda.get_device_name()}, PyTorch {torch.__version__}")
    columns = ("backbone", "precision", "images/s", "trained/s", "off a CPU's", "by batch", "alike")
    for column in columns:
        table.add_column(column)
    runtime = read_params(Path(__file__).parents[1] / "params.yaml").runtime
    for case in CASES:
        for precision in get_args(Precision):
            table.add_row(case.backbone, precision, *_row(case, precision, runtime, rounds))
    Console().print(table)


def _row(case: Case, precision: Precision, runtime: Runtime, rounds: int) -> list[str]:
    fabric = make_fabric(runtime.model_copy(update={"device": "cuda"}), precision)
    torch.manual_seed(0)
    network = Backbone(case.backbone, case.pretrained).eval()
    images = torch.rand(case.images, 3, case.side, case.side)
    with torch.inference_mode():
        expected = network.feature_map(images[:FEW])
    network, images = network.to(fabric.device), images.to(fabric.device)
    few, all_of_them = (_features(network, some, fabric) for some in (images[:FEW], images))
    forward = _seconds(lambda: _features(network, images, fabric), rounds)
    network.train()
    step = _seconds(lambda: _gradients(network, images, fabric), rounds)
    one, other = (_gradients(network, images, fabric) for _ in range(2))
    return [
        f"{case.images / forward:,.0f}",
        f"{case.images / step:,.0f}",
        f"{_off(few, expected):.0e}",
        f"{_off(all_of_them[:FEW], few):.0e}",
        "yes" if torch.equal(one, other) else "no",
    ]


@torch.inference_mode()
def _features(network: Backbone, images: Tensor, fabric: Fabric) -> Tensor:
    with fabric.autocast():
        return network.feature_map(images)


def _gradients(network: Backbone, images: Tensor, fabric: Fabric) -> Tensor:
    network.zero_grad()
    with fabric.autocast():
        loss = network.feature_map(images).float().square().mean()
    loss.backward()
    gradients = [each.grad for each in network.parameters() if each.grad is not None]
    return torch.cat([each.flatten() for each in gradients])


def _off(one: Tensor, other: Tensor) -> float:
    one, other = one.float().cpu(), other.float().cpu()
    return float((one - other).abs().max() / other.abs().max())


def _seconds(work: Callable[[], Tensor], rounds: int) -> float:
    """Returns the seconds of a call, after a few that are not timed."""
    for _ in range(4):
        work()
    torch.cuda.synchronize()
    begun = time.perf_counter()
    for _ in range(rounds):
        work()
    torch.cuda.synchronize()
    return (time.perf_counter() - begun) / rounds


if __name__ == "__main__":
    typer.run(main)
