"""Why one class rather than another: pictures of a margin's regions, with their prototypes."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pipeline.crops.settings import NO_MASK
from pipeline.crops.store import StoredCrops
from pipeline.masks.masks import NO_PART, Masks
from pipeline.report.drawing import Colour, Outline, outlined
from pipeline.report.heatmaps import Cut, read_cut
from pipeline.report.parts import Parts
from pipeline.report.view_drawing import colour_of_view, dim_of
from pipeline.saliency.margin import NO_NAMES, Margin, Region
from pipeline.saliency.prototypes import Points, Prototypes
from pipeline.saliency.views import Views

SIDE = 112
WHOLE = 0
"""The level of masks of whole objects (`Masks.levels`)."""


class Speaker(NamedTuple):
    """The prototypes of one training view that speak most for a class in a region.

    Args:
        points: similarity × difference of the weights = points for the class.
        label, class_name: number and name of the prototypes' own class.
        image: id of their training image.
        shows: name or number of the part that it shows; empty if none is known.
        picture: that view, outlined in its crop or in the whole image; None if it is not drawn.
    """

    points: Points
    label: int
    class_name: str
    image: str
    shows: str
    picture: Image.Image | None = None


class Row(NamedTuple):
    """A region of an image, and the strongest prototypes of either class in it.

    Args:
        region: the region and its points.
        mark, colour: label and colour of the region's outline in the image.
        share: the region's points relative to the largest of the image, in [−1, 1].
        pro, con: what speaks most for the first class, and for the second; None without any.
        remark: what is to be said of the region's crop (see `crop_remarks`); usually nothing.
        picture: the region, outlined in its crop or in the whole image; None if it is not drawn.
    """

    region: Region
    mark: str
    colour: Colour
    share: float
    pro: Speaker | None
    con: Speaker | None
    remark: str = ""
    picture: Image.Image | None = None


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


def plain_rows(
    margin: Margin,
    prototypes: Prototypes,
    ids: Sequence[str],
    parts: Parts,
    remarks: Mapping[int, str] = NO_NAMES,
) -> list[Row]:
    """Returns the regions of a margin, and the prototypes beside them, without pictures.

    Args:
        margin: the margin of an image, rounded.
        prototypes: the finished model's prototypes.
        ids: ids of the index's images, in order.
        parts: the parts that masks show.
        remarks: what is to be said of the image's crops, by number (see `crop_remarks`).

    Returns:
        A row for each region; none for a black box, which has a single one.
    """
    views = prototypes.views
    if views.kind == "image":
        return []
    most = max((abs(region.points) for region in margin.regions), default=1.0)

    def speaker(points: Points | None) -> Speaker | None:
        if points is None:
            return None
        first = points.prototypes[0]
        label, part = int(prototypes.class_of_P[first]), int(prototypes.part_P[first])
        shows = "" if part == NO_PART else parts.called(part)
        name, image = prototypes.class_names[label], ids[int(prototypes.rows_P[first])]
        return Speaker(points, label, name, image, shows)

    return [
        Row(
            region,
            views.mark(region.view),
            colour_of_view(views, region.view),
            region.points / most,
            speaker(region.pro),
            speaker(region.con),
            remarks.get(region.view, "") if views.kind == "crops" else "",
        )
        for region in margin.regions
    ]


def draw_rows(
    rows: Sequence[Row], cuts: Mapping[int, Cut], prototypes: Prototypes, crops: StoredCrops
) -> list[Row]:
    """Draws the regions of a margin, and the prototypes beside them.

    Args:
        rows: the rows without pictures.
        cuts: the image's crops by number, at least those of the margin's regions.
        prototypes: the finished model's prototypes.
        crops: store of the index's images, as the model sees them.
    """
    views = prototypes.views

    def drawn(speaker: Speaker | None, colour: Colour) -> Speaker | None:
        if speaker is None:
            return None
        first = speaker.points.prototypes[0]
        row, view = int(prototypes.rows_P[first]), int(prototypes.view_P[first])
        cut = read_cut(crops, row, views.crop(view))
        return speaker._replace(picture=draw_place(views, cut, view, colour))

    return [
        row._replace(
            picture=draw_place(views, cuts[views.crop(view)], view, row.colour),
            pro=drawn(row.pro, row.colour),
            con=drawn(row.con, row.colour),
        )
        for row in rows
        for view in [row.region.view]
    ]


def draw_place(views: Views, cut: Cut, view: int, colour: Colour, side: int = SIDE) -> Image.Image:
    """Draws a crop with its mask outlined, or the whole image with a cell outlined.

    Args:
        views: the kind of view that the model compares prototypes with.
        cut: the crop, or the whole image.
        view: index of the view, 0..V−1.
        colour: colour of the outline.
        side: the picture's largest side in pixels.
    """
    cell = views.cell(view, *cut.pixels.shape[:2]) if views.kind == "cells" else None
    place = cut.inside if cell is None else cell
    return outlined(cut.pixels, [Outline(place, colour)], side, dim_of(views))


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
