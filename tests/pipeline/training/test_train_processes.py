"""Training by several processes is training by one: weights, curves, resuming, and dying.

The processes are real ones. This file is also the script that they run.
"""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import torch
from numpy.typing import NDArray
from settings import crop_settings, model_settings, runtime, train_settings
from torch import Tensor

from pipeline.crops.settings import CropSettings
from pipeline.datasets.index import Image, Index
from pipeline.errors import ProtoMaskError
from pipeline.model.base import models
from pipeline.model.base.network import PrototypeNetwork
from pipeline.training.fabric import Fabric
from pipeline.training.processes import in_processes
from pipeline.training.train import Training

REPOSITORY = Path(__file__).parents[3]
# 28 images are 7 batches: two steps of 3, which two processes share as 1 and 2, and one of 1.
TRAIN = {"epochs": 2, "batch_size": 4, "accumulate": 3}
NAMES = ["blue", "green", "red"]
MODELS = {
    "protomask": {"embedding_dim": 16, "prototypes_per_class": 2},
    "protopool": {"embedding_dim": 16, "prototypes": 8, "slots": 2, "gumbel_epochs": 2},
}
LOSSES = {
    "protomask": {"loss": {"cluster": 0.8, "separation": 0.2, "diversity": 0.2}},
    "protopool": {"loss": {"cluster": 0.8, "separation": 0.08, "orthogonality": 1.0}},
}


def script(folder: Path) -> None:
    """Trains as `job.json` in a folder says, and leaves there what came of it."""
    job = json.loads((folder / "job.json").read_text())
    try:
        in_processes(
            lambda fabric: train(folder, job, fabric),
            runtime(device="cpu", devices=job["devices"]),
            "float32",
            TRAIN["accumulate"],
        )
    except ProtoMaskError as error:
        sys.exit(f"Error: {error}")


def train(folder: Path, job: dict[str, Any], fabric: Fabric) -> None:
    settings = train_settings(**job["train"])
    index, store = colours(crop_settings(side=32, per_image=2), job["validation"])
    torch.manual_seed(0)
    # In double precision rounding does not grow to what could hide a mistake.
    network = small_network(job["model"], job["backbone"]).double()
    training = Training(
        network,
        network.seen(store),
        index,
        settings,
        0,
        fabric,
        folder / "checkpoints",
        folder / "cache",
        curve=str(folder / "announced"),
    )
    training.class_weights = training.class_weights.double()
    disturb(training, job, folder)
    first = fabric.is_global_zero
    progress = training.run(folder / "curves" if first else None)
    if first:
        torch.save(network.state_dict(), folder / "network.pt")
        (folder / "history.json").write_text(json.dumps(progress.history))


def small_network(model: str, backbone: str) -> PrototypeNetwork:
    about = {"backbone": backbone, "pretrained": "none", "standardise": False}
    return models.build(model_settings(model, **about, **MODELS[model]), 3)


def disturb(training: Any, job: dict[str, Any], folder: Path) -> None:
    """Lets the second epoch be an end: of all processes, or of one, while the others go on or not.

    Each process says who it is.
    """
    epoch, rank = training._epoch, training.fabric.global_rank
    (folder / f"process {rank}").write_text(str(os.getpid()))

    def disturbed(number: int) -> dict[str, float]:
        if number == 1 and job.get("interrupt"):
            raise KeyboardInterrupt
        if number == 1 and rank == job.get("dies"):
            while not (folder / "checkpoints" / "last.pt").exists():
                time.sleep(0.01)
            os.kill(os.getpid(), signal.SIGKILL)
        if number == 1 and rank == job.get("sleeps"):
            time.sleep(600)
        values: dict[str, float] = epoch(number)
        return values

    training._epoch = disturbed


@dataclass
class Memory:
    """A crop store in memory, each image whole being its first crop."""

    pixels: NDArray[np.uint8]
    valid: NDArray[np.bool_]
    pixels_from: dict[str, Any]
    settings: CropSettings

    def __len__(self) -> int:
        return len(self.valid)

    def crops(self, images: NDArray[np.int64]) -> NDArray[np.uint8]:
        return self.pixels[images]

    def whole(self) -> "Memory":
        return replace(self, pixels=self.pixels[:, :1], valid=self.valid[:, :1])


