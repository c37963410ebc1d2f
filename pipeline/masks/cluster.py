"""Segmentation with Dask: each batch of images is a task, its worker writes into a shared cache."""

import hashlib
import socket
import tempfile
from collections.abc import Iterator
from concurrent.futures import CancelledError
from contextlib import contextmanager
from functools import cache
from itertools import islice
from pathlib import Path

from distributed import Client, Future, KilledWorker, LocalCluster, as_completed

import pipeline
from pipeline.errors import ProtoMaskError
from pipeline.masks.mask_cache import MaskCache, segment_into_cache
from pipeline.masks.segmenter import Machine, Segmenter, Source
from pipeline.progress import console
from pipeline.workers import cores_shared

LOCAL = "local:"


def segment_on_cluster(
    batches: list[list[Source]],
    segmenter: Segmenter,
    mask_cache: MaskCache,
    machine: Machine,
    scheduler: str,
) -> Iterator[int]:
    """Segments batches of images on Dask's workers; yields the number of images in each.

    If a worker dies, its batch is segmented by another.

    Args:
        batches: the images of each batch, in a folder that the workers see at the same path.
        segmenter: the segmenter that computes the masks.
        mask_cache: the segmenter's cache, in a folder that the workers see at the same path.
        machine: the settings of each worker. Unless the device is "cpu", a segmenter that uses a
            device runs only on workers that offer the resource `GPU`; those of `local:N` share this
            machine's device.
        scheduler: address of Dask's scheduler, or `local:N` for N processes on this machine.

    Raises:
        ProtoMaskError: the scheduler does not answer or has gone; a worker does not see a folder or
            runs other code; an image is missing or has changed; four workers died at the same
            batch.
    """
    on_gpu = segmenter.uses_device and machine.device != "cpu" and not scheduler.startswith(LOCAL)
    resources = {"GPU": 1} if on_gpu else {}
    todo, sizes = iter(batches), {}
    with _visible_file(mask_cache.folder) as witness, _client(scheduler) as client:
        _say_if_nobody_works(client, resources)
        running = as_completed(loop=client.loop)

        def submit() -> None:
            """Keeps two batches for each thread submitted.

            If all were submitted at once, they would be assigned to workers at once, and the fourth
            worker to die would fail all batches that were waiting for it.
            """
            wanted = 2 * _threads(client, scheduler) + 1
            for batch in islice(todo, max(0, wanted - running.count())):
                future = client.submit(
                    _segment_batch, batch, segmenter, mask_cache, machine, witness, code_digest(),
                    resources=resources, pure=False,
                )  # fmt: skip
                sizes[future.key] = len(batch)
                running.add(future)

        submit()
        for future in running:
            _refuse_failed(future, scheduler)
            # Dask would compute a result that is still referenced again if its worker died now.
            future.release()
            yield sizes.pop(future.key)
            submit()


@cache
def code_digest() -> str:
    """Returns a hash of the package's source files as this process first read them.

    It does not depend on where the files are.
    """
    folder = Path(pipeline.__file__).parent
    files = sorted(folder.rglob("*.py"))
    lines = [
        f"{hashlib.sha256(path.read_bytes()).hexdigest()} {path.relative_to(folder).as_posix()}"
        for path in files
    ]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def _segment_batch(
    sources: list[Source],
    segmenter: Segmenter,
    mask_cache: MaskCache,
    machine: Machine,
    witness: Path,
    code: str,
) -> None:
    """Segments a batch on a worker."""
    host = socket.gethostname()
    if code_digest() != code:
        raise ProtoMaskError(
            f"the worker on {host} runs the code in {Path(pipeline.__file__).parents[1]}, which is "
            "not that of this run: bring the repository there to the same commit and start the "
            "worker again, in its folder, with `python3 -m distributed.cli.dask_worker`"
        )
    for path in (sources[0].root, witness):
        if not path.exists():
            raise ProtoMaskError(
                f"the worker on {host} does not see {path}: mount the photographs' folder and the "
                "repository's .protomask there at the same paths as here"
            )
    try:
        segment_into_cache(sources, segmenter, mask_cache, machine)
    except ProtoMaskError as error:
        raise ProtoMaskError(f"on {host}: {error}") from error


def _refuse_failed(future: Future, scheduler: str) -> None:
    try:
        if future.status in ("error", "cancelled", "lost"):
            future.result()
    except KilledWorker as error:
        raise ProtoMaskError(
            f"{error.allowed_failures + 1} workers died while they segmented the same batch, the "
            f"last one at {error.last_worker.address}, most often because memory ran out: look at "
            "its log and run the same command again; what was finished is kept"
        ) from None
    except CancelledError:
        raise _lost(scheduler) from None


def _threads(client: Client, scheduler: str) -> int:
    try:
        return sum(client.nthreads().values())
    except OSError:
        raise _lost(scheduler) from None


def _lost(scheduler: str) -> ProtoMaskError:
    return ProtoMaskError(
        f"runtime.scheduler: the connection to {scheduler} was lost; start the scheduler again and "
        "run the same command again; what was finished is kept"
    )


@contextmanager
def _visible_file(folder: Path) -> Iterator[Path]:
    """Yields a new file, by which a worker can check that it sees the same folder."""
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=folder, prefix=".seen-by-workers-") as file:
        yield Path(file.name)


@contextmanager
def _client(scheduler: str) -> Iterator[Client]:
    if scheduler.startswith(LOCAL):
        workers = int(scheduler.removeprefix(LOCAL))
        with (
            cores_shared(workers),
            LocalCluster(
                n_workers=workers,
                threads_per_worker=1,
                processes=True,
                host="127.0.0.1",
                dashboard_address="127.0.0.1:0",
            ) as cluster,
            Client(cluster, set_as_default=False) as client,
        ):
            yield client
        return
    try:
        client = Client(scheduler, set_as_default=False)
    except (OSError, ValueError) as error:
        raise ProtoMaskError(
            f"runtime.scheduler: no Dask scheduler answers at {scheduler} ({error}); start "
            "`dask scheduler` there, or set runtime.scheduler=null to segment on this machine"
        ) from None
    with client:
        yield client


def _say_if_nobody_works(client: Client, resources: dict[str, int]) -> None:
    workers = client.scheduler_info(n_workers=-1)["workers"].values()
    if not any(resources.keys() <= worker["resources"].keys() for worker in workers):
        what = ' that offers a GPU (`dask worker --resources "GPU=1"`)' if resources else ""
        console.print(f"Waiting for a worker{what}.", markup=False)
