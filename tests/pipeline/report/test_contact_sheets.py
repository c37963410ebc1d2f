"""Contact sheets: each picture in its place."""

from pathlib import Path

import numpy as np
from PIL import Image

from pipeline.report.contact_sheets import COLUMNS, thumbnail, write_sheet


def test_a_picture_lies_in_its_square(tmp_path: Path) -> None:
    colours = [(20 * number, 250 - 20 * number, 0) for number in range(COLUMNS + 2)]
    pictures = [Image.new("RGB", (16, 8), colour) for colour in colours]
    write_sheet(tmp_path / "a.webp", pictures, 16)
    write_sheet(tmp_path / "b.webp", pictures, 16)
    assert (tmp_path / "a.webp").read_bytes() == (tmp_path / "b.webp").read_bytes()
    sheet = np.asarray(Image.open(tmp_path / "a.webp").convert("RGBA")).astype(int)
    assert sheet.shape == (32, 16 * COLUMNS, 4)
    for number, colour in enumerate(colours):
        of = thumbnail("a.webp", number, "what it shows")
        square = sheet[16 * of.row : 16 * (of.row + 1), 16 * of.column : 16 * (of.column + 1)]
        assert np.abs(square[8, 8, :3] - colour).max() < 30
        assert square[8, 8, 3] == 255 and square[1, 8, 3] == 0
    assert (thumbnail("a.webp", 11, "").column, thumbnail("a.webp", 11, "").row) == (1, 1)


def test_a_sheet_without_pictures_is_a_file_all_the_same(tmp_path: Path) -> None:
    write_sheet(tmp_path / "none.webp", [], 4)
    assert Image.open(tmp_path / "none.webp").size == (40, 4)
