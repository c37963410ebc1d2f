"""The page of any photograph: its class and the runner-up, and why."""

from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pipeline.crops.extraction import NO_MASK, Crops
from pipeline.explain.looks import Looks, Segmented, numbered
from pipeline.explain.overlay import Cut
from pipeline.explain.pages import Picture, picture, write_page
from pipeline.explain.pictures import Outline, colour_of, outlined
from pipeline.explain.prototypes import Score
from pipeline.masks.masks import Masks

PHOTOGRAPH = 512


class Asked(NamedTuple):
    """A photograph and what a model says of it.

    Args:
        name: what it is called.
        photograph: uint8, height×width×3.
        masks: its masks.
        crops: those of the largest.
        ranking: (class, score) of the first classes.
        scores: those of the first two, or the only one, taken apart and rounded.
    """

    name: str
    photograph: NDArray[np.uint8]
    masks: Masks
    crops: Crops
    ranking: list[tuple[str, float]]
    scores: list[Score]


def write_photograph_page(path: Path, asked: Asked, looks: Looks) -> None:
    """Writes the page; the same inputs give the same bytes."""
    pixels, inside = asked.crops.pixels, asked.crops.inside
    whole = looks.crops.settings.background == "original"
    valid = np.flatnonzero(asked.crops.valid).tolist()
    cuts = {crop: Cut(pixels[crop], inside[crop], whole) for crop in valid}
    used = {points.crop for score in asked.scores for points in score.rows}
    write_page(
        path,
        "photograph_page.html.jinja",
        name=asked.name,
        rule=looks.relevance.rule,
        num_classes=len(looks.prototypes.class_names),
        num_prototypes=len(looks.prototypes),
        ranking=asked.ranking,
        photograph=_outlined(asked, sorted(used)),
        sums=looks.sums(asked.name, cuts, asked.scores),
        segmented=Segmented(
            asked.name, len(asked.masks), _outlined(asked, cuts), numbered(asked.name, cuts)
        ),
    )


def _outlined(asked: Asked, crops: Iterable[int]) -> Picture:
    outlines = [
        Outline(asked.masks.full(int(asked.crops.masks[crop])), colour_of(crop), str(crop))
        for crop in crops
        if asked.crops.masks[crop] != NO_MASK
    ]
    alt = f"{asked.name} with the masks of {len(outlines)} crops outlined"
    return picture(outlined(asked.photograph, outlines, PHOTOGRAPH), alt)
