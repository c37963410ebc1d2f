"""Why one class rather than another: pictures of a margin's regions, with their prototypes."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pipeline.crops.settings import NO_MASK
from pipeline.crops.store import CropStore
from pipeline.masks.masks import NO_PART, Masks
from pipeline.report.drawing import Colour, Outline, outlined
from pipeline.report.heatmaps import Cut, read_cut
from pipeline.report.parts import Parts
from pipeline.report.view_drawing import colour_of_view
from pipeline.saliency.margin import Margin, Region
from pipeline.saliency.prototypes import Points, Prototypes

SIDE, DIM = 112, 0.6
WHOLE = 0
"""The level of masks of whole objects (`Masks.levels`)."""


class Speaker(NamedTuple):
    """The prototypes of one training view that speak most for a class in a region.

    Args:
        points: similarity × difference of the weights = points for the class.
        label, class_name: number and name of the prototypes' own class.
        image: id of their training image.
        picture: that view, outlined in its crop or in the whole image.
        shows: name or number of the part that it shows; empty if none is known.
    """

    points: Points
    label: int
    class_name: str
    image: str
    picture: Image.Image
    shows: str


class Row(NamedTuple):
    """A region of an image, and the strongest prototypes of either class in it.

    Args:
        region: the region and its points.
        mark, colour: label and colour of the region's outline in the image.
        share: the region's points relative to the largest of the image, in [−1, 1].
        picture: the region, outlined in its crop or in the whole image.
        pro, con: what speaks most for the first class, and for the second; None without any.
    """

    region: Region
    mark: str
    colour: Colour
    share: float
    picture: Image.Image
    pro: Speaker | None
    con: Speaker | None


class Contrast(NamedTuple):
    """A margin with pictures.

    Args:
        margin: the margin, rounded (see `Margin.rounded`).
        outlined: the image with the margin's regions outlined; None if it is not available.
        rows: a row for each region; none for a black box.
    """

    margin: Margin
    outlined: Image.Image | None
    rows: list[Row]


def draw_rows(
    margin: Margin,
    cuts: Mapping[int, Cut],
    prototypes: Prototypes,
    crops: CropStore,
    ids: Sequence[str],
    parts: Parts,
) -> list[Row]:
    """Draws the regions of a margin, and the prototypes beside them.

    Args:
        margin: the margin of an image, rounded.
        cuts: the image's crops by number, at least those of the margin's regions.
        prototypes: the finished model's prototypes.
        crops: store of the index's images, as the model sees them.
        ids: ids of the store's images, in order.
        parts: the parts that masks show.

    Returns:
        A row for each region; none for a black box, which has a single one.
    """
    views = prototypes.views
    if views.kind == "image":
        return []
    most = max((abs(region.points) for region in margin.regions), default=1.0)

    def shown(cut: Cut, view: int, colour: Colour) -> Image.Image:
        in_cells = views.kind == "cells"
        place = views.cell(view, *cut.pixels.shape[:2]) if in_cells else cut.inside
        return outlined(cut.pixels, [Outline(place, colour)], SIDE, 0 if in_cells else DIM)

    def speaker(points: Points | None, colour: Colour) -> Speaker | None:
        if points is None:
            return None
        first = points.prototypes[0]
        row, view = int(prototypes.rows_P[first]), int(prototypes.view_P[first])
        label = int(prototypes.class_of_P[first])
        cut = read_cut(crops, row, views.crop(view))
        name = prototypes.class_names[label]
        part = int(prototypes.part_P[first])
        shows = "" if part == NO_PART else parts.called(part)
        return Speaker(points, label, name, ids[row], shown(cut, view, colour), shows)

    return [
        Row(
            region,
            views.mark(region.view),
            colour,
            region.points / most,
            shown(cuts[views.crop(region.view)], region.view, colour),
            speaker(region.pro, colour),
            speaker(region.con, colour),
        )
        for region in margin.regions
        for colour in [colour_of_view(views, region.view)]
    ]


def called_parts(
    masks: Masks, mask_K: NDArray[np.integer], names: Mapping[int, str]
) -> dict[int, str]:
    """Returns what the part that each crop shows is called, where the segmenter knows it.

    Args:
        masks: the image's masks.
        mask_K: int K, the mask of each crop; `NO_MASK` for a crop without.
        names: the names of the segmenter's parts by their numbers; a part without a name is called
            by its number, a whole object `object`.

    Returns:
        `its wing`, `its part 7`, `the whole bird`, `the whole object` or `the background`, by crop.
    """

    def called(mask: int) -> str:
        if not masks.foreground[mask]:
            return "the background"
        part = int(masks.parts[mask])
        if masks.levels[mask] == WHOLE:
            return f"the whole {names.get(part, 'object')}"
        return f"its {names.get(part, f'part {part}')}"

    return {
        crop: called(mask)
        for crop, mask in enumerate(mask_K.tolist())
        if mask != NO_MASK and masks.parts[mask] != NO_PART
    }
