"""The picture of a prediction: why this class rather than that one, and what looks like what."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from pipeline.report.contrast import Contrast, Row
from pipeline.report.drawing import (
    CASING,
    Colour,
    Outline,
    font,
    outlined,
    resized,
    writable,
)
from pipeline.report.view_drawing import colour_of_view, dim_of
from pipeline.saliency.margin import signed
from pipeline.saliency.prototypes import Points, Score, figure
from pipeline.saliency.views import Views

PAPER, INK, SOFT, LINE, BAR, AGAINST = (
    (255, 255, 255),
    (28, 29, 31),
    (89, 92, 97),
    (220, 220, 214),
    (47, 143, 196),
    (196, 83, 58),
)
WIDTH, MARGIN, GAP = 1200, 40, 16
IMAGE_SIDE, CROP, ROW = 440, 116, 136
LEFT = MARGIN + IMAGE_SIDE + 40
TEXT = LEFT + 2 * (CROP + GAP) + 8
REGION_TEXT = LEFT + 3 * (CROP + GAP) + 8
HEAD, SENTENCE = 150, 28
NO_PROTOTYPES = "a black box: it has no prototypes, and no reasons that can be shown here"


class Reason(NamedTuple):
    """A row of the picture: a prototype's contribution to the score, and where it came from.

    Args:
        points: the contribution: similarity, weight and points.
        name: name of the prototype's class.
        image: id of the prototype's training image.
        this, that: pictures of the image's view, and of the prototype's.
        shows: what is said of the part that the prototype shows; empty if none is known.
    """

    points: Points
    name: str
    image: str
    this: Image.Image
    that: Image.Image
    shows: str


def draw_reasons(
    image: NDArray[np.uint8],
    outlines: Sequence[Outline],
    ranking: Sequence[tuple[str, float]],
    score: Score,
    reasons: Sequence[Reason],
    views: Views,
    contrast: Contrast | None,
    doubt: str = "",
) -> Image.Image:
    """Draws why an image was given its class rather than the second, then the class's own reasons.

    Args:
        image: the RGB image, uint8 height×width×3.
        outlines: outlines of the image's views that occur in the reasons.
        ranking: name and logit of the first classes, in descending order; the first is predicted.
        score: the predicted class's score, rounded (see `Score.rounded`).
        reasons: a row for each of the score's contributions; none for a black box.
        views: the kind of view that the model compares prototypes with.
        contrast: why the first class rather than the second; None if there is a single class.
        doubt: what speaks against its being of any class; empty if nothing.

    Returns:
        The picture, `WIDTH` pixels wide.
    """
    picture = outlined(image, outlines, IMAGE_SIDE, dim_of(views))
    sentence = _wrapped(contrast.margin.sentence, 20, WIDTH - 2 * MARGIN) if contrast else []
    regions = HEAD + SENTENCE * len(sentence) + 20 * bool(sentence)
    top = regions + (_height_of_regions(contrast) if contrast and contrast.rows else 0)
    below = top + 30 + ROW * len(reasons)
    height = max(top + picture.height, below + 100) + MARGIN
    canvas = Image.new("RGB", (WIDTH, height), PAPER)
    _write_head(canvas, ranking, doubt)
    for place, line in enumerate(sentence):
        _write(canvas, (MARGIN, HEAD + SENTENCE * place), line, 20, INK)
    if contrast and contrast.rows:
        _draw_regions(canvas, regions, contrast, views)
    canvas.paste(picture, (MARGIN, top))
    if views.kind == "image":
        _write(canvas, (LEFT, top), NO_PROTOTYPES, 17, SOFT)
    else:
        _write(canvas, (LEFT, top), f"this {views.kind.removesuffix('s')}", 17, SOFT, CROP)
        _write(canvas, (LEFT + CROP + GAP, top), "looks like", 17, SOFT, CROP)
        _write(canvas, (TEXT, top), "similarity × weight = points", 17, SOFT)
    most = max((abs(reason.points.points) for reason in reasons), default=1.0) or 1.0
    for place, reason in enumerate(reasons):
        _draw_reason(canvas, top + 30 + ROW * place, reason, most, views)
    _write_sum(canvas, below, ranking[0][0], score, views.kind != "image")
    return canvas


def _write_head(canvas: Image.Image, ranking: Sequence[tuple[str, float]], doubt: str) -> None:
    name, score = ranking[0]
    _write(canvas, (MARGIN, MARGIN - 8), name, 40, INK)
    others = [f"{name} {figure(score)}" for name, score in ranking[1:]]
    line = f"score {figure(score)}" + ("; then " + ", ".join(others) if others else "")
    _write(canvas, (MARGIN, MARGIN + 48), line, 20, SOFT)
    if doubt:
        _write(canvas, (MARGIN, MARGIN + 76), f"{doubt[0].upper()}{doubt[1:]}", 18, AGAINST)


def _height_of_regions(contrast: Contrast) -> int:
    """Returns the height of the part of the picture that shows a margin's regions."""
    picture = contrast.outlined.height if contrast.outlined else 0
    return max(picture, 56 + ROW * len(contrast.rows) + 100) + MARGIN


