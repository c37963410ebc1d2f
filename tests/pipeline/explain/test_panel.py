"""The picture of why."""

import numpy as np
from PIL import Image

from pipeline.crops.extraction import CropSettings, extract_crops
from pipeline.explain.panel import CROP, HEAD, LEFT, WIDTH, Reason, draw_reasons
from pipeline.explain.pictures import colour_of
from pipeline.explain.prototypes import Points, Score
from pipeline.masks.patches import Patches

NAME = "a class with an exceedingly long name, longer than any picture is wide, " * 3


def draw(rows: list[Points], photograph: np.ndarray, name: str = "wren") -> Image.Image:
    (masks,) = Patches().segment([photograph])
    crops = extract_crops(photograph, masks, CropSettings(size=32, per_image=4))
    green = Image.new("RGB", (32, 32), (0, 255, 0))
    reasons = [Reason(points, name, f"{name}/1", green) for points in rows]
    score = Score(0, 3.0, rows, 1.0, 7)
    return draw_reasons(photograph, masks, crops, [(name, 3.0), ("crow", -1.0)], score, reasons)


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
