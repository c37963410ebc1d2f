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
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_processor_works_in_each_precision(
    device: str, precision: Precision, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    fabric = make_fabric(runtime(device=device), precision)
    assert fabric.device.type == "cpu"
    with fabric.autocast():
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == getattr(torch, precision)


def test_gpu_without_bfloat16_is_refused_for_it_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda: False)
    for name in ("auto", "cuda"):
        with pytest.raises(ProtoMaskError, match=r"runtime.device=cpu.*train.precision=float32"):
            make_fabric(runtime(device=name), "bfloat16")
    refuse_unsupported("cuda", "float32")
    refuse_unsupported("cpu", "bfloat16")
