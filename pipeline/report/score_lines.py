"""A class score as lines of "this looks like that", each with pictures of both views."""

from collections.abc import Mapping, Sequence
from itertools import islice
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image

from pipeline.crops.store import StoredCrops
from pipeline.report.contrast import Contrast, draw_rows, plain_rows
from pipeline.report.drawing import COLOURS, Outline, colour_of, outlined, resized, web_colour
from pipeline.report.heatmaps import Cut, HeatMap, Places, Relevance, draw_heat_maps, read_cut
from pipeline.report.pages import Picture, picture
from pipeline.report.parts import Parts
from pipeline.report.view_drawing import colour_of_view
from pipeline.saliency.margin import NO_NAMES, Margin
from pipeline.saliency.prototypes import Points, Prototypes, Score

CROP = 128


class Side(NamedTuple):
    """One side of a line: a crop or an image, and the region in it in which a prototype is found.

    Args:
        crop: the crop as the network sees it; of a whole image, with the region outlined.
        heat_map: the same with a heat map of the relevance.
        on_mask: share of the positive relevance that lies on the mask or region, in [0, 1]; None if
            there is no positive relevance.
    """

    crop: Picture
    heat_map: Picture
    on_mask: float | None


class Line(NamedTuple):
    """A line of "this looks like that".

    Args:
        points: the contribution to the score: similarity, weight and points.
        label, class_name: number and name of the prototype's class.
        image: id of the prototype's training image.
        alike: number of pushed prototypes that the contribution's prototypes stand for.
        mark, colour: label and CSS colour of the view's outline in the image.
        share: length of the line's bar, relative to the largest of the image, in [0, 1].
        this, that: the image's view, and the prototype's.
        shows: what is said of the part that the prototype shows; empty if none is known.
    """

    points: Points
    label: int
    class_name: str
    image: str
    alike: int
    mark: str
    colour: str
    share: float
    this: Side
    that: Side
    shows: str


class Sum(NamedTuple):
    """A class score as the sum of its lines and a rest.

    Args:
        label: number of the class, 0..C−1.
        name: name of the class.
        lines: the largest contributions, in descending order.
        rest: the points of all other prototypes.
        num_rest: number of the other prototypes.
        score: logit of the class.
    """

    label: int
    name: str
    lines: list[Line]
    rest: float
    num_rest: int
    score: float


class Numbered(NamedTuple):
    """A crop with its number.

    Args:
        number: index of the crop, 0..K−1.
        colour: CSS colour of the outline of its mask.
        crop: picture of the crop.
    """

    number: int
    colour: str
    crop: Picture


class Segmented(NamedTuple):
    """An image with the masks of its crops outlined, and the crops.

    Args:
        image: id or name of the image.
        num_masks: number of the image's masks, of which some are those of the crops.
        outlined: the image with the outlines; None if it is not available.
        crops: the crops, by number.
    """

    image: str
    num_masks: int
    outlined: Picture | None
    crops: list[Numbered]


