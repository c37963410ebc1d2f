"""A cache of masks by image content, so that no image is segmented twice.

Each segmenter has a folder of Parquet files. A file has the masks of a batch of images, and is
named by the SHA-256 of its bytes: it is complete and undamaged, or counts as absent. An
interrupted run, a larger data set, a changed image and a return to an earlier segmenter then cost
only what is new.
"""

import hashlib
import io
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.files import atomic_file, sha256, sweep
from pipeline.masks.masks import NO_PART, Masks
from pipeline.masks.segmenter import Machine, Segmenter, Source

SCHEMA = pa.schema(
    [
        ("image", pa.string()),
        ("height", pa.int32()),
        ("width", pa.int32()),
        ("counts", pa.list_(pa.binary())),
        ("boxes", pa.list_(pa.int32())),
        ("areas", pa.list_(pa.int64())),
        ("scores", pa.list_(pa.float32())),
        ("dropped", pa.int32()),
        ("parts", pa.list_(pa.int32())),
        ("levels", pa.list_(pa.int32())),
        ("foreground", pa.list_(pa.bool_())),
    ]
)


class MaskCache:
    """The cached masks of one segmenter.

    Args:
        folder: folder of the files, created when the first one is written.
        num_scores: number of scores of each mask.
    """

    def __init__(self, folder: Path, num_scores: int) -> None:
        self.folder = folder
        self.num_scores = num_scores

    def write(self, masks: dict[str, Masks]) -> Path:
        """Writes the masks of a batch of images to a file and returns its path.

        Args:
            masks: the masks of each image, by its identity (`Segmenter.identity`).
        """
        rows = [_row(image, found) for image, found in sorted(masks.items())]
        content = io.BytesIO()
        pq.write_table(pa.Table.from_pylist(rows, SCHEMA), content, compression="zstd")
        path = self.folder / f"{hashlib.sha256(content.getbuffer()).hexdigest()}.parquet"
        with atomic_file(path) as part:
            part.write_bytes(content.getbuffer())
        return path

    def images(self) -> dict[str, Path]:
        """Returns the file of each image, by its identity; damaged files are deleted."""
        sweep(self.folder)
        holds: dict[str, Path] = {}
        for path in sorted(self.folder.glob("*.parquet")):
            if sha256(path) != path.stem:
                path.unlink(missing_ok=True)
                continue
            names = pq.read_table(path, columns=["image"], partitioning=None)["image"].to_pylist()
            holds.update(dict.fromkeys(names, path))
        return holds

    def read(self, path: Path, images: Iterable[str]) -> dict[str, Masks]:
        """Reads the masks of some of a file's images.

        Args:
            path: path of the file.
            images: identities of the images to read.
        """
        wanted = set(images)
        table = pq.read_table(path, schema=SCHEMA, partitioning=None)
        rows = (row for row in table.to_pylist() if row["image"] in wanted)
        return {row["image"]: self._masks(row) for row in rows}

    def _masks(self, row: dict) -> Masks:
        number = len(row["counts"])
        return Masks(
            row["height"],
            row["width"],
            row["counts"],
            np.array(row["boxes"], np.int64).reshape(-1, 4),
            np.array(row["areas"], np.int64),
            np.array(row["scores"], np.float32).reshape(-1, self.num_scores),
            # Files of version 0.2.0 have none of the following.
            np.array(row["parts"] or [NO_PART] * number, np.int32),
            np.array(row["levels"] or [0] * number, np.int32),
            np.array(row["foreground"] or [True] * number, bool),
            row["dropped"] or 0,
        )


def _row(image: str, masks: Masks) -> dict:
    return {
        "image": image,
        "height": masks.height,
        "width": masks.width,
        "counts": list(masks.counts),
        "boxes": masks.boxes.ravel().tolist(),
        "areas": masks.areas.tolist(),
        "scores": masks.scores.ravel().tolist(),
        "dropped": masks.dropped,
        "parts": masks.parts.tolist(),
        "levels": masks.levels.tolist(),
        "foreground": masks.foreground.tolist(),
    }


def segment_into_cache(
    sources: Sequence[Source], segmenter: Segmenter, mask_cache: MaskCache, machine: Machine
) -> int:
    """Segments a batch of images and caches the masks; returns the number of images.

    Args:
        sources: the images of the batch.
        segmenter: the segmenter that computes the masks.
        mask_cache: the segmenter's cache.
        machine: the device and other settings of this machine.

    Raises:
        ProtoMaskError: an image is missing or has changed.
    """
    found = segmenter.segment_sources(sources, machine)
    images = [segmenter.identity(source) for source in sources]
    mask_cache.write(dict(zip(images, found, strict=True)))
    return len(sources)
