"""The page of any image: the predicted class and the runner-up, with the reasons."""

from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pipeline.crops.extraction import Crops
from pipeline.crops.settings import NO_MASK
from pipeline.masks.masks import Masks
from pipeline.model.base.typicality import RARE
from pipeline.report.contrast import Contrast
from pipeline.report.crop_remarks import crop_remarks
from pipeline.report.drawing import Outline, outlined
from pipeline.report.heatmaps import Cut
from pipeline.report.pages import Picture, picture, write_page
from pipeline.report.score_lines import Explainer, Segmented, numbered
from pipeline.report.view_drawing import dim_of, outlines_of_views
from pipeline.saliency.margin import Margin
from pipeline.saliency.prototypes import Score
from pipeline.saliency.views import Views

IMAGE_SIDE = 512


class Prediction(NamedTuple):
    """An image and a model's prediction for it.

    Args:
        name: the image's name, such as that of its file.
        image: the RGB image, uint8 height×width×3.
        masks: the image's masks; None if the model sees it whole.
        crops: the crops of the chosen masks, or the whole image as a single crop.
        ranking: name and logit of the first classes, in descending order.
        scores: the scores of the first two classes, or of the only one, split into contributions
            and rounded (see `Score.rounded`).
        margin: why the first class rather than the second, by region, rounded (see
            `Margin.rounded`); None if there is a single class.
        logits_C: the score of every class, float C.
        similarity_P: similarity s_j of the image to each prototype, float P.
        view_P: index of the image's view most similar to each prototype, int64 P.
        typicality: how typical it is of the model's classes, in [0, 1] (see `typicality`); None if
            that is not known.
    """

    name: str
    image: NDArray[np.uint8]
    masks: Masks | None
    crops: Crops
    ranking: list[tuple[str, float]]
    scores: list[Score]
    margin: Margin | None
    logits_C: NDArray[np.floating]
    similarity_P: NDArray[np.floating]
    view_P: NDArray[np.int64]
    typicality: float | None = None

    @property
    def doubt(self) -> str:
        """Says of an image that looks like no class that it does; empty of any other."""
        if self.typicality is None or self.typicality >= RARE:
            return ""
        return (
            f"looks like no class it knows: {100 * (1 - self.typicality):.0f} % of the images that "
            "it was validated with are more typical"
        )

    @property
    def why(self) -> str:
        """Why this class rather than that one, in words; the class's name if it is the only one.

        Of an image that looks like no class that is said first; one that is like none of the
        prototypes is said to be so alone, since any class is as good.
        """
        if not any(score for _, score in self.ranking):
            return "like none of the prototypes, so that every class has the score 0"
        sentence = self.margin.sentence if self.margin else self.ranking[0][0]
        return f"{self.doubt}; {sentence}" if self.doubt else sentence

    @property
    def regions(self) -> list[int]:
        """The views of the margin's regions, in the order of their numbers."""
        return sorted(region.view for region in self.margin.regions) if self.margin else []

    @property
    def remarks(self) -> dict[int, str]:
        """What is to be said of the image's crops, by number; usually nothing."""
        return crop_remarks(self.masks, self.crops.masks) if self.masks else {}

    def cuts(self, whole: bool) -> dict[int, Cut]:
        """Returns the image's crops by number.

        Args:
            whole: whether the network sees the background outside the masks as well.
        """
        pixels, inside = self.crops.pixels, self.crops.inside
        valid = np.flatnonzero(self.crops.valid).tolist()
        return {crop: Cut(pixels[crop], inside[crop], whole) for crop in valid}

    def outlines(self, views: Views, shown: Iterable[int]) -> list[Outline]:
        """Returns the outlines of some of the image's views, each with its label.

        Args:
            views: the kind of view that the model compares prototypes with.
            shown: indices of the views.
        """
        height, width = self.image.shape[:2]
        marked = {view: views.mark(view) for view in shown}
        return outlines_of_views(views, marked, height, width, self._mask)

    def place(self, views: Views, view: int) -> NDArray[np.bool_]:
        """Returns the pixels that a view shows: a crop's mask, a cell, or the whole image.

        Args:
            views: the kind of view that the model compares prototypes with.
            view: index of the view.

        Returns:
            bool height×width of the image.
        """
        height, width = self.image.shape[:2]
        if views.kind == "cells":
            return views.cell(view, height, width)
        mask = self._mask(view) if views.kind == "crops" else None
        return np.ones((height, width), bool) if mask is None else mask

    def _mask(self, crop: int) -> NDArray[np.bool_] | None:
        number = int(self.crops.masks[crop])
        return None if self.masks is None or number == NO_MASK else self.masks.full(number)


def write_image_page(path: Path, prediction: Prediction, explainer: Explainer) -> None:
    """Writes the page; the same inputs give the same bytes.

    Args:
        path: path of the HTML file.
        prediction: the image and the prediction.
        explainer: draws crops with the relevance of their pixels.
    """
    cuts = prediction.cuts(explainer.crops.settings.background == "original")
    used = {points.view for score in prediction.scores for points in score.rows}
    write_page(
        path,
        "image_page.html.jinja",
        name=prediction.name,
        not_learned=explainer.not_learned,
        rule=explainer.relevance.rule,
        views=explainer.views,
        only_inside=explainer.crops.settings.background != "original",
        num_classes=len(explainer.prototypes.class_names),
        num_prototypes=len(explainer.prototypes),
        ranking=prediction.ranking,
        doubt=prediction.doubt,
        contrast=_contrast(prediction, explainer, cuts),
        outlined=_outlined(prediction, explainer.views, sorted(used)),
        sums=explainer.sums(prediction.name, cuts, prediction.scores),
        segmented=_segmented(prediction, explainer.views, cuts),
    )


def _contrast(
    prediction: Prediction, explainer: Explainer, cuts: dict[int, Cut]
) -> Contrast | None:
    margin, views = prediction.margin, explainer.views
    if margin is None:
        return None
    outlines = prediction.outlines(views, prediction.regions)
    drawn = outlined(prediction.image, outlines, IMAGE_SIDE, dim_of(views))
    return explainer.contrast(margin, cuts, drawn, prediction.remarks)


def _segmented(prediction: Prediction, views: Views, cuts: dict[int, Cut]) -> Segmented | None:
    if prediction.masks is None:
        return None
    drawn = _outlined(prediction, views, cuts)
    return Segmented(prediction.name, len(prediction.masks), drawn, numbered(prediction.name, cuts))


def _outlined(prediction: Prediction, views: Views, shown: Iterable[int]) -> Picture:
    outlines = prediction.outlines(views, shown)
    alt = {
        "crops": f"{prediction.name} with the masks of {len(outlines)} crops outlined",
        "cells": f"{prediction.name} with {len(outlines)} cells outlined",
        "image": prediction.name,
    }[views.kind]
    return picture(outlined(prediction.image, outlines, IMAGE_SIDE, dim_of(views)), alt)
