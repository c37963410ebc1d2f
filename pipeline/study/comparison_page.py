"""The page that compares two runs image by image."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import jinja2
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pipeline.datasets.index import Index
from pipeline.errors import ProtoMaskError
from pipeline.parameters import flat
from pipeline.progress import track
from pipeline.report.drawing import resized
from pipeline.report.heatmaps import read_cut
from pipeline.report.image_renderer import ImageRenderer
from pipeline.report.pages import Picture, page_templates, picture
from pipeline.report.score_lines import CROP, Explainer
from pipeline.saliency.prototypes import Points, Score
from pipeline.saliency.stored_outputs import StoredOutputs
from pipeline.study.comparison import FEW
from pipeline.study.paired import (
    Chosen,
    ClassCount,
    Difference,
    Outcome,
    Pairs,
    by_class,
    choose,
    differences,
    leads,
    outcome,
    pair,
)
from pipeline.study.runs import MEANING, Run, written
from pipeline.study.significance import LEVEL

NUM_CARDS, NUM_LINES, NUM_CLASSES = 30, 3, 10
IMAGE_SIDE = 256
BY_EXPLANATION = {"contrastivity", "complexity", "continuity", "completeness", "truth"}
"""The groups of metrics that measure saliency maps."""
SHOWN = {"crops": "masks", "cells": "similarity maps", "image": "gradients"}


@dataclass(frozen=True)
class Tested:
    """A finished run, and what draws it.

    Args:
        run: the run's name and parameters.
        index: the data set's images, with ids and classes.
        outputs: the model's outputs on the test images.
        measured: a value for each image and metric, see `pipeline.metrics.summary.per_image`.
        explainer: draws the contributions to its scores.
        renderer: draws the data set's images.
    """

    run: Run
    index: Index
    outputs: StoredOutputs
    measured: pd.DataFrame
    explainer: Explainer
    renderer: ImageRenderer

    @property
    def ids(self) -> list[str]:
        """The test images' ids, in the order of `outputs`."""
        every = self.index.ids
        return [every[row] for row in self.outputs.rows_N.tolist()]

    @property
    def right_N(self) -> NDArray[np.bool_]:
        """Whether each test image was classified correctly, bool N."""
        return self.outputs.predicted_N == self.outputs.labels_N


class Compared(NamedTuple):
    """The comparison of two runs.

    Args:
        pairs: the images that both were tested on; the other fields refer to these.
        ids: the ids of these images.
        outcome: numbers of images that both, one or neither classified correctly.
        metrics: the differences in other metrics.
        chosen: the images to look at.
        classes: the classes in which accuracy differs.
    """

    pairs: Pairs
    ids: list[str]
    outcome: Outcome
    metrics: list[Difference]
    chosen: Chosen
    classes: list[ClassCount]

    @property
    def shown(self) -> list[int]:
        """The images that have a card, as positions among the pairs."""
        return [place for places in self.chosen for place in places[:NUM_CARDS]]


class Line(NamedTuple):
    """A line of "this looks like that".

    Args:
        points: the contribution to the score: similarity, weight and points.
        class_name: name of the prototype's class.
        share: length of the line's bar relative to the largest, in [0, 1].
        this: the image's view with the relevance of its pixels.
        that: the prototype's training view; None for a black box, which has none.
        shows: ` (wing)`, the part that the prototype shows; empty if none is known.
    """

    points: Points
    class_name: str
    share: float
    this: Picture
    that: Picture | None
    shows: str


class Verdict(NamedTuple):
    """One run's prediction for an image.

    Args:
        right: whether the prediction is correct.
        name: name of the predicted class.
        score: the score of that class, split into contributions and rounded.
        lines: the largest contributions to that score.
        next_name, next_score: name and logit of the runner-up.
        right_score: logit of the image's own class.
    """

    right: bool
    name: str
    score: Score
    lines: list[Line]
    next_name: str
    next_score: float
    right_score: float


class Card(NamedTuple):
    """An image with the predictions of both runs.

    Args:
        image: id of the image.
        label: number of its class, 0..C−1.
        actual: name of its class.
        picture: picture of the image.
        whole: whether the picture is drawn from the crop store, as the image's file is not
            available.
        verdicts: the predictions of runs A and B.
    """

    image: str
    label: int
    actual: str
    picture: Picture
    whole: bool
    verdicts: tuple[Verdict, Verdict]


class Setting(NamedTuple):
    """A parameter in which two runs differ.

    Args:
        name: dotted name of the parameter.
        a, b: its value in each run, as text; None where a run does not have it.
    """

    name: str
    a: str | None
    b: str | None


