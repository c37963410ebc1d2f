"""Reading image files of any kind."""

import io
import re
import zlib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFile, TiffImagePlugin

from pipeline.errors import ProtoMaskError

RAW = frozenset(".3fr .arw .cr2 .cr3 .dng .nef .nrw .orf .pef .raf .rw2 .srw .x3f".split())
"""Cameras' raw files. Pillow reads many of them as the small preview that they begin with."""
# Includes formats that Pillow cannot read: it is better to report such files than to ignore them.
SUFFIXES = RAW | frozenset(
    ".jpg .jpeg .jpe .jfif .png .gif .bmp .tif .tiff .webp .ppm .pgm .jp2 .avif .heic .heif".split()
)
# Allows scans of 20,000 × 20,000 pixels; the limit protects from running out of memory.
Image.MAX_IMAGE_PIXELS = 400_000_000

ORIENTATION = 0x0112
TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
XMP_TURN = re.compile(rb"tiff:Orientation(=\"|>)([2-8])")
SIXTEEN_BITS = ("PPM", "PNG", "JPEG2000")
"""Formats whose grey values beyond 8 bits Pillow scales to 0..65535, in whatever mode."""
TWELVE_BITS = 4095
NEARLY_BLACK = 16
PNG = b"\x89PNG\r\n\x1a\n"
JPEG, START_OF_SCAN, COMMENT = b"\xff\xd8", 0xDA, 0xFE
APPLICATION = range(0xE0, 0xF0)
"""JPEG's segments of applications."""


class UnreadableImageError(ProtoMaskError):
    """Raised for a file that is no image, or only part of one."""


class DecodedImage(NamedTuple):
    """An image file's content.

    Args:
        pixels: uint8 height×width×3, RGB, upright.
        remarks: what in the file was not used, or not as it stands there; without names of files.
    """

    pixels: NDArray[np.uint8]
    remarks: list[str]


def read_image(path: Path) -> NDArray[np.uint8]:
    """Reads an image file of any kind as upright 8-bit RGB, uint8 height×width×3.

    See `examine_image`, which also says what was not used.
    """
    return examine_image(path).pixels


def examine_image(path: Path) -> DecodedImage:
    """Reads an image file of any kind as upright 8-bit RGB.

    The format is determined from the content, not from the name. EXIF orientation is applied, and
    no other. Transparency is composed with white, and of an animation or of several pages the first
    is read. Values of 16 bits are scaled to 8 bits. Where it is not said which value is white, the
    range from the smallest to the largest finite value becomes 0..255: in integers of 32 bits, in
    floating point, and in 16 bits of which at most 12 are in use. Metadata that cannot be parsed
    are ignored.

    Args:
        path: path of the image file.

    Raises:
        UnreadableImageError: the file is missing, empty, truncated or no image, or a camera's raw
            file.
    """
    with _opened(path) as (image, remarks):
        pixels, others = from_pillow(image)
        return DecodedImage(pixels, [*remarks, *others])


def from_pillow(image: Image.Image) -> DecodedImage:
    """Returns an image that Pillow has read as upright 8-bit RGB, in the way of `examine_image`.

    Args:
        image: the image, of any mode.
    """
    upright, turned = _upright(image)
    pixels, scaled = _as_rgb(upright, image.format)
    if pixels.size and pixels.max() < NEARLY_BLACK:
        scaled.append(f"nearly black: no value of 0..255 is {NEARLY_BLACK} or more")
    return DecodedImage(pixels, [*turned, *scaled, *_frames(image)])


def read_label_image(path: Path) -> NDArray[np.uint8]:
    """Reads a label image (trimap, part map, segmentation) with unchanged values.

    Args:
        path: path of the image file.

    Returns:
        uint8 height×width.

    Raises:
        UnreadableImageError: the file is missing, empty, truncated or no image, or its values do
            not have 8 bits.
    """
    with _opened(path) as (image, _):
        labels = np.asarray(image)
        if labels.dtype != np.uint8:
            raise ValueError(f"labels of 8 bits expected, but it is of mode {image.mode}")
    return labels[..., 0] if labels.ndim == 3 else labels


