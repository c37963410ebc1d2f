"""The picture of why."""

import numpy as np
from PIL import Image

from pipeline.report.contrast import Contrast, Row, Speaker
from pipeline.report.drawing import Outline, colour_of
from pipeline.report.prediction_picture import (
    AGAINST,
    BAR,
    CROP,
    GAP,
    HEAD,
    LEFT,
    MARGIN,
    REGION_TEXT,
    ROW,
    WIDTH,
    Reason,
    draw_reasons,
)
from pipeline.saliency.margin import Margin, Region
from pipeline.saliency.prototypes import Points, Score
from pipeline.saliency.views import Views

CROP_VIEWS = Views("crops", (1, 1))
NAME = "a class with an exceedingly long name, longer than any picture is wide, " * 3


def draw(
    rows: list[Points],
    photograph: np.ndarray,
    name: str = "wren",
    views: Views = CROP_VIEWS,
    shows: str = "",
) -> Image.Image:
    grey, green = (Image.new("RGB", (32, 32), colour) for colour in ((90,) * 3, (0, 255, 0)))
    reasons = [Reason(points, name, f"{name}/1", grey, green, shows) for points in rows]
    outlines = [Outline(np.ones(photograph.shape[:2], bool), colour_of(2), "2")]
    score = Score(0, 3.0, rows, 1.0, 7)
    ranking = [(name, 3.0), ("crow", -1.0)]
    return draw_reasons(photograph, outlines, ranking, score, reasons, views, None)


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


def test_the_part_of_a_prototype_stands_between_its_name_and_its_image() -> None:
    photograph, rows = np.full((60, 80, 3), 90, np.uint8), [Points((0,), 0, 1.0, 1.0, 1.0)]
    plain, named = (np.asarray(draw(rows, photograph, shows=part)) for part in ("", "a wing"))
    changed = np.flatnonzero((plain != named).any(axis=(1, 2))) - (HEAD + 30)
    # the second line is another, and a third comes, within the row
    assert changed.min() > 54 + 20 and 54 + 50 < changed.max() < ROW
    assert plain.shape == named.shape


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


def test_what_decides_between_two_classes_comes_first() -> None:
    grey, green, red = (
        Image.new("RGB", (32, 32), colour) for colour in ((90,) * 3, (0, 255, 0), (255, 0, 0))
    )
    points = Points((4,), 2, 1.0, 1.5, 1.5)
    pro, con = (Speaker(points, 0, "wren", "wren/1", "", picture) for picture in (green, red))
    regions = (
        Region(2, "its tail", 1.5, points, points),
        Region(0, "region 0", -0.75, None, points),
    )
    margin = Margin((0, 1), ("wren", "crow"), (3.0, 2.0), 1.0, regions, 0.25, 3)
    rows = [
        Row(regions[0], "2", colour_of(2), 1.0, pro, con, picture=grey),
        Row(regions[1], "0", colour_of(0), -0.5, None, con, picture=grey),
    ]
    contrast = Contrast(margin, Image.new("RGB", (440, 300), (1, 2, 3)), rows)
    photograph, score = np.full((60, 80, 3), 90, np.uint8), Score(0, 3.0, [points], 1.5, 7)
    reasons = [Reason(points, "wren", "wren/1", grey, green, "")]
    picture = draw_reasons(
        photograph, [], [("wren", 3.0), ("crow", 2.0)], score, reasons, CROP_VIEWS, contrast
    )
    # one line of words, then the image and the rows beside it
    top = HEAD + 28 + 20
    assert picture.getpixel((MARGIN + 100, top + 100)) == (1, 2, 3)
    for place, colours in enumerate([[(0, 255, 0), (255, 0, 0)], [(255, 255, 255), (255, 0, 0)]]):
        y = top + 56 + ROW * place + CROP - 4
        assert picture.getpixel((LEFT + 60, y)) == (90, 90, 90)
        for column, colour in enumerate(colours, 1):
            assert picture.getpixel((LEFT + column * (CROP + GAP) + 60, y)) == colour
    # the second region's bar is half as long, and in the colour of what speaks against
    whole = WIDTH - MARGIN - REGION_TEXT
    for place, (share, colour) in enumerate([(1.0, BAR), (0.5, AGAINST)]):
        y = top + 56 + ROW * place + 43
        end = REGION_TEXT + round(share * whole)
        assert picture.getpixel((end - 1, y)) == colour
        assert picture.getpixel((end + 2, y)) == (255, 255, 255)
    # then what looks like what
    alone = draw([points], photograph)
    assert picture.height > alone.height + 56 + 2 * ROW


def test_line_breaks_in_names_are_spaces() -> None:
    photograph = np.full((60, 80, 3), 90, np.uint8)
    rows = [Points((4,), 2, 1.0, 1.5, 1.5)]
    broken, spaced = (draw(rows, photograph, name) for name in ("a\nb\rc", "a b c"))
    assert broken.tobytes() == spaced.tobytes()
