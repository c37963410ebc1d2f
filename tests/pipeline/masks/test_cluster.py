"""Segmenting with Dask: real schedulers and workers, killed, missing, and with and without GPU."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, ClassVar

import dask
import pytest
from settings import patches

from pipeline.datasets.index import ImageFiles
from pipeline.errors import ProtoMaskError
from pipeline.masks.cluster import _segment_batch, code_digest
from pipeline.masks.mask_cache import MaskCache
from pipeline.masks.masks import Masks
from pipeline.masks.segment import StoredMasks, segment_images
from pipeline.masks.segmenter import Machine, Segmenter, Source
from pipeline.masks.segmenters.patches import Patches
from pipeline.masks.store import write_store

ReadImageFiles = Callable[[Path], ImageFiles]
Make = Callable[..., Path]
HERE = Path(__file__).parent
GRID: dict[str, Any] = {"version": 1, "grid": 2}


class Noted(Patches):
    """Notes for every image which process segments it, on which device: in `machine.masks`."""

    images_per_batch: ClassVar[int] = 2
    pause: ClassVar[float] = 0

    def segment_sources(self, sources: Sequence[Source], machine: Machine) -> list[Masks]:
        found = []
        for source in sources:
            assert machine.masks is not None
            with machine.masks.open("a") as file:
                file.write(f"{os.getpid()} {machine.device} {source.sha256}\n")
            time.sleep(self.pause)
            found += super().segment_sources([source], machine)
        return found


class Slow(Noted):
    pause: ClassVar[float] = 0.2


class OnDevice(Noted):
    uses_device: ClassVar[bool] = True


class SlowOnDevice(Slow):
    uses_device: ClassVar[bool] = True


class SlowOnSharedDevice(SlowOnDevice):
    shares_device: ClassVar[bool] = True


class Deadly(Patches):
    """Kills the process that works with it."""

    def segment_sources(self, sources: Sequence[Source], machine: Machine) -> list[Masks]:
        os.kill(os.getpid(), signal.SIGKILL)
        return []


class Cluster:
    """A scheduler and its workers, each a process of its own, in another folder than the tests."""

    def __init__(self, folder: Path) -> None:
        self.file = folder / "scheduler.json"
        self.folder = folder
        self.processes: list[subprocess.Popen[bytes]] = []
        self._start("scheduler", "--port", "0")
        self.address = self._address()

    def worker(self, *options: str, code: Path = HERE.parents[2]) -> int:
        """Starts a worker of one thread with the code in a folder; returns its process id."""
        return self._start("worker", "--nthreads", "1", *options, code=code).pid

    def end(self) -> None:
        for process in reversed(self.processes):
            process.terminate()
            process.wait(20)

    def _start(
        self, command: str, *options: str, code: Path = HERE.parents[2]
    ) -> subprocess.Popen[bytes]:
        words = [sys.executable, "-m", "dask", command, "--host", "127.0.0.1", "--no-dashboard"]
        folders = HERE, HERE.parents[1], code  # this module, those that it imports, the package
        process = subprocess.Popen(
            [*words, "--scheduler-file", str(self.file), *options],
            cwd=self.folder,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(map(str, folders))},
            stderr=(self.folder / f"{len(self.processes)}.log").open("wb"),
        )
        self.processes.append(process)
        return process

    def _address(self) -> str:
        while not self.file.exists() or not self.file.read_text():
            assert self.processes[0].poll() is None
            time.sleep(0.05)
        return json.loads(self.file.read_text())["address"]


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    folder = tmp_path / "cluster"
    folder.mkdir()
    cluster = Cluster(folder)
    yield cluster
    cluster.end()


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    (tmp_path / "notes").touch()
    return Machine("cuda", masks=tmp_path / "notes")


def _notes(machine: Machine) -> list[list[str]]:
    """Process, device and image, in the order in which they were begun."""
    assert machine.masks is not None
    return [line.split() for line in machine.masks.read_text().splitlines()]


def _store(image_files: ImageFiles, segmenter: Segmenter, cache: Path) -> dict[str, bytes]:
    path = cache.with_name(f"{cache.name} store")
    write_store(path, image_files, segmenter, StoredMasks(image_files, segmenter, cache))
    return {
        str(file.relative_to(path)): file.read_bytes() for file in path.rglob("*") if file.is_file()
    }


def _store_made_here(image_files: ImageFiles, root: Path, cache: Path) -> dict[str, bytes]:
    segment_images(image_files, root, patches(), cache, 1)
    return _store(image_files, patches(), cache)


def _kill_in_the_middle(
    segmented: Future, machine: Machine, after: int, process: int | None = None
) -> None:
    """Kills a worker while it segments the first image of a batch, later than `after` images."""
    while True:
        assert not segmented.done(), segmented.result()
        notes = _notes(machine)
        names = Counter(int(name) for name, *_ in notes)
        victim = process or int(notes[-1][0]) if notes else 0
        if len(notes) > after and names[victim] % 2 and int(notes[-1][0]) == victim:
            time.sleep(0.05)
            os.kill(victim, signal.SIGKILL)
            return
        time.sleep(0.005)


@pytest.mark.slow
def test_a_killed_worker_costs_its_batch_and_nothing_else(
    tmp_path: Path,
    make_photographs: Make,
    image_files_in: ReadImageFiles,
    machine: Machine,
    cluster: Cluster,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    root = make_photographs(tmp_path / "root", per_class=15)
    image_files = image_files_in(root)
    victim = cluster.worker("--no-nanny")
    other = cluster.worker("--no-nanny")
    monkeypatch.chdir(tmp_path)
    with ThreadPoolExecutor(1) as pool:
        segmented = pool.submit(
            segment_images, image_files, Path("root"), Slow(**GRID), Path("cache"), 1, machine,
            cluster.address,
        )  # fmt: skip
        _kill_in_the_middle(segmented, machine, 8, victim)
        assert segmented.result() == 30
    notes = _notes(machine)
    assert {int(name) for name, *_ in notes} == {victim, other}
    assert sorted(Counter(image for *_, image in notes).values()) == [1] * 29 + [2]
    assert not list((tmp_path / "cache").rglob(".*"))
    made = _store(image_files, Slow(**GRID), tmp_path / "cache")
    assert made == _store_made_here(image_files, root, tmp_path / "here")


@pytest.mark.slow
def test_workers_may_die_again_and_again(
    tmp_path: Path,
    make_photographs: Make,
    image_files_in: ReadImageFiles,
    machine: Machine,
    cluster: Cluster,
) -> None:
    root = make_photographs(tmp_path / "root", per_class=20)
    image_files = image_files_in(root)
    cluster.worker("--resources", "GPU=1")
    with ThreadPoolExecutor(1) as pool:
        segmented = pool.submit(
            segment_images, image_files, root, SlowOnDevice(**GRID), tmp_path / "cache", 1,
            machine, cluster.address,
        )  # fmt: skip
        for _ in range(5):
            _kill_in_the_middle(segmented, machine, len(_notes(machine)) + 4)
        assert segmented.result() == 40
    assert len({name for name, *_ in _notes(machine)}) == 6
    made = _store(image_files, SlowOnDevice(**GRID), tmp_path / "cache")
    assert made == _store_made_here(image_files, root, tmp_path / "here")


@pytest.mark.slow
def test_only_a_worker_that_offers_a_gpu_is_given_work_for_one(
    photograph_folder: Path,
    image_files_in: ReadImageFiles,
    tmp_path: Path,
    machine: Machine,
    cluster: Cluster,
    capsys: pytest.CaptureFixture[str],
) -> None:
    image_files = image_files_in(photograph_folder)
    without = cluster.worker("--no-nanny")
    args = image_files, photograph_folder, OnDevice(**GRID)
    cpu = Machine("cpu", masks=machine.masks)
    assert segment_images(*args, tmp_path / "on cpu", 1, cpu, cluster.address) == 10
    assert {int(name) for name, *_ in _notes(machine)} == {without}
    Path(machine.masks or "").write_text("")
    with ThreadPoolExecutor(1) as pool:
        segmented = pool.submit(
            segment_images, *args, tmp_path / "on gpu", 1, machine, cluster.address
        )
        while "Waiting for a worker that offers a GPU" not in capsys.readouterr().err:
            assert not segmented.done()
            time.sleep(0.05)
        gpu = cluster.worker("--no-nanny", "--resources", "GPU=1")
        assert segmented.result() == 10
    assert {int(name) for name, *_ in _notes(machine)} == {gpu}


@pytest.mark.slow
def test_errors_of_workers_are_the_users(
    photograph_folder: Path, image_files_in: ReadImageFiles, tmp_path: Path, cluster: Cluster
) -> None:
    image_files = image_files_in(photograph_folder)
    cluster.worker("--no-nanny")
    args = image_files, photograph_folder, patches(), tmp_path / "cache", 1, Machine()
    (photograph_folder / "class 1" / "003.png").unlink()
    with pytest.raises(ProtoMaskError, match=rf"on {socket.gethostname()}: .*003\.png is in the"):
        segment_images(*args, cluster.address)
    photograph_folder.rename(tmp_path / "elsewhere")
    with pytest.raises(ProtoMaskError, match=r"the worker on .* does not see .*photographs: mount"):
        segment_images(*args, cluster.address)
    (tmp_path / "elsewhere").rename(photograph_folder)


@pytest.mark.slow
def test_a_batch_that_kills_its_workers_is_given_up(
    photograph_folder: Path, image_files_in: ReadImageFiles, tmp_path: Path
) -> None:
    image_files = image_files_in(photograph_folder)
    args = (
        image_files,
        photograph_folder,
        Deadly(**GRID),
        tmp_path / "cache",
        1,
        Machine(),
        "local:1",
    )
    with (
        dask.config.set({"distributed.scheduler.allowed-failures": 1}),
        pytest.raises(ProtoMaskError, match=r"^2 workers died while they segmented the same batch"),
    ):
        segment_images(*args)


def test_a_folder_that_only_looks_the_same_is_no_shared_folder(tmp_path: Path) -> None:
    source = Source(tmp_path, "1.png", "0" * 64)
    with pytest.raises(ProtoMaskError, match=r"does not see .*\.seen-by-workers-1: mount"):
        _segment_batch(
            [source],
            patches(),
            MaskCache(tmp_path, 1),
            Machine(),
            tmp_path / ".seen-by-workers-1",
            code_digest(),
        )


def test_a_worker_with_other_code_is_refused(
    photograph_folder: Path, image_files_in: ReadImageFiles, tmp_path: Path, cluster: Cluster
) -> None:
    other = tmp_path / "other"
    shutil.copytree(HERE.parents[2] / "pipeline", other / "pipeline")
    with (other / "pipeline" / "masks" / "segmenters" / "patches.py").open("a") as file:
        file.write("# edited\n")
    cluster.worker("--no-nanny", code=other)
    args = image_files_in(photograph_folder), photograph_folder, patches(), tmp_path / "cache", 1
    with pytest.raises(ProtoMaskError, match=rf"worker on .* runs the code in {other}, which is"):
        segment_images(*args, Machine(), cluster.address)


@pytest.mark.slow
def test_a_lost_scheduler_keeps_what_was_finished(
    tmp_path: Path,
    make_photographs: Make,
    image_files_in: ReadImageFiles,
    machine: Machine,
    cluster: Cluster,
) -> None:
    root = make_photographs(tmp_path / "root", per_class=10)
    image_files, cache = image_files_in(root), tmp_path / "cache"
    cluster.worker("--no-nanny")
    with ThreadPoolExecutor(1) as pool:
        segmented = pool.submit(
            segment_images, image_files, root, Slow(**GRID), cache, 1, machine, cluster.address
        )
        while len(_notes(machine)) < 5:
            assert not segmented.done()
            time.sleep(0.01)
        cluster.processes[0].kill()
        with pytest.raises(ProtoMaskError, match=r"connection to tcp://.* was lost"):
            segmented.result()
    assert 0 < segment_images(image_files, root, Slow(**GRID), cache, 1, machine) <= 16


@pytest.mark.slow
def test_processes_of_this_machine(
    photograph_folder: Path, image_files_in: ReadImageFiles, tmp_path: Path, machine: Machine
) -> None:
    image_files, cache = image_files_in(photograph_folder), tmp_path / "cache"
    args = image_files, photograph_folder, OnDevice(**GRID), cache, 1, machine, "local:2"
    environment = dict(os.environ)
    assert segment_images(*args) == 10
    assert dict(os.environ) == environment
    assert str(os.getpid()) not in {name for name, *_ in _notes(machine)}
    assert segment_images(*args) == 0
    made = _store(image_files, OnDevice(**GRID), cache)
    assert made == _store_made_here(image_files, photograph_folder, tmp_path / "here")


def test_nobody_at_the_address(
    photograph_folder: Path, image_files_in: ReadImageFiles, tmp_path: Path
) -> None:
    with socket.socket() as unheard:
        unheard.bind(("127.0.0.1", 0))
        address = f"tcp://127.0.0.1:{unheard.getsockname()[1]}"
        with (
            dask.config.set({"distributed.comm.timeouts.connect": "1s"}),
            pytest.raises(ProtoMaskError, match=rf"no Dask scheduler answers at {address}"),
        ):
            segment_images(
                image_files_in(photograph_folder), photograph_folder, patches(), tmp_path / "m", 1,
                Machine(), address,
            )  # fmt: skip


@pytest.mark.slow
def test_several_devices_have_a_process_each(
    tmp_path: Path,
    make_photographs: Make,
    image_files_in: ReadImageFiles,
    machine: Machine,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    root = make_photographs(tmp_path / "root", per_class=5)
    image_files = image_files_in(root)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    segment_images(image_files, root, SlowOnDevice(**GRID), tmp_path / "cache", 1, machine)
    notes = _notes(machine)
    assert len(notes) == 10
    assert {device for _, device, _ in notes} == {"cuda:0", "cuda:1"}
    assert len({(name, device) for name, device, _ in notes}) == 2
    made = _store(image_files, SlowOnDevice(**GRID), tmp_path / "cache")
    assert made == _store_made_here(image_files, root, tmp_path / "here")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("devices", "expected"),
    [(1, ["cuda", "cuda", "cuda"]), (2, ["cuda:0", "cuda:0", "cuda:1"])],
)
def test_devices_that_are_shared_have_several_processes_each(
    tmp_path: Path,
    make_photographs: Make,
    image_files_in: ReadImageFiles,
    machine: Machine,
    monkeypatch: pytest.MonkeyPatch,
    devices: int,
    expected: list[str],
) -> None:
    image_files = image_files_in(make_photographs(tmp_path / "root", per_class=5))
    monkeypatch.setattr("torch.cuda.device_count", lambda: devices)
    segmenter = SlowOnSharedDevice(**GRID)
    segment_images(image_files, tmp_path / "root", segmenter, tmp_path / "cache", 3, machine)
    processes = {(name, device) for name, device, _ in _notes(machine)}
    assert sorted(device for _, device in processes) == expected
    assert len({name for name, _ in processes}) == 3
