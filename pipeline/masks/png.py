"""Reading masks in PNG files."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageFile
from scipy.ndimage import maximum_filter, minimum_filter

from pipeline.errors import ProtoMaskError

Reading = Literal["mask", "labels"]
Numbers = NDArray[np.integer]
OPAQUE = 255
HALF = 128
TOPS = {"L": 255, "I;16": 65535, "I": 65535}
# How far Pillow's kinds of grey pixels are stretched to 8 bits.
GREYS = {"L;2": 85, "L;4": 17}
MOST_LABELS = 1000
FEW_VALUES = 32
# Of edges blurred by Gaussians of 0.5 to 40 pixels less than 0.15 are even, of labels of 5×5 0.36.
EVEN = 0.25
BLACK, WHITE = 0, 255
WIDE = 128
"""How far apart the darkest and the lightest of a palette's greys are at least in a picture."""


def read_png(file: Path, reading: Reading) -> Numbers:
    """Returns the number of the mask that each pixel lies in, 1, 2, …, or 0: height×width.

    Raises:
        ProtoMaskError: the file is no PNG file, is turned by metadata, or holds labels where it
            should hold a mask, or the other way round.
    """
    with _opened(file) as image:
        try:
            return _one_mask(image) if reading == "mask" else _labels(image)
        except _UnclearError as error:
            raise ProtoMaskError(f"{file} {error}") from None


def read_colours(file: Path) -> Numbers:
    """Returns the colour of each pixel, red + 256 green + 65536 blue: height×width.

    Raises:
        ProtoMaskError: the file is no PNG file, or is turned by metadata.
    """
    with _opened(file) as image:
        return number_of(np.asarray(image.convert("RGB")))


def number_of(colours: NDArray[np.integer]) -> Numbers:
    """Returns red + 256 green + 65536 blue of colours, …×3."""
    return colours @ np.array([1, 1 << 8, 1 << 16])


class _UnclearError(Exception):
    """A file can be read in two ways, or in none; the message goes on after the file's name."""


@contextmanager
def _opened(file: Path) -> Iterator[Image.Image]:
    try:
        with Image.open(file, formats=["PNG"]) as image:
            _scale_key(image)
            image.load()
            turned = _orientation(image)
            if turned == 1:
                yield image
                return
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise ProtoMaskError(f"{file} is no PNG file, or is damaged ({error})") from None
    raise ProtoMaskError(
        f"{file} has an orientation of {turned} in its metadata, so that it is unclear which way "
        "its pixels lie: turn it upright and remove that (`mogrify -auto-orient FILE`), or, if its "
        "pixels are upright already, only remove it (`exiftool -Orientation= FILE`)"
    )


def _scale_key(image: ImageFile.ImageFile) -> None:
    """Gives a transparent colour the depth that pixels have when read, 8 bits.

    Pillow scales the pixels of 2, 4 and 3×16 bits, and compares them with the unscaled colour.
    """
    key, (tile, *_) = image.info.get("transparency"), image.tile
    if isinstance(key, int) and tile.args in GREYS:
        image.info["transparency"] = key * GREYS[tile.args]
    if isinstance(key, tuple) and tile.args == "RGB;16B":
        image.info["transparency"] = tuple(value >> 8 for value in key)


def _orientation(image: Image.Image) -> int:
    """Returns EXIF's or XMP's orientation, 1 (upright) if there is none that can be read."""
    try:
        found = image.getexif().get(ExifTags.Base.Orientation, 1)
    except Exception:  # what cannot be parsed says nothing, and fails in all kinds of ways
        return 1
    return found if found in range(2, 9) else 1


