"""Drawing on images: outlines of masks, and small pictures for a page."""

import base64
import unicodedata
from collections.abc import Sequence
from functools import cache
from io import BytesIO
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from scipy.ndimage import binary_dilation, binary_erosion, distance_transform_edt

Colour = tuple[int, int, int]
COLOURS: tuple[Colour, ...] = (
    (255, 170, 0),
    (86, 200, 255),
    (255, 105, 180),
    (0, 220, 130),
    (255, 240, 70),
    (190, 140, 255),
    (255, 110, 70),
    (170, 240, 60),
)
"""Bright colours, distinguishable by colour-blind readers in this order; drawn on a dark casing."""
CASING: Colour = (20, 20, 20)
QUALITY, QUALITY_SMALL = 78, 70
LARGEST_LABEL, THICKEST = 20, 3
DIM = 0.6
"""How much a picture is darkened outside the masks that are outlined in it."""
TINT, REACH = 0.4, 1 / 16
"""A mask's colour along its edge, inside it: opacity at the edge, width as a share of the side."""


class Outline(NamedTuple):
    """A mask to outline.

    Args:
        mask: the mask, bool height×width, of the image's size.
        colour: RGB colour of the outline, 0..255 each.
        label: a few characters written inside the mask; empty for none.
    """

    mask: NDArray[np.bool_]
    colour: Colour
    label: str = ""


def colour_of(number: int) -> Colour:
    """Returns the colour of the mask with this number; colours repeat after `COLOURS`."""
    return COLOURS[number % len(COLOURS)]


def web_colour(colour: Colour) -> str:
    """Returns a colour in CSS notation: `#ffaa00`."""
    return "#{:02x}{:02x}{:02x}".format(*colour)


def resized(pixels: NDArray[np.uint8], side: int) -> Image.Image:
    """Resizes an image, uint8 height×width×3, so that its longer side has `side` pixels."""
    height, width = pixels.shape[:2]
    factor = side / max(height, width)
    size = (max(1, round(width * factor)), max(1, round(height * factor)))
    return Image.fromarray(np.ascontiguousarray(pixels)).resize(size, Image.Resampling.LANCZOS)


