"""How many times as fast as PyTorch OpenVINO computes a frozen backbone on a CPU.

`python benchmarks/engine.py` computes the last feature maps of random images in turns by both, in
one process and one thread, also where `runtime.engine=auto` leaves a backbone to PyTorch. The ratio
is of CPU seconds, the median over the rounds; the difference a share of the largest feature, for
which OpenVINO is refused if it is more than rounding. With `--classes` it names the classes of the
test images by the finished model of the repository it is run in instead, by both engines.
"""

import os
import tempfile
from pathlib import Path
from statistics import median
from typing import Annotated

import torch
import typer
from costs import cpu_seconds
from rich.console import Console
from rich.table import Table
from torch import Tensor

from pipeline.backbone.backbone import Backbone
from pipeline.backbone.engine import engine_of, version
from pipeline.backbone.weights import PACKAGED
from pipeline.errors import ProtoMaskError
from pipeline.model.base.inference import infer
from pipeline.model.base.network import valid_views
from pipeline.training.fabric import make_fabric
from pipeline.training.features import stored_embeddings
from stages.finished import Finished
from stages.params import read_params
from stages.workspace import Workspace

BACKBONES = [PACKAGED, "resnet50", "convnext_tiny", "vit_small_patch16_224"]


def main(
    backbone: Annotated[list[str] | None, typer.Option(help="Of timm; may be repeated.")] = None,
    side: Annotated[list[int] | None, typer.Option(help="May be repeated.")] = None,
    images: Annotated[int, typer.Option(help="Images of 128×128 a round; fewer larger ones.")] = 8,
    rounds: Annotated[int, typer.Option(help="Rounds that are timed, after one that is not.")] = 5,
    classes: Annotated[bool, typer.Option(help="Compare what a finished model says.")] = False,
) -> None:
    if classes:
        compare_classes()
        return
    torch.set_num_threads(1)
    params = read_params(Path(__file__).parents[1] / "params.yaml")
    make_fabric(params.runtime, "float32")  # keeps freed memory, as the stages do
    table = Table(title=f"OpenVINO {version()} beside PyTorch {torch.__version__}, one thread")
    for column in ("backbone", "side", "PyTorch, ms", "OpenVINO, ms", "times", "off", "auto"):
        table.add_column(column, no_wrap=column == "backbone")
    for name in backbone or BACKBONES:
        for pixels in side or [128, 224]:
            count = max(1, images * 128**2 // pixels**2)
            table.add_row(
                name, str(pixels), *_row(name, torch.rand(count, 3, pixels, pixels), rounds)
            )
    Console().print(table)


def compare_classes() -> None:
    """Prints how the class scores of the finished model differ from engine to engine."""
    workspace = Workspace()
    params, finished = workspace.read_params(), Finished.read(workspace)
    rows, network = finished.index.rows("test"), finished.network
    valid_NK = torch.from_numpy(finished.crops.valid[rows])
    scores = []
    for engine in ("pytorch", "openvino"):
        runtime = params.runtime.model_copy(update={"device": "cpu", "engine": engine})
        fabric = make_fabric(runtime, finished.about.precision)
        embedding_NVD = stored_embeddings(network, finished.crops, rows, fabric)
        scores.append(infer(network, embedding_NVD, valid_views(valid_NK, embedding_NVD)).logits_NC)
    one, other = scores
    differ = int((one.argmax(1) != other.argmax(1)).sum())
    off = float((one - other).abs().max() / one.abs().max())
    print(f"{differ} of {len(rows)} test images get another class; scores are off by {off:.0e}")


def _row(name: str, images: Tensor, rounds: int) -> list[str]:
    torch.manual_seed(0)
    network = Backbone(name, "imagenet" if name == PACKAGED else "none").eval()
    auto = engine_of("auto", network)
    with tempfile.TemporaryDirectory() as folder, torch.inference_mode():
        expected = network.feature_map(images)
        network.use("openvino", Path(folder))
        try:
            off = (network.feature_map(images) - expected).abs().max() / expected.abs().max()
        except ProtoMaskError:
            return ["", "refused", "", "", auto]
        pytorch, openvino = [], []
        for _ in range(rounds):
            network.engine = "pytorch"
            pytorch.append(cpu_seconds(lambda: network.feature_map(images)))
            network.engine = "openvino"
            openvino.append(cpu_seconds(lambda: network.feature_map(images)))
    times = median(one / other for one, other in zip(pytorch, openvino, strict=True))
    each = [f"{1000 * median(seconds) / len(images):.1f}" for seconds in (pytorch, openvino)]
    return [*each, f"{times:.2f}", f"{off:.0e}", auto]


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    typer.run(main)
