"""What a finished model says of an image, as data: classes, scores, and regions with their points.

The points of all regions add up to the margin of the predicted class over the second, and those of
the prototypes found in a region to the region's (see `pipeline.saliency.margin`).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pipeline.crops.settings import NO_MASK
from pipeline.files import atomic_file
from pipeline.masks.masks import NO_PART, Masks, encode
from pipeline.report.contrast import called_parts
from pipeline.report.image_page import Prediction, write_image_page
from pipeline.report.predictor import Predictor
from pipeline.saliency.prototypes import Prototypes


class Match(NamedTuple):
    """A prototype that was found in a region.

    Args:
        prototype: its number, 0..P−1.
        class_name: name of its class.
        image: id of the training image that it came from.
        part: name of the part that it shows, or `part 7`; empty where none is known.
        similarity: similarity of the region to it, ≥ 0.
        weight: its weight for the predicted class minus that for the second.
        points: similarity × weight.
    """

    prototype: int
    class_name: str
    image: str
    part: str
    similarity: float
    weight: float
    points: float


class Region(NamedTuple):
    """A region of the image, and what it adds to the margin of the predicted class.

    Args:
        name: `its wing`, `the whole bird`, or, where the part is not known, `region 3` or
            `cell (2, 5)`; `the whole image` of a model that sees no regions.
        part: number of the part that it shows, the same in all images; None where none is known.
        box: its tight box, half-open (x0, y0, x1, y1) in pixels of the image.
        mask: its pixels, bool height×width of the image.
        points: what it adds, the sum of the points of its matches.
        matches: the prototypes found in it whose points are not 0, the largest first; none of a
            black box.
    """

    name: str
    part: int | None
    box: tuple[int, int, int, int]
    mask: NDArray[np.bool_]
    points: float
    matches: tuple[Match, ...]


@dataclass(frozen=True, eq=False)
class Answer:
    """What a model says of an image.

    Args:
        name: the image's name, such as that of its file.
        label: name of the predicted class.
        scores: the score (logit) of every class by its name, in descending order.
        second: name of the class with the second largest score; None if there is a single one.
        margin: the first score minus the second; the only score if there is a single class.
        typicality: share of the images that the model was validated with whose largest score is at
            most this image's, in [0, 1]; None if that is not known.
        known: whether it looks like a class that the model knows: false of images less typical
            than 5 % of those; true where that is not known.
        why: why this class rather than the second, in a sentence; first, if so, that it looks like
            none.
        regions: the regions that the model compared with its prototypes and that add something, in
            descending order of points.
        remarks: what of the image's file was not used, or not as it stands there.
    """

    name: str
    label: str
    scores: Mapping[str, float]
    second: str | None
    margin: float
    typicality: float | None
    known: bool
    why: str
    regions: tuple[Region, ...]
    remarks: tuple[str, ...]
    _predictor: Predictor
    _prediction: Prediction
    _only_mask: bool

    @classmethod
    def of(
        cls,
        predictor: Predictor,
        prediction: Prediction,
        only_mask: bool,
        remarks: Sequence[str] = (),
    ) -> "Answer":
        """Returns a prediction as data.

        Args:
            predictor: what predicted.
            prediction: the prediction for an image.
            only_mask: whether a page shows relevance on the crops' masks only.
            remarks: what of the image's file was not used.
        """
        names, logits_C = predictor.class_names, prediction.logits_C
        order = np.argsort(-logits_C, kind="stable").tolist()
        scores = {names[label]: float(logits_C[label]) for label in order}
        first, second = order[0], (order[1] if len(order) > 1 else None)
        return cls(
            prediction.name,
            names[first],
            scores,
            None if second is None else names[second],
            float(logits_C[first]) - (0.0 if second is None else float(logits_C[second])),
            prediction.typicality,
            not prediction.doubt,
            prediction.why,
            _regions(predictor, prediction, first, second),
            tuple(remarks),
            predictor,
            prediction,
            only_mask,
        )

    def figure(self) -> Image.Image:
        """Draws why this class rather than the second, and its reasons: an RGB picture."""
        return self._predictor.picture(self._prediction)

    def write_page(self, path: str | Path) -> None:
        """Writes a page that says the same, with every crop and its relevance.

        Args:
            path: path of the HTML file, which is replaced.
        """
        explainer = self._predictor.explainer(self._only_mask)
        with atomic_file(Path(path)) as part:
            write_image_page(part, self._prediction, explainer)

    def to_dict(self) -> dict[str, Any]:
        """Returns all of it as values that JSON has; masks as COCO's compressed run lengths."""
        return {
            "image": self.name,
            "label": self.label,
            "second": self.second,
            "margin": self.margin,
            "typicality": self.typicality,
            "known": self.known,
            "why": self.why,
            "scores": dict(self.scores),
            "regions": [_region_as_dict(region) for region in self.regions],
            "remarks": list(self.remarks),
        }

    def __repr__(self) -> str:
        return f"<Answer {self.name}: {self.why}>"


