"""This looks like that: a class score as lines, each with the pictures that it is about."""

from collections.abc import Mapping, Sequence
from itertools import islice
from typing import NamedTuple

from pipeline.crops.store import CropStore
from pipeline.explain.overlay import Cut, Overlay, Relevance, overlays, read_cut
from pipeline.explain.pages import Picture, picture
from pipeline.explain.pictures import colour_of, resized, web_colour
from pipeline.explain.prototypes import Points, Prototypes, Score

CROP = 128


class Side(NamedTuple):
    """One side of a line: a crop, and where in it the prototype finds what it knows.

    Args:
        crop: as the network sees it.
        overlay: the same with relevance over it.
        on_mask: see `overlay.Overlay`.
    """

    crop: Picture
    overlay: Picture
    on_mask: float | None


class Line(NamedTuple):
    """A line of "this looks like that".

    Args:
        points: what it adds to the score.
        label, class_name: of the prototype.
        image: the id of the prototype's training image.
        colour: of the crop's mask in the photograph.
        share: its bar's length, 0..1.
        this, that: the image's crop, and the prototype.
    """

    points: Points
    label: int
    class_name: str
    image: str
    colour: str
    share: float
    this: Side
    that: Side


class Sum(NamedTuple):
    """A class score as lines that add up to it."""

    label: int
    name: str
    lines: list[Line]
    rest: float
    num_rest: int
    score: float


class Numbered(NamedTuple):
    """A crop with its number, and the colour of its mask in the photograph."""

    number: int
    colour: str
    crop: Picture


class Segmented(NamedTuple):
    """An image's crops beside its photograph with their masks outlined, None where it is not here.

    Args:
        image: what it is called.
        num_masks: how many masks it has; those of its crops are the largest.
    """

    image: str
    num_masks: int
    photograph: Picture | None
    crops: list[Numbered]


class Looks:
    """Draws the lines of images, and the prototypes in them.

    Args:
        prototypes: the model's.
        relevance: the same model's.
        crops: the crops of the index's images.
        ids: these images' ids.
        only_mask: draw relevance on crops' masks only, even where the network sees more.
    """

    def __init__(
        self,
        prototypes: Prototypes,
        relevance: Relevance,
        crops: CropStore,
        ids: Sequence[str],
        only_mask: bool = False,
    ) -> None:
        self.prototypes, self.relevance = prototypes, relevance
        self.crops, self.ids, self.only_mask = crops, ids, only_mask
        self._sources: dict[int, Side] = {}

    def sums(self, image: str, cuts: Mapping[int, Cut], scores: Sequence[Score]) -> list[Sum]:
        """Draws what some class scores of one image are made of.

        Args:
            image: what the image is called.
            cuts: its crops by number, at least those in the scores.
            scores: see `Prototypes.score`, rounded.
        """
        rows = [points for score in scores for points in score.rows]
        most = max((abs(points.points) for points in rows), default=1.0) or 1.0
        first = [points.prototypes[0] for points in rows]
        these = self.sides(
            [cuts[points.crop] for points in rows],
            first,
            [f"Crop {points.crop} of {image}" for points in rows],
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

    def sources(self, prototypes: Sequence[int]) -> list[Side]:
        """Draws the training crops that are these prototypes, each once and for all."""
        new = [number for number in dict.fromkeys(prototypes) if number not in self._sources]
        rows, crops = self.prototypes.rows_P, self.prototypes.crop_P
        names = self.prototypes.class_names
        sides = self.sides(
            [read_cut(self.crops, int(rows[number]), int(crops[number])) for number in new],
            new,
            [
                f"Prototype {number} of {names[self.prototypes.class_of_P[number]]}: "
                f"crop {crops[number]} of {self.ids[rows[number]]}"
                for number in new
            ],
        )
        self._sources.update(zip(new, sides, strict=True))
        return [self._sources[number] for number in prototypes]

    def sides(
        self, cuts: Sequence[Cut], prototypes: Sequence[int], names: Sequence[str]
    ) -> list[Side]:
        """Draws crops and their relevance for one prototype each."""
        shown = [cut._replace(whole=cut.whole and not self.only_mask) for cut in cuts]
        found = overlays(self.relevance, shown, prototypes, CROP)
        return [
            Side(
                _drawn(cut, name),
                picture(overlay.image, f"{name}: {_said(overlay, prototype)}"),
                overlay.on_mask,
            )
            for cut, prototype, name, overlay in zip(cuts, prototypes, names, found, strict=True)
        ]

    def _line(self, points: Points, this: Side, that: Side, most: float) -> Line:
        first = points.prototypes[0]
        label = int(self.prototypes.class_of_P[first])
        return Line(
            points,
            label,
            self.prototypes.class_names[label],
            self.ids[self.prototypes.rows_P[first]],
            web_colour(colour_of(points.crop)),
            abs(points.points) / most,
            this,
            that,
        )


def numbered(image: str, cuts: Mapping[int, Cut]) -> list[Numbered]:
    """Draws an image's crops, given by number."""
    return [
        Numbered(crop, web_colour(colour_of(crop)), _drawn(cut, f"Crop {crop} of {image}"))
        for crop, cut in cuts.items()
    ]


def _drawn(cut: Cut, name: str) -> Picture:
    return picture(resized(cut.pixels, min(CROP, len(cut.pixels))), name)


def _said(overlay: Overlay, prototype: int) -> str:
    if overlay.on_mask is None:
        return f"no pixel speaks for prototype {prototype}"
    return (
        f"its pixels' relevance for prototype {prototype}, {overlay.on_mask:.0%} of it on the mask"
    )
