"""Processes share the cores; workers of real stages end when the stage does, and do their work."""

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
from pipeline.workers import cores, cores_of_quota, cores_shared, worker_pool

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


SET = ("OMP_NUM_THREADS", "OMP_WAIT_POLICY", "PROTOMASK_CORES")


@pytest.fixture
def alone(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """The environment of a process that nobody has given a share; returns what changes it."""
    for name in (*SET, "SLURM_CPUS_PER_TASK", "SLURM_CPUS_ON_NODE"):
        monkeypatch.delenv(name, raising=False)
    return monkeypatch


def _settings() -> list[str | None]:
    return [os.environ.get(name) for name in SET]


def _cores() -> int:
    return cores()


def test_cores_are_those_that_the_system_and_slurm_leave(alone: pytest.MonkeyPatch) -> None:
    here = cores()
    alone.setenv("SLURM_CPUS_ON_NODE", str(here + 1))
    assert cores() == here
    alone.setenv("SLURM_CPUS_PER_TASK", "1")
    assert cores() == 1
    alone.setenv("SLURM_CPUS_PER_TASK", "none of our business")
    assert cores() == here


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="no affinity here")
def test_cores_are_those_that_the_affinity_leaves(alone: pytest.MonkeyPatch) -> None:
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(before)})
    try:
        assert cores() == 1
    finally:
        os.sched_setaffinity(0, before)


@pytest.mark.parametrize(
    ("groups", "files", "expected"),
    [
        ("0::/", {}, None),
        ("0::/", {"cpu.max": "max 100000"}, None),
        ("0::/", {"cpu.max": "350000 100000"}, 3),
        ("0::/a/b", {"a/b/cpu.max": "max 100000", "a/cpu.max": "50000 100000"}, 1),
        ("0::/not/mounted/here", {"cpu.max": "200000 100000"}, 2),
        ("3:cpuset:/a\n2:cpu,cpuacct:/a\n0::/", {"cpuset/a/cpu.max": "100000 100000"}, None),
        (
            "2:cpu,cpuacct:/a",
            {"cpu/a/cpu.cfs_quota_us": "-1", "cpu/a/cpu.cfs_period_us": "100000"},
            None,
        ),
        (
            "2:cpu,cpuacct:/of/the/host",
            {"cpu/cpu.cfs_quota_us": "250000", "cpu/cpu.cfs_period_us": "100000"},
            2,
        ),
    ],
)
def test_the_quota_of_a_container(
    tmp_path: Path, groups: str, files: dict[str, str], expected: int | None
) -> None:
    for name, text in files.items():
        file = tmp_path / "mounted" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(f"{text}\n")
    (tmp_path / "groups").write_text(f"{groups}\n")
    assert cores_of_quota(tmp_path / "groups", tmp_path / "mounted") == expected
    assert cores_of_quota(tmp_path / "none", tmp_path) is None


def test_workers_share_the_cores(alone: pytest.MonkeyPatch) -> None:
    here, before = cores(), _settings()
    with worker_pool(here + 1) as pool:
        assert pool.submit(_settings).result() == ["1", "PASSIVE", "1"]
        assert pool.submit(_cores).result() == 1
    assert _settings() == before


def test_a_share_is_shared_again(alone: pytest.MonkeyPatch) -> None:
    with cores_shared(cores() + 1):
        share = _settings()
        for workers in (1, 2):
            with cores_shared(workers):
                assert _settings() == share == ["1", "PASSIVE", "1"]


def test_what_a_person_has_set_is_kept(alone: pytest.MonkeyPatch) -> None:
    alone.setenv("OMP_NUM_THREADS", "7")
    alone.setenv("OMP_WAIT_POLICY", "ACTIVE")
    with cores_shared(cores() + 1):
        assert _settings() == ["7", "ACTIVE", None]


def test_a_process_with_all_cores_leaves_their_number_to_its_libraries(
    alone: pytest.MonkeyPatch,
) -> None:
    with cores_shared(1):
        assert _settings()[0] in (None, str(cores_of_quota()))


@pytest.mark.skipif(sys.platform != "linux", reason="PyTorch's runtime of OpenMP says it on Linux")
def test_the_threads_of_a_stage_wait_passively(tmp_path: Path, alone: pytest.MonkeyPatch) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "stages", "train"],  # which ends here for want of parameters
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY), "OMP_DISPLAY_ENV": "VERBOSE"},
        capture_output=True,
        text=True,
    )
    assert "params.yaml" in done.stderr
    assert "OMP_WAIT_POLICY = 'PASSIVE'" in done.stderr
    assert "GOMP_SPINCOUNT = '0'" in done.stderr
