"""Where networks compute: the device, the precision, and the processes that share the work."""

import contextlib
import ctypes
from dataclasses import dataclass

import torch

from pipeline.backbone.backbone import round_on_gpu
from pipeline.backbone.engine import Wanted
from pipeline.errors import ProtoMaskError
from pipeline.model.base.settings import Precision
from pipeline.training.settings import Runtime


@dataclass(frozen=True)
class Fabric:
    """Where networks compute.

    Args:
        device: the device of this process.
        precision: what the backbone computes in.
        engine: what computes a frozen backbone's features (`runtime.engine`).
        global_rank: the number of this process, from 0.
        world_size: the number of processes.
    """

    device: torch.device
    precision: Precision
    engine: Wanted = "pytorch"
    global_rank: int = 0
    world_size: int = 1

    @property
    def is_global_zero(self) -> bool:
        """Whether this is the first process, which writes."""
        return self.global_rank == 0

    def autocast(self) -> contextlib.AbstractContextManager[object]:
        """Returns the context in which the backbone computes in the precision."""
        if self.precision == "bfloat16":
            return torch.autocast(self.device.type, torch.bfloat16)
        return contextlib.nullcontext()


def make_fabric(
    runtime: Runtime, precision: Precision, place: int = 0, rank: int = 0, processes: int = 1
) -> Fabric:
    """Returns a fabric on the configured device.

    Args:
        runtime: names the device (`runtime.device`) and the engine (`runtime.engine`).
        precision: what the backbone computes in (`train.precision`).
        place: the number of this process, from 0, among those on this machine: which GPU is its.
        rank: the number of this process, from 0, among all.
        processes: the number of all processes.

    Raises:
        ProtoMaskError: the device is not available, or does not compute in this precision.
    """
    device = device_of(runtime)
    refuse_unsupported(device, precision)
    if device == "cpu":
        _keep_freed_memory()
    else:
        round_on_gpu(coarsely=precision == "tf32")
    of_process = torch.device(device, place) if device == "cuda" else torch.device(device)
    engine = "pytorch" if precision == "bfloat16" else runtime.engine
    return Fabric(of_process, precision, engine, rank, processes)


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


def refuse_unsupported(device: str, precision: Precision) -> None:
    """Checks that a device computes in a precision; the CPU computes in each.

    Args:
        device: "cpu" or "cuda".
        precision: dtype of the computation.

    Raises:
        ProtoMaskError: it does not.
    """
    if (device, precision) == ("cuda", "bfloat16") and not torch.cuda.is_bf16_supported():
        raise ProtoMaskError(
            "train.precision=bfloat16, but this GPU does not compute in bfloat16: set "
            "runtime.device=cpu, which does, or train again with train.precision=float32"
        )


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
