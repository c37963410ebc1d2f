"""The mask store: all masks of a data set in a few files, readable one image at a time.

A Zarr v3 group with two arrays, and its origin as attributes:

- `counts` (uint8): the concatenated run lengths of all masks: COCO's compressed counts of each mask
  inside its box.
- `regions` (float64, fields × masks): box, area, part, level, whether it is foreground, number of
  bytes in `counts`, scores; the attribute `fields` names them.
- attributes of the group: segmenter, its fingerprint and the names of its parts, data set, the
  images in order with size, content hash and number of masks, and the SHA-256 of every file.
"""

import hashlib
from collections.abc import Iterable
from contextlib import ExitStack
from functools import cached_property, lru_cache
from itertools import accumulate
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO, TYPE_CHECKING, Any

import numpy as np
import zarr
from numpy.typing import NDArray
from zarr.codecs import BloscCodec, BytesCodec, Crc32cCodec, ShardingCodec, ZstdCodec

from pipeline.datasets.index import ImageFiles
from pipeline.errors import ProtoMaskError, make, rerun
from pipeline.files import atomic_folder, sha256
from pipeline.masks.masks import Masks

if TYPE_CHECKING:
    from pipeline.masks.segmenter import Segmenter

CODEBOOK = "codebook.safetensors"
"""Name in a store of the file with what a segmenter has learned."""

FORMAT = 3
"""Raised when stores of other code cannot be read any more; DVC tracks it (dvc.yaml, `params`)."""
FIELDS = ("x0", "y0", "x1", "y1", "area", "part", "level", "foreground", "bytes")
COUNTS_CHUNK, COUNTS_SHARD = 64 * 1024, 64 * 1024 * 1024
REGIONS_CHUNK, REGIONS_SHARD = 4096, 512 * 4096
BLANK = "0" * 64
IMAGES_KEPT = 512
"""Images whose masks stay in memory once read; evaluation and reports ask for them many times."""


