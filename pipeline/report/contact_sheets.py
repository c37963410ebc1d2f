"""Contact sheets: many small pictures in one file, of which a page shows one at a time."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from PIL import Image

from pipeline.report.drawing import QUALITY_SMALL

COLUMNS = 10


class Thumbnail(NamedTuple):
    """A small picture on a contact sheet.

    Args:
        sheet: the sheet's file, relative to the page that shows it.
        column, row: the picture's place on the sheet, counted from 0.
        alt: what it shows, in words.
    """

    sheet: str
    column: int
    row: int
    alt: str


def thumbnail(sheet: str, number: int, alt: str) -> Thumbnail:
    """Returns a picture of a sheet.

    Args:
        sheet: the sheet's file, relative to the page that shows it.
        number: the picture's position in the list given to `write_sheet`.
        alt: what it shows, in words.
    """
    row, column = divmod(number, COLUMNS)
    return Thumbnail(sheet, column, row, alt)


def write_sheet(path: Path, pictures: Sequence[Image.Image], side: int) -> None:
    """Writes a contact sheet as WebP, `COLUMNS` pictures in a row; the same ones, the same bytes.

    Args:
        path: path of the file.
        pictures: the pictures, none larger than side×side pixels; each lies in the middle of a
            transparent square.
        side: the squares' side in pixels.
    """
    sheet = Image.new("RGBA", (COLUMNS * side, side * max(1, -(-len(pictures) // COLUMNS))))
    for number, picture in enumerate(pictures):
        row, column = divmod(number, COLUMNS)
        left, top = (side - picture.width) // 2, (side - picture.height) // 2
        sheet.paste(picture, (column * side + left, row * side + top))
    sheet.save(path, "WEBP", quality=QUALITY_SMALL, method=4)
