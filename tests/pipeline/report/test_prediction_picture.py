"""The picture of why."""

import numpy as np
from PIL import Image

from pipeline.report.drawing import Outline, colour_of
from pipeline.report.prediction_picture import CROP, HEAD, LEFT, WIDTH, Reason, draw_reasons
from pipeline.saliency.prototypes import Points, Score
from pipeline.saliency.views import Views

CROP_VIEWS = Views("crops", (1, 1))
NAME = "a class with an exceedingly long name, longer than any picture is wide, " * 3


def draw(
    rows: list[Points], photograph: np.ndarray, name: str = "wren", views: Views = CROP_VIEWS
) -> Image.Image:
    grey, green = (Image.new("RGB", (32, 32), colour) for colour in ((90,) * 3, (0, 255, 0)))
    reasons = [Reason(points, name, f"{name}/1", grey, green) for points in rows]
    outlines = [Outline(np.ones(photograph.shape[:2], bool), colour_of(2), "2")]
    score = Score(0, 3.0, rows, 1.0, 7)
    ranking = [(name, 3.0), ("crow", -1.0)]
    return draw_reasons(photograph, outlines, ranking, score, reasons, views)


def test_rows_show_the_crop_in_its_colour_beside_the_prototype() -> None:
    photograph = np.full((60, 80, 3), 90, np.uint8)
    rows = [Points((4,), 2, 1.0, 1.5, 1.5), Points((1, 3), 0, 0.5, 1.0, 0.5)]
    picture = draw(rows, photograph)
    assert picture.width == WIDTH
    top = HEAD + 30
    assert picture.getpixel((LEFT - 3, top + 60)) == colour_of(2)
    assert picture.getpixel((LEFT + CROP // 2, top + CROP // 2)) == (90, 90, 90)
    assert picture.getpixel((LEFT + 3 * CROP // 2 + 16, top + CROP // 2)) == (0, 255, 0)


def test_long_names_stay_inside_the_picture() -> None:
    photograph = np.full((60, 80, 3), 90, np.uint8)
    picture = draw([Points((0,), 0, 1.0, 1.0, 1.0)], photograph, NAME)
    margin = np.asarray(picture)[:, -38:]
    assert (margin == 255).all()


def test_any_shape_of_photograph_fits() -> None:
    for height, width in ((1, 1), (2, 900), (900, 3)):
        photograph = np.full((height, width, 3), 90, np.uint8)
        assert draw([Points((0,), 0, 1.0, -1.0, -1.0)], photograph).width == WIDTH


def test_a_cell_has_the_colour_of_its_row_and_column() -> None:
    photograph = np.full((60, 80, 3), 90, np.uint8)
    cells = Views("cells", (7, 7))
    picture = draw([Points((4,), 16, 1.0, 1.5, 1.5)], photograph, views=cells)
    # row 2, column 2: 3·2 + 2 = 8, again the first colour
    assert picture.getpixel((LEFT - 3, HEAD + 90)) == colour_of(0)


def test_a_black_box_has_a_picture_without_reasons() -> None:
    photograph = np.full((60, 80, 3), 90, np.uint8)
    picture = draw([], photograph, views=Views("image", (1, 1), pushed=False))
    assert picture.width == WIDTH
