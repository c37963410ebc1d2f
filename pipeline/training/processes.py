"""Several processes that train together; their number changes results by rounding only."""

import contextlib
import logging
import os
import signal
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NoReturn, TypeVar

import torch
from torch import Tensor, nn

from pipeline.errors import ProtoMaskError
from pipeline.model.base.settings import Precision
from pipeline.training.fabric import Fabric, device_of, make_fabric, refuse_unsupported
from pipeline.training.settings import Runtime
from pipeline.workers import share_cores

T = TypeVar("T")

LOOK = 0.5
"""Seconds between two checks whether the process that started this one is alive."""
STARTED_BY = "PROTOMASK_STARTED_BY"
"""Environment variable: the id of the process that has started this one to train with others."""


def in_processes(
    work: Callable[[Fabric], None], runtime: Runtime, precision: Precision, most: int
) -> None:
    """Runs work in `runtime.devices` processes, or in those that `torchrun` has started.

    For more than one process without `torchrun`, this process starts its own command once for each
    and waits; they come here by themselves and do the work. If one of them or this process dies,
    all others are ended.

    Args:
        work: what each process does, given its fabric.
        runtime: the device and the number of processes.
        precision: dtype of the backbone's computation.
        most: the largest useful number of processes (batches in an optimizer step).

    Raises:
        ProtoMaskError: a device is not available or does not compute in this precision, there are
            more processes than `most`, or a process has been killed.
        SystemExit: a process that was started has failed and has said why, or this process was
            asked to end.
    """
    by_torch = torch.distributed.is_torchelastic_launched()
    count = int(os.environ["WORLD_SIZE"]) if by_torch else runtime.devices
    here = int(os.environ["LOCAL_WORLD_SIZE"]) if by_torch else count
    _refuse_idle_processes(count, most)
    _refuse_missing_gpus(runtime, here)
    refuse_unsupported(device_of(runtime), precision)
    if by_torch:
        _join(work, runtime, precision)
    elif count > 1:
        _start(count)
    else:
        work(make_fabric(runtime, precision))


