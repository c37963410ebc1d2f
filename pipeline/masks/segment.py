"""Segmentation of a data set: workers fill a cache, from which the store is assembled."""

import sys
from collections.abc import Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Executor, Future, ThreadPoolExecutor, wait
from contextlib import AbstractContextManager
from dataclasses import replace
from functools import lru_cache
from itertools import cycle, islice
from multiprocessing.queues import SimpleQueue
from pathlib import Path
from types import ModuleType

from pipeline.datasets.index import ImageFiles
from pipeline.errors import ProtoMaskError
from pipeline.masks.mask_cache import MaskCache, segment_into_cache
from pipeline.masks.masks import SMALLEST_SIDE, Masks
from pipeline.masks.segmenter import Machine, Segmenter, Source
from pipeline.progress import examples, track
from pipeline.workers import SPAWN, worker_pool

FILES_KEPT = 64
"""Files of the cache whose masks are in memory at a time."""


def fit(
    image_files: ImageFiles, root: Path, segmenter: Segmenter, cache: Path, machine: Machine
) -> Segmenter:
    """Returns the segmenter to use for a data set, after it has learned what it learns from images.

    It sees no image that the data set itself puts into its test split.

    Args:
        image_files: the images of the data set.
        root: the folder that their paths are relative to.
        segmenter: the segmenter as its parameters say.
        cache: folder of all segmenters' caches.
        machine: the device and other settings of this machine.

    Raises:
        ProtoMaskError: it cannot learn; there is no image to learn from, or one is missing.
    """
    seen = image_files.table[~image_files.table["held_out"].astype(bool)]
    sources = _sources(replace(image_files, table=seen), root.absolute())
    return segmenter.fit(sources, cache.absolute(), machine)


def named(
    image_files: ImageFiles, root: Path, segmenter: Segmenter, cache: Path, machine: Machine
) -> Segmenter:
    """Returns the segmenter with names that images do not tell; see `Segmenter.named`.

    Args:
        image_files: the images to segment.
        root: the folder that their paths are relative to.
        segmenter: the segmenter that will compute the masks.
        cache: folder of all segmenters' caches.
        machine: the settings of this machine.

    Raises:
        ProtoMaskError: it was given something that it cannot use.
    """
    folder = cache.absolute() / segmenter.key()
    return segmenter.named(_sources(image_files, root.absolute()), folder, machine)


def segment_images(
    image_files: ImageFiles,
    root: Path,
    segmenter: Segmenter,
    cache: Path,
    workers: int,
    machine: Machine = Machine(),
    scheduler: str | None = None,
) -> int:
    """Segments all images of an index that are not in the cache yet.

    Args:
        image_files: the images to segment.
        root: the folder that their paths are relative to.
        segmenter: the segmenter that computes the masks.
        cache: folder of all segmenters' caches.
        workers: number of batches that are segmented at a time: in as many processes, which share
            the cores, or, for a segmenter that needs a GPU for itself, in as many threads, so that
            images are read and masks are written while the device works on another batch. With
            several CUDA devices, such a segmenter has one process for each of them instead.
        machine: the device and other settings of this machine.
        scheduler: address of a Dask scheduler, or `local:N`, whose workers segment; None segments
            without Dask.

    Returns:
        The number of images that were segmented.

    Raises:
        ProtoMaskError: an image is missing or has changed; for errors of Dask see
            `cluster.segment_on_cluster`.
    """
    root, cache = root.absolute(), cache.absolute()
    mask_cache = MaskCache(cache / segmenter.key(), len(segmenter.score_names))
    have = mask_cache.images()
    sources = {segmenter.identity(source): source for source in _sources(image_files, root)}
    todo = [source for image, source in sources.items() if image not in have]
    size = segmenter.images_per_batch
    batches = [todo[at : at + size] for at in range(0, len(todo), size)]
    if scheduler is None or not batches:
        made = _segment_here(batches, segmenter, mask_cache, workers, machine)
    else:
        made = _cluster().segment_on_cluster(batches, segmenter, mask_cache, machine, scheduler)
    images = (None for size in made for _ in range(size))
    return sum(1 for _ in track(images, "Segmenting images", len(todo)))


class StoredMasks:
    """The masks of the index's images, in its order, from the cache; may be gone through again.

    Few files of the cache are held at a time: as images are segmented in the index's order, each is
    read once, unless runs with other images have filled the cache.

    Args:
        image_files: the images of the index.
        segmenter: the segmenter that made the masks.
        cache: folder of all segmenters' caches.
    """

    def __init__(self, image_files: ImageFiles, segmenter: Segmenter, cache: Path) -> None:
        self._cache = MaskCache(cache / segmenter.key(), len(segmenter.score_names))
        self._holds = self._cache.images()
        self._images = [segmenter.identity(source) for source in _sources(image_files, Path())]
        self._wanted: dict[Path, set[str]] = {}
        for image in self._images:
            self._wanted.setdefault(self._holds[image], set()).add(image)

    def __len__(self) -> int:
        """Returns the number of images."""
        return len(self._images)

    def __iter__(self) -> Iterator[Masks]:
        """Yields the masks of each image."""

        @lru_cache(maxsize=FILES_KEPT)
        def of_file(path: Path) -> dict[str, Masks]:
            return self._cache.read(path, self._wanted[path])

        for image in self._images:
            yield of_file(self._holds[image])[image]


