"""The picture of a prediction: an image, its views, and the prototypes they are similar to."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from pipeline.report.drawing import (
    CASING,
    Colour,
    Outline,
    font,
    outlined,
    resized,
    writable,
)
from pipeline.report.view_drawing import colour_of_view
from pipeline.saliency.prototypes import Points, Score, figure
from pipeline.saliency.views import Views

PAPER, INK, SOFT, LINE, BAR = (
    (255, 255, 255),
    (28, 29, 31),
    (89, 92, 97),
    (220, 220, 214),
    (47, 143, 196),
)
WIDTH, MARGIN, GAP = 1200, 40, 16
IMAGE_SIDE, CROP, ROW = 440, 116, 136
LEFT = MARGIN + IMAGE_SIDE + 40
TEXT = LEFT + 2 * (CROP + GAP) + 8
HEAD = 150
NO_PROTOTYPES = "a black box: it has no prototypes, and no reasons that can be shown here"


class Reason(NamedTuple):
    """A row of the picture: a prototype's contribution to the score, and where it came from.

    Args:
        points: the contribution: similarity, weight and points.
        name: name of the prototype's class.
        image: id of the prototype's training image.
        this, that: pictures of the image's view, and of the prototype's.
    """

    points: Points
    name: str
    image: str
    this: Image.Image
    that: Image.Image


def draw_reasons(
    image: NDArray[np.uint8],
    outlines: Sequence[Outline],
    ranking: Sequence[tuple[str, float]],
    score: Score,
    reasons: Sequence[Reason],
    views: Views,
) -> Image.Image:
    """Draws the reasons for an image's predicted class.

    Args:
        image: the RGB image, uint8 height×width×3.
        outlines: outlines of the image's views that occur in the reasons.
        ranking: name and logit of the first classes, in descending order; the first is predicted.
        score: the predicted class's score, rounded (see `Score.rounded`).
        reasons: a row for each of the score's contributions; none for a black box.
        views: the kind of view that the model compares prototypes with.

    Returns:
        The picture, `WIDTH` pixels wide.
    """
    picture = outlined(image, outlines, IMAGE_SIDE)
    below = HEAD + 30 + ROW * len(reasons)
    height = max(HEAD + picture.height, below + 100) + MARGIN
    canvas = Image.new("RGB", (WIDTH, height), PAPER)
    _write_head(canvas, ranking)
    canvas.paste(picture, (MARGIN, HEAD))
    if views.kind == "image":
        _write(canvas, (LEFT, HEAD), NO_PROTOTYPES, 17, SOFT)
    else:
        _write(canvas, (LEFT, HEAD), f"this {views.kind.removesuffix('s')}", 17, SOFT, CROP)
        _write(canvas, (LEFT + CROP + GAP, HEAD), "looks like", 17, SOFT, CROP)
        _write(canvas, (TEXT, HEAD), "similarity × weight = points", 17, SOFT)
    most = max((abs(reason.points.points) for reason in reasons), default=1.0) or 1.0
    for place, reason in enumerate(reasons):
        _draw_reason(canvas, HEAD + 30 + ROW * place, reason, most, views)
    _write_sum(canvas, below, ranking[0][0], score, views.kind != "image")
    return canvas


def _write_head(canvas: Image.Image, ranking: Sequence[tuple[str, float]]) -> None:
    name, score = ranking[0]
    _write(canvas, (MARGIN, MARGIN - 8), name, 40, INK)
    others = [f"{name} {figure(score)}" for name, score in ranking[1:]]
    line = f"score {figure(score)}" + ("; then " + ", ".join(others) if others else "")
    _write(canvas, (MARGIN, MARGIN + 48), line, 20, SOFT)


def _draw_reason(canvas: Image.Image, top: int, reason: Reason, most: float, views: Views) -> None:
    draw, points = ImageDraw.Draw(canvas), reason.points
    colour, mark = colour_of_view(views, points.view), views.mark(points.view)
    draw.rectangle((LEFT - 4, top - 4, LEFT + CROP + 3, top + CROP + 3), colour)
    canvas.paste(resized(np.asarray(reason.this), CROP), (LEFT, top))
    draw.rectangle((LEFT - 4, top - 4, LEFT + 10 + 12 * len(mark), top + 22), colour)
    _write(canvas, (LEFT + 3, top - 2), mark, 18, CASING)
    canvas.paste(resized(np.asarray(reason.that), CROP), (LEFT + CROP + GAP, top))
    similarity, weight = figure(points.similarity), figure(points.weight)
    figures = f"{similarity} × {weight} = {figure(points.points)}"
    _write(canvas, (TEXT, top + 4), figures, 24, INK)
    length = round(abs(points.points) / most * (WIDTH - MARGIN - TEXT))
    draw.rectangle((TEXT, top + 40, TEXT + max(length, 2), top + 46), BAR)
    numbers = ", ".join(map(str, points.prototypes))
    kind = "prototype" if len(points.prototypes) == 1 else "prototypes"
    _write(canvas, (TEXT, top + 58), f"{kind} {numbers} of {reason.name}", 18, SOFT)
    _write(canvas, (TEXT, top + 84), f"from {reason.image}", 18, SOFT)


def _write_sum(
    canvas: Image.Image, top: int, name: str, score: Score, has_prototypes: bool
) -> None:
    draw = ImageDraw.Draw(canvas)
    lines = [(f"score of {name}", score.score, INK)]
    if score.num_rest and has_prototypes:
        lines.insert(0, (f"{score.num_rest} other prototypes", score.rest, SOFT))
    for place, (text, value, colour) in enumerate(lines):
        y = top + 44 * place
        draw.line((LEFT, y, WIDTH - MARGIN, y), LINE)
        _write(canvas, (LEFT, y + 9), text, 20, colour, TEXT - LEFT - GAP)
        _write(canvas, (TEXT, y + 7), figure(value), 24, INK)


def _write(
    canvas: Image.Image,
    place: tuple[int, int],
    text: str,
    size: int,
    colour: Colour,
    width: int | None = None,
) -> None:
    """Writes a line of text; one that is too long is cut and ends in dots."""
    limit = width or WIDTH - MARGIN - place[0]
    ImageDraw.Draw(canvas).text(place, _fit(writable(text), size, limit), colour, font(size))


def _fit(text: str, size: int, width: int) -> str:
    length: Callable[[str], float] = font(size).getlength
    if length(text) <= width:
        return text
    while text and length(text + "...") > width:
        text = text[:-1]
    return text + "..."