def outlined(
    pixels: NDArray[np.uint8], outlines: Sequence[Outline], side: int, dim: float = DIM
) -> Image.Image:
    """Draws outlines of masks on an image, such that it shows on which side of them a mask lies.

    What lies outside all masks is darkened. Along its outline, each mask is tinted in its colour,
    fading inwards: the whole image but for a hole looks otherwise than the hole.

    Args:
        pixels: the RGB image, uint8 height×width×3.
        outlines: the masks to outline; later ones are drawn over earlier ones.
        side: the picture's longer side in pixels; line width and labels grow with it up to a limit.
        dim: how much the picture is darkened outside all masks, from 0 (not) to 1 (black).

    Returns:
        The picture, with the image's aspect ratio.
    """
    picture = resized(pixels, side)
    small = [_shrink(outline.mask, picture.size) for outline in outlines]
    canvas = np.asarray(picture).copy()
    thickness = min(max(2, side // 160), THICKEST)
    if dim and small:
        outside = ~np.logical_or.reduce(small)
        canvas[outside] = (canvas[outside] * (1 - dim)).astype(np.uint8)
    windows = [_window(mask) for mask in small]
    for mask, window, outline in zip(small, windows, outlines, strict=True):
        _tint(canvas[window], mask[window], outline.colour, REACH * side)
    for mask, window, outline in zip(small, windows, outlines, strict=True):
        part, inside = canvas[window], mask[window]
        part[binary_dilation(inside) & ~inside] = CASING
        part[inside & ~binary_erosion(inside, iterations=thickness)] = outline.colour
    picture = Image.fromarray(canvas)
    taken: list[tuple[int, int]] = []
    for mask, outline in zip(small, outlines, strict=True):
        if outline.label:
            taken.append(_write_label(picture, mask, outline, taken))
    return picture


def data_uri(picture: Image.Image, quality: int = QUALITY) -> str:
    """Returns a picture as a data URI in WebP format; the same pixels give the same text.

    Args:
        picture: the picture to encode, in mode RGB.
        quality: quality of the WebP compression, 0..100.
    """
    stream = BytesIO()
    picture.save(stream, "WEBP", quality=quality, method=2)
    return "data:image/webp;base64," + base64.b64encode(stream.getvalue()).decode("ascii")


@cache
def font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """Returns the first available of `FONTS` at a size in pixels, or Pillow's own font."""
    name = _font_name()
    return ImageFont.truetype(name, size) if name else ImageFont.load_default(size)


def writable(text: str) -> str:
    """Returns a text as one line of characters that the font has: without `FONTS`, in ASCII."""
    text = "".join(" " if unicodedata.category(letter) == "Cc" else letter for letter in text)
    if _font_name():
        return text
    decomposed = unicodedata.normalize("NFKD", text.replace("×", "x").replace("−", "-"))
    letters = (letter for letter in decomposed if not unicodedata.combining(letter))
    return "".join(letters).encode("ascii", "replace").decode("ascii")


FONTS = ("DejaVuSans.ttf", "LiberationSans-Regular.ttf", "NotoSans-Regular.ttf", "Arial.ttf")


@cache
def _font_name() -> str | None:
    """Returns the first of `FONTS`, which have letters of many languages, on this machine."""
    for name in FONTS:
        try:
            ImageFont.truetype(name, 12)
        except OSError:
            continue
        return name
    return None


def _shrink(mask: NDArray[np.bool_], size: tuple[int, int]) -> NDArray[np.bool_]:
    """Resizes a mask to (width, height); a mask that is not empty keeps at least one pixel."""
    grey = Image.fromarray(mask.astype(np.uint8) * 255)
    small = np.asarray(grey.resize(size, Image.Resampling.BILINEAR)) >= 128
    if mask.any() and not small.any():
        small = small.copy()
        rows, columns = np.nonzero(mask)
        y, x = int(np.median(rows)), int(np.median(columns))
        small[y * size[1] // mask.shape[0], x * size[0] // mask.shape[1]] = True
    return small


@cache
def _own_font(points: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(points)


def _window(mask: NDArray[np.bool_]) -> tuple[slice, slice]:
    """Returns the rows and columns of a mask and of the pixels next to it; of an empty one, all."""
    if not mask.any():
        return slice(None), slice(None)
    y, x = (np.flatnonzero(mask.any(axis=axis)) for axis in (1, 0))
    return slice(max(0, y[0] - 1), y[-1] + 2), slice(max(0, x[0] - 1), x[-1] + 2)


def _tint(canvas: NDArray[np.uint8], mask: NDArray[np.bool_], colour: Colour, reach: float) -> None:
    """Tints a mask along its edge, fading inwards over `reach` pixels; changes the canvas."""
    if mask.all():
        return
    depth = distance_transform_edt(np.pad(mask, 1, mode="edge"))[1:-1, 1:-1]
    reach = min(reach, depth.max() / 2)
    band = mask & (depth < reach)
    opacity = TINT * (1 - depth[band][:, None] / reach)
    tinted = canvas[band] * (1 - opacity) + np.array(colour) * opacity
    canvas[band] = tinted.round().astype(np.uint8)


def _write_label(
    picture: Image.Image, mask: NDArray[np.bool_], outline: Outline, taken: list[tuple[int, int]]
) -> tuple[int, int]:
    """Writes a mask's label on a disc of its colour where the mask is widest, beside other discs.

    The font is Pillow's own, so that a report is the same on every machine.

    Returns:
        The disc's centre (x, y) in pixels.
    """
    points = min(max(12, max(picture.size) // 22), LARGEST_LABEL)
    radius = points * (2 + len(outline.label)) // 4
    window = _window(mask)
    depth = distance_transform_edt(np.pad(mask[window], 1))[1:-1, 1:-1]
    rows, columns = (np.arange(n)[part] for n, part in zip(mask.shape, window, strict=True))
    for x, y in taken:
        near = np.hypot(rows[:, None] - y, columns - x)
        depth = np.where(near < 2 * radius + 2, depth * 1e-3, depth)
    row, column = np.unravel_index(depth.argmax(), depth.shape)
    y, x = int(rows[row]), int(columns[column])
    x = min(max(x, radius), picture.width - 1 - radius)
    y = min(max(y, radius), picture.height - 1 - radius)
    draw = ImageDraw.Draw(picture)
    draw.ellipse((x - radius, y - radius, x + radius, y + radius), outline.colour, CASING)
    draw.text((x, y), outline.label, CASING, _own_font(points), anchor="mm")
    return x, y