class Explainer:
    """Draws the lines of images, and the prototypes in them.

    Args:
        prototypes: the finished model's prototypes and weights.
        relevance: computes the relevance of the model's prototypes.
        crops: store of the crops of the index's images, as the model sees them.
        ids: ids of the store's images, in order.
        only_mask: whether relevance is drawn on the crops' masks only, even where the network sees
            more.
        places: finds the region of an image in which a prototype is found, for models whose views
            are cells; None for others.
        not_learned: what speaks against the model's having learned anything; empty if nothing.
        parts: the parts that masks show; None: with the names that the segmenter gives them.
    """

    def __init__(
        self,
        prototypes: Prototypes,
        relevance: Relevance,
        crops: StoredCrops,
        ids: Sequence[str],
        only_mask: bool = False,
        places: Places | None = None,
        not_learned: Sequence[str] = (),
        parts: Parts | None = None,
    ) -> None:
        self.prototypes, self.relevance = prototypes, relevance
        self.crops, self.ids, self.only_mask = crops, ids, only_mask
        self.views, self.places = prototypes.views, places
        self.not_learned = not_learned
        self.parts = parts or Parts(crops.part_names, {})
        self._sources: dict[int, Side] = {}

    def sums(self, image: str, cuts: Mapping[int, Cut], scores: Sequence[Score]) -> list[Sum]:
        """Draws the contributions to some class scores of one image.

        Args:
            image: id or name of the image.
            cuts: the image's crops by number, at least those of the views in the scores.
            scores: the scores, split into contributions and rounded (see `Score.rounded`).
        """
        rows = [points for score in scores for points in score.rows]
        most = max((abs(points.points) for points in rows), default=1.0) or 1.0
        first = [points.prototypes[0] for points in rows]
        these = self.sides(
            [cuts[self.views.crop(points.view)] for points in rows],
            first,
            [_first_upper(f"{self.views.called(points.view)} of {image}") for points in rows],
        )
        sides = zip(rows, these, self.sources(first), strict=True)
        lines = iter([self._line(points, this, that, most) for points, this, that in sides])
        names = self.prototypes.class_names
        return [
            Sum(
                score.label,
                names[score.label],
                list(islice(lines, len(score.rows))),
                score.rest,
                score.num_rest,
                score.score,
            )
            for score in scores
        ]

    def contrast(
        self,
        margin: Margin,
        cuts: Mapping[int, Cut],
        outlined: Image.Image | None,
        remarks: Mapping[int, str] = NO_NAMES,
    ) -> Contrast:
        """Draws why one class rather than another.

        Args:
            margin: the margin of an image, rounded (see `Margin.rounded`).
            cuts: the image's crops by number, at least those of the margin's regions.
            outlined: the image with these regions outlined; None if it is not available.
            remarks: what is to be said of the image's crops, by number.
        """
        rows = plain_rows(margin, self.prototypes, self.ids, self.parts, remarks)
        return Contrast(margin, outlined, draw_rows(rows, cuts, self.prototypes, self.crops))

    def sources(self, prototypes: Sequence[int]) -> list[Side]:
        """Draws the training views of prototypes; each is drawn once and cached.

        Args:
            prototypes: indices of the prototypes, 0..P−1.
        """
        new = [number for number in dict.fromkeys(prototypes) if number not in self._sources]
        rows, crops = self.prototypes.rows_P, self.prototypes.crop_P
        sides = self.sides(
            [read_cut(self.crops, int(rows[number]), int(crops[number])) for number in new],
            new,
            [
                f"{self.named(number)}{self.shown(number)}: "
                f"{self.views.called(int(self.prototypes.view_P[number]))} "
                f"of {self.ids[rows[number]]}"
                for number in new
            ],
        )
        self._sources.update(zip(new, sides, strict=True))
        return [self._sources[number] for number in prototypes]

    def sides(
        self, cuts: Sequence[Cut], prototypes: Sequence[int], names: Sequence[str]
    ) -> list[Side]:
        """Draws crops and their relevance for one prototype each.

        Args:
            cuts: n crops of the same size.
            prototypes: the prototype of each crop, 0..P−1.
            names: what each crop is called in alternative texts.
        """
        if self.places is not None and cuts:
            cuts = self._placed(self.places, cuts, prototypes)
        shown = [cut._replace(whole=cut.whole and not self.only_mask) for cut in cuts]
        found = draw_heat_maps(self.relevance, shown, prototypes, CROP)
        return [
            Side(
                _drawn(cut, name, self.places is not None),
                picture(heat_map.image, f"{name}: {self._said(heat_map, prototype)}"),
                heat_map.on_mask,
            )
            for cut, prototype, name, heat_map in zip(cuts, prototypes, names, found, strict=True)
        ]

    def named(self, prototype: int) -> str:
        """Returns a prototype's name: `Prototype 3 of wren`; for a black box, `Logit of wren`."""
        of = self.prototypes.class_names[self.prototypes.class_of_P[prototype]]
        return f"Logit of {of}" if self.views.kind == "image" else f"Prototype {prototype} of {of}"

    def shown(self, prototype: int) -> str:
        """Returns ` (wing)`, the part that a prototype shows; nothing if none is known."""
        said = self.parts.said(int(self.prototypes.part_P[prototype]))
        return f" ({said})" if said else ""

    def _placed(self, places: Places, cuts: Sequence[Cut], prototypes: Sequence[int]) -> list[Cut]:
        """Returns the cuts with the regions in which their prototypes are found as `inside`."""
        crops_nSS3 = torch.from_numpy(np.stack([cut.pixels for cut in cuts]))
        found_nSS = places(crops_nSS3, torch.tensor(prototypes)).numpy()
        return [cut._replace(inside=inside) for cut, inside in zip(cuts, found_nSS, strict=True)]

    def _said(self, heat_map: HeatMap, prototype: int) -> str:
        subject = f"prototype {prototype}" if self.views.kind != "image" else self.named(prototype)
        if heat_map.on_mask is None:
            return f"no pixel speaks for {subject}"
        if self.views.kind == "image":
            return f"its pixels' relevance for the {subject}"
        where = "on the mask" if self.views.kind == "crops" else "in the place outlined"
        return f"its pixels' relevance for {subject}, {heat_map.on_mask:.0%} of it {where}"

    def _line(self, points: Points, this: Side, that: Side, most: float) -> Line:
        first = points.prototypes[0]
        label = int(self.prototypes.class_of_P[first])
        return Line(
            points,
            label,
            self.prototypes.class_names[label],
            self.ids[self.prototypes.rows_P[first]],
            int(self.prototypes.alike_P[list(points.prototypes)].sum()),
            self.views.mark(points.view),
            web_colour(colour_of_view(self.views, points.view)),
            abs(points.points) / most,
            this,
            that,
            self.shown(first),
        )


def numbered(image: str, cuts: Mapping[int, Cut]) -> list[Numbered]:
    """Draws an image's crops.

    Args:
        image: id or name of the image.
        cuts: the crops by number, 0..K−1.
    """
    return [
        Numbered(crop, web_colour(colour), picture(drawn, f"Crop {crop} of {image}, mask outlined"))
        for crop, cut in cuts.items()
        for colour in [colour_of(crop)]
        for drawn in [outlined(cut.pixels, [Outline(cut.inside, colour)], _side(cut))]
    ]


def _drawn(cut: Cut, name: str, with_place: bool = False) -> Picture:
    if not with_place:
        return picture(resized(cut.pixels, _side(cut)), name)
    return picture(outlined(cut.pixels, [Outline(cut.inside, COLOURS[0])], _side(cut), 0), name)


def _side(cut: Cut) -> int:
    return min(CROP, len(cut.pixels))


def _first_upper(text: str) -> str:
    return text[0].upper() + text[1:]
