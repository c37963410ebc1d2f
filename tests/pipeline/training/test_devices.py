"""Devices: what is not there is refused with a message, and work is shared out whole."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from pipeline.errors import ProtoMaskError
from pipeline.training.devices import SharedStep, launched, make_fabric, share
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


def test_more_processes_than_batches_of_a_step_are_refused() -> None:
    with (
        pytest.raises(ProtoMaskError, match=r"3 processes.*runtime.devices.*train.accumulate=3"),
        launched(Runtime(device="cpu", devices=3), most=2),
    ):
        pass


def test_more_processes_than_gpus_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with (
        pytest.raises(ProtoMaskError, match=r"2 processes.*1 GPUs.*runtime.devices"),
        launched(Runtime(device="cuda", devices=2), most=2),
    ):
        pass


def test_one_process_needs_no_other() -> None:
    with launched(Runtime(device="cpu"), most=1) as fabric:
        assert fabric.world_size == 1
    assert not torch.distributed.is_initialized()


def processes(rank: int, count: int) -> Any:
    return SimpleNamespace(global_rank=rank, world_size=count)


@pytest.mark.parametrize("count", [0, 1, 3, 4, 7])
@pytest.mark.parametrize("number", [1, 2, 4])
def test_shares_are_contiguous_even_and_whole(count: int, number: int) -> None:
    shares = [share(count, processes(rank, number)) for rank in range(number)]
    assert [piece for one in shares for piece in one] == list(range(count))
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


def test_norm_that_averages_over_all_batches_is_refused_by_name() -> None:
    network = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4, momentum=None))
    optimizer = torch.optim.Adam(network.parameters())
    with pytest.raises(ProtoMaskError, match=r"1 \(BatchNorm2d\).*runtime.devices=1"):
        SharedStep(network, optimizer, processes(0, 2))
    SharedStep(network, optimizer, processes(0, 1))
