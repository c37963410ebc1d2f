"""OpenVINO computes what PyTorch does, and says so where it cannot."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import pipeline.backbone.engine
from pipeline.backbone.backbone import Backbone
from pipeline.backbone.engine import PIXELS, TOLERANCE, Compiled, engine_of, version
from pipeline.errors import ProtoMaskError

pytestmark = pytest.mark.skipif(not version(), reason="OpenVINO is not installed")


def make_backbone(name: str = "test_resnet", pretrained: str = "none") -> Backbone:
    """A backbone whose batch norms have statistics of their own."""
    torch.manual_seed(0)
    backbone = Backbone(name, pretrained).eval()
    if pretrained == "none":
        for layer in backbone.modules():
            if isinstance(layer, nn.BatchNorm2d):
                assert layer.running_mean is not None and layer.running_var is not None
                layer.running_mean.normal_(std=0.1)
                layer.running_var.uniform_(0.5, 2.0)
    return backbone


@torch.inference_mode()
def maps(backbone: Backbone, images: Tensor, stages: list[int]) -> list[Tensor]:
    return backbone.feature_maps(images, stages)


@pytest.mark.parametrize(
    ("name", "pretrained", "side", "stages"),
    [
        ("test_resnet", "none", 64, [-2, -1, 0]),
        pytest.param("efficientnet_lite0", "imagenet", 96, [-1], marks=pytest.mark.slow),
        pytest.param("efficientnet_lite0", "imagenet", 448, [2, 3, 4], marks=pytest.mark.slow),
        pytest.param("resnet50", "none", 128, [-1], marks=pytest.mark.slow),
    ],
)
def test_feature_maps_are_those_of_pytorch(
    name: str, pretrained: str, side: int, stages: list[int], tmp_path: Path
) -> None:
    backbone = make_backbone(name, pretrained)
    images = torch.rand(5, 3, side, side)
    expected = maps(backbone, images, stages)
    backbone.use("openvino", tmp_path)
    found = maps(backbone, images, stages)
    assert len(list(tmp_path.iterdir())) == 1
    for one, other in zip(expected, found, strict=True):
        assert one.shape == other.shape and not torch.equal(one, other)
        assert (one - other).abs().max() < TOLERANCE * one.abs().max()


def test_an_image_has_the_same_features_in_any_company(tmp_path: Path) -> None:
    """To the bit, on any number of threads, and by layers that have been kept."""
    backbone = make_backbone()
    backbone.use("auto", tmp_path)
    side = 96
    images = torch.rand(2 * (PIXELS // side**2) + 1, 3, side, side)
    together = maps(backbone, images, [-1])[0]
    threads = torch.get_num_threads()
    torch.set_num_threads(threads + 1)
    try:
        backwards = maps(backbone, images.flip(0), [-1])[0]
    finally:
        torch.set_num_threads(threads)
    assert torch.equal(together, backwards.flip(0))
    other = make_backbone()
    other.use("auto", tmp_path)
    alone = [maps(other, image[None], [-1])[0] for image in images]
    assert torch.equal(together, torch.cat(alone))
    assert maps(other, images[:0], [-1])[0].shape == (0, *together.shape[1:])


def test_changed_weights_are_compiled_again(tmp_path: Path) -> None:
    backbone, images = make_backbone(), torch.rand(2, 3, 64, 64)
    backbone.use("auto", tmp_path)
    first = maps(backbone, images, [-1])[0]
    with torch.no_grad():
        for weights in backbone.parameters():
            weights.mul_(1.1)
    changed = maps(backbone, images, [-1])[0]
    backbone.use("pytorch", tmp_path)
    expected = maps(backbone, images, [-1])[0]
    assert (changed - expected).abs().max() < TOLERANCE * expected.abs().max()
    assert (changed - first).abs().max() > 100 * TOLERANCE * expected.abs().max()


@pytest.mark.parametrize(
    "surroundings",
    [torch.enable_grad, lambda: torch.autocast("cpu", torch.bfloat16)],
    ids=["gradients", "bfloat16"],
)
def test_what_openvino_does_not_compute(surroundings: Callable[[], object], tmp_path: Path) -> None:
    backbone, images = make_backbone(), torch.rand(2, 3, 64, 64)
    with torch.no_grad(), surroundings():  # type: ignore[attr-defined]
        expected = backbone.feature_map(images)
        backbone.use("openvino", tmp_path)
        found = backbone.feature_map(images)
    assert torch.equal(expected, found) and expected.requires_grad == found.requires_grad
    assert list(tmp_path.iterdir()) == []


def test_batch_norms_are_what_openvino_gains_by() -> None:
    assert engine_of("auto", nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4))) == "openvino"
    assert engine_of("pytorch", nn.BatchNorm2d(4)) == "pytorch"
    others = nn.Sequential(nn.Conv2d(3, 4, 1), nn.LayerNorm(4))
    assert [engine_of("auto", others), engine_of("openvino", others)] == ["pytorch", "openvino"]


def test_a_missing_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pipeline.backbone.engine, "version", lambda: "")
    assert engine_of("auto", nn.BatchNorm2d(4)) == "pytorch"
    with pytest.raises(ProtoMaskError, match=r"runtime\.engine=openvino.*not installed"):
        engine_of("openvino", nn.BatchNorm2d(4))


def test_damaged_layers_are_converted_again(tmp_path: Path) -> None:
    images = torch.rand(2, 3, 64, 64)
    first = make_backbone()
    first.use("auto", tmp_path)
    expected = maps(first, images, [-1])[0]
    (file,) = tmp_path.iterdir()
    file.write_bytes(file.read_bytes()[:-1000])
    again = make_backbone()
    again.use("auto", tmp_path)
    assert torch.equal(maps(again, images, [-1])[0], expected)
    third = make_backbone()
    third.use("auto", tmp_path)
    written = file.stat().st_mtime_ns
    assert torch.equal(maps(third, images, [-1])[0], expected)
    assert file.stat().st_mtime_ns == written


class Unknown(nn.Module):
    """Computes what OpenVINO does not know."""

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        return (torch.linalg.eigvals(images).abs(),)


def test_what_cannot_be_converted_is_said(tmp_path: Path) -> None:
    with pytest.raises(ProtoMaskError, match=r"OpenVINO .*cannot convert.*runtime\.engine=pytorch"):
        Compiled(Unknown().eval(), 8, 8, "x", tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_other_features_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those of this backbone differ by rounding, which is refused here."""
    monkeypatch.setattr(pipeline.backbone.engine, "TOLERANCE", 0.0)
    backbone = make_backbone()
    backbone.use("auto", tmp_path)
    with pytest.raises(ProtoMaskError, match=r"computes other features.*runtime\.engine=pytorch"):
        maps(backbone, torch.rand(1, 3, 64, 64), [-1])
    assert list(tmp_path.iterdir()) == []


IMPORTS = """
import sys, torch
from pathlib import Path
from pipeline.backbone.backbone import Backbone

backbone = Backbone("test_resnet").eval()
with torch.inference_mode():
    for engine in ("pytorch", "openvino"):
        backbone.use(engine, Path(sys.argv[1]))
        backbone.feature_map(torch.rand(1, 3, 64, 64))
        print("openvino" in sys.modules, sys.modules.get("openvino_telemetry"))
"""


@pytest.mark.slow
def test_openvino_is_imported_where_it_computes_and_reports_nothing(tmp_path: Path) -> None:
    command = [sys.executable, "-c", IMPORTS, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.stdout.split() == ["False", "None", "True", "None"], done.stderr