def remarks_on(
    masks: Iterable[Masks],
    image_files: ImageFiles,
    root: Path,
    segmenter: Segmenter,
    machine: Machine,
) -> list[str]:
    """Returns what was not used, and what has no masks: how many, and a few of them.

    Args:
        masks: the masks of each image of the index, in its order.
        image_files: the images of the index.
        root: the folder that their paths are relative to.
        segmenter: the segmenter that made the masks.
        machine: the settings of this machine.

    Raises:
        ProtoMaskError: there is not a single mask.
    """
    said = segmenter.remarks(_sources(image_files, root.absolute()), machine)
    counted = ((len(its), its.dropped) for its in masks)
    found = dict(zip(image_files.ids, counted, strict=True))
    dropped = {image: regions for image, (_, regions) in found.items() if regions}
    if dropped:
        said.append(
            f"{sum(dropped.values())} regions of {len(dropped)} images are empty or less than "
            f"{SMALLEST_SIDE} pixels wide or high, and give no mask: {examples(list(dropped))}"
        )
    without = [image for image, (masks_of_it, _) in found.items() if masks_of_it == 0]
    if len(without) == len(found):
        raise ProtoMaskError(
            "; ".join([f"{segmenter.name!r} gives none of the {len(found)} images a mask", *said])
            + ". Which other segmenters and parameters there are, docs/segmenters.md says"
        )
    if without:
        said.append(f"{len(without)} of {len(found)} images have no mask: {examples(without)}")
    return said


def _sources(image_files: ImageFiles, root: Path) -> list[Source]:
    table = image_files.table
    return [
        Source(root, path, digest)
        for path, digest in zip(table["path"], table["sha256"], strict=True)
    ]


def _cluster() -> ModuleType:
    """Imports the module that uses Dask, an optional dependency."""
    try:
        from pipeline.masks import cluster
    except ModuleNotFoundError as error:
        raise ProtoMaskError(
            f"runtime.scheduler needs the package {error.name}, which is not installed: run "
            "`pip install -c constraints.txt -e '.[cluster]'` in the repository"
        ) from None
    return cluster


def _segment_here(
    batches: list[list[Source]],
    segmenter: Segmenter,
    mask_cache: MaskCache,
    workers: int,
    machine: Machine,
) -> Iterator[int]:
    """Segments batches on this machine; yields the number of images in each."""
    devices = _devices(segmenter, machine)
    alone = len(devices) > 1 and not segmenter.shares_device
    workers = min(len(devices) if alone else workers, len(batches))
    if workers <= 1:
        for batch in batches:
            yield segment_into_cache(batch, segmenter, mask_cache, machine)
        return
    make = segment_into_cache if len(devices) <= 1 else _segment_on_own_device
    with _executor(segmenter, workers, devices) as pool:
        waiting: set[Future[int]] = {
            pool.submit(make, batch, segmenter, mask_cache, machine) for batch in batches
        }
        try:
            while waiting:
                done, waiting = wait(waiting, return_when=FIRST_COMPLETED)
                for future in done:
                    yield future.result()
        finally:
            pool.shutdown(cancel_futures=True, wait=sys.exc_info()[0] is None)


def _devices(segmenter: Segmenter, machine: Machine) -> list[str]:
    """Returns the names of the devices to segment with; empty if the segmenter uses none."""
    if not segmenter.uses_device:
        return []
    if machine.device != "cuda":
        return [machine.device]
    import torch

    return [f"cuda:{number}" for number in range(torch.cuda.device_count())]


def _executor(
    segmenter: Segmenter, workers: int, devices: list[str]
) -> AbstractContextManager[Executor]:
    if len(devices) == 1 and devices != ["cpu"] and not segmenter.shares_device:
        return ThreadPoolExecutor(workers)
    if len(devices) <= 1:
        return worker_pool(workers)
    free = SPAWN.SimpleQueue()
    for device in islice(cycle(devices), workers):
        free.put(device)
    return worker_pool(workers, _take_device, free)


_own_device = ""


def _take_device(free: "SimpleQueue[str]") -> None:
    """Assigns this process its device."""
    global _own_device
    _own_device = free.get()


def _segment_on_own_device(
    sources: list[Source], segmenter: Segmenter, mask_cache: MaskCache, machine: Machine
) -> int:
    return segment_into_cache(sources, segmenter, mask_cache, replace(machine, device=_own_device))
