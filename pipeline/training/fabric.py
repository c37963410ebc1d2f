"""The device and the precision that networks compute with."""

import contextlib
import ctypes
from typing import Any

import torch
from lightning_fabric import Fabric
from lightning_fabric.plugins.environments import LightningEnvironment

from pipeline.errors import ProtoMaskError
from pipeline.model.base.settings import Precision
from pipeline.training.settings import Runtime


def make_fabric(runtime: Runtime, precision: Precision, **processes: Any) -> Fabric:
    """Returns a Fabric on the configured device.

    Args:
        runtime: the device.
        precision: dtype of the backbone's computation (`train.precision`).
        processes: Fabric's arguments for several processes; one process without them.

    Raises:
        ProtoMaskError: the device is not available, or does not compute in this precision.
    """
    device = device_of(runtime)
    refuse_unsupported(device, precision)
    if device == "cpu":
        _keep_freed_memory()
    # One process, whatever Slurm has allotted: Fabric would refuse a job with `--ntasks=4`.
    processes = processes or {"devices": 1, "plugins": LightningEnvironment()}
    return Fabric(
        accelerator=device,
        precision="bf16-mixed" if precision == "bfloat16" else "32-true",
        **processes,
    )


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