def compare(a: Tested, b: Tested) -> Compared:
    """Pairs two runs' test images and finds the differences.

    Raises:
        ProtoMaskError: the runs have different data sets.
    """
    _refuse_other_data(a, b)
    pairs = pair(a.ids, b.ids)
    right_a_N, right_b_N = a.right_N[pairs.a_N], b.right_N[pairs.b_N]
    labels_N = a.outputs.labels_N[pairs.a_N]
    lead_a_N = leads(a.outputs.logits_NC[pairs.a_N], labels_N)
    lead_b_N = leads(b.outputs.logits_NC[pairs.b_N], labels_N)
    ids = [a.ids[place] for place in pairs.a_N.tolist()]
    return Compared(
        pairs,
        ids,
        outcome(right_a_N, right_b_N),
        differences(a.measured, b.measured, ids),
        choose(right_a_N, right_b_N, lead_a_N, lead_b_N),
        by_class(labels_N, right_a_N, right_b_N),
    )


def _refuse_other_data(a: Tested, b: Tested) -> None:
    if (a.index.dataset, a.index.class_names) != (b.index.dataset, b.index.class_names):
        raise ProtoMaskError(
            f"{a.run.name} and {b.run.name} are of different data sets: {_data(a)} and {_data(b)}"
        )
    images = ["sha256", "label"]
    here, there = (run.index.table.set_index("id")[images] for run in (a, b))
    shared = here.index.intersection(there.index)
    changed = shared[(here.loc[shared] != there.loc[shared]).any(axis=1)]
    if len(changed):
        raise ProtoMaskError(
            f"{a.run.name} and {b.run.name} are of different states of {a.index.dataset!r}: "
            f"{changed[0]!r} has another file or class in one than in the other"
        )


def _data(tested: Tested) -> str:
    return f"{tested.index.dataset!r} with {len(tested.index.class_names)} classes"


def draw_images(tested: Tested, places: Sequence[int]) -> list[tuple[Picture, bool]]:
    """Draws test images, each from its file, or from the crop store if that is not available.

    Args:
        tested: a run that was tested on the images.
        places: positions of the images among its test images.

    Returns:
        The pictures, and whether each was drawn from the crop store.
    """
    return [_draw_image(tested, int(tested.outputs.rows_N[place])) for place in places]


def _draw_image(tested: Tested, row: int) -> tuple[Picture, bool]:
    image = tested.index.ids[row]
    drawn = tested.renderer.outlined(row, {}, IMAGE_SIDE)
    if drawn is not None:
        return picture(drawn, f"Test photograph {image}"), False
    pixels = tested.renderer.crops.whole().crops([row])[0, 0]
    return picture(resized(pixels, min(IMAGE_SIDE, len(pixels))), f"Test image {image}"), True


def verdicts(tested: Tested, places: Sequence[int]) -> list[Verdict]:
    """Draws a run's predictions for test images.

    Args:
        tested: the run, which was tested on the images.
        places: positions of the images among its test images.
    """
    return [_verdict(tested, place) for place in track(places, f"Drawing {tested.run.name}")]


def _verdict(tested: Tested, place: int) -> Verdict:
    outputs, explainer = tested.outputs, tested.explainer
    row, actual = int(outputs.rows_N[place]), int(outputs.labels_N[place])
    logits_C = outputs.logits_NC[place]
    named, following = np.argsort(-logits_C, kind="stable")[:2].tolist()
    score = explainer.prototypes.score(
        named, outputs.similarity_NP[place], outputs.view_NP[place], NUM_LINES
    ).rounded()
    names = tested.index.class_names
    return Verdict(
        named == actual,
        names[named],
        score,
        _lines(tested, row, score),
        names[following],
        float(logits_C[following]),
        float(logits_C[actual]),
    )


def _lines(tested: Tested, row: int, score: Score) -> list[Line]:
    explainer, image = tested.explainer, tested.index.ids[row]
    first = [points.prototypes[0] for points in score.rows]
    cuts = [
        read_cut(explainer.crops, row, explainer.views.crop(points.view)) for points in score.rows
    ]
    called = [f"{explainer.views.called(points.view)} of {image}" for points in score.rows]
    most = max((abs(points.points) for points in score.rows), default=0.0) or 1.0
    return [
        Line(
            points,
            tested.index.class_names[explainer.prototypes.class_of_P[prototype]],
            abs(points.points) / most,
            this.heat_map,
            _prototype(tested, prototype),
            explainer.shown(prototype),
        )
        for points, prototype, this in zip(
            score.rows, first, explainer.sides(cuts, first, called), strict=True
        )
    ]


def _prototype(tested: Tested, prototype: int) -> Picture | None:
    """Draws a prototype's training view without relevance, which would take twice the time."""
    explainer, prototypes = tested.explainer, tested.explainer.prototypes
    if explainer.views.kind == "image":
        return None
    row, view = int(prototypes.rows_P[prototype]), int(prototypes.view_P[prototype])
    drawn = tested.renderer.view(row, view, CROP)
    said = f"{explainer.named(prototype)}{explainer.shown(prototype)}"
    return picture(drawn, f"{said}: {explainer.views.called(view)} of {tested.index.ids[row]}")


