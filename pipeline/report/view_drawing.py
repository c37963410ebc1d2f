"""Pictures of views: crops, cells and whole images."""

from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pipeline.report.drawing import DIM, Colour, Outline, colour_of, outlined, resized
from pipeline.saliency.views import Views


def colour_of_view(views: Views, view: int) -> Colour:
    """Returns the colour of a view's outline; neighbouring cells have different colours."""
    row, column = divmod(view, views.grid[1])
    return colour_of(3 * row + column if views.kind == "cells" else view)


def dim_of(views: Views) -> float:
    """Returns how much a picture is darkened outside the views that are outlined in it.

    It is not outside cells, whose edges cut through everything: without what is around it a cell
    shows nothing.
    """
    return 0.0 if views.kind == "cells" else DIM


def draw_view(views: Views, pixels: NDArray[np.uint8], view: int, side: int) -> Image.Image:
    """Draws a view: the crop, or the image with the cell outlined.

    Args:
        views: the kind of view that the model compares prototypes with.
        pixels: the view's crop or the whole image, uint8 S×S×3.
        view: index of the view, 0..V−1.
        side: the picture's largest side in pixels.
    """
    side = min(side, len(pixels))
    if views.kind != "cells":
        return resized(pixels, side)
    place = views.cell(view, *pixels.shape[:2])
    return outlined(pixels, [Outline(place, colour_of_view(views, view))], side, dim_of(views))


def outlines_of_views(
    views: Views,
    marked: Mapping[int, str],
    height: int,
    width: int,
    mask_of: Callable[[int], NDArray[np.bool_] | None],
) -> list[Outline]:
    """Returns the outlines of views in an image: the masks of crops, or the cells.

    Args:
        views: the kind of view that the model compares prototypes with.
        marked: label of each view to outline, by view.
        height: height of the image in pixels.
        width: width of the image in pixels.
        mask_of: returns the mask of a crop, bool height×width; None for a crop without.
    """
    in_cells = views.kind == "cells"
    places = [views.cell(v, height, width) if in_cells else mask_of(v) for v in marked]
    return [
        Outline(place, colour_of_view(views, view), label)
        for place, (view, label) in zip(places, marked.items(), strict=True)
        if place is not None
    ]