class MaskStore:
    """Reads a store written by `write_store`.

    Args:
        path: path of the store's folder.

    Raises:
        ProtoMaskError: there is no mask store, its metadata (the files zarr.json) are damaged, or a
            file is missing.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        if not path.exists():
            raise ProtoMaskError(f"no mask store at {path}: {make('masks')}")
        try:
            self._group = zarr.open_group(path, mode="r", zarr_format=3)
            self.about: dict[str, Any] = dict(self._group.attrs)
            if self.about["format"] != FORMAT:
                raise ProtoMaskError(
                    f"{path} has format {self.about['format']} of the mask store; this version of "
                    f"ProtoMask reads {FORMAT}: {rerun('masks')}"
                )
            self._refuse_damaged_descriptions()
        except (OSError, KeyError, ValueError, TypeError, AttributeError) as error:
            raise ProtoMaskError(
                f"{path} is no readable mask store ({error}): {rerun('masks')}"
            ) from None
        self._refuse_missing_files()
        images = self.about["images"]
        self.ids: list[str] = images["id"]
        self._first = [0, *accumulate(images["masks"])]
        self._kept = lru_cache(maxsize=IMAGES_KEPT)(self._masks)

    def __len__(self) -> int:
        return len(self.ids)

    def masks(self, image: int) -> Masks:
        """Returns the masks of an image.

        Args:
            image: index of the image in the store, 0..N−1.

        Raises:
            ProtoMaskError: the store is damaged there.
        """
        return self._kept(image)

    def _masks(self, image: int) -> Masks:
        first, last = self._first[image], self._first[image + 1]
        regions = self._regions[:, first:last]
        start = self._offsets[first : last + 1]
        stream = self._read("counts", slice(int(start[0]), int(start[-1]))).tobytes()
        at = (start - start[0]).tolist()
        return Masks(
            height=self.about["images"]["height"][image],
            width=self.about["images"]["width"][image],
            counts=[stream[at[m] : at[m + 1]] for m in range(last - first)],
            boxes=regions[:4].T.astype(np.int64),
            areas=regions[4].astype(np.int64),
            scores=regions[len(FIELDS) :].T.astype(np.float32),
            parts=regions[5].astype(np.int32),
            levels=regions[6].astype(np.int32),
            foreground=regions[7].astype(bool),
        )

    def codebook(self) -> bytes | None:
        """Returns what the segmenter learned, as the content of a file; None if it learns nothing.

        Raises:
            ProtoMaskError: the file is missing or damaged.
        """
        expected = self.about["files"].get(CODEBOOK)
        if expected is None:
            return None
        self._refuse_missing_files(CODEBOOK)
        content = (self.path / CODEBOOK).read_bytes()
        if hashlib.sha256(content).hexdigest() != expected:
            raise ProtoMaskError(f"{self.path}/{CODEBOOK} is damaged: {rerun('masks')}")
        return content

    def learned_from(self) -> str | None:
        """Says which images the segmenter could learn from; None if it learns nothing."""
        if CODEBOOK not in self.about["files"]:
            return None
        held_out = self.about["held_out"]
        if not held_out:
            return "images of all splits: the data set itself puts none into a test split"
        return f"images among the {len(self) - held_out} outside the data set's own test split"

    def num_masks(self) -> NDArray[np.int64]:
        """Returns the number of masks of each image, int64 N."""
        return np.diff(self._first)

    def areas(self) -> NDArray[np.int64]:
        """Returns the area of every mask in pixels, int64, image by image."""
        return self._regions[4].astype(np.int64)

    def parts(self) -> NDArray[np.int32]:
        """Returns the number of every mask's part, −1 if unknown: int32, image by image."""
        return self._regions[5].astype(np.int32)

    def levels(self) -> NDArray[np.int32]:
        """Returns the level of every mask, int32, image by image."""
        return self._regions[6].astype(np.int32)

    def foreground(self) -> NDArray[np.bool_]:
        """Returns whether every mask is foreground, bool, image by image."""
        return self._regions[7].astype(bool)

    @cached_property
    def part_names(self) -> dict[int, str]:
        """The names of the segmenter's parts by their numbers; empty if they have none."""
        return {int(part): name for part, name in self.about["part_names"].items()}

    def is_of(self, image: int, photograph: Path) -> bool:
        """Returns whether a file is there, and is the image that was segmented.

        Args:
            image: the image's row.
            photograph: the file.
        """
        segmented = self.about["images"]["sha256"][image]
        return photograph.is_file() and sha256(photograph) == segmented

    def refuse_unless(self, segmenter: "Segmenter", image_files: ImageFiles) -> None:
        """Checks that the store was made by this segmenter from these images.

        Args:
            segmenter: the segmenter that is expected.
            image_files: the images that are expected.

        Raises:
            ProtoMaskError: it was not; the message names the differences.
        """
        made_by, wanted = self.about["segmenter"], segmenter.fingerprint()
        differing = segmenter.differing(made_by)
        if differing:
            said = ", ".join(
                f"{key}={made_by.get(key)} instead of {wanted.get(key)}" for key in differing
            )
            raise ProtoMaskError(
                f"{self.path} was made by the segmenter {made_by['name']!r} with {said}: "
                f"{rerun('masks')}"
            )
        self.refuse_other_images(image_files)

    def refuse_other_images(self, image_files: ImageFiles) -> None:
        """Checks that the store holds exactly these images.

        Args:
            image_files: the images that are expected.

        Raises:
            ProtoMaskError: it holds others.
        """
        if self.about["index"] != image_files.digest():
            raise ProtoMaskError(
                f"{self.path} was made from {len(self)} images of {self.about['dataset']!r}, which "
                f"are not the {len(image_files)} images of {image_files.dataset!r} in the index: "
                f"{rerun('masks')}"
            )

    def verify(self) -> list[str]:
        """Compares every file of the store with the hashes written with it.

        Returns:
            A line for each error; empty for an undamaged store.
        """
        wrong = []
        for name, expected in self.about["files"].items():
            file = self.path / name
            found = sha256(file) if file.is_file() else None
            if found is None:
                wrong.append(f"{name}: missing")
            elif found != expected:
                wrong.append(f"{name}: damaged (SHA-256 {found[:12]}…, was {expected[:12]}…)")
        known = {*self.about["files"], "zarr.json"}
        wrong += [f"{name}: not part of the store" for name in sorted(_files(self.path) - known)]
        return wrong

    @cached_property
    def _regions(self) -> NDArray[np.float64]:
        return self._read("regions", slice(None))

    @cached_property
    def _offsets(self) -> NDArray[np.int64]:
        return np.concatenate([[0], self._regions[len(FIELDS) - 1].cumsum()]).astype(np.int64)

    @cached_property
    def _arrays(self) -> dict[str, zarr.Array]:
        return {name: self._group[name] for name in ("counts", "regions")}  # type: ignore[misc]

    def _read(self, name: str, place: slice) -> NDArray:
        self._refuse_missing_files(f"{name}/c/")
        try:
            array = self._arrays[name]
            return np.asarray(array[..., place])
        except Exception as error:
            raise ProtoMaskError(
                f"{self.path}/{name} is damaged ({error}); `protomask masks verify` names the "
                f"file: {rerun('masks')}; nothing is segmented again that this machine has "
                "segmented"
            ) from None

    def _refuse_damaged_descriptions(self) -> None:
        written = self.about["sha256"]
        if _root_digest(self.path / "zarr.json", written) != written:
            raise ValueError("zarr.json is damaged")
        for name, expected in self.about["files"].items():
            if name.endswith("zarr.json") and sha256(self.path / name) != expected:
                raise ValueError(f"{name} is damaged")

    def _refuse_missing_files(self, below: str = "") -> None:
        """Raises if a file is missing or empty, which Zarr would read as zeros."""
        names = [name for name in self.about["files"] if name.startswith(below)]
        missing = [name for name in names if _size(self.path / name) == 0]
        if missing:
            raise ProtoMaskError(f"{self.path} lacks {', '.join(missing)}: {rerun('masks')}")


