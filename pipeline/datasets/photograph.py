"""Reading image files of any kind."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from pipeline.errors import ProtoMaskError

# Includes formats that Pillow cannot read: it is better to report such files than to ignore them.
SUFFIXES = frozenset(
    ".jpg .jpeg .jpe .jfif .png .gif .bmp .tif .tiff .webp .ppm .pgm .jp2 .avif .heic .heif".split()
)
# Allows scans of 20,000 × 20,000 pixels; the limit protects from running out of memory.
Image.MAX_IMAGE_PIXELS = 400_000_000


class UnreadableImageError(ProtoMaskError):
    """Raised for a file that is no image, or only part of one."""


def read_photograph(path: Path) -> NDArray[np.uint8]:
    """Reads an image file of any kind as upright 8-bit RGB.

    The format is determined from the content, not from the name. EXIF orientation is applied,
    transparency is composed with white, 16-bit values are scaled to 8 bits, and of an animation the
    first frame is read.

    Args:
        path: path of the image file.

    Returns:
        uint8 height×width×3, RGB.

    Raises:
        UnreadableImageError: the file is missing, empty, truncated or no image.
    """
    with _opened(path) as image:
        return np.asarray(_as_rgb(ImageOps.exif_transpose(image)))


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
    with _opened(path) as image:
        labels = np.asarray(image)
        if labels.dtype != np.uint8:
            raise ValueError(f"labels of 8 bits expected, but it is of mode {image.mode}")
    return labels[..., 0] if labels.ndim == 3 else labels


@contextmanager
def _opened(path: Path) -> Iterator[Image.Image]:
    """Opens an image; errors in the block, other than of memory, become `UnreadableImageError`."""
    try:
        with Image.open(path) as image:
            image.load()
            yield image
    except FileNotFoundError:
        raise UnreadableImageError(f"{path}: no such file") from None
    except Image.UnidentifiedImageError:
        reason = "not an image, or of a kind that cannot be read; save it as JPEG or PNG"
        if path.stat().st_size == 0:
            reason = "the file is empty"
        raise UnreadableImageError(f"{path}: {reason}") from None
    except MemoryError:
        raise
    except Exception as error:  # decoders raise all kinds of errors at damaged files
        raise UnreadableImageError(f"{path}: {error}") from None


def _as_rgb(image: Image.Image) -> Image.Image:
    if image.mode in ("I", "F") or image.mode.startswith("I;16"):
        values = np.asarray(image, np.float64)
        top = 65535.0 if image.mode != "F" else max(float(values.max(initial=0)), 1e-12)
        scaled = np.clip(values * (255.0 / top), 0, 255).round().astype(np.uint8)
        return Image.fromarray(scaled).convert("RGB")
    if image.has_transparency_data:
        white = Image.new("RGBA", image.size, "white")
        return Image.alpha_composite(white, image.convert("RGBA")).convert("RGB")
    return image.convert("RGB")