def _draw_regions(canvas: Image.Image, top: int, contrast: Contrast, views: Views) -> None:
    """Draws the image with its regions outlined, and a row for each region."""
    margin = contrast.margin
    if contrast.outlined:
        canvas.paste(contrast.outlined, (MARGIN, top))
    heads = [("this", "cell" if views.kind == "cells" else "region")]
    heads += [("speaks for", name) for name in margin.names]
    for place, lines in enumerate(heads):
        for line, text in enumerate(lines):
            left = LEFT + place * (CROP + GAP)
            _write(canvas, (left, top + 22 * line), text, 17, SOFT, CROP + GAP - 4)
    _write(canvas, (REGION_TEXT, top + 22), "points", 17, SOFT)
    for place, row in enumerate(contrast.rows):
        _draw_region(canvas, top + 56 + ROW * place, row)
    sums = [(f"{margin.names[0]} over {margin.names[1]}", margin.points, INK)]
    if margin.num_rest:
        sums.insert(0, ("other regions", margin.rest, SOFT))
    for place, (text, value, colour) in enumerate(sums):
        y = top + 56 + ROW * len(contrast.rows) + 44 * place
        ImageDraw.Draw(canvas).line((LEFT, y, WIDTH - MARGIN, y), LINE)
        _write(canvas, (LEFT, y + 9), text, 20, colour, REGION_TEXT - LEFT - GAP)
        _write(canvas, (REGION_TEXT, y + 7), signed(value), 24, INK)


def _draw_region(canvas: Image.Image, top: int, row: Row) -> None:
    draw = ImageDraw.Draw(canvas)
    if row.picture:
        _draw_marked(canvas, top, row.picture, row.colour, row.mark)
    for place, speaker in enumerate((row.pro, row.con), 1):
        left = LEFT + place * (CROP + GAP)
        if speaker and speaker.picture:
            canvas.paste(resized(np.asarray(speaker.picture), CROP), (left, top))
        else:
            _write(canvas, (left, top + 44), "none in it", 16, SOFT, CROP)
    _write(canvas, (REGION_TEXT, top + 4), signed(row.region.points), 24, INK)
    length = round(abs(row.share) * (WIDTH - MARGIN - REGION_TEXT))
    bar = (REGION_TEXT, top + 40, REGION_TEXT + max(length, 2), top + 46)
    draw.rectangle(bar, BAR if row.region.points > 0 else AGAINST)
    said = [row.region.called, *row.remark.split("; ")]
    for place, line in enumerate(said):
        _write(canvas, (REGION_TEXT, top + 58 + 24 * place), line, 18, SOFT)


def _draw_marked(
    canvas: Image.Image, top: int, view: Image.Image, colour: Colour, mark: str
) -> None:
    """Draws a view of the image in a frame of its outline's colour, with its mark in the corner."""
    draw = ImageDraw.Draw(canvas)
    draw.rectangle((LEFT - 4, top - 4, LEFT + CROP + 3, top + CROP + 3), colour)
    canvas.paste(resized(np.asarray(view), CROP), (LEFT, top))
    draw.rectangle((LEFT - 4, top - 4, LEFT + 10 + 12 * len(mark), top + 22), colour)
    _write(canvas, (LEFT + 3, top - 2), mark, 18, CASING)


def _draw_reason(canvas: Image.Image, top: int, reason: Reason, most: float, views: Views) -> None:
    draw, points = ImageDraw.Draw(canvas), reason.points
    colour, mark = colour_of_view(views, points.view), views.mark(points.view)
    _draw_marked(canvas, top, reason.this, colour, mark)
    canvas.paste(resized(np.asarray(reason.that), CROP), (LEFT + CROP + GAP, top))
    similarity, weight = figure(points.similarity), figure(points.weight)
    figures = f"{similarity} × {weight} = {figure(points.points)}"
    _write(canvas, (TEXT, top + 4), figures, 24, INK)
    length = round(abs(points.points) / most * (WIDTH - MARGIN - TEXT))
    draw.rectangle((TEXT, top + 40, TEXT + max(length, 2), top + 46), BAR)
    numbers = ", ".join(map(str, points.prototypes))
    kind = "prototype" if len(points.prototypes) == 1 else "prototypes"
    said = f"{kind} {numbers} of {reason.name}", reason.shows, f"from {reason.image}"
    for place, line in enumerate(filter(None, said)):
        _write(canvas, (TEXT, top + 54 + 24 * place), line, 18, SOFT)


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


def _wrapped(text: str, size: int, width: int) -> list[str]:
    """Breaks a text into lines of at most a width in pixels, at its spaces."""
    lines, length = [""], font(size).getlength
    for word in writable(text).split(" "):
        longer = f"{lines[-1]} {word}".strip()
        if lines[-1] and length(longer) > width:
            lines.append(word)
        else:
            lines[-1] = longer
    return lines


def _fit(text: str, size: int, width: int) -> str:
    length: Callable[[str], float] = font(size).getlength
    if length(text) <= width:
        return text
    while text and length(text + "...") > width:
        text = text[:-1]
    return text + "..."
