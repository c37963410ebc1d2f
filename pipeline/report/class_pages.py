"""The page of a class: its prototypes, and the test images in which they are found."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pipeline.datasets.index import Index
from pipeline.report.contrast import Contrast
from pipeline.report.drawing import QUALITY_SMALL
from pipeline.report.image_renderer import ImageRenderer
from pipeline.report.pages import Picture, picture, write_page
from pipeline.report.score_lines import Explainer, Side
from pipeline.report.stored_contrasts import Contrasts
from pipeline.saliency.prototypes import Prototypes
from pipeline.saliency.stored_outputs import StoredOutputs

NUM_NEAREST, NUM_WRONG, NUM_SHARED = 10, 5, 20
THUMBNAIL, IMAGE_SIDE = 96, 192


class Near(NamedTuple):
    """A view of a test image in which a prototype is found.

    Args:
        own: whether the image is of the prototype's class.
        class_name: name of the image's class.
        similarity: similarity s_j of the image to the prototype.
        named_so: whether the image was classified as the prototype's class.
        picture: picture of the view.
    """

    own: bool
    class_name: str
    similarity: float
    named_so: bool
    picture: Picture


class Card(NamedTuple):
    """A training view that one or more prototypes came from.

    Args:
        prototypes: the prototypes' indices, 0..P−1.
        alike: number of pushed prototypes that these stand for.
        image, view: id of the training image, and the view's name.
        distance: squared Euclidean distance of the nearest of these prototypes before the push;
            None without a push.
        weight: V_cj for the prototypes' class, summed over them.
        outlined: the training image with the view outlined; None if its file is not available.
        source: the crop or whole image, with the relevance of its pixels.
        part: number of the part that the view shows; `NO_PART` if none is known.
        shows: its name or number.
        found: in how many images it is found.
        nearest: the most similar test images, each with its most similar view.
        further: the next test images of other classes, as many as `nearest` lacks of `NUM_WRONG`
            images of other classes.
    """

    prototypes: tuple[int, ...]
    alike: int
    image: str
    view: str
    distance: float | None
    weight: float
    outlined: Picture | None
    source: Side
    part: int
    shows: str
    found: str
    nearest: list[Near]
    further: list[Near]


class Confusion(NamedTuple):
    """Number of test images confused with another class, in one direction.

    Args:
        label: the number of the other class, 0..C−1.
        name: the other class's name.
        images: the number of images confused.
    """

    label: int
    name: str
    images: int


class Shared(NamedTuple):
    """A prototype that is shown on the page of another class, for which it weighs most.

    Args:
        prototype: the prototype's index, 0..P−1.
        label: the number of the other class, 0..C−1.
        name: the other class's name.
        weight: V_cj for the class of this page.
    """

    prototype: int
    label: int
    name: str
    weight: float


class Example(NamedTuple):
    """A test image of a class, and why it was named so rather than another class.

    Args:
        image: id of the image.
        images: number of the test images named so of which the other class is next.
        contrast: why this class rather than the other.
    """

    image: str
    images: int
    contrast: Contrast


class ClassPages:
    """Writes the pages of all classes.

    Args:
        index: the data set's images, with ids and classes.
        renderer: draws these images and their views.
        prototypes: the finished model's prototypes and weights.
        outputs: the model's outputs on the test images.
        explainer: draws crops with the relevance of their pixels.
        contrasts: draws why test images were given one class rather than another.
    """

    def __init__(
        self,
        index: Index,
        renderer: ImageRenderer,
        prototypes: Prototypes,
        outputs: StoredOutputs,
        explainer: Explainer,
        contrasts: Contrasts,
    ) -> None:
        self.index, self.renderer, self.prototypes = index, renderer, prototypes
        self.outputs, self.explainer, self.contrasts = outputs, explainer, contrasts

    def write(self, path: Path, label: int) -> None:
        """Writes the page of a class, which links to index.html in the parent folder.

        Args:
            path: path of the HTML file.
            label: number of the class, 0..C−1.
        """
        own_N, named_N = self.outputs.labels_N == label, self.outputs.predicted_N == label
        names = self.prototypes.class_names
        groups = self.prototypes.distinct(label)
        sources = self.explainer.sources([group[0] for group in groups])
        write_page(
            path,
            "class_page.html.jinja",
            dataset=self.index.dataset,
            not_learned=self.explainer.not_learned,
            rule=self.explainer.relevance.rule,
            label=label,
            names=names,
            num_prototypes=sum(len(group) for group in groups),
            num_test=int(own_N.sum()),
            num_right=int((own_N & named_N).sum()),
            taken_for=self._confusions(self.outputs.predicted_N[own_N & ~named_N]),
            taken_from=self._confusions(self.outputs.labels_N[named_N & ~own_N]),
            views=self.prototypes.views,
            num_named=int(named_N.sum()),
            example=self._example(label),
            shared=self._shared(label),
            cards=[
                self._card(label, group, source)
                for group, source in zip(groups, sources, strict=True)
            ],
        )

    def _confusions(self, labels_n: NDArray[np.int64]) -> list[Confusion]:
        """Returns the classes among these labels, in descending order of frequency."""
        counts = np.bincount(labels_n, minlength=1)
        order = np.argsort(-counts, kind="stable")
        return [
            Confusion(label, self.prototypes.class_names[label], int(counts[label]))
            for label in order.tolist()
            if counts[label]
        ]

    def _example(self, label: int) -> Example | None:
        """Returns the first image named so of which the most frequent runner-up is next."""
        named = np.flatnonzero(self.outputs.predicted_N == label)
        if not len(named) or len(self.prototypes.class_names) == 1:
            return None
        second_n = self.contrasts.second_N[named]
        counts = np.bincount(second_n)
        place = int(named[second_n == counts.argmax()][0])
        contrast = self.contrasts.of(place)
        assert contrast is not None
        image = self.index.ids[int(self.outputs.rows_N[place])]
        return Example(image, int(counts.max()), contrast)

    def _shared(self, label: int) -> list[Shared]:
        """Returns prototypes of other classes' pages with a weight for a class, largest first."""
        prototypes = self.prototypes
        if not prototypes.views.shared:
            return []
        weight_P = np.where(prototypes.class_of_P == label, 0, prototypes.weights_CP[label])
        order = np.argsort(-weight_P, kind="stable")[:NUM_SHARED]
        return [
            Shared(number, int(of), prototypes.class_names[of], float(weight_P[number]))
            for number in order[weight_P[order] > 0].tolist()
            for of in [prototypes.class_of_P[number]]
        ]

    def _card(self, label: int, group: tuple[int, ...], source: Side) -> Card:
        first = group[0]
        row, view = int(self.prototypes.rows_P[first]), int(self.prototypes.view_P[first])
        views, image = self.prototypes.views, self.index.ids[row]
        part = int(self.prototypes.part_P[first])
        drawn = self.renderer.outlined(row, {view: ""}, IMAGE_SIDE)
        outlined = {
            "crops": f", the mask of {views.called(view)} outlined",
            "cells": f", {views.called(view)} outlined",
            "image": "",
        }[views.kind]
        alt = f"Training photograph {image}{outlined}"
        distance = float(self.prototypes.distance_P[list(group)].min())
        order_N = np.argsort(-self.outputs.similarity_NP[:, first], kind="stable")
        others = order_N[NUM_NEAREST:][self.outputs.labels_N[order_N[NUM_NEAREST:]] != label]
        nearest = [self._near(place, first) for place in order_N[:NUM_NEAREST].tolist()]
        wanted = max(0, NUM_WRONG - sum(not near.own for near in nearest))
        return Card(
            group,
            int(self.prototypes.alike_P[list(group)].sum()),
            image,
            views.called(view),
            None if np.isnan(distance) else distance,
            float(self.prototypes.weights_CP[label, list(group)].sum()),
            None if drawn is None else picture(drawn, alt),
            source,
            part,
            self.explainer.parts.called(part),
            self.explainer.parts.found(part),
            nearest,
            [self._near(place, first) for place in others[:wanted].tolist()],
        )

    def _near(self, place: int, prototype: int) -> Near:
        row, view = int(self.outputs.rows_N[place]), int(self.outputs.view_NP[place, prototype])
        label, of = int(self.outputs.labels_N[place]), int(self.prototypes.class_of_P[prototype])
        called = self.prototypes.views.called(view)
        alt = f"{called[0].upper()}{called[1:]} of test image {self.index.ids[row]}"
        return Near(
            label == of,
            self.prototypes.class_names[label],
            float(self.outputs.similarity_NP[place, prototype]),
            bool(self.outputs.predicted_N[place] == of),
            picture(self.renderer.view(row, view, THUMBNAIL), alt, QUALITY_SMALL),
        )
