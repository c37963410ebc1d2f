"""Devices and processes that training runs on; they change results by rounding only."""

import contextlib
import ctypes
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from lightning_fabric import Fabric
from lightning_fabric.plugins.environments import LightningEnvironment, TorchElasticEnvironment
from torch import Tensor, nn

from pipeline.errors import ProtoMaskError
from pipeline.training.settings import Runtime

LOOK = 0.2
"""Seconds between two checks whether the other processes are alive."""
GRACE = 5.0
"""Seconds that a process has to exit by itself after another has died."""


def make_fabric(runtime: Runtime) -> Fabric:
    """Returns a Fabric with one process on the configured device.

    The precision is bfloat16 mixed on a GPU that supports it, float32 elsewhere.

    Raises:
        ProtoMaskError: the requested device is not available.
    """
    # One process, whatever Slurm has allotted: Fabric would refuse a job with `--ntasks=4`.
    return _fabric(runtime, devices=1, plugins=LightningEnvironment())


@contextlib.contextmanager
def launched(runtime: Runtime, most: int) -> Iterator[Fabric]:
    """Yields a Fabric of `runtime.devices` processes, or of those that `torchrun` has started.

    Each process runs the block. Without `torchrun`, the other processes are started with the same
    command as this one, and if one dies, all are ended.

    Args:
        runtime: the device and the number of processes.
        most: the largest useful number of processes (batches in an optimizer step).

    Raises:
        ProtoMaskError: a device is not available, there are more processes than `most`, or another
            process has died.
    """
    by_torchrun = TorchElasticEnvironment.detect()
    count = int(os.environ["WORLD_SIZE"]) if by_torchrun else runtime.devices
    _refuse_idle_processes(count, most)
    if count == 1 and not by_torchrun:
        yield make_fabric(runtime)
        return
    if by_torchrun:
        here = int(os.environ["LOCAL_WORLD_SIZE"])
        environment: Any = TorchElasticEnvironment()
    else:
        here, environment = count, LightningEnvironment()
    _refuse_missing_gpus(runtime, here)
    fabric = _fabric(
        runtime, devices=here, num_nodes=count // here, strategy="ddp", plugins=environment
    )
    # torchrun watches the processes that it has started.
    others = _Others(fabric) if not by_torchrun else contextlib.nullcontext()
    with others:
        fabric.launch()
        yield fabric
        _barrier()
        torch.distributed.destroy_process_group()


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


class SharedStep:
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


def device_of(runtime: Runtime) -> str:
    """Returns the configured device: "cpu" or "cuda".

    Raises:
        ProtoMaskError: the requested device is not available.
    """
    if runtime.device == "cuda" and not torch.cuda.is_available():
        raise ProtoMaskError(
            "runtime.device=cuda, but PyTorch finds no CUDA device here; use auto or cpu"
        )
    if runtime.device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    return runtime.device


def _fabric(runtime: Runtime, **processes: Any) -> Fabric:
    device = device_of(runtime)
    if device == "cpu":
        _keep_freed_memory()
    bf16 = device == "cuda" and torch.cuda.is_bf16_supported()
    return Fabric(accelerator=device, precision="bf16-mixed" if bf16 else "32-true", **processes)


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


def _barrier() -> None:
    with _gone_processes_named():
        torch.distributed.barrier()


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


class _Others:
    """Watches the other processes on this machine for as long as the block runs.

    The other processes exit when the first one does. When one of them dies, the first one ends all
    others and exits, even while it waits in a collective operation that does not notice the death.
    """

    def __init__(self, fabric: Fabric) -> None:
        self._launcher: Any = fabric.strategy.launcher
        self._first = fabric.local_rank == 0
        self._count = fabric.world_size - 1
        self._processes: list[subprocess.Popen[bytes]] = []
        self._parent = os.getppid()
        self._over = threading.Event()

    def __enter__(self) -> None:
        watch = self._watch_children if self._first else self._watch_parent
        threading.Thread(target=watch, daemon=True).start()

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._over.set()
        for process in self._processes:
            if kind is not None:
                process.kill()
            process.wait()

    def _watch_parent(self) -> None:
        while os.getppid() == self._parent:
            time.sleep(LOOK)
        os._exit(1)

    def _watch_children(self) -> None:
        while len(self._launcher.procs) < self._count:
            if self._over.wait(LOOK):
                return
        self._processes = list(self._launcher.procs)
        # Fabric's own watcher would kill this process without a message; it ends with no process.
        self._launcher.procs.clear()
        while not any(process.poll() for process in self._processes):
            if self._over.wait(LOOK):
                return
        if not self._over.wait(GRACE):
            self._end()

    def _end(self) -> None:
        codes = [process.poll() for process in self._processes]
        print(
            f"Error: a process of this training has died (exit codes: {codes}); its own message "
            "says why, and one that was killed (-9) has most often run out of memory. Finished "
            "epochs are kept: run the same command again",
            file=sys.stderr,
            flush=True,
        )
        for process in self._processes:
            process.kill()
        os._exit(1)


def _keep_freed_memory() -> None:
    """Configures glibc to keep freed feature maps for the next ones.

    By default, large blocks are returned to the system, which has to clear their pages again: a
    third of the time of embedding on a CPU. Other C libraries have no such setting.
    """
    M_TRIM_THRESHOLD, M_MMAP_THRESHOLD, largest = -1, -3, 2**30
    with contextlib.suppress(OSError, AttributeError):
        libc = ctypes.CDLL("libc.so.6")
        libc.mallopt(M_MMAP_THRESHOLD, largest)
        libc.mallopt(M_TRIM_THRESHOLD, largest)