def upper_half(grey: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Returns the pixels at or above the middle of a mask's range of values, bool height×width.

    This is min–max normalisation followed by a threshold of 0.5 (docs/method.md, "Metrics"). A mask
    with a single value is full, or, if that is 0, empty.

    Args:
        grey: the mask, uint8 height×width.
    """
    low, high = int(grey.min()), int(grey.max())
    if low == high:
        return grey > 0
    return 2 * grey.astype(np.int64) >= low + high


def is_image(path: Path) -> bool:
    """Returns whether a file's content, read as far as its header, is that of an image.

    Drawings made of lines (EPS, WMF) and containers of data (HDF5, GRIB) are none.
    """
    try:
        with Image.open(path) as image:
            return image.format != "EPS" and not isinstance(image, ImageFile.StubImageFile)
    except MemoryError:
        raise
    except Exception:  # decoders raise all kinds of errors at files of other kinds
        with path.open("rb") as file:
            return file.read(len(PNG)).startswith((PNG, JPEG + b"\xff"))


@contextmanager
def _opened(path: Path) -> Iterator[tuple[Image.Image, list[str]]]:
    """Opens an image; errors in the block, other than of memory, become `UnreadableImageError`.

    Yields the image, decoded, and remarks about its metadata.
    """
    try:
        if path.suffix.lower() in RAW:
            raise ValueError(
                "a camera's raw file: develop it into a JPEG or PNG file, or move it elsewhere"
            )
        with ExitStack() as stack:
            yield _decoded(path, stack)
    except FileNotFoundError:
        reason = "no such file"
        if path.is_symlink():
            reason = (
                "a link to a file that is not there; fetch it (`git annex get`, `dvc pull`), or "
                "remove the link"
            )
        raise UnreadableImageError(f"{path}: {reason}") from None
    except Image.UnidentifiedImageError:
        reason = "not an image, or of a kind that cannot be read; save it as JPEG or PNG"
        if path.stat().st_size == 0:
            reason = "the file is empty"
        raise UnreadableImageError(f"{path}: {reason}") from None
    except MemoryError:
        raise
    except Exception as error:  # decoders raise all kinds of errors at damaged files
        raise UnreadableImageError(f"{path}: {error}") from None


def _decoded(path: Path, stack: ExitStack) -> tuple[Image.Image, list[str]]:
    try:
        return _loaded(stack.enter_context(Image.open(path))), []
    except MemoryError:
        raise
    except Exception:  # as above
        content = path.read_bytes()
        plain = _png_without_metadata(content) or _jpeg_without_metadata(content)
        if plain is None:
            raise
        image = _loaded(stack.enter_context(Image.open(io.BytesIO(plain))))
        return image, ["its metadata (texts, colour profile) cannot be parsed and were ignored"]


def _loaded(image: Image.Image) -> Image.Image:
    """Decodes an image; Pillow turns a TIFF by that, as its orientation tag says.

    Without such a tag its XMP data would turn it, and are put aside meanwhile. With one they do not
    count, and are left out.
    """
    xmp = image.info.pop("xmp", None)
    has_tag = isinstance(image, TiffImagePlugin.TiffImageFile) and ORIENTATION in image.tag_v2
    image.load()
    if xmp is not None and not has_tag:
        image.info["xmp"] = xmp
    return image


def _png_without_metadata(content: bytes) -> bytes | None:
    """Returns a PNG file without the chunks that pixels do not need; None if there are none.

    The chunk of EXIF data stays if it is whole.
    """
    if not content.startswith(PNG):
        return None
    kept, at = [PNG], len(PNG)
    while at < len(content):
        end = at + 12 + int.from_bytes(content[at : at + 4], "big")
        kind, body, check = (
            content[at + 4 : at + 8],
            content[at + 4 : end - 4],
            content[end - 4 : end],
        )
        critical = kind[:1].isupper()
        whole = zlib.crc32(body) == int.from_bytes(check, "big")
        if critical or kind == b"tRNS" or (kind == b"eXIf" and whole):
            kept.append(content[at:end])
        at = end
    plain = b"".join(kept)
    return plain if plain != content else None


def _jpeg_without_metadata(content: bytes) -> bytes | None:
    """Returns a JPEG file without the segments that pixels do not need; None if there are none.

    The segment of EXIF data stays, and Adobe's, if it is whole: it tells how colours are stored.
    """
    if not content.startswith(JPEG):
        return None
    kept, at = [JPEG], len(JPEG)
    while content[at : at + 1] == b"\xff" and content[at + 1] != START_OF_SCAN:
        marker, end = content[at + 1], at + 2 + int.from_bytes(content[at + 2 : at + 4], "big")
        body = content[at + 4 : end]
        metadata = marker in APPLICATION or marker == COMMENT
        needed = body.startswith(b"Exif\0\0") or (body.startswith(b"Adobe") and len(body) >= 12)
        if not metadata or needed:
            kept.append(content[at:end])
        at = end
    plain = b"".join([*kept, content[at:]])
    return plain if plain != content else None


def _frames(image: Image.Image) -> list[str]:
    """Says how many frames or pages are not read; the previews in a camera's MPO do not count."""
    try:
        frames = 1 if image.format == "MPO" else getattr(image, "n_frames", 1)
    except Exception:  # the first one is whole, whatever follows it
        return ["what follows its first frame is damaged, and was not read"]
    return [f"of its {frames} frames or pages the first was read"] if frames > 1 else []


def _upright(image: Image.Image) -> tuple[Image.Image, list[str]]:
    turned_already = isinstance(image, TiffImagePlugin.TiffImageFile)
    try:
        orientation = None if turned_already else _exif_orientation(image)
    except Exception:  # the parser raises all kinds of errors at damaged data
        return image, ["its EXIF data cannot be parsed: read as it is stored, not turned"]
    if orientation in TURNS:
        return image.transpose(TURNS[orientation]), []
    if orientation is None and _turned_by_xmp(image):
        return image, ["only its XMP data say that it is turned: read as it is stored"]
    return image, []


def _exif_orientation(image: Image.Image) -> Any:
    """Returns the orientation tag in EXIF data; None without one.

    Pillow's `getexif` would return the one in XMP data in its place.
    """
    data = image.info.get("exif")
    if data is None and "Raw profile type exif" in image.info:
        data = bytes.fromhex("".join(image.info["Raw profile type exif"].split("\n")[3:]))
    exif = Image.Exif()
    if data:
        exif.load(data)
    return exif.get(ORIENTATION)


def _turned_by_xmp(image: Image.Image) -> bool:
    found = image.info.get("XML:com.adobe.xmp") or image.info.get("xmp") or b""
    return bool(XMP_TURN.search(found.encode() if isinstance(found, str) else found))


def _as_rgb(image: Image.Image, format: str | None) -> tuple[NDArray[np.uint8], list[str]]:
    sixteen_bits = image.mode.startswith("I;16")
    if image.mode in ("I", "F") or sixteen_bits:
        sixteen_bits |= image.mode == "I" and format in SIXTEEN_BITS
        grey, remarks = _scaled(np.asarray(image, np.float64), sixteen_bits)
        return np.repeat(grey[..., None], 3, axis=-1), remarks
    if image.has_transparency_data:
        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, image.convert("RGBA"))
    return np.asarray(image.convert("RGB")), []


def _scaled(values: NDArray[np.float64], sixteen_bits: bool) -> tuple[NDArray[np.uint8], list[str]]:
    finite = np.isfinite(values)
    if not finite.any():
        raise ValueError("none of its values is a finite number")
    low, high = values[finite].min(), values[finite].max()
    remarks = []
    if sixteen_bits and high > TWELVE_BITS:
        low, high = 0.0, 65535.0
    else:
        remarks.append("its smallest value became 0 and its largest 255: none is known to be white")
    if not finite.all():
        remarks.append("of its values that are no finite numbers, NaN and −∞ became 0 and ∞ 255")
    shares = np.clip(np.where(np.isnan(values), low, values), low, high) - low
    return (shares * (255.0 / max(high - low, 1e-300))).round().astype(np.uint8), remarks
