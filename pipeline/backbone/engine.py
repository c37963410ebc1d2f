"""OpenVINO: a network's layers compiled for this processor, for images of one size.

The compiled layers compute in float32 what PyTorch's do, up to rounding. What they give for an
image is the same to the bit whatever is computed with it, and on any number of threads.
"""

import hashlib
import importlib.metadata
import sys
import tempfile
import warnings
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from pipeline.errors import ProtoMaskError
from pipeline.files import atomic_file, sweep

Engine = Literal["openvino", "pytorch"]
Wanted = Literal["auto", "openvino", "pytorch"]
PIXELS = 2**17
"""Of the images of a run together: its feature maps fit into a core's cache."""
TOLERANCE = 1e-4
"""Largest difference from PyTorch's outputs, as a share of the largest output."""


def engine_of(wanted: Wanted, network: nn.Module) -> Engine:
    """Returns what computes a frozen network on a CPU.

    Args:
        wanted: `runtime.engine`. `auto` is OpenVINO, where it is installed, for networks with batch
            norms: it folds them, and activations, into convolutions. Others gain little.
        network: the network.

    Raises:
        ProtoMaskError: OpenVINO is wanted and not installed.
    """
    if wanted == "openvino" and not version():
        raise ProtoMaskError(
            "runtime.engine=openvino needs the package openvino, which is not installed: run `pip "
            "install -c constraints.txt openvino` in the repository, or set "
            "runtime.engine=pytorch"
        )
    if wanted != "auto":
        return wanted
    norms = any(isinstance(layer, nn.modules.batchnorm._BatchNorm) for layer in network.modules())
    return "openvino" if version() and norms else "pytorch"


@cache
def version() -> str:
    """Returns the version of the package `openvino`; empty if it is not installed."""
    try:
        return importlib.metadata.version("openvino")
    except importlib.metadata.PackageNotFoundError:
        return ""


class Compiled:
    """Layers compiled for images of one size.

    Args:
        layers: what is compiled: takes float n×3×H×W, returns a tuple of tensors n×(any); in
            evaluation mode. Later changes of its weights have no effect.
        height, width: H, W.
        name: unique to the layers with their weights.
        folder: folder of converted layers, so that no other process converts them again; None
            keeps none.

    Raises:
        ProtoMaskError: OpenVINO cannot convert the layers, or computes something else.
    """

    def __init__(
        self, layers: nn.Module, height: int, width: int, name: str, folder: Path | None
    ) -> None:
        self._shape = max(1, PIXELS // (height * width)), 3, height, width
        told = hashlib.sha256(f"{name} {self._shape} {version()}".encode()).hexdigest()
        path = None if folder is None else folder / f"{told[:32]}.npz"
        kept = None if path is None else _kept(path)
        model = _converted(layers, self._shape) if kept is None else kept
        self._run = _compile(model)
        if kept is None:
            self._refuse_unless_alike(layers)
        if kept is None and path is not None:
            _keep(path, model)

    @torch.inference_mode()
    def __call__(self, images: Tensor) -> list[Tensor]:
        """Returns the layers' outputs.

        Args:
            images: float32 n×3×H×W on the CPU, n ≥ 0.
        """
        size = self._shape[0]
        given = np.zeros(self._shape, np.float32)
        found: list[list[NDArray[np.float32]]] = []
        for at in range(0, max(len(images), 1), size):
            part = images[at : at + size].numpy()
            given[: len(part)] = part
            outputs = self._run.infer([given], share_inputs=True, share_outputs=True)
            found.append([outputs[place][: len(part)].copy() for place in range(len(outputs))])
        return [torch.from_numpy(np.concatenate(of_place)) for of_place in zip(*found, strict=True)]

    def __deepcopy__(self, memo: dict[int, Any]) -> "Compiled":
        return self

    @torch.inference_mode()
    def _refuse_unless_alike(self, layers: nn.Module) -> None:
        images = torch.rand(1, *self._shape[1:], generator=torch.Generator().manual_seed(0))
        for expected, found in zip(layers(images), self(images), strict=True):
            off = float((expected - found).abs().max() / expected.abs().max().clamp_min(1e-9))
            if not off <= TOLERANCE:
                raise ProtoMaskError(
                    f"runtime.engine: OpenVINO {version()} computes other features than PyTorch "
                    f"(off by {off:.0e} of the largest): set runtime.engine=pytorch"
                )


@cache
def _openvino() -> Any:
    """Imports OpenVINO without the package by which it reports its use to its maker."""
    modules: dict[str, Any] = sys.modules
    modules.setdefault("openvino_telemetry", None)
    import openvino

    return openvino


def _converted(layers: nn.Module, shape: Sequence[int]) -> Any:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of PyTorch's tracing
            # OpenVINO would trace three times, to compare; what it computes is compared here.
            traced = torch.jit.trace(layers, torch.zeros(tuple(shape)), check_trace=False)
            model = _openvino().convert_model(traced)
        model.reshape(list(shape))
    except Exception as error:  # whatever PyTorch's tracing and OpenVINO's frontend raise
        raise ProtoMaskError(
            f"runtime.engine: OpenVINO {version()} cannot convert the backbone "
            f"({type(error).__name__}: {str(error).strip().splitlines()[0]}): set "
            "runtime.engine=pytorch"
        ) from None
    return model


def _compile(model: Any) -> Any:
    settings = {
        "INFERENCE_PRECISION_HINT": "f32",  # else bfloat16, where the processor has it
        "INFERENCE_NUM_THREADS": torch.get_num_threads(),
        "NUM_STREAMS": 1,
        "ENABLE_CPU_PINNING": False,  # else the workers' threads would share the same cores
    }
    return _openvino().Core().compile_model(model, "CPU", settings).create_infer_request()


def _keep(path: Path, model: Any) -> None:
    sweep(path.parent)
    with tempfile.TemporaryDirectory() as name, atomic_file(path) as part, part.open("wb") as file:
        graph, weights = Path(name) / "model.xml", Path(name) / "model.bin"
        _openvino().save_model(model, graph, compress_to_fp16=False)
        np.savez(file, graph=np.fromfile(graph, np.uint8), weights=np.fromfile(weights, np.uint8))


def _kept(path: Path) -> Any:
    """Returns a converted model; None if it is missing or damaged (by the file's checksum)."""
    try:
        with np.load(path) as file:
            graph, weights = file["graph"].tobytes(), file["weights"]
        return _openvino().Core().read_model(graph, _openvino().Tensor(weights))
    except Exception:  # a damaged archive makes NumPy and zipfile raise all kinds of errors
        return None
