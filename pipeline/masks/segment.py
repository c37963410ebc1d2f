"""Segmenting a data set: several processes write shards, and the store is assembled from them."""

import multiprocessing
import sys
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path

from pipeline.datasets.index import Photographs
from pipeline.datasets.listing import refuse_changed
from pipeline.datasets.photograph import read_photograph
from pipeline.masks.masks import Masks
from pipeline.masks.segmenter import Segmenter
from pipeline.masks.shards import Shards
from pipeline.progress import track

IMAGES_PER_SHARD = 16


@dataclass(frozen=True)
class Source:
    """An image file, and the SHA-256 that the index has of it."""

    path: Path
    sha256: str


def segment_images(
    photographs: Photographs, root: Path, segmenter: Segmenter, memory: Path, workers: int
) -> int:
    """Makes the shards of all images of an index that are in none yet.

    Args:
        photographs: the images.
        root: the folder their paths are relative to.
        segmenter: finds the masks.
        memory: a folder for the shards of all segmenters, kept from run to run.
        workers: how many processes; 1 works in this one.

    Returns:
        How many images were segmented.

    Raises:
        ProtoMaskError: an image is missing or is not the one in the photographs.
    """
    shards = Shards(memory / segmenter.key(), len(segmenter.score_names))
    have = shards.images()
    sources = [
        Source(root / path, digest)
        for path, digest in zip(photographs.table["path"], photographs.table["sha256"], strict=True)
    ]
    missing = {source.sha256: source for source in sources if source.sha256 not in have}
    todo = list(missing.values())
    batches = [todo[at : at + IMAGES_PER_SHARD] for at in range(0, len(todo), IMAGES_PER_SHARD)]
    made = _make_all(batches, segmenter, shards, workers)
    return sum(1 for _ in track(made, "Segmenting images", len(todo)))


def stored_masks(photographs: Photographs, segmenter: Segmenter, memory: Path) -> Iterator[Masks]:
    """Yields the masks of the index's images, in its order, from the shards."""
    shards = Shards(memory / segmenter.key(), len(segmenter.score_names))
    holds = shards.images()
    digests = photographs.table["sha256"].tolist()
    wanted: dict[Path, set[str]] = {}
    for digest in digests:
        wanted.setdefault(holds[digest], set()).add(digest)
    masks: dict[str, Masks] = {}
    for path, images in wanted.items():
        masks.update(shards.read(path, images))
    for digest in digests:
        yield masks[digest]


def make_shard(sources: list[Source], segmenter: Segmenter, shards: Shards) -> int:
    """Segments a few images and writes their shard; returns how many there were.

    Raises:
        ProtoMaskError: an image is missing or is not the one in the photographs.
    """
    for source in sources:
        refuse_changed(source.path, source.sha256)
    found = segmenter.segment([read_photograph(source.path) for source in sources])
    shards.write({source.sha256: masks for source, masks in zip(sources, found, strict=True)})
    return len(sources)


def _make_all(
    batches: list[list[Source]], segmenter: Segmenter, shards: Shards, workers: int
) -> Iterator[None]:
    """Yields once for every image done."""
    if workers <= 1 or len(batches) <= 1:
        for batch in batches:
            yield from [None] * make_shard(batch, segmenter, shards)
        return
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(min(workers, len(batches)), mp_context=context) as pool:
        waiting: set[Future[int]] = {
            pool.submit(make_shard, batch, segmenter, shards) for batch in batches
        }
        try:
            while waiting:
                done, waiting = wait(waiting, return_when=FIRST_COMPLETED)
                for future in done:
                    yield from [None] * future.result()
        finally:
            pool.shutdown(cancel_futures=True, wait=sys.exc_info()[0] is None)
