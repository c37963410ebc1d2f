"""The report: a page of settings, metrics and predictions, and a page for each class."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from PIL import Image

from pipeline.datasets.index import Index
from pipeline.masks.part_names import PartNames
from pipeline.progress import track
from pipeline.report.answers import confidence
from pipeline.report.calibration import calibration_chart
from pipeline.report.class_pages import THUMBNAIL, ClassPages
from pipeline.report.confusion import confused_pairs, confusion_matrix
from pipeline.report.contrast import Contrast
from pipeline.report.curve_charts import curve_charts
from pipeline.report.drawing import QUALITY_SMALL
from pipeline.report.heatmaps import Places, Relevance, read_cut
from pipeline.report.image_pages import ImagePages
from pipeline.report.image_renderer import ImageRenderer
from pipeline.report.mask_charts import mask_charts
from pipeline.report.metric_table import Measured, tables
from pipeline.report.pages import Picture, picture, write_page
from pipeline.report.parts_page import PartsPage
from pipeline.report.prototype_map import map_prototypes
from pipeline.report.score_lines import Explainer, Segmented, Sum, numbered
from pipeline.report.stored_contrasts import Contrasts
from pipeline.report.typical import spread_over_classes, worst_first
from pipeline.saliency.prototypes import Prototypes, Score
from pipeline.saliency.stored_outputs import StoredOutputs

NUM_DECISIONS, NUM_MISTAKES, NUM_SEGMENTED, NUM_BEST = 12, 8, 4, 5
TOP_DECISION, TOP_MISTAKE = 4, 2
IMAGE_SIDE, SEGMENTED = 320, 384


class Run(NamedTuple):
    """What was run, and how it is run again.

    Args:
        facts: settings, by name.
        command: the command that runs it again; empty if there is none to say.
        parameters: stage → parameter → value, with which each stage's output was really made.
        curves: the training curves, see `curve_charts`.
    """

    facts: Mapping[str, str]
    command: str
    parameters: Mapping[str, Mapping[str, str]]
    curves: Mapping[str, Mapping[str, pd.DataFrame]]


class Decision(NamedTuple):
    """A test image and the scores that are shown for it.

    Args:
        image: id of the image.
        actual: name of its class.
        right: whether it was classified correctly.
        outlined: the image with the views in the scores outlined; None if it is not available.
        contrast: why the predicted class rather than the right one, or, where they are the same,
            than the second; None with one class.
        sums: the scores shown, as sums of contributions.
        next_name: name of the class with the second largest logit; empty with one class.
        next_score: that class's logit, in hundredths.
    """

    image: str
    actual: str
    right: bool
    outlined: Picture | None
    contrast: Contrast | None
    sums: list[Sum]
    next_name: str
    next_score: float


class Best(NamedTuple):
    """A class in the overview.

    Args:
        label: number of the class, 0..C−1.
        name: name of the class.
        num_prototypes: number of its prototypes.
        num_different: number of distinct views among them.
        num_test: number of its test images.
        num_right: number of these that were classified correctly.
        prototypes: index and picture of those with the largest weights.
    """

    label: int
    name: str
    num_prototypes: int
    num_different: int
    num_test: int
    num_right: int
    prototypes: list[tuple[int, Picture]]


class Report:
    """Selects what the pages show, and writes them.

    Args:
        index: the data set's images, with ids and classes.
        renderer: draws these images and their views.
        prototypes: the finished model's prototypes and weights.
        embedding_PD: the prototypes' embeddings, float P×D.
        outputs: the model's outputs on the test images.
        relevance: computes the relevance of the model's prototypes.
        only_mask: whether relevance is drawn on the crops' masks only, even where the network sees
            more.
        places: finds the region of an image in which a prototype is found, for models whose views
            are cells; None for others.
        not_learned: what speaks against the model's having learned anything; empty if nothing.
        part_names: what the segmenter's parts are called; None: as the segmenter names them.

    Raises:
        ProtoMaskError: the outputs are those of another model.
    """

    def __init__(
        self,
        index: Index,
        renderer: ImageRenderer,
        prototypes: Prototypes,
        embedding_PD: NDArray[np.floating],
        outputs: StoredOutputs,
        relevance: Relevance,
        only_mask: bool = False,
        places: Places | None = None,
        not_learned: Sequence[str] = (),
        part_names: PartNames | None = None,
    ) -> None:
        outputs.refuse_unless(prototypes)
        self.index, self.renderer, self.views = index, renderer, prototypes.views
        self.prototypes, self.embedding_PD, self.outputs = prototypes, embedding_PD, outputs
        names = part_names or PartNames(renderer.masks.part_names, {})
        self.parts_page = PartsPage(index, renderer, prototypes, names)
        parts = self.parts_page.parts
        self.explainer = Explainer(
            prototypes, relevance, renderer.crops, index.ids, only_mask, places, not_learned, parts
        )
        self.contrasts = Contrasts(renderer, prototypes, outputs, parts)

    def write(
        self,
        folder: Path,
        run: Run,
        measured: Measured,
        seed: int,
        num_drawn: int,
        background_N: NDArray[np.float64] | None = None,
    ) -> None:
        """Writes index.html, classes/, images.html and images/, and parts.html if masks show parts.

        The same inputs give the same bytes.

        Args:
            folder: an existing folder to write to, without classes/ and images/.
            run: what was run, and how it is run again.
            measured: the results of the stage evaluate.
            seed: seed of the map of prototypes.
            num_drawn: how many test images are drawn (see `answers.chosen`).
            background_N: float64 N, background overlap of the test images in percent, NaN where it
                is not known; None if it was not measured.
        """
        (folder / "classes").mkdir()
        pages = ClassPages(
            self.index,
            self.renderer,
            self.prototypes,
            self.outputs,
            self.explainer,
            self.contrasts,
        )
        labels = range(len(self.prototypes.class_names))
        for label in track(labels, "Drawing prototypes"):
            pages.write(folder / "classes" / f"{label}.html", label)
        if self.parts_page.found:
            self.parts_page.write(folder / "parts.html", self.explainer.not_learned)
        images = ImagePages(
            self.index,
            self.renderer,
            self.prototypes,
            self.outputs,
            self.contrasts,
        )
        images.write(folder, num_drawn, background_N, self.explainer.not_learned)
        typical, sure_N = self.typical(), confidence(self.outputs.logits_NC)
        actual_N, named_N = self.outputs.labels_N, self.outputs.predicted_N
        write_page(
            folder / "index.html",
            "report.html.jinja",
            dataset=self.index.dataset,
            not_learned=self.explainer.not_learned,
            views=self.views,
            only_inside=self.renderer.crops.settings.background != "original",
            run=run,
            curves=curve_charts(run.curves),
            calibration=calibration_chart(sure_N, actual_N == named_N),
            confusion=confusion_matrix(actual_N, named_N, self.prototypes.class_names),
            pairs=confused_pairs(actual_N, named_N, images.picture),
            rule=self.explainer.relevance.rule,
            num_test=len(self.outputs.rows_N),
            num_right=int((self.outputs.labels_N == self.outputs.predicted_N).sum()),
            num_prototypes=len(self.prototypes),
            tables=tables(measured, self.views.kind),
            decisions=self._decisions(typical, TOP_DECISION, "Drawing decisions"),
            mistakes=self._decisions(self.worst(), TOP_MISTAKE, "Drawing mistakes"),
            segmented=[self._segmented(place) for place in typical[:NUM_SEGMENTED]]
            if self.views.kind == "crops"
            else [],
            charts=mask_charts(measured.plots),
            num_parts=len(self.parts_page.found),
            map=map_prototypes(self.prototypes, self.embedding_PD, seed) if self.has_map else None,
            classes=[self._best(label) for label in labels],
            missing=self.renderer.missing,
        )

    @property
    def has_map(self) -> bool:
        """Whether distances between prototypes are meaningful, so that a map can show them.

        They are not where prototypes are the axes of the embedding (PIP-Net) or do not exist (black
        box).
        """
        return self.views.pushed

    def typical(self) -> list[int]:
        """Returns positions of test images (in `outputs`) selected without regard to the results.

        They are the first image of each class, evenly spaced over the classes
        (see `spread_over_classes`).
        """
        return spread_over_classes(self.outputs.labels_N.tolist(), NUM_DECISIONS)

    def worst(self) -> list[int]:
        """Returns positions of the misclassified test images with the largest margins, in order.

        The margin is the logit of the predicted class minus that of the right one.
        """
        return worst_first(self.outputs)[:NUM_MISTAKES]

    def score(self, place: int, label: int, top: int) -> Score:
        """Splits a class's score for a test image into contributions (see `Prototypes.score`).

        Args:
            place: position of the image in `outputs`.
            label: number of the class, 0..C−1.
            top: the largest number of contributions listed.
        """
        similarity_P, view_P = self.outputs.similarity_NP[place], self.outputs.view_NP[place]
        return self.prototypes.score(label, similarity_P, view_P, top)

    def _decisions(self, places: list[int], top: int, doing: str) -> list[Decision]:
        return [self._decision(place, top) for place in track(places, doing)]

    def _decision(self, place: int, top: int) -> Decision:
        row, actual = int(self.outputs.rows_N[place]), int(self.outputs.labels_N[place])
        names, logits_C = self.prototypes.class_names, self.outputs.logits_NC[place]
        ranking = np.argsort(-logits_C, kind="stable").tolist()
        right = ranking[0] == actual
        shown = [ranking[0]] if right or top == TOP_DECISION else [ranking[0], actual]
        scores = [self.score(place, label, top).rounded() for label in shown]
        used = sorted({points.view for score in scores for points in score.rows})
        image, views = self.index.ids[row], self.views
        drawn = self.renderer.outlined(row, {view: views.mark(view) for view in used}, IMAGE_SIDE)
        outlined = {
            "crops": f", the masks of crops {_and(used)} outlined",
            "cells": f", {_and(map(views.called, used))} outlined",
            "image": "",
        }[views.kind]
        alt = f"Test photograph {image}{outlined}"
        crops = {views.crop(view) for view in used}
        cuts = {crop: read_cut(self.renderer.crops, row, crop) for crop in crops}
        return Decision(
            image,
            names[actual],
            right,
            _maybe(drawn, alt),
            self.contrasts.of(place, None if right else actual),
            self.explainer.sums(image, cuts, scores),
            names[ranking[1]] if len(ranking) > 1 else "",
            round(float(logits_C[ranking[1]]), 2) if len(ranking) > 1 else 0.0,
        )

    def _segmented(self, place: int) -> Segmented:
        row = int(self.outputs.rows_N[place])
        image, crops = self.index.ids[row], self.renderer.crops
        valid = np.flatnonzero(crops.valid[row]).tolist()
        drawn = self.renderer.outlined(row, {crop: str(crop) for crop in valid}, SEGMENTED)
        return Segmented(
            image,
            int(self.renderer.masks.num_masks()[row]),
            _maybe(drawn, f"Photograph {image} with the masks of its {len(valid)} crops outlined"),
            numbered(image, {crop: read_cut(crops, row, crop) for crop in valid}),
        )

    def _best(self, label: int) -> Best:
        groups = self.prototypes.distinct(label)
        own_N = self.outputs.labels_N == label
        return Best(
            label,
            self.prototypes.class_names[label],
            sum(len(group) for group in groups),
            len(groups),
            int(own_N.sum()),
            int((own_N & (self.outputs.predicted_N == label)).sum()),
            [(group[0], self._small(group[0])) for group in groups[:NUM_BEST]],
        )

    def _small(self, prototype: int) -> Picture:
        row, view = self.prototypes.rows_P[prototype], int(self.prototypes.view_P[prototype])
        drawn = self.renderer.view(int(row), view, THUMBNAIL)
        named = self.explainer.named(prototype)
        shown = named if self.views.kind == "image" else f"Prototype {prototype}"
        shown += self.explainer.shown(prototype)
        alt = f"{shown}: {self.views.called(view)} of {self.index.ids[row]}"
        return picture(drawn, alt, QUALITY_SMALL)


def _maybe(image: Image.Image | None, alt: str) -> Picture | None:
    return None if image is None else picture(image, alt)


def _and(names: Iterable[object]) -> str:
    return ", ".join(map(str, names))
