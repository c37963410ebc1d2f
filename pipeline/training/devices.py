"""Where the computation runs; nothing here changes what is computed, beyond rounding."""

import contextlib
import ctypes

import torch
from lightning_fabric import Fabric
from lightning_fabric.plugins.environments import LightningEnvironment

from pipeline.errors import ProtoMaskError
from pipeline.training.settings import Runtime


def make_fabric(runtime: Runtime) -> Fabric:
    """Returns a Fabric on the device: bf16 mixed precision on a GPU that has it, float32 elsewhere.

    Raises:
        ProtoMaskError: the device asked for is not there.
    """
    device = device_of(runtime)
    if device == "cpu":
        _keep_freed_memory()
    bf16 = device == "cuda" and torch.cuda.is_bf16_supported()
    return Fabric(
        accelerator=device,
        devices=1,
        precision="bf16-mixed" if bf16 else "32-true",
        # One process, whatever a cluster's job was given; Fabric would refuse `--ntasks=4`.
        plugins=LightningEnvironment(),
    )


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
