"""What a prototype is compared with: its name, its mark, its place."""

import numpy as np
import pytest
from settings import model_settings

from pipeline.model.base.models import build
from pipeline.report.drawing import COLOURS
from pipeline.report.view_drawing import colour_of_view, draw_view, outlines_of_views
from pipeline.saliency.views import Views

CELLS = Views("cells", (2, 3))


@pytest.mark.parametrize(
    ("model", "views"),
    [
        ("protomask", Views("crops", (1, 1))),
        ("protopnet", Views("cells", (3, 3))),
        ("protopool", Views("cells", (3, 3), shared=True, focal=True)),
        ("pipnet", Views("cells", (3, 3), shared=True, pushed=False)),
        ("blackbox", Views("image", (1, 1), pushed=False)),
    ],
)
def test_views_of_a_network(model: str, views: Views) -> None:
    network = build(model_settings(model, backbone="test_resnet", pretrained="none"), 2)
    # test_resnet halves five times
    assert Views.of(network, 96) == views


def test_names_and_marks() -> None:
    crops, image = Views("crops", (1, 1)), Views("image", (1, 1), pushed=False)
    assert [views.called(5) for views in (crops, CELLS)] == ["crop 5", "cell (1, 2)"]
    assert [views.mark(5) for views in (crops, CELLS)] == ["5", "1,2"]
    assert image.called(0) == "whole image"
    assert (crops.crop(5), CELLS.crop(5), image.crop(0)) == (5, 0, 0)


def test_cells_share_an_image_among_them() -> None:
    # 5 rows: 0 to 2 and 3 to 4; 7 columns: 0 to 2, 3 to 4, 5 to 6
    places = [CELLS.cell(view, 5, 7) for view in range(6)]
    assert (sum(place.astype(int) for place in places) == 1).all()
    expected = np.zeros((5, 7), bool)
    expected[3:, 3:5] = True
    assert (places[4] == expected).all()


def test_cells_beside_each_other_have_different_colours() -> None:
    views = Views("cells", (7, 7))
    for row in range(6):
        for column in range(1, 6):
            around = [(0, 1), (1, -1), (1, 0), (1, 1)]
            others = {colour_of_view(views, 7 * (row + r) + column + c) for r, c in around}
            assert colour_of_view(views, 7 * row + column) not in others
    assert colour_of_view(Views("crops", (1, 1)), 9) == COLOURS[1]


def test_a_cell_is_drawn_in_its_place() -> None:
    pixels = np.full((60, 60, 3), 90, np.uint8)
    drawn = np.asarray(draw_view(CELLS, pixels, 5, 60)).astype(int)
    changed = np.abs(drawn - 90).max(-1) > 20
    assert changed[30:, 40:].any() and not changed[:28].any() and not changed[:, :38].any()
    whole = draw_view(Views("image", (1, 1), pushed=False), pixels, 0, 30)
    assert whole.size == (30, 30) and (np.asarray(whole) == 90).all()


def test_outlines_are_masks_of_crops_or_cells() -> None:
    mask = np.eye(6, dtype=bool)
    crops, image = Views("crops", (1, 1)), Views("image", (1, 1), pushed=False)
    found = outlines_of_views(crops, {0: "0", 1: "1"}, 6, 6, {0: mask, 1: None}.get)
    assert [(outline.mask is mask, outline.label) for outline in found] == [(True, "0")]
    (cell,) = outlines_of_views(CELLS, {4: "1,1"}, 4, 6, {}.get)
    assert (cell.mask == CELLS.cell(4, 4, 6)).all()
    assert outlines_of_views(image, {0: ""}, 4, 6, {}.get) == []