def share(count: int, fabric: Fabric) -> range:
    """Returns the part of `count` work items that belongs to this process.

    Returns:
        A contiguous range of item numbers; the sizes of two processes' ranges differ by at most 1.
    """
    rank, processes = fabric.global_rank, fabric.world_size
    return range(rank * count // processes, (rank + 1) * count // processes)


def summed(values: Tensor, fabric: Fabric) -> Tensor:
    """Returns the sum of a tensor over all processes.

    Returns:
        A tensor of the same shape, on the device; bitwise equal in all processes.

    Raises:
        ProtoMaskError: another process has died.
    """
    if fabric.world_size == 1:
        return values
    values = values.to(fabric.device)
    with _gone_processes_named():
        torch.distributed.all_reduce(values)
    return values


def from_first(value: T, fabric: Fabric) -> T:
    """Returns the first process's value, in all processes.

    Args:
        value: anything that can be pickled; counts in the first process alone.
        fabric: how many processes there are, and which of them this is.

    Raises:
        ProtoMaskError: another process has died.
    """
    if fabric.world_size == 1:
        return value
    values = [value]
    with _gone_processes_named():
        torch.distributed.broadcast_object_list(values, src=0)
    return values[0]


class StepSynchroniser:
    """Synchronises gradients and batch-norm statistics across processes at an optimizer step.

    Gradients are summed. The running statistics of a batch norm become those that a single process
    would have after all batches of the step: with momentum 1 − a they are, after n batches,

        r_n = aⁿ·r_0 + Σ_p a^(n−1−l_p)·(r_p − a^(n_p)·r_0)

    where process p has updated r_0 to r_p over n_p contiguous batches, the last of which has
    number l_p.

    Args:
        network: the trained network; `agree` makes it equal in all processes.
        optimizer: the optimizer of the network's parameters.
        fabric: the processes; with a single process nothing is done.

    Raises:
        ProtoMaskError: a batch norm's running statistics are not an exponential moving average.
    """

    def __init__(self, network: nn.Module, optimizer: torch.optim.Optimizer, fabric: Fabric):
        self.network, self.optimizer, self.fabric = network, optimizer, fabric
        self.alone = fabric.world_size == 1
        self._norms = [] if self.alone else _norms(network)
        self._at_first: list[Tensor] = []

    def agree(self) -> None:
        """Copies the network's parameters and buffers from the first process to all others.

        Raises:
            ProtoMaskError: another process has died.
        """
        if not self.alone:
            with _gone_processes_named():
                for values in self.network.state_dict().values():
                    torch.distributed.broadcast(values, src=0)

    def begin(self) -> None:
        """Saves the running statistics before the step's first batch."""
        self._at_first = [values.clone() for values, _ in self._statistics()]

    def end(self, count: int) -> None:
        """Synchronises gradients and running statistics after the step's last batch.

        Args:
            count: number of batches in the step, over all processes.

        Raises:
            ProtoMaskError: another process has died.
        """
        if self.alone:
            return
        mine = share(count, self.fabric)
        gradients = self._gradients()
        after = [
            kept ** (count - mine.stop) * (values - kept ** len(mine) * at_first)
            for (values, kept), at_first in zip(self._statistics(), self._at_first, strict=True)
        ]
        together = _summed_each([*gradients, *after], self.fabric)
        for gradient, total in zip(gradients, together, strict=False):
            gradient.copy_(total)
        moved = zip(self._statistics(), self._at_first, together[len(gradients) :], strict=True)
        for (values, kept), at_first, total in moved:
            values.copy_(kept**count * at_first + total)
        for norm in self._norms:
            if norm.training and getattr(norm, "num_batches_tracked", None) is not None:
                norm.num_batches_tracked += count - len(mine)

    def _gradients(self) -> list[Tensor]:
        """Returns the gradients of all trainable parameters.

        A missing gradient is set to zeros, as in a process that had no batch.
        """
        parameters = [
            parameter
            for group in self.optimizer.param_groups
            for parameter in group["params"]
            if parameter.requires_grad
        ]
        for parameter in parameters:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
        return [parameter.grad for parameter in parameters]

    def _statistics(self) -> Iterator[tuple[Tensor, float]]:
        """Yields the running statistics updated in training, each with its decay 1 − momentum."""
        for norm in self._norms:
            if norm.training:
                for name in ("running_mean", "running_var"):
                    values = getattr(norm, name, None)
                    if values is not None:
                        yield values, 1 - norm.momentum


def _join(work: Callable[[Fabric], None], runtime: Runtime, precision: Precision) -> None:
    """Does the work as one of the processes that torch has started."""
    parent = int(os.environ.get(STARTED_BY, os.getppid()))
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()
    place, rank, processes = (
        int(os.environ[name]) for name in ("LOCAL_RANK", "RANK", "WORLD_SIZE")
    )
    fabric = make_fabric(runtime, precision, place, rank, processes)
    if fabric.device.type == "cuda":
        torch.cuda.set_device(fabric.device)
        torch.distributed.init_process_group("nccl", device_id=fabric.device)
    else:
        torch.distributed.init_process_group("gloo")
    work(fabric)
    with _gone_processes_named():
        torch.distributed.barrier()
    torch.distributed.destroy_process_group()


def _end_with(parent: int) -> None:
    """Ends this process, whatever it is doing, as soon as its parent is gone."""
    while os.getppid() == parent:
        time.sleep(LOOK)
    os._exit(1)


def _start(count: int) -> None:
    """Runs this process's command in so many processes, to their end."""
    from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs, SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    os.environ[STARTED_BY] = str(os.getpid())
    share_cores(count)
    with tempfile.TemporaryDirectory() as folder, _torch_silent():
        config = LaunchConfig(
            min_nodes=1,
            max_nodes=1,
            nproc_per_node=count,
            run_id=uuid.uuid4().hex,
            rdzv_backend="c10d",
            rdzv_endpoint="localhost:0",
            local_addr="localhost",
            max_restarts=0,
            logs_specs=DefaultLogsSpecs(folder),
        )
        try:
            elastic_launch(config, sys.executable)(*sys.orig_argv[1:])
        except ChildFailedError as error:
            _fail([failure.exitcode for failure in error.failures.values()])
        except SignalException as error:
            raise SystemExit(128 + error.sigval) from None


def _fail(codes: list[int]) -> NoReturn:
    """Ends this process as those that it has started have ended.

    Args:
        codes: exit codes of those that failed; a negative one is of a process ended by a signal.
            Those that torch has ended after another's failure are among them, by SIGTERM.
    """
    said_why = [code for code in codes if code > 0]
    if said_why:
        raise SystemExit(said_why[0])
    signs = {signal.Signals(-code).name for code in codes}
    killed_by = " and ".join(sorted(signs - {"SIGTERM"} or signs))
    raise ProtoMaskError(
        f"a process of this training was ended by {killed_by}; SIGKILL is most often for want of "
        "memory. Finished epochs are kept: run the same command again"
    ) from None


@contextlib.contextmanager
def _torch_silent() -> Iterator[None]:
    """Keeps torch from logging, with stack traces, what is said in a sentence afterwards."""
    logging.disable(logging.CRITICAL)
    try:
        yield
    finally:
        logging.disable(logging.NOTSET)


def _refuse_idle_processes(count: int, most: int) -> None:
    if count > most:
        raise ProtoMaskError(
            f"{count} processes cannot share the {most} batches of a step: set runtime.devices "
            f"(or torchrun's number of processes) to {most} or less, or train.accumulate={count} "
            f"and, for as many images a step as now, train.batch_size to {most}/{count} of it"
        )


def _refuse_missing_gpus(runtime: Runtime, wanted: int) -> None:
    if device_of(runtime) == "cuda" and wanted > torch.cuda.device_count():
        raise ProtoMaskError(
            f"{wanted} processes are to run here, but PyTorch finds {torch.cuda.device_count()} "
            "GPUs: lower runtime.devices (or torchrun's --nproc-per-node)"
        )


def _norms(network: nn.Module) -> list[Any]:
    """Returns the modules with running statistics; raises if one is no moving average."""
    norms = []
    for name, module in network.named_modules():
        if any(key.startswith("running_") for key, _ in module.named_buffers(recurse=False)):
            if getattr(module, "momentum", None) is None:
                raise ProtoMaskError(
                    f"model.backbone: {name} ({type(module).__name__}) keeps statistics that are "
                    "no moving average, which several processes cannot share: set runtime.devices=1"
                )
            norms.append(module)
    return norms


def _summed_each(parts: Sequence[Tensor], fabric: Fabric) -> list[Tensor]:
    """Returns the sums over all processes of tensors of one dtype, by a single all-reduce."""
    if not parts:
        return []
    flat = summed(torch.cat([part.flatten() for part in parts]), fabric)
    sizes = [part.numel() for part in parts]
    return [total.view(part.shape) for part, total in zip(parts, flat.split(sizes), strict=True)]


@contextlib.contextmanager
def _gone_processes_named() -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:
        raise ProtoMaskError(
            f"another process of this training is gone ({str(error).splitlines()[0]}); its own "
            "message says why, and one without a message was killed, most often because memory "
            "ran out. Finished epochs are kept: run the same command again"
        ) from None
