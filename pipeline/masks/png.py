"""Reading masks in PNG files."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageFile
from scipy.ndimage import find_objects, maximum_filter, minimum_filter

from pipeline.datasets import listing
from pipeline.errors import ProtoMaskError
from pipeline.masks.masks import Region
from pipeline.masks.names import form
from pipeline.progress import examples

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


class FolderMasks:
    """Reads PNG files that are named after photographs, or lie in folders that are.

    The masks of `class/photo.jpg` are all files in `FOLDER/class/photo.jpg/` or
    `FOLDER/class/photo/`, or the file `FOLDER/class/photo.png` or `FOLDER/class/photo.jpg.png`.

    Args:
        path: path of the folder of masks.
        reading: what a file holds: one mask, or one mask for each of its values but 0.

    Raises:
        ProtoMaskError: the folder contains no PNG file.
    """

    what = "PNG files"

    def __init__(self, path: Path, reading: Reading) -> None:
        self.path, self.reading = path, reading
        self.files = png_files(path)
        self.example = self.files[0]
        self._entries: dict[str, list[str]] = {file: [file] for file in self.files}
        for file in self.files:
            self._entries.setdefault(str(PurePosixPath(file).parent), []).append(file)
        self._by_form: dict[str, list[str]] = {}
        for name in self._entries:
            self._by_form.setdefault(form(name), []).append(name)

    def __contains__(self, name: str) -> bool:
        return name in self._entries

    def __len__(self) -> int:
        """Returns the number of PNG files."""
        return len(self.files)

    def related(self, image: str) -> list[list[str]]:
        """Returns the folders and files that are named after a photograph, as `Named.related`.

        Args:
            image: path of the image relative to the data set's root.
        """
        stem = str(PurePosixPath(image).with_suffix(""))
        spellings = dict.fromkeys((image, stem, f"{image}.png", f"{stem}.png"))
        known = [name for name in spellings if name in self._entries]
        loose = [name for spelling in spellings for name in self._by_form.get(form(spelling), [])]
        exact, near = known[: image in self._entries], known[image in self._entries :]
        return [exact, near, list(dict.fromkeys(loose))]

    def advice(self, image: str) -> str:
        """Returns where the masks of a photograph are looked for."""
        stem = str(PurePosixPath(image).with_suffix(""))
        return f"its masks belong into {image}/ or {stem}/, or into the one file {stem}.png"

    def unused(self, used: set[str]) -> list[str]:
        """Returns the files that belong to none of the names in use."""
        met = {file for name in used for file in self._entries[name]}
        return [file for file in self.files if file not in met]

    def names_of(self, file: str) -> list[str]:
        """Returns the names that a file's masks may be found by: its own, and its folder's."""
        return [file, str(PurePosixPath(file).parent)]

    def remarks(self) -> list[str]:
        """Returns what is to be said of all files: how many are no PNG files."""
        others = sorted({*listing.visible_files(self.path)} - {*self.files})
        if not others:
            return []
        return [f"{len(others)} files in {self.path} are no PNG files: {examples(others)}"]

    def regions(self, name: str, height: int, width: int) -> list[Region]:
        """Returns the masks of an image, sorted by file name and value, with a score of 1.

        Args:
            name: the image's folder or file, relative to the folder of masks.
            height: height of the image in pixels.
            width: width of the image in pixels.

        Raises:
            ProtoMaskError: a file is no PNG file, is turned by metadata, has another size, or holds
                labels where it should hold a mask, or the other way round.
        """
        return [
            region
            for file in self._entries[name]
            for region in self._regions(self.path / file, height, width)
        ]

    def _regions(self, file: Path, height: int, width: int) -> list[Region]:
        numbers = _read(file, _one_mask if self.reading == "mask" else _labels)
        if numbers.shape != (height, width):
            raise ProtoMaskError(
                f"{file} has {numbers.shape[1]}×{numbers.shape[0]} pixels, but the upright "
                f"photograph {width}×{height}"
            )
        if not numbers.any():
            return [Region(0, 0, np.zeros((0, 0), bool), (1.0,))]
        return [
            Region(columns.start, rows.start, numbers[rows, columns] == number, (1.0,))
            for number, (rows, columns) in enumerate(find_objects(numbers), start=1)
        ]


def png_files(folder: Path) -> list[str]:
    """Returns the relative paths of the PNG files in a folder, sorted.

    Raises:
        ProtoMaskError: there is no such folder, or no PNG file in it.
    """
    if not folder.is_dir():
        raise ProtoMaskError(
            f"no masks at {folder}: name a COCO JSON file or a folder of PNG files"
        )
    files = [path for path in listing.visible_files(folder) if path.lower().endswith(".png")]
    if not files:
        raise ProtoMaskError(
            f"{folder} holds no PNG files; the masks of class/photo.jpg belong into "
            f"{folder}/class/photo.jpg or {folder}/class/photo, or into the one file "
            f"{folder}/class/photo.png"
        )
    return files


def _read(file: Path, read: Callable[[Image.Image], Numbers]) -> Numbers:
    """Returns the number of the mask that each pixel lies in, 1, 2, …, or 0: height×width."""
    with _opened(file) as image:
        try:
            return read(image)
        except _UnclearError as error:
            raise ProtoMaskError(f"{file} {error}") from None


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
    return pixels @ np.array([1, 1 << 8, 1 << 16]), None


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
