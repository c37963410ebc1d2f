"""Devices: what is not there is refused with a message."""

import pytest
import torch

from pipeline.errors import ProtoMaskError
from pipeline.training.devices import make_fabric
from pipeline.training.settings import Runtime


@pytest.mark.parametrize("device", ["cuda", "mps"])
def test_absent_device(device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    with pytest.raises(ProtoMaskError, match=f"runtime.device={device}.*use auto or cpu"):
        make_fabric(Runtime(device=device))


@pytest.mark.parametrize("device", ["auto", "cpu"])
def test_processor_works_in_float32(device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    fabric = make_fabric(Runtime(device=device))
    assert fabric.device.type == "cpu"
    with fabric.autocast():
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == torch.float32
