"""How pixels become the bytes of a chunk, and pixels again: as a JPEG picture, or without loss."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import simplejpeg
from numcodecs import zstd
from numpy.typing import NDArray
from zarr.abc.codec import ArrayBytesCodec, BytesBytesCodec
from zarr.codecs import BytesCodec, ZstdCodec
from zarr.registry import register_codec

from pipeline.crops.settings import Storage

if TYPE_CHECKING:
    from zarr.core.array_spec import ArraySpec
    from zarr.core.buffer import Buffer, NDBuffer

QUALITY = 95
LEVEL = 9


class Encoding(NamedTuple):
    """A way of keeping an array.

    Args:
        encode: returns the bytes of an array of uint8.
        decode: writes what `encode` was given, or what is left of it, into a contiguous array of
            the same shape.
        serializer: the same, as Zarr has it.
        compressors: what Zarr does after that.
    """

    encode: Callable[[NDArray[np.uint8]], bytes]
    decode: Callable[[bytes | NDArray[np.uint8], NDArray[np.uint8]], object]
    serializer: ArrayBytesCodec
    compressors: tuple[BytesBytesCodec, ...] = ()


@dataclass(frozen=True)
class JpegCodec(ArrayBytesCodec):
    """A crop as a JPEG picture, whose colours have the full resolution (4:4:4).

    Registered with Zarr, so that it reads crop stores where this module has been imported.

    Args:
        quality: JPEG's, 1..100.
    """

    quality: int
    is_fixed_size = False

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> "JpegCodec":
        """Reads the codec's entry in a zarr.json."""
        return cls(**data["configuration"])

    def to_dict(self) -> dict[str, Any]:
        """Returns the codec's entry in a zarr.json."""
        return {"name": "protomask.jpeg", "configuration": {"quality": self.quality}}

    def compute_encoded_size(self, input_byte_length: int, chunk_spec: "ArraySpec") -> int:
        """Raises, as Zarr demands where the size depends on the content."""
        raise NotImplementedError

    async def _decode_single(self, chunk_bytes: "Buffer", chunk_spec: "ArraySpec") -> "NDBuffer":
        pixels = np.empty(chunk_spec.shape, np.uint8)
        decode_jpeg(chunk_bytes.to_bytes(), pixels.reshape(chunk_spec.shape[-3:]))
        return chunk_spec.prototype.nd_buffer.from_numpy_array(pixels)

    async def _encode_single(self, chunk_array: "NDBuffer", chunk_spec: "ArraySpec") -> "Buffer":
        pixels = chunk_array.as_numpy_array().reshape(chunk_spec.shape[-3:])
        return chunk_spec.prototype.buffer.from_bytes(encode_jpeg(pixels))


def encode_jpeg(pixels: NDArray[np.uint8]) -> bytes:
    """Returns a crop as a JPEG picture, the same bytes on every processor.

    Args:
        pixels: uint8 RGB, height×width×3.
    """
    pixels = np.ascontiguousarray(pixels)
    return simplejpeg.encode_jpeg(pixels, QUALITY, "RGB", "444", fastdct=False)


def decode_jpeg(content: bytes | NDArray[np.uint8], pixels: NDArray[np.uint8]) -> None:
    """Decodes a JPEG picture; other Python threads run meanwhile.

    Args:
        content: the picture.
        pixels: contiguous uint8 RGB, height×width×3, which is overwritten.

    Raises:
        ValueError: it is damaged, or of another size.
    """
    found = simplejpeg.decode_jpeg(content, "RGB", fastdct=False, buffer=pixels)
    if found.shape != pixels.shape:
        raise ValueError(f"a picture of shape {found.shape} instead of {pixels.shape}")


JPEG = Encoding(encode_jpeg, decode_jpeg, JpegCodec(QUALITY))
LOSSLESS = Encoding(
    lambda values: zstd.compress(np.ascontiguousarray(values), LEVEL),
    zstd.decompress,
    BytesCodec(),
    (ZstdCodec(level=LEVEL),),
)
STORAGE: dict[Storage, Encoding] = {"jpeg": JPEG, "lossless": LOSSLESS}
"""The encoding of crops by the parameter `crops.storage`."""

register_codec("protomask.jpeg", JpegCodec)
