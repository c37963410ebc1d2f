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
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import torch
from torch import Tensor

REPOSITORY = Path(__file__).parents[3]
# 28 images are 7 batches: two steps of 3, which two processes share as 1 and 2, and one of 1.
TRAIN = {"epochs": 2, "batch_size": 4, "accumulate": 3}
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
    from pydantic import TypeAdapter

    from pipeline.crops.extraction import CropSettings
    from pipeline.model.build import build
    from pipeline.model.settings import ModelSettings
    from pipeline.training.devices import launched
    from pipeline.training.settings import Runtime, TrainSettings
    from pipeline.training.train import Training

    job = json.loads((folder / "job.json").read_text())
    settings = TrainSettings(**job["train"])
    index, store = colours(CropSettings(size=32, per_image=2), job["validation"])
    with launched(Runtime(device="cpu", devices=job["devices"]), settings.accumulate) as fabric:
        torch.manual_seed(0)
        about = {"backbone": job["backbone"], "pretrained": "none", "standardise": False}
        adapter: TypeAdapter[Any] = TypeAdapter(ModelSettings)
        # In double precision rounding does not grow to what could hide a mistake.
        network = build(adapter.validate_python({**about, **job["model"]}), 3).double()
        training = Training(
            network,
            network.seen(store),
            index,
            settings,
            0,
            fabric,
            folder / "checkpoints",
            folder / "memory",
            compile=job.get("compile", False),
            curve=str(folder / "announced"),
        )
        training.class_weights = training.class_weights.double()
        disturb(training, job, folder)
        first = fabric.is_global_zero
        progress = training.run(folder / "curves" if first else None)
        if first:
            torch.save(network.state_dict(), folder / "network.pt")
            (folder / "history.json").write_text(json.dumps(progress.history))


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
            os.kill(os.getpid(), signal.SIGKILL)
        if number == 1 and rank == job.get("sleeps"):
            time.sleep(600)
        values: dict[str, float] = epoch(number)
        return values

    training._epoch = disturbed


def colours(settings: Any, validation: int) -> tuple[Any, Any]:
    """Returns 28 training images and some to validate with, of three colours, and their crops."""
    from conftest import CLASSES, Store

    from pipeline.datasets.index import Image, Index

    numbers = np.random.default_rng(0)
    splits = ["train"] * 28 + ["val"] * validation
    images = [
        Image(f"{row:03d}", f"{row:03d}.png", CLASSES[row % 3], split)  # type: ignore[arg-type]
        for row, split in enumerate(splits)
    ]
    N, K, S = len(images), settings.per_image, settings.size
    pixels = numbers.integers(0, 135, (N, K, S, S, 3), dtype=np.uint8)
    for row in range(N):
        pixels[row, ..., row % 3] += 120
    valid = np.ones((N, K), bool)
    valid[::5, 1] = False
    return Index.of("colours", images, CLASSES, []), Store(pixels, valid, {}, settings)


Job = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def start(tmp_path: Path) -> Job:
    """Starts a training in a folder; with `torchrun`, by that many of its processes."""

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
        folder = tmp_path / name
        folder.mkdir(exist_ok=True)
        job = {
            "devices": devices,
            "backbone": backbone,
            "model": {"name": model, **MODELS[model]},
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
            "PYTHONPATH": str(REPOSITORY),
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


def announced(folder: Path) -> list[int]:
    return [json.loads(line)["epoch"] for line in (folder / "announced").read_text().splitlines()]


WITH_NORMS = "efficientnet_lite0"
AS_ONE = {
    "protomask": {"model": "protomask", "backbone": WITH_NORMS},
    # A warm-up, noise of the model's own, and a split without images to validate with.
    "protopool": {
        "model": "protopool",
        "backbone": WITH_NORMS,
        "validation": 0,
        "train": {"warmup_epochs": 1, "epochs": 1},
    },
}


@pytest.mark.slow
@pytest.mark.parametrize("name", AS_ONE)
def test_two_processes_train_as_one(start: Job, tmp_path: Path, name: str) -> None:
    succeed(start("one", **AS_ONE[name]))
    succeed(start("two", devices=2, **AS_ONE[name]))
    assert_same(tmp_path / "one", tmp_path / "two")
    assert announced(tmp_path / "one") == announced(tmp_path / "two") == [0, 1]


@pytest.mark.slow
def test_processes_of_torchrun_train_as_one(start: Job, tmp_path: Path) -> None:
    succeed(start("one"))
    succeed(start("torchrun", torchrun=2))
    assert_same(tmp_path / "one", tmp_path / "torchrun")
    assert (tmp_path / "torchrun" / "process 1").exists()


@pytest.mark.slow
@pytest.mark.parametrize(("before", "after"), [(1, 2), (2, 1)])
def test_another_number_of_processes_resumes(
    start: Job, tmp_path: Path, before: int, after: int
) -> None:
    succeed(start("undisturbed"))
    code, said = finish(start("resumed", devices=before, interrupt=True))
    assert code != 0 and "KeyboardInterrupt" in said
    assert (tmp_path / "resumed" / "checkpoints" / "last.pt").exists()
    succeed(start("resumed", devices=after))
    assert_same(tmp_path / "undisturbed", tmp_path / "resumed")
    # The finished epoch is announced to who asks after the interruption, too.
    assert announced(tmp_path / "resumed") == [0, 0, 1]


@pytest.mark.slow
@pytest.mark.parametrize("sleeps", [None, 0], ids=["the first waits", "the first is busy"])
def test_process_that_dies_ends_the_first_with_a_message(
    start: Job, tmp_path: Path, sleeps: int | None
) -> None:
    code, said = finish(start("dying", devices=2, dies=1, sleeps=sleeps))
    assert code == 1
    assert "process of this training" in said and "run the same command again" in said
    assert (tmp_path / "dying" / "checkpoints" / "last.pt").exists()


@pytest.mark.slow
def test_no_process_outlives_the_first(start: Job, tmp_path: Path) -> None:
    process = start("dying", devices=2, dies=0, sleeps=1)
    assert finish(process)[0] == -signal.SIGKILL
    assert ended(int((tmp_path / "dying" / "process 1").read_text()))


@pytest.mark.slow
@pytest.mark.skipif(
    shutil.which(os.environ.get("CXX", "g++")) is None, reason="compiling needs a C++ compiler"
)
def test_compiled_backbone_has_the_same_losses(start: Job, tmp_path: Path) -> None:
    succeed(start("plain"))
    succeed(start("compiled", compile=True))
    assert_same(tmp_path / "plain", tmp_path / "compiled")


if __name__ == "__main__":
    script(Path(sys.argv[1]))
