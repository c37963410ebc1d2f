"""Where the computation runs; nothing here changes what is computed, beyond rounding."""

import torch
from lightning_fabric import Fabric

from pipeline.errors import ProtoMaskError
from pipeline.training.settings import Runtime


def make_fabric(runtime: Runtime) -> Fabric:
    """Returns a Fabric on the device: bf16 mixed precision on a GPU that has it, float32 elsewhere.

    Raises:
        ProtoMaskError: the device asked for is not there.
    """
    device = runtime.device
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    available = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if not available.get(device, True):
        raise ProtoMaskError(
            f"runtime.device={device}, but this machine has no such device; use auto or cpu"
        )
    bf16 = device == "cuda" and torch.cuda.is_bf16_supported()
    return Fabric(accelerator=device, devices=1, precision="bf16-mixed" if bf16 else "32-true")
