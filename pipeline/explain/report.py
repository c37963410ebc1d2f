"""The report: one HTML page that shows every prototype and what it decides."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import jinja2
import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray
from PIL import Image

from pipeline.datasets.index import Index
from pipeline.errors import ProtoMaskError
from pipeline.explain.gallery import Gallery
from pipeline.explain.metric_notes import GROUPS, Note, note_on
from pipeline.explain.pictures import colour_of, data_uri
from pipeline.explain.prototypes import Points, Prototypes, Score, figure
from pipeline.progress import track

NUM_DECISIONS, NUM_MISTAKES, NUM_SEGMENTED = 12, 8, 4
TOP_DECISION, TOP_MISTAKE = 4, 2
THUMBNAIL, CROP, PHOTOGRAPH, SEGMENTED = 192, 128, 320, 384
DIM = 0.35
ROUNDING = 1e-3


@dataclass(frozen=True)
class ImageAnswers:
    """What the finished model says of the test images.

    Args:
        rows_N: int64, the images, as rows of the index.
        logits_NC: float32.
        similarity_NP: float32.
        crop_NP: int64, each image's crop that is nearest to each prototype.
    """

    rows_N: NDArray[np.int64]
    logits_NC: NDArray[np.float32]
    similarity_NP: NDArray[np.float32]
    crop_NP: NDArray[np.int64]

    def refuse_unless(self, prototypes: Prototypes) -> None:
        """Checks that these are answers of this model: that points add up to logits.

        Raises:
            ProtoMaskError: they are another's.
        """
        N, (C, P) = len(self.rows_N), prototypes.weights_CP.shape
        shapes = (self.logits_NC.shape, self.similarity_NP.shape, self.crop_NP.shape)
        if shapes == ((N, C), (N, P), (N, P)):
            logits_NC = self.similarity_NP.astype(np.float64) @ prototypes.weights_CP.T
            largest = max(1.0, float(np.abs(logits_NC).max(initial=0)))
            if np.abs(logits_NC - self.logits_NC).max(initial=0) <= ROUNDING * largest:
                return
        raise ProtoMaskError(
            "the answers on the test images are not those of the finished model: "
            "run `dvc repro evaluate`"
        )


class Picture(NamedTuple):
    """An image element: data URI, size in pixels, and what it shows in words."""

    src: str
    width: int
    height: int
    alt: str


class MetricRow(NamedTuple):
    name: str
    value: str
    note: Note


class Card(NamedTuple):
    """A training crop that is one or more prototypes."""

    prototypes: tuple[int, ...]
    image: str
    crop: int
    distance: float
    weight: float
    photograph: Picture | None
    picture: Picture


class ClassCard(NamedTuple):
    label: int
    name: str
    num_prototypes: int
    num_test: int
    num_right: int
    cards: list[Card]


class Line(NamedTuple):
    """A line of "this looks like that"."""

    points: Points
    class_name: str
    label: int
    image: str
    colour: str
    share: float
    crop: Picture
    prototype: Picture


class Sum(NamedTuple):
    """A class score as lines that add up to it."""

    label: int
    name: str
    lines: list[Line]
    rest: float
    num_rest: int
    score: float


class Decision(NamedTuple):
    """A test image and the scores that are shown of it; `photograph` has its crops outlined."""

    image: str
    actual: str
    right: bool
    photograph: Picture | None
    sums: list[Sum]
    next_name: str
    next_score: float


class Segmented(NamedTuple):
    image: str
    num_masks: int
    photograph: Picture | None
    crops: list[tuple[str, Picture]]


class Report:
    """Chooses what the page shows, and draws it.

    Args:
        index: the images.
        gallery: their pictures.
        prototypes: the finished model's.
        answers: what it says of the test images.
    """

    def __init__(
        self, index: Index, gallery: Gallery, prototypes: Prototypes, answers: ImageAnswers
    ) -> None:
        answers.refuse_unless(prototypes)
        self.index, self.gallery = index, gallery
        self.prototypes, self.answers = prototypes, answers
        self.labels_N = index.labels[answers.rows_N]
        self.predicted_N = answers.logits_NC.argmax(1)

    def write(self, path: Path, facts: Mapping[str, str], metrics: dict[str, dict]) -> None:
        """Writes the page; the same inputs give the same bytes.

        Args:
            path: the HTML file.
            facts: what was run, name → value.
            metrics: as in metrics.json.
        """
        here = Path(__file__).parent
        environment = jinja2.Environment(
            loader=jinja2.FileSystemLoader(here),
            autoescape=True,
            trim_blocks=True,
            lstrip_blocks=True,
            undefined=jinja2.StrictUndefined,
        )
        environment.filters["figure"] = figure
        page = environment.get_template("report.html.jinja").stream(
            css=Markup((here / "report.css").read_text(encoding="utf-8")),
            dataset=self.index.dataset,
            facts=facts,
            num_test=len(self.answers.rows_N),
            num_right=int((self.labels_N == self.predicted_N).sum()),
            num_prototypes=len(self.prototypes),
            metrics=metric_rows(metrics),
            decisions=[self._decision(place, TOP_DECISION) for place in self.typical()],
            mistakes=[self._decision(place, TOP_MISTAKE) for place in self.worst()],
            segmented=[self._segmented(place) for place in self.typical()[:NUM_SEGMENTED]],
            classes=self._classes(),
            missing=self.gallery.missing,
        )
        with path.open("wb") as file:
            page.dump(file, encoding="utf-8")

    def typical(self) -> list[int]:
        """Returns test images (places in the answers) that nobody has picked: the first of each
        class, evenly spaced over the classes; the second ones where there are few classes."""
        seen: dict[int, int] = {}
        turns = []
        for place, label in enumerate(self.labels_N.tolist()):
            turns.append((seen.get(label, 0), label, place))
            seen[label] = seen.get(label, 0) + 1
        turns.sort()
        first = turns[: max(NUM_DECISIONS, len(seen))]
        count = min(NUM_DECISIONS, len(first))
        return [first[at * len(first) // count][2] for at in range(count)]

    def worst(self) -> list[int]:
        """Returns the mistakes (places in the answers) in which the wrong class leads by most."""
        logits_NC = self.answers.logits_NC
        places = np.arange(len(self.labels_N))
        lead_N = logits_NC[places, self.predicted_N] - logits_NC[places, self.labels_N]
        wrong = np.flatnonzero(self.predicted_N != self.labels_N)
        return wrong[np.argsort(-lead_N[wrong], kind="stable")][:NUM_MISTAKES].tolist()

    def _decision(self, place: int, top: int) -> Decision:
        row, actual = int(self.answers.rows_N[place]), int(self.labels_N[place])
        names, logits_C = self.prototypes.class_names, self.answers.logits_NC[place]
        ranking = np.argsort(-logits_C, kind="stable").tolist()
        right = ranking[0] == actual
        shown = [ranking[0]] if right or top == TOP_DECISION else [ranking[0], actual]
        scores = [self.score(place, label, top).rounded() for label in shown]
        most = max((abs(points.points) for score in scores for points in score.rows), default=1.0)
        used = sorted({points.crop for score in scores for points in score.rows})
        image = self.index.ids[row]
        drawn = self.gallery.outlined(row, {crop: str(crop) for crop in used}, PHOTOGRAPH)
        alt = f"Test photograph {image}, the masks of crops {_and(used)} outlined"
        return Decision(
            image,
            names[actual],
            right,
            _maybe(drawn, alt),
            [self._sum(row, score, most) for score in scores],
            names[ranking[1]] if len(ranking) > 1 else "",
            round(float(logits_C[ranking[1]]), 2) if len(ranking) > 1 else 0.0,
        )

    def score(self, place: int, label: int, top: int) -> Score:
        """Takes a class's score for a test image apart."""
        similarity_P, crop_P = self.answers.similarity_NP[place], self.answers.crop_NP[place]
        return self.prototypes.score(label, similarity_P, crop_P, top)

    def _sum(self, row: int, score: Score, most: float) -> Sum:
        lines = [self._line(row, points, most) for points in score.rows]
        name = self.prototypes.class_names[score.label]
        return Sum(score.label, name, lines, score.rest, score.num_rest, score.score)

    def _line(self, row: int, points: Points, most: float) -> Line:
        first = points.prototypes[0]
        label = int(self.prototypes.class_of_P[first])
        name = self.prototypes.class_names[label]
        crop = self.gallery.crop(row, points.crop, CROP)
        return Line(
            points,
            name,
            label,
            self.index.ids[self.prototypes.rows_P[first]],
            "#{:02x}{:02x}{:02x}".format(*colour_of(points.crop)),
            abs(points.points) / (most or 1.0),
            _picture(crop, f"Crop {points.crop} of {self.index.ids[row]}"),
            self._prototype_crop(first, CROP),
        )

    def _prototype_crop(self, prototype: int, side: int) -> Picture:
        row = int(self.prototypes.rows_P[prototype])
        crop = int(self.prototypes.crop_P[prototype])
        name = self.prototypes.class_names[int(self.prototypes.class_of_P[prototype])]
        alt = f"Prototype {prototype} of {name}: crop {crop} of {self.index.ids[row]}"
        return _picture(self.gallery.crop(row, crop, side), alt)

    def _segmented(self, place: int) -> Segmented:
        row = int(self.answers.rows_N[place])
        image, crops = self.index.ids[row], self.gallery.crops
        valid = np.flatnonzero(crops.valid[row]).tolist()
        drawn = self.gallery.outlined(row, {crop: str(crop) for crop in valid}, SEGMENTED)
        alt = f"Photograph {image} with the masks of its {len(valid)} crops outlined"
        return Segmented(
            image,
            int(self.gallery.masks.num_masks()[row]),
            _maybe(drawn, alt),
            [
                (
                    "#{:02x}{:02x}{:02x}".format(*colour_of(crop)),
                    _picture(self.gallery.crop(row, crop, CROP), f"Crop {crop} of {image}"),
                )
                for crop in valid
            ],
        )

    def _classes(self) -> list[ClassCard]:
        """Draws all classes; the one step that takes time."""
        labels = range(len(self.prototypes.class_names))
        return [self._class(label) for label in track(labels, "Drawing prototypes")]

    def _class(self, label: int) -> ClassCard:
        groups = self.prototypes.distinct(label)
        own = self.labels_N == label
        return ClassCard(
            label,
            self.prototypes.class_names[label],
            sum(len(group) for group in groups),
            int(own.sum()),
            int((own & (self.predicted_N == label)).sum()),
            [self._card(label, group) for group in groups],
        )

    def _card(self, label: int, group: tuple[int, ...]) -> Card:
        first = group[0]
        row, crop = int(self.prototypes.rows_P[first]), int(self.prototypes.crop_P[first])
        image = self.index.ids[row]
        drawn = self.gallery.outlined(row, {crop: ""}, THUMBNAIL, DIM)
        return Card(
            group,
            image,
            crop,
            float(self.prototypes.distance_P[list(group)].min()),
            float(self.prototypes.weights_CP[label, list(group)].sum()),
            _maybe(drawn, f"Training photograph {image}, the mask of crop {crop} outlined"),
            self._prototype_crop(first, CROP),
        )


def metric_rows(metrics: dict[str, dict]) -> list[tuple[str, str, list[MetricRow]]]:
    """Returns group, the question that it answers, and its metrics ready to print."""
    return [
        (
            group,
            GROUPS.get(group, ""),
            [
                MetricRow(name, f"{value:.4g}", note_on(group, name))
                for name, value in values.items()
            ],
        )
        for group, values in metrics.items()
    ]


def _picture(image: Image.Image, alt: str) -> Picture:
    return Picture(data_uri(image), image.width, image.height, alt)


def _maybe(image: Image.Image | None, alt: str) -> Picture | None:
    return None if image is None else _picture(image, alt)


def _and(numbers: Iterable[int]) -> str:
    return ", ".join(map(str, numbers))