def _region_as_dict(region: Region) -> dict[str, Any]:
    counts = encode(region.mask).decode("ascii")
    return {
        "name": region.name,
        "part": region.part,
        "box": list(region.box),
        "mask": {"size": list(region.mask.shape), "counts": counts},
        "points": region.points,
        "matches": [match._asdict() for match in region.matches],
    }


def _regions(
    predictor: Predictor, prediction: Prediction, first: int, second: int | None
) -> tuple[Region, ...]:
    """Returns the regions that add something to a class's margin, or to its score."""
    prototypes = predictor.prototypes
    weights_P = prototypes.weights_CP[first].copy()
    if second is not None:
        weights_P -= prototypes.weights_CP[second]
    points_P = prediction.similarity_P.astype(np.float64) * weights_P
    found = [
        _region(predictor, prediction, view, weights_P, points_P)
        for view in np.unique(prediction.view_P[points_P != 0]).tolist()
    ]
    return tuple(sorted(found, key=lambda region: -region.points))


def _region(
    predictor: Predictor,
    prediction: Prediction,
    view: int,
    weights_P: NDArray[np.float64],
    points_P: NDArray[np.float64],
) -> Region:
    prototypes, names = predictor.prototypes, predictor.parts.names
    views = prototypes.views
    own = np.flatnonzero((prediction.view_P == view) & (points_P != 0))
    own = own[np.argsort(-points_P[own], kind="stable")]
    mask = prediction.place(views, view)
    part, called = None, views.region(view)
    if prediction.masks is not None:
        part = _part(prediction.masks, int(prediction.crops.masks[view]))
        called = called_parts(prediction.masks, prediction.crops.masks, names).get(view, called)
    matches = (
        ()
        if views.kind == "image"
        else tuple(
            _match(predictor, prototypes, number, prediction, weights_P, points_P)
            for number in own.tolist()
        )
    )
    return Region(called, part, _box(mask), mask, float(points_P[own].sum()), matches)


def _part(masks: Masks, number: int) -> int | None:
    part = NO_PART if number == NO_MASK else int(masks.parts[number])
    return None if part == NO_PART else part


def _match(
    predictor: Predictor,
    prototypes: Prototypes,
    number: int,
    prediction: Prediction,
    weights_P: NDArray[np.float64],
    points_P: NDArray[np.float64],
) -> Match:
    part = int(prototypes.part_P[number])
    return Match(
        number,
        prototypes.class_names[int(prototypes.class_of_P[number])],
        predictor.ids[int(prototypes.rows_P[number])],
        "" if part == NO_PART else predictor.parts.called(part),
        float(prediction.similarity_P[number]),
        float(weights_P[number]),
        float(points_P[number]),
    )


def _box(mask: NDArray[np.bool_]) -> tuple[int, int, int, int]:
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1