def settings(a: Run, b: Run) -> list[Setting]:
    """Returns the parameters of model, training and data in which two runs differ."""
    here, there = (_settings(run) for run in (a, b))
    names = [*here, *(name for name in there if name not in here)]
    return [
        Setting(name, here.get(name), there.get(name))
        for name in names
        if here.get(name) != there.get(name)
    ]


def _settings(run: Run) -> dict[str, str]:
    fold, seed = run.repeat
    return {"seed": str(seed), "dataset.fold": str(fold), **run.settings()}


def write_comparison(
    path: Path,
    a: Tested,
    b: Tested,
    compared: Compared,
    drawn: Sequence[tuple[Picture, bool]],
    said: tuple[Sequence[Verdict], Sequence[Verdict]],
) -> None:
    """Writes the page; the same inputs give the same bytes.

    Args:
        path: path of the HTML file.
        a: the first run, with its drawings.
        b: the second run, with its drawings.
        compared: the comparison of the two runs, from `compare`.
        drawn: the images in `compared.shown`, from `draw_images`.
        said: each run's predictions for these images, from `verdicts`.
    """
    both = zip(*said, strict=True)
    cards = [_card(a, compared, *of) for of in zip(compared.shown, drawn, both, strict=True)]
    places = iter(cards)
    groups = [[next(places) for _ in of[:NUM_CARDS]] for of in compared.chosen]
    differing = settings(a.run, b.run)
    with path.open("wb") as file:
        template = _templates().get_template("compare.html.jinja")
        template.stream(
            a=a,
            b=b,
            names=_names(a.run, b.run),
            dataset=a.index.dataset,
            found=compared,
            shared=[setting for setting in differing if None not in setting],
            own=[[of for of in differing if of[other] is None] for other in (2, 1)],
            notes=_notes(a, b, compared.metrics),
            groups=list(zip(groups, compared.chosen, strict=True)),
            filters=_filters(cards),
            classes=[(of, a.index.class_names[of.label]) for of in compared.classes[:NUM_CLASSES]],
            kinds=list(dict.fromkeys(of.explainer.views.kind for of in (a, b))),
            rules=list(dict.fromkeys(of.explainer.relevance.rule for of in (a, b))),
        ).dump(file, encoding="utf-8")


def _card(
    a: Tested,
    compared: Compared,
    place: int,
    drawn: tuple[Picture, bool],
    said: tuple[Verdict, Verdict],
) -> Card:
    label = int(a.outputs.labels_N[compared.pairs.a_N[place]])
    name = a.index.class_names[label]
    return Card(compared.ids[place], label, name, *drawn, said)


def _names(a: Run, b: Run) -> tuple[str, str]:
    """Returns the models' names; if they are the same, the runs' names."""
    return (a.model, b.model) if a.model != b.model else (a.name, b.name)


def _filters(cards: Sequence[Card]) -> list[tuple[int, str, int]]:
    """Returns the classes of the cards, sorted by name: label, name and number of cards."""
    counts: dict[tuple[str, int], int] = {}
    for card in cards:
        counts[card.actual, card.label] = counts.get((card.actual, card.label), 0) + 1
    return [(label, name, count) for (name, label), count in sorted(counts.items())]


def _notes(a: Tested, b: Tested, metrics: Sequence[Difference]) -> list[str]:
    """Returns notes on metrics of runs whose explanations are of different kinds."""
    if not any(of.column.name.partition(".")[0] in BY_EXPLANATION for of in metrics):
        return []
    notes = []
    kinds = [run.explainer.views.kind for run in (a, b)]
    if kinds[0] != kinds[1]:
        shown = [SHOWN[kind] for kind in kinds]
        notes.append(
            f"Each model is measured by what it shows: A by {shown[0]}, B by {shown[1]}, unless "
            "a metric names another explanation."
        )
    top = [_of(run.run.params, MEANING) for run in (a, b)]
    if top[0] != top[1]:
        notes.append(f"A is explained by {top[0]} prototypes an image, B by {top[1]}.")
    return notes


def _of(params: Mapping[str, Any], name: str) -> str:
    return written(flat(params).get(name))


def signed(value: float, decimals: int) -> str:
    """Formats a number with its sign; 0 has none."""
    text = f"{value:+.{decimals}f}"
    return text.replace("-", "−") if float(text) else text[1:]


def probability(p: float) -> str:
    """Formats a p-value with three decimals; smaller ones as "< 0.001"."""
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def winner(difference: Difference) -> str:
    """Returns `a` or `b`, whichever is significantly better, or "" if neither is."""
    better = difference.column.better
    if better == "depends" or difference.p is None or difference.p >= LEVEL:
        return ""
    return "a" if (difference.a > difference.b) == (better == "higher") else "b"


@cache
def _templates() -> jinja2.Environment:
    environment = page_templates(Path(__file__).parent / "templates")
    environment.filters |= {"signed": signed, "probability": probability}
    environment.globals |= {"winner": winner, "level": LEVEL, "few": FEW}
    return environment