def write_store(
    path: Path, image_files: ImageFiles, segmenter: "Segmenter", masks: Iterable[Masks]
) -> None:
    """Writes a store atomically; the same masks give the same bytes.

    Args:
        path: folder of the store, which is replaced.
        image_files: the images of the index.
        segmenter: the segmenter that made the masks.
        masks: the masks of these images, in the index's order.
    """
    tables: list[NDArray[np.float64]] = []
    path.parent.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        counts = stack.enter_context(TemporaryFile(dir=path.parent))
        for found in masks:
            counts.writelines(found.counts)
            tables.append(_fields(found))
        part = stack.enter_context(atomic_folder(path))
        group = zarr.create_group(part, zarr_format=3)
        _write_counts(group, counts)
        _write_regions(group, np.concatenate(tables).T, [*FIELDS, *segmenter.score_names])
        codebook = segmenter.learnt()
        if codebook is not None:
            (part / CODEBOOK).write_bytes(codebook)
        group.attrs.update(
            {
                "format": FORMAT,
                "segmenter": segmenter.fingerprint(),
                "part_names": {str(part): name for part, name in segmenter.part_names.items()},
                "dataset": image_files.dataset,
                "index": image_files.digest(),
                "held_out": int(image_files.table["held_out"].sum()),
                "images": _images(image_files, [len(table) for table in tables]),
                "files": {
                    name: sha256(part / name) for name in sorted(_files(part) - {"zarr.json"})
                },
                "sha256": BLANK,
            }
        )
        root = part / "zarr.json"
        digest = _root_digest(root, BLANK)
        root.write_bytes(root.read_bytes().replace(BLANK.encode(), digest.encode()))


def _fields(masks: Masks) -> NDArray[np.float64]:
    """Returns the fields of each mask, masks × fields."""
    lengths = [len(counts) for counts in masks.counts]
    columns = (masks.areas, masks.parts, masks.levels, masks.foreground, lengths)
    return np.hstack([masks.boxes, np.array(columns, np.float64).T, masks.scores])


def _write_counts(group: zarr.Group, counts: IO[bytes]) -> None:
    counts.flush()
    stream = np.memmap(counts, np.uint8, "r") if counts.tell() else np.zeros(0, np.uint8)
    _write_sharded(group, "counts", stream, (COUNTS_CHUNK,), (COUNTS_SHARD,), ZstdCodec(level=19))


def _write_regions(group: zarr.Group, regions: NDArray[np.float64], fields: list[str]) -> None:
    chunk, shard = (len(fields), REGIONS_CHUNK), (len(fields), REGIONS_SHARD)
    codec = BloscCodec(cname="zstd", clevel=9, typesize=8)
    _write_sharded(group, "regions", regions, chunk, shard, codec)
    group["regions"].attrs["fields"] = fields


def _write_sharded(
    group: zarr.Group,
    name: str,
    values: NDArray,
    chunk: tuple[int, ...],
    shard: tuple[int, ...],
    codec: ZstdCodec | BloscCodec,
) -> None:
    needed = -(-max(values.shape[-1], 1) // chunk[-1]) * chunk[-1]
    shard = (*shard[:-1], min(shard[-1], needed))
    sharding = ShardingCodec(chunk_shape=chunk, codecs=[BytesCodec(), codec, Crc32cCodec()])
    array = group.create_array(
        name,
        shape=values.shape,
        dtype=values.dtype,
        chunks=shard,
        serializer=sharding,
        compressors=None,
        filters=None,
    )
    array[...] = values


def _images(image_files: ImageFiles, num_masks: list[int]) -> dict[str, list]:
    columns = {
        name: image_files.table[name].tolist() for name in ("id", "sha256", "height", "width")
    }
    return {**columns, "masks": num_masks}


def _files(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def _size(file: Path) -> int:
    try:
        return file.stat().st_size
    except FileNotFoundError:
        return 0


def _root_digest(root: Path, written: str) -> str:
    """Hashes the group's zarr.json without its own hash in it."""
    return hashlib.sha256(root.read_bytes().replace(written.encode(), BLANK.encode())).hexdigest()