def colours(settings: CropSettings, validation: int) -> tuple[Index, Any]:
    """Returns 28 training images and some to validate with, of three colours, and their crops."""
    numbers = np.random.default_rng(0)
    splits = ["train"] * 28 + ["val"] * validation
    images = [
        Image(f"{row:03d}", f"{row:03d}.png", NAMES[row % 3], split)  # type: ignore[arg-type]
        for row, split in enumerate(splits)
    ]
    N, K, S = len(images), settings.per_image, settings.side
    pixels = numbers.integers(0, 135, (N, K, S, S, 3), dtype=np.uint8)
    for row in range(N):
        pixels[row, ..., row % 3] += 120
    valid = np.ones((N, K), bool)
    valid[::5, 1:] = False
    return Index.of("colours", images, NAMES, []), Memory(pixels, valid, {}, settings)


Job = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def start(tmp_path: Path) -> Job:
    return start_in(tmp_path)


@pytest.fixture(scope="module")
def one(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a training by one process, from beginning to end."""
    folder = tmp_path_factory.mktemp("undisturbed")
    succeed(start_in(folder)("one"))
    return folder / "one"


def start_in(place: Path) -> Job:
    """Returns what starts a training in a folder of a place; with `torchrun`, by that many of its
    processes."""

    def started(
        name: str,
        devices: int = 1,
        torchrun: int = 0,
        model: str = "protomask",
        backbone: str = "test_resnet",
        train: dict[str, Any] | None = None,
        validation: int = 6,
        **disturbances: Any,
    ) -> "subprocess.Popen[str]":
        folder = place / name
        folder.mkdir(exist_ok=True)
        job = {
            "devices": devices,
            "backbone": backbone,
            "model": model,
            "train": {**TRAIN, **LOSSES[model], **(train or {})},
            "validation": validation,
            **disturbances,
        }
        (folder / "job.json").write_text(json.dumps(job))
        command = [sys.executable]
        if torchrun:
            port = str(free_port())
            command += ["-m", "torch.distributed.run", "--nproc-per-node", str(torchrun)]
            command += ["--master-addr", "127.0.0.1", "--master-port", port]
        environment = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join(map(str, (REPOSITORY, REPOSITORY / "tests"))),
            "OMP_NUM_THREADS": "1",
            "GLOO_SOCKET_IFNAME": "lo",
        }
        return subprocess.Popen(
            [*command, __file__, str(folder)],
            stderr=subprocess.PIPE,
            text=True,
            env=environment,
            start_new_session=True,
        )

    return started


def free_port() -> int:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        return int(listening.getsockname()[1])


def finish(process: "subprocess.Popen[str]") -> tuple[int, str]:
    """Waits, and returns the exit code and what was said."""
    try:
        said = process.communicate(timeout=900)[1]
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
    return process.returncode, said


def succeed(process: "subprocess.Popen[str]") -> None:
    code, said = finish(process)
    assert code == 0, said


def result(folder: Path) -> tuple[dict[str, Tensor], list[dict[str, float]]]:
    return torch.load(folder / "network.pt"), json.loads((folder / "history.json").read_text())


def assert_same(one: Path, other: Path) -> None:
    (weights, history), (others, other_history) = result(one), result(other)
    for mine, its in zip(history, other_history, strict=True):
        assert its == pytest.approx(mine, rel=1e-5)
    assert weights.keys() == others.keys()
    for name, value in weights.items():
        # Both in double precision; a step moves weights by 6e-5 and more.
        assert torch.allclose(others[name], value, rtol=1e-6, atol=1e-8), name


def ended(number: int) -> bool:
    """Waits for a process to end; one that nobody has asked about yet has ended, too."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        if not psutil.pid_exists(number) or psutil.Process(number).status() == "zombie":
            return True
        time.sleep(0.1)
    return False


def process_id(folder: Path, rank: int) -> int:
    """Waits until a process has said who it is."""
    path, deadline = folder / f"process {rank}", time.monotonic() + 60
    while not (path.exists() and path.read_text()) and time.monotonic() < deadline:
        time.sleep(0.1)
    return int(path.read_text())


def announced(folder: Path) -> list[int]:
    return [json.loads(line)["epoch"] for line in (folder / "announced").read_text().splitlines()]


WITH_NORMS = "test_efficientnet"
# A warm-up, noise of the model's own, and a split without images to validate with.
WITH_NOISE: dict[str, Any] = {
    "model": "protopool",
    "backbone": WITH_NORMS,
    "validation": 0,
    "train": {"warmup_epochs": 1, "epochs": 1},
}


@pytest.mark.slow
def test_two_processes_train_as_one(start: Job, tmp_path: Path) -> None:
    succeed(start("one", **WITH_NOISE))
    succeed(start("two", devices=2, **WITH_NOISE))
    assert_same(tmp_path / "one", tmp_path / "two")
    assert announced(tmp_path / "one") == announced(tmp_path / "two") == [0, 1]


@pytest.mark.slow
def test_processes_of_torchrun_train_as_one(start: Job, tmp_path: Path, one: Path) -> None:
    succeed(start("torchrun", torchrun=2))
    assert_same(one, tmp_path / "torchrun")
    assert (tmp_path / "torchrun" / "process 1").exists()


@pytest.mark.slow
@pytest.mark.parametrize(("before", "after"), [(1, 2), (2, 1)])
def test_another_number_of_processes_resumes(
    start: Job, tmp_path: Path, one: Path, before: int, after: int
) -> None:
    code, said = finish(start("resumed", devices=before, interrupt=True))
    assert code != 0 and "KeyboardInterrupt" in said
    assert (tmp_path / "resumed" / "checkpoints" / "last.pt").exists()
    succeed(start("resumed", devices=after))
    assert_same(one, tmp_path / "resumed")
    # The finished epoch is announced to who asks after the interruption, too.
    assert announced(tmp_path / "resumed") == [0, 0, 1]


@pytest.mark.slow
@pytest.mark.parametrize("sleeps", [None, 0], ids=["the first waits", "the first is busy"])
def test_process_that_dies_ends_all_with_a_message(
    start: Job, tmp_path: Path, sleeps: int | None
) -> None:
    code, said = finish(start("dying", devices=2, dies=1, sleeps=sleeps))
    assert code == 1
    assert "process of this training" in said and "run the same command again" in said
    assert "Traceback" not in said
    assert ended(process_id(tmp_path / "dying", 0))
    assert (tmp_path / "dying" / "checkpoints" / "last.pt").exists()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("torchrun", "sign"),
    [(0, signal.SIGKILL), (0, signal.SIGTERM), (2, signal.SIGKILL)],
    ids=["killed", "asked to end", "killed torchrun"],
)
def test_no_process_outlives_the_one_that_started_it(
    start: Job, tmp_path: Path, torchrun: int, sign: signal.Signals
) -> None:
    starting = start("left", devices=2, torchrun=torchrun, sleeps=1)
    numbers = [process_id(tmp_path / "left", rank) for rank in range(2)]
    starting.send_signal(sign)
    assert finish(starting)[0] == (-sign if sign == signal.SIGKILL else 128 + sign)
    assert all(ended(number) for number in numbers)


