"""Devices: what is not there is refused with a message; the precision is what was asked for."""

import pytest
import torch
from settings import runtime

from pipeline.errors import ProtoMaskError
from pipeline.model.base.settings import Precision
from pipeline.training.fabric import make_fabric, refuse_unsupported


def test_absent_device(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ProtoMaskError, match=r"runtime.device=cuda.*use auto or cpu"):
        make_fabric(runtime(device="cuda"), "float32")


@pytest.mark.parametrize("device", ["auto", "cpu"])
@pytest.mark.parametrize("precision", ["float32", "tf32", "bfloat16"])
def test_processor_works_in_each_precision(
    device: str, precision: Precision, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    fabric = make_fabric(runtime(device=device), precision)
    assert fabric.device.type == "cpu"
    with fabric.autocast():
        product = torch.ones(2, 2) @ torch.ones(2, 2)
    assert product.dtype == (torch.bfloat16 if precision == "bfloat16" else torch.float32)


@pytest.mark.parametrize(("precision", "coarse"), [("float32", False), ("tf32", True)])
def test_gpu_rounds_as_asked_and_alike_in_every_run(
    precision: Precision, coarse: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", not coarse)
    monkeypatch.setattr(torch.backends.cudnn, "deterministic", False)
    make_fabric(runtime(device="cuda"), precision)
    assert torch.backends.cudnn.allow_tf32 == coarse
    assert torch.backends.cudnn.deterministic


def test_gpu_without_bfloat16_is_refused_for_it_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda: False)
    for name in ("auto", "cuda"):
        with pytest.raises(ProtoMaskError, match=r"runtime.device=cpu.*train.precision=float32"):
            make_fabric(runtime(device=name), "bfloat16")
    refuse_unsupported("cuda", "float32")
    refuse_unsupported("cpu", "bfloat16")
