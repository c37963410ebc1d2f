"""Processes: too many are refused with a message, and work is shared out whole."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from settings import runtime
from torch import nn

from pipeline.errors import ProtoMaskError
from pipeline.training.fabric import Fabric
from pipeline.training.processes import StepSynchroniser, in_processes, share


def never(fabric: Fabric) -> None:
    raise AssertionError("the work has begun")


def test_more_processes_than_batches_of_a_step_are_refused() -> None:
    with pytest.raises(ProtoMaskError, match=r"3 processes.*runtime.devices.*train.accumulate=3"):
        in_processes(never, runtime(device="cpu", devices=3), "float32", most=2)


def test_more_processes_than_gpus_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(ProtoMaskError, match=r"2 processes.*1 GPUs.*runtime.devices"):
        in_processes(never, runtime(device="cuda", devices=2), "float32", most=2)


def test_a_precision_that_the_gpus_lack_is_refused_before_processes_start(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda: False)
    with pytest.raises(ProtoMaskError, match=r"train.precision=bfloat16"):
        in_processes(never, runtime(device="cuda", devices=2), "bfloat16", most=2)


def test_one_process_needs_no_other() -> None:
    worlds: list[int] = []
    in_processes(
        lambda fabric: worlds.append(fabric.world_size), runtime(device="cpu"), "float32", most=1
    )
    assert worlds == [1]
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
        StepSynchroniser(network, optimizer, processes(0, 2))
    StepSynchroniser(network, optimizer, processes(0, 1))
