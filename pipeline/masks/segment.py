"""Segmenting a data set: workers write shards, and the store is assembled from them."""

import multiprocessing
import sys
from collections.abc import Iterator
from concurrent.futures import (
    FIRST_COMPLETED,
    Executor,
    Future,
    ProcessPoolExecutor,
    ThreadPoolExecutor,
    wait,
)
from pathlib import Path

from pipeline.datasets.index import Photographs
from pipeline.masks.masks import Masks
from pipeline.masks.segmenter import Machine, Segmenter, Source
from pipeline.masks.shards import Shards
from pipeline.progress import track


def segment_images(
    photographs: Photographs,
    root: Path,
    segmenter: Segmenter,
    memory: Path,
    workers: int,
    machine: Machine = Machine(),
) -> int:
    """Makes the shards of all images of an index that are in none yet.

    Args:
        photographs: the images.
        root: the folder their paths are relative to.
        segmenter: finds the masks.
        memory: a folder for the shards of all segmenters, kept from run to run.
        workers: how many shards are worked on at a time: in as many processes, or, by a segmenter
            that uses a device, in as many threads, so that one shard's photographs are read and its
            masks are written while the device works on another's.
        machine: what the segmenter works with.

    Returns:
        How many images were segmented.

    Raises:
        ProtoMaskError: an image is missing or is not the one in the photographs.
    """
    shards = Shards(memory / segmenter.key(), len(segmenter.score_names))
    have = shards.images()
    sources = {segmenter.identity(source): source for source in _sources(photographs, root)}
    todo = [source for image, source in sources.items() if image not in have]
    size = segmenter.images_per_shard
    batches = [todo[at : at + size] for at in range(0, len(todo), size)]
    made = _make_all(batches, segmenter, shards, workers, machine)
    return sum(1 for _ in track(made, "Segmenting images", len(todo)))


def stored_masks(photographs: Photographs, segmenter: Segmenter, memory: Path) -> Iterator[Masks]:
    """Yields the masks of the index's images, in its order, from the shards."""
    shards = Shards(memory / segmenter.key(), len(segmenter.score_names))
    holds = shards.images()
    images = [segmenter.identity(source) for source in _sources(photographs, Path())]
    wanted: dict[Path, set[str]] = {}
    for image in images:
        wanted.setdefault(holds[image], set()).add(image)
    masks: dict[str, Masks] = {}
    for path, some in wanted.items():
        masks.update(shards.read(path, some))
    for image in images:
        yield masks[image]


def _sources(photographs: Photographs, root: Path) -> list[Source]:
    table = photographs.table
    return [
        Source(root, path, digest)
        for path, digest in zip(table["path"], table["sha256"], strict=True)
    ]


def make_shard(
    sources: list[Source], segmenter: Segmenter, shards: Shards, machine: Machine
) -> int:
    """Segments a few images and writes their shard; returns how many there were.

    Raises:
        ProtoMaskError: an image is missing or is not the one in the photographs.
    """
    found = segmenter.segment_sources(sources, machine)
    images = [segmenter.identity(source) for source in sources]
    shards.write(dict(zip(images, found, strict=True)))
    return len(sources)


def _make_all(
    batches: list[list[Source]],
    segmenter: Segmenter,
    shards: Shards,
    workers: int,
    machine: Machine,
) -> Iterator[None]:
    """Yields once for every image done."""
    workers = min(workers, len(batches))
    if workers <= 1:
        for batch in batches:
            yield from [None] * make_shard(batch, segmenter, shards, machine)
        return
    with _executor(segmenter, workers) as pool:
        waiting: set[Future[int]] = {
            pool.submit(make_shard, batch, segmenter, shards, machine) for batch in batches
        }
        try:
            while waiting:
                done, waiting = wait(waiting, return_when=FIRST_COMPLETED)
                for future in done:
                    yield from [None] * future.result()
        finally:
            pool.shutdown(cancel_futures=True, wait=sys.exc_info()[0] is None)


def _executor(segmenter: Segmenter, workers: int) -> Executor:
    if segmenter.uses_device:
        return ThreadPoolExecutor(workers)
    return ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn"))
