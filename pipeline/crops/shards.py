"""Files of many chunks, each of which is read by its place: Zarr's sharded arrays.

A file holds the chunks of n images in order, each followed by its CRC-32C; then each one's offset
and length, two uint64, all ones for a chunk of zeros, which is left out; then the CRC-32C of these.
Zarr reads that too, but looks for a chunk's place at each access, which takes it a millisecond.
"""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO, NamedTuple

import google_crc32c
import numpy as np
import zarr
from numpy.typing import NDArray

LEFT_OUT = np.iinfo(np.uint64).max
CRC_BYTES = 4


class Layout(NamedTuple):
    """Where the chunks of a sharded array lie, of which each belongs to one image.

    Args:
        files: the files, in order.
        per_file: n, the number of images in a file.
        per_image: number of an image's chunks.
    """

    files: list[Path]
    per_file: int
    per_image: int

    @classmethod
    def of(cls, root: Path, array: zarr.Array) -> "Layout":
        """Returns the layout of an array of N images.

        Args:
            root: folder of the group.
            array: one of its arrays, whose shards contain whole images.
        """
        assert array.shards is not None and array.chunks[0] == 1
        per_file = array.shards[0]
        numbers = range(-(-array.shape[0] // per_file))
        places = ["/".join([str(number), *"0" * (array.ndim - 1)]) for number in numbers]
        grid = zip(array.shape[1:], array.chunks[1:], strict=True)
        per_image = int(np.prod([-(-side // chunk) for side, chunk in grid]))
        return cls([root / array.basename / "c" / place for place in places], per_file, per_image)

    @property
    def index_shape(self) -> tuple[int, int, int]:
        """Shape of a file's index: images, chunks of an image, offset and length."""
        return self.per_file, self.per_image, 2


class ShardWriter:
    """Writes an array's chunks, one image after the other; only the index is held in memory.

    Args:
        layout: of the array.
    """

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self._file: BinaryIO | None = None
        self._written = 0

    def __enter__(self) -> "ShardWriter":
        return self

    def __exit__(self, *_: object) -> None:
        self._finish_file()

    def add(self, chunks: Sequence[bytes | None]) -> None:
        """Writes the next image.

        Args:
            chunks: the image's encoded chunks in order; None for zeros.
        """
        number, row = divmod(self._written, self._layout.per_file)
        if row == 0:
            self._finish_file()
            self._layout.files[number].parent.mkdir(parents=True, exist_ok=True)
            self._file = self._layout.files[number].open("wb")
            self._index = np.full(self._layout.index_shape, LEFT_OUT, "<u8")
        assert self._file is not None
        for place, chunk in enumerate(chunks):
            if chunk is not None:
                self._index[row, place] = self._file.tell(), len(chunk) + CRC_BYTES
                self._file.write(chunk + _crc(chunk))
        self._written += 1

    def _finish_file(self) -> None:
        if self._file is not None:
            index = self._index.tobytes()
            self._file.write(index + _crc(index))
            self._file.close()


class ShardReader:
    """Reads an array's chunks, of any image in any order and from any number of threads.

    Args:
        layout: of the array.

    Raises:
        ValueError: a file is missing, cut short or damaged in its index.
    """

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self._files = [_open(file, layout.index_shape) for file in layout.files]

    def chunks(self, image: int) -> list[NDArray[np.uint8] | None]:
        """Returns the encoded chunks of an image in order; None for zeros.

        Args:
            image: its row in the array.

        Raises:
            ValueError: they are damaged, or were cut short since the reader was made.
        """
        number, row = divmod(image, self._layout.per_file)
        file, index = self._files[number]
        places = index[row].tolist()
        there = [place for place in places if place[0] != LEFT_OUT]
        if not there:
            return [None] * len(places)
        first, end = there[0][0], sum(there[-1])
        content = np.frombuffer(os.pread(file.fileno(), end - first, first), np.uint8)
        return [
            None if start == LEFT_OUT else self._checked(content[start - first :][:length], number)
            for start, length in places
        ]

    def _checked(self, framed: NDArray[np.uint8], number: int) -> NDArray[np.uint8]:
        chunk, crc = framed[:-CRC_BYTES], framed[-CRC_BYTES:]
        if crc.tobytes() != _crc(chunk):
            raise ValueError(f"{self._layout.files[number]} is damaged")
        return chunk


def _open(file: Path, index_shape: tuple[int, int, int]) -> tuple[BinaryIO, NDArray[np.uint64]]:
    """Opens a file and reads its index.

    It is read by offset and not memory-mapped: a page fault for every 4 kB would cost more than the
    copy.
    """
    try:
        opened = file.open("rb", buffering=0)
    except FileNotFoundError:
        raise ValueError(f"{file} is missing") from None
    size, length = os.fstat(opened.fileno()).st_size, int(np.prod(index_shape)) * 8 + CRC_BYTES
    written = os.pread(opened.fileno(), length, max(size - length, 0))
    index = np.frombuffer(written[:-CRC_BYTES], "<u8")
    if written[-CRC_BYTES:] != _crc(written[:-CRC_BYTES]) or len(written) < length:
        raise ValueError(f"{file} is cut short or damaged")
    return opened, index.reshape(index_shape)


def _crc(content: bytes | NDArray[np.uint8]) -> bytes:
    return int(google_crc32c.value(content)).to_bytes(CRC_BYTES, "little")