def _one_mask(image: Image.Image) -> Numbers:
    """Returns 1 inside the mask, and 0 outside."""
    visible = _visible(image)
    if visible is not None:
        return visible.view(np.uint8)
    values, top = _values(image)
    if top is not None:
        values = _stretched(values, top)
    largest, gradual = values.max(initial=0), _is_gradual(values)
    if top is not None and (largest == top or (gradual and largest > top // 2)):
        _refuse_labels(values, top // 2)
        return (values > top // 2).view(np.uint8)
    if gradual:
        raise _UnclearError(
            "is to be one mask, but its values vary like a photograph's: save it in black and white"
        )
    return (values != 0).view(np.uint8)


def _stretched(values: Numbers, top: int) -> Numbers:
    """Stretches shades of grey to the whole range, if they were saved as nearly black and white.

    That is, if none is black, and the darkest and the lightest are more than half the range apart.

    Args:
        values: shades of grey, height×width.
        top: what white is.
    """
    if values.size == 0:
        return values
    low, high = int(values.min()), int(values.max())
    if low == 0 or high - low <= top // 2:
        return values
    return (values.astype(np.int64) - low) * top // (high - low)


def _is_gradual(values: Numbers) -> bool:
    """Returns whether values vary as in a blurred mask or a photograph, not as numbers do."""
    return len(pd.unique(values.ravel())) > FEW_VALUES and _even_share(values, values != 0) < EVEN


def _refuse_labels(values: Numbers, half: int) -> None:
    """Raises if what a cut at one half would put outside are not blurred edges, but areas."""
    if _even_share(values, (values > 0) & (values <= half)) >= EVEN:
        raise _UnclearError(
            "is to be one mask, but has areas of dark grey beside white: if its values are labels, "
            "set segmenter.png=labels; otherwise save it in black and white"
        )


def _even_share(values: Numbers, some: NDArray[np.bool_]) -> float:
    """Returns the share of some pixels whose eight neighbours have the same value, 0..1."""
    if not some.any():
        return 0.0
    even = maximum_filter(values, 3) == minimum_filter(values, 3)
    return float(even[some].mean())


def _labels(image: Image.Image) -> Numbers:
    """Returns 1 for the smallest value but 0, 2 for the next one, and so on."""
    visible = _visible(image)
    values, _ = _values(image)
    inside = values != 0 if visible is None else visible
    numbers, found = pd.factorize(values[inside], sort=True)
    if len(found) > MOST_LABELS:
        raise _UnclearError(
            f"holds {len(found)} values, each of which would be a mask: it is no label map; with "
            "segmenter.png=mask it is one mask"
        )
    labels = np.zeros(values.shape, np.int64)
    labels[inside] = numbers + 1
    return labels


def _visible(image: Image.Image) -> NDArray[np.bool_] | None:
    """Returns where an image is more than half opaque; None if transparency says nothing.

    It says nothing if there is none, and if an alpha channel leaves everything visible.
    """
    if not image.has_transparency_data:
        return None
    key = image.info.get("transparency")
    if image.mode.startswith("I"):
        return np.asarray(image) != key
    visible = np.asarray(image.convert("RGBA"))[..., 3] >= HALF
    hides = min(key) < OPAQUE if isinstance(key, bytes) else key is not None
    return visible if hides or not visible.all() else None


def _values(image: Image.Image) -> tuple[Numbers, int | None]:
    """Returns each pixel's value, and the largest there can be if values are shades of grey.

    A palette's are its numbers, unless its colours are black, white and greys between. A colour is
    red + 256 green + 65536 blue.
    """
    if image.mode == "P":
        numbers = np.asarray(image)
        greys = _greys(image, np.unique(numbers))
        return (numbers, None) if greys is None else (greys[numbers], WHITE)
    pixels = np.asarray(image)
    if image.mode in ("LA", "RGBA"):
        pixels = pixels[..., :-1]
    if pixels.ndim == 2:
        return pixels, TOPS.get(image.mode)
    if (pixels == pixels[..., :1]).all():
        return pixels[..., 0], WHITE
    return number_of(pixels), None


def _greys(image: Image.Image, used: NDArray[np.uint8]) -> Numbers | None:
    """Returns the grey of each of a palette's numbers, int64 256; None if numbers are labels.

    Colours count, not numbers, if those in use are two different greys, or more that are wide
    apart, or a single black or white number: which one comes first is its writer's choice. The
    darkest counts as black and the lightest as white, since a writer that chooses few colours for a
    blurred mask averages both away.

    Args:
        image: an image with a palette.
        used: the numbers in use.
    """
    palette = np.zeros((256, 3), np.int64)
    colours = np.array(image.getpalette("RGB"), np.int64).reshape(-1, 3)
    palette[: len(colours)] = colours
    greys = palette[used, 0]
    found = np.unique(greys)
    if not len(used) or (palette[used] != greys[:, None]).any():
        return None
    low, high = int(found[0]), int(found[-1])
    if low == high:
        return palette[:, 0] if len(used) == 1 and low in (BLACK, WHITE) else None
    different, only_two = len(found) == len(used), len(found) == 2
    black_and_white = only_two and (low, high) == (BLACK, WHITE)
    if not (black_and_white or (different and (only_two or high - low >= WIDE))):
        return None
    return (palette[:, 0] - low) * WHITE // (high - low)
