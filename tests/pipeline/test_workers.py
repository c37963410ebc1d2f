"""Worker processes of real stages end when the stage is terminated or killed, and do their work."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml
from settings import felzenszwalb

from pipeline.datasets.index import ImageFiles
from pipeline.workers import worker_pool

REPOSITORY = Path(__file__).parents[2]
FEW_SECONDS = 5

Start = Callable[..., psutil.Popen]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Starts a stage in `tmp_path` with changed parameters: section → parameter → value."""
    processes: list[psutil.Popen] = []

    def start(stage: str, **changed: dict[str, Any]) -> psutil.Popen:
        params = yaml.safe_load((REPOSITORY / "params.yaml").read_text())
        params["segmenter"] = felzenszwalb().model_dump(mode="json")
        for section, values in changed.items():
            params[section].update(values)
        (tmp_path / "params.yaml").write_text(yaml.safe_dump(params))
        process = psutil.Popen(
            [sys.executable, "-m", "stages", stage],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        processes.append(process)
        return process

    yield start
    for process in processes:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _children_at_work(process: psutil.Popen, folder: Path, made: str) -> list[psutil.Process]:
    """Waits until a stage's workers have written a file; returns all processes below the stage."""
    until = time.monotonic() + 120
    while not any(folder.glob(made)):
        assert process.poll() is None and time.monotonic() < until
        time.sleep(0.01)
    children = process.children(recursive=True)
    assert len(children) >= 2
    return children


def _end(stage: psutil.Popen, children: list[psutil.Process], sign: signal.Signals) -> None:
    """Ends a stage by a signal, and checks that its children are gone soon."""
    stage.send_signal(sign)
    assert stage.wait(FEW_SECONDS) == -sign
    assert psutil.wait_procs(children, timeout=FEW_SECONDS)[1] == []


@pytest.mark.parametrize(
    ("scheduler", "sign"),
    [
        (None, signal.SIGTERM),
        (None, signal.SIGKILL),
        pytest.param("local:2", signal.SIGKILL, marks=pytest.mark.slow),
    ],
)
def test_masks(
    tmp_path: Path,
    make_photographs: Callable[..., Path],
    image_files_in: Callable[[Path], ImageFiles],
    start: Start,
    scheduler: str | None,
    sign: signal.Signals,
) -> None:
    root = make_photographs(tmp_path / "photographs", per_class=32, width=120, height=90)
    (tmp_path / "artifacts" / "index").mkdir(parents=True)
    image_files_in(root).write(tmp_path / "artifacts" / "index" / "photographs.parquet")
    dataset = {"name": "folder", "root": "photographs", "scanned": ["photographs"]}
    stage = start("masks", dataset=dataset, runtime={"workers": 2, "scheduler": scheduler})
    _end(stage, _children_at_work(stage, tmp_path, ".protomask/masks/*/*.parquet"), sign)


def test_prepare_of_demo(tmp_path: Path, start: Start) -> None:
    stage = start("prepare", runtime={"workers": 2})
    drawn = "artifacts/.index.*.part/images/*/*.jpg"
    _end(stage, _children_at_work(stage, tmp_path, drawn), signal.SIGTERM)


def _prepend(path: str, number: int) -> str:
    return os.environ.get("WORKER", "") + path * number


def _set(value: str) -> None:
    os.environ["WORKER"] = value


def test_a_worker_begins_with_the_initializer() -> None:
    with worker_pool(1, _set, "begun ") as pool:
        assert pool.submit(_prepend, "a", 3).result() == "begun aaa"
    with worker_pool(1) as pool:
        assert pool.submit(_prepend, "a", 3).result() == "aaa"
