"""Devices: what is not there is refused with a message."""

import pytest
import torch

from pipeline.errors import ProtoMaskError
from pipeline.training.devices import make_fabric
from pipeline.training.settings import Runtime


def test_absent_device(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ProtoMaskError, match=r"runtime.device=cuda.*use auto or cpu"):
        make_fabric(Runtime(device="cuda"))


@pytest.mark.parametrize("device", ["auto", "cpu"])
def test_processor_works_in_float32(device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    fabric = make_fabric(Runtime(device=device))
    assert fabric.device.type == "cpu"
    with fabric.autocast():
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == torch.float32


def test_a_clusters_job_of_several_tasks_is_no_obstacle(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"NTASKS": "4", "JOB_NAME": "birds", "JOB_ID": "7"}.items():
        monkeypatch.setenv(f"SLURM_{name}", value)
    assert make_fabric(Runtime(device="cpu")).world_size == 1