@pytest.fixture
def make_training(tmp_path: Path) -> Callable[..., Training]:
    """Makes a training by this process alone."""

    def make(name: str, augment: bool = True, compile: bool = False) -> Training:
        settings = train_settings(
            **{**TRAIN, **LOSSES["protomask"], "epochs": 1, "augment": augment}
        )
        index, store = colours(crop_settings(side=32, per_image=1), validation=4)
        torch.manual_seed(0)
        network = small_network("protomask", "test_resnet")
        fabric, folder = Fabric(torch.device("cpu"), "float32"), tmp_path / name
        return Training(network, store, index, settings, 0, fabric, folder, folder, compile)

    return make


@pytest.mark.parametrize("augment", [True, False])
def test_crops_reach_the_backbone_channels_last(
    make_training: Callable[..., Training], tmp_path: Path, augment: bool
) -> None:
    """As they lie in the store, so that nothing has to turn them round."""
    training = make_training("run", augment)
    seen: list[bool] = []
    layers = training.network.backbone.network.modules()
    first = next(layer for layer in layers if isinstance(layer, torch.nn.Conv2d))
    first.register_forward_pre_hook(
        lambda _, inputs: seen.append(inputs[0].is_contiguous(memory_format=torch.channels_last))
    )
    training.run(tmp_path / "curves")
    assert len(seen) == 7 + 1 and all(seen)


@pytest.mark.slow
@pytest.mark.skipif(
    shutil.which(os.environ.get("CXX", "g++")) is None, reason="compiling needs a C++ compiler"
)
def test_compiled_backbone_has_the_same_losses(
    make_training: Callable[..., Training], tmp_path: Path
) -> None:
    plain, compiled = make_training("plain"), make_training("compiled", compile=True)
    expected, found = (one.run(tmp_path / "curves").history for one in (plain, compiled))
    assert found[0] == pytest.approx(expected[0], rel=1e-3)
    assert "_orig_mod" not in " ".join(compiled.network.state_dict())
    # What was compiled is what was trained.
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] >= 2


if __name__ == "__main__":
    script(Path(sys.argv[1]))
