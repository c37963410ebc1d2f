"""Where the computation runs; nothing here changes what is computed, beyond rounding."""

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
"""Seconds between two looks at whether the other processes are alive."""
GRACE = 5.0
"""Seconds that a process has to end by itself when another has died."""


def make_fabric(runtime: Runtime) -> Fabric:
    """Returns a Fabric on the device: bf16 mixed precision on a GPU that has it, float32 elsewhere.

    Raises:
        ProtoMaskError: the device asked for is not there.
    """
    # One process, whatever a cluster's job was given; Fabric would refuse `--ntasks=4`.
    return _fabric(runtime, devices=1, plugins=LightningEnvironment())


@contextlib.contextmanager
def launched(runtime: Runtime, most: int) -> Iterator[Fabric]:
    """Yields a Fabric of `runtime.devices` processes, or of those that `torchrun` has started.

    What is in the block runs in each of them: the others are started as this one was, with the same
    command. If one dies, all end.

    Args:
        runtime: where.
        most: how many processes can be of use.

    Raises:
        ProtoMaskError: a device is not there, or there are more processes than can be of use.
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
    # torchrun watches over the processes that it has started.
    others = _Others(fabric) if not by_torchrun else contextlib.nullcontext()
    with others:
        fabric.launch()
        yield fabric
        _barrier()
        torch.distributed.destroy_process_group()


def share(count: int, fabric: Fabric) -> range:
    """Returns which of so many pieces of work are this process's: contiguous, and as many as the
    others' or one fewer."""
    rank, processes = fabric.global_rank, fabric.world_size
    return range(rank * count // processes, (rank + 1) * count // processes)


def summed(values: Tensor, fabric: Fabric) -> Tensor:
    """Returns the sum over all processes, on the device; every process gets the same bits.

    Raises:
        ProtoMaskError: another process is gone.
    """
    if fabric.world_size == 1:
        return values
    values = values.to(fabric.device)
    with _gone_processes_named():
        torch.distributed.all_reduce(values)
    return values


class SharedStep:
    """Makes the shares that processes have in a step's batches one step.

    The gradients are added up. The running statistics of a batch norm become those that one process
    has after all batches: with momentum 1 − a they are, after n batches,

        r_n = aⁿ·r_0 + Σ_p a^(n−1−l_p)·(r_p − a^(n_p)·r_0)

    where process p has gone from r_0 to r_p over n_p contiguous batches, the last of them l_p.

    Args:
        network: alike in all processes.
        optimizer: of its parameters.
        fabric: the processes; with a single one nothing is done.

    Raises:
        ProtoMaskError: a batch norm's statistics are no such average.
    """

    def __init__(self, network: nn.Module, optimizer: torch.optim.Optimizer, fabric: Fabric):
        self.network, self.optimizer, self.fabric = network, optimizer, fabric
        self.alone = fabric.world_size == 1
        self._norms = [] if self.alone else _norms(network)
        self._at_first: list[Tensor] = []

    def agree(self) -> None:
        """Gives all processes the first one's network."""
        if not self.alone:
            with _gone_processes_named():
                for values in self.network.state_dict().values():
                    torch.distributed.broadcast(values, src=0)

    def begin(self) -> None:
        """Remembers the running statistics, before the first batch."""
        self._at_first = [values.clone() for values, _ in self._statistics()]

    def end(self, count: int) -> None:
        """Puts the shares of a step of so many batches together, after the last of them."""
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
        """Returns the gradients of all parameters that are trained; zeros where there are none, as
        in a process that had no batch."""
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
        """Yields the running statistics that training moves, and how much of them a batch keeps."""
        for norm in self._norms:
            if norm.training:
                for name in ("running_mean", "running_var"):
                    values = getattr(norm, name, None)
                    if values is not None:
                        yield values, 1 - norm.momentum


def device_of(runtime: Runtime) -> str:
    """Returns "cpu" or "cuda".

    Raises:
        ProtoMaskError: the device asked for is not there.
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
    """Returns the modules with running statistics."""
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
    """Returns the sums over all processes of tensors of one kind, by a single all-reduce."""
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
    """The other processes of this machine, as long as the block lasts.

    None outlives the first one, and when one dies it ends, too, even while it waits for the dead
    one in a collective operation that does not notice.
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
        # Fabric's own watch would kill this process without a word; over no process it ends.
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
    """Tells glibc to keep freed feature maps for the next ones.

    By default it gives large blocks back to the system, which then has to clear the pages again:
    a third of the time of embedding on a CPU. Other C libraries have no such setting.
    """
    M_TRIM_THRESHOLD, M_MMAP_THRESHOLD, largest = -1, -3, 2**30
    with contextlib.suppress(OSError, AttributeError):
        libc = ctypes.CDLL("libc.so.6")
        libc.mallopt(M_MMAP_THRESHOLD, largest)
        libc.mallopt(M_TRIM_THRESHOLD, largest)
