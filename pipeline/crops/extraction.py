"""Extraction of an image's crops, one for each of the masks that are chosen."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pipeline.crops.choice import chosen_masks
from pipeline.crops.encoding import STORAGE
from pipeline.crops.settings import NO_MASK, NO_PART, CropSettings
from pipeline.crops.store import StoredCrops
from pipeline.masks.masks import Masks


class Crops(NamedTuple):
    """The crops of one image.

    Args:
        pixels: RGB crops, uint8 K×S×S×3; zero for missing crops.
        inside: bool K×S×S, the mask inside each crop.
        boxes: int32 K×4, the box of each crop, half-open (x0, y0, x1, y1) in pixels of the image.
        masks: int32 K, the mask's index in the mask store; −1 for a crop without a mask.
        parts: int32 K, the number of the part that the mask shows; −1 where none is known.
        valid: bool K, false for missing crops.
    """

    pixels: NDArray[np.uint8]
    inside: NDArray[np.bool_]
    boxes: NDArray[np.int32]
    masks: NDArray[np.int32]
    parts: NDArray[np.int32]
    valid: NDArray[np.bool_]


def extract_crops(image: NDArray[np.uint8], masks: Masks, settings: CropSettings) -> Crops:
    """Extracts the crops of one image.

    An image without a mask to crop gives a single crop, the whole image (docs/method.md, "Crops").

    Args:
        image: the RGB image, uint8 height×width×3.
        masks: the image's masks, largest first.
        settings: size and number of the crops, which masks they are cut along, their background,
            and the limits of their boxes.

    Returns:
        K crops, the missing ones last.
    """
    numbers = chosen_masks(masks, settings)
    if not numbers:
        return whole_image(image, settings.per_image, settings.side)
    crops = _no_crops(settings.per_image, settings.side)
    for place, number in enumerate(numbers):
        crops.masks[place], crops.parts[place] = number, masks.parts[number]
        box = grow_box(masks.boxes[number], masks.height, masks.width, settings.min_box_area)
        x0, y0, x1, y1 = box
        inside = np.zeros((y1 - y0, x1 - x0), bool)
        mx0, my0, mx1, my1 = masks.boxes[number].tolist()
        inside[my0 - y0 : my1 - y0, mx0 - x0 : mx1 - x0] = masks.inside(number)
        pixels = fill_background(image[y0:y1, x0:x1], inside, settings.background)
        _place(crops, place, pixels, inside, (x0, y0), settings.side)
    return crops


def whole_image(image: NDArray[np.uint8], per_image: int, size: int) -> Crops:
    """Returns the whole image as the first of K crops; the others are missing.

    Args:
        image: the RGB image, uint8 height×width×3.
        per_image: K, the number of crops.
        size: S, the side of a crop in pixels.
    """
    crops = _no_crops(per_image, size)
    _place(crops, 0, image, np.ones(image.shape[:2], bool), (0, 0), size)
    return crops


def _no_crops(K: int, S: int) -> Crops:
    return Crops(
        np.zeros((K, S, S, 3), np.uint8),
        np.zeros((K, S, S), bool),
        np.zeros((K, 4), np.int32),
        np.full(K, NO_MASK, np.int32),
        np.full(K, NO_PART, np.int32),
        np.zeros(K, bool),
    )


def grow_box(
    box: NDArray[np.integer], height: int, width: int, min_area: float
) -> tuple[int, int, int, int]:
    """Grows a box around its centre until it covers a fraction of the image.

    The aspect ratio is kept where possible. A box that would leave the image is shifted back into
    it. A side longer than the image's is cut to it, and the other one is lengthened in return.

    Args:
        box: the box, half-open (x0, y0, x1, y1) in pixels.
        height: height of the image in pixels.
        width: width of the image in pixels.
        min_area: the fraction, 0..1; a box that is large enough is returned unchanged.

    Returns:
        The grown box, half-open (x0, y0, x1, y1), which contains the given one.
    """
    x0, y0, x1, y1 = (int(value) for value in box)
    wanted = min_area * height * width
    if (x1 - x0) * (y1 - y0) >= wanted:
        return x0, y0, x1, y1
    factor = (wanted / ((x1 - x0) * (y1 - y0))) ** 0.5
    new_width = min(width, (x1 - x0) * factor)
    new_height = min(height, wanted / new_width)
    new_width = min(width, wanted / new_height)
    left, right = _around((x0 + x1) / 2, int(np.ceil(new_width - 1e-9)), width)
    top, bottom = _around((y0 + y1) / 2, int(np.ceil(new_height - 1e-9)), height)
    return min(left, x0), min(top, y0), max(right, x1), max(bottom, y1)


def fill_background(
    pixels: NDArray[np.uint8], inside: NDArray[np.bool_], background: str
) -> NDArray[np.uint8]:
    """Replaces the pixels outside the mask.

    Args:
        pixels: RGB pixels of the box, uint8 height×width×3.
        inside: the mask inside the box, bool height×width.
        background: `original` (unchanged), `mean` (mean colour inside the mask) or `zero`.

    Returns:
        uint8 height×width×3.
    """
    if background == "original":
        return pixels
    colour = pixels[inside].mean(axis=0).round() if background == "mean" else np.zeros(3)
    return np.where(inside[..., None], pixels, colour.astype(np.uint8))


def _around(centre: float, length: int, limit: int) -> tuple[int, int]:
    low = min(max(round(centre - length / 2), 0), limit - length)
    return low, low + length


def _place(
    crops: Crops,
    number: int,
    pixels: NDArray[np.uint8],
    inside: NDArray[np.bool_],
    corner: tuple[int, int],
    size: int,
) -> None:
    """Resizes one crop (bilinear, antialiased) and its mask (likewise, thresholded at one half)."""
    x0, y0 = corner
    height, width = inside.shape
    bilinear = Image.Resampling.BILINEAR
    resized = Image.fromarray(np.ascontiguousarray(pixels)).resize((size, size), bilinear)
    shape = Image.fromarray(inside.astype(np.uint8) * 255).resize((size, size), bilinear)
    crops.pixels[number] = np.asarray(resized)
    crops.inside[number] = np.asarray(shape) >= 128
    crops.boxes[number] = (x0, y0, x0 + width, y0 + height)
    crops.valid[number] = True


def cut_as_stored(store: StoredCrops, image: NDArray[np.uint8], masks: Masks | None) -> Crops:
    """Cuts an image as the images of a store were cut, with pixels as the store gives them back.

    Args:
        store: of crops, or of whole images.
        image: uint8 RGB, height×width×3.
        masks: the image's; none are needed where the store is of whole images.
    """
    settings = store.settings
    if store.whole_images:
        crops = whole_image(image, 1, settings.side)
    else:
        assert masks is not None
        crops = extract_crops(image, masks, settings)
    encoding = STORAGE[settings.storage]
    for crop in np.flatnonzero(crops.valid):
        encoding.decode(encoding.encode(crops.pixels[crop]), crops.pixels[crop])
    return crops
