"""The page of a class: its prototypes, what each is found in, and where wrongly."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pipeline.datasets.index import Index
from pipeline.report.drawing import QUALITY_SMALL
from pipeline.report.image_pictures import Gallery
from pipeline.report.pages import Picture, picture, write_page
from pipeline.report.score_lines import Looks, Side
from pipeline.saliency.image_answers import ImageAnswers
from pipeline.saliency.prototypes import Prototypes

NUM_NEAREST, NUM_WRONG, NUM_SHARED = 10, 5, 20
THUMBNAIL, PHOTOGRAPH = 96, 192
DIM = 0.35


class Near(NamedTuple):
    """A test image's view in which a prototype is found.

    Args:
        own: whether the image is of the prototype's class.
        class_name: the image's class.
        similarity: to the prototype.
        named_so: whether the image was given the prototype's class.
        picture: the view.
    """

    own: bool
    class_name: str
    similarity: float
    named_so: bool
    picture: Picture


class Card(NamedTuple):
    """A training view that is, or shows, one or more prototypes.

    Args:
        prototypes: their numbers.
        image, view: where it comes from.
        distance: how far the push moved the nearest of them, squared; None without a push.
        weight: of all of them together, to their class.
        photograph: the training photograph, None where it is not on this machine.
        source: the crop, or the whole image.
        nearest: the test images most similar to it, each with its most similar view.
        further: after these, the next ones of other classes, until there are `NUM_WRONG` of them.
    """

    prototypes: tuple[int, ...]
    image: str
    view: str
    distance: float | None
    weight: float
    photograph: Picture | None
    source: Side
    nearest: list[Near]
    further: list[Near]


class Confusion(NamedTuple):
    """How many images were taken for images of another class, or the other way round."""

    label: int
    name: str
    images: int


class Shared(NamedTuple):
    """A prototype with its card on the page of another class, for which it weighs most."""

    prototype: int
    label: int
    name: str
    weight: float


class ClassPages:
    """Draws the pages of all classes.

    Args:
        index: the images.
        gallery: their pictures.
        prototypes: the model's.
        answers: what it says of the test images.
        looks: draws crops with relevance.
    """

    def __init__(
        self,
        index: Index,
        gallery: Gallery,
        prototypes: Prototypes,
        answers: ImageAnswers,
        looks: Looks,
    ) -> None:
        self.index, self.gallery, self.prototypes = index, gallery, prototypes
        self.answers, self.looks = answers, looks

    def write(self, path: Path, label: int) -> None:
        """Writes the page of a class; it lies in a folder beside index.html."""
        own_N, named_N = self.answers.labels_N == label, self.answers.predicted_N == label
        names = self.prototypes.class_names
        groups = self.prototypes.distinct(label)
        sources = self.looks.sources([group[0] for group in groups])
        write_page(
            path,
            "class_page.html.jinja",
            dataset=self.index.dataset,
            rule=self.looks.relevance.rule,
            label=label,
            names=names,
            num_prototypes=sum(len(group) for group in groups),
            num_test=int(own_N.sum()),
            num_right=int((own_N & named_N).sum()),
            taken_for=self._confusions(self.answers.predicted_N[own_N & ~named_N]),
            taken_from=self._confusions(self.answers.labels_N[named_N & ~own_N]),
            views=self.prototypes.views,
            shared=self._shared(label),
            cards=[
                self._card(label, group, source)
                for group, source in zip(groups, sources, strict=True)
            ],
        )

    def _confusions(self, labels_n: NDArray[np.int64]) -> list[Confusion]:
        """Returns the classes in these labels, the most frequent first."""
        counts = np.bincount(labels_n, minlength=1)
        order = np.argsort(-counts, kind="stable")
        return [
            Confusion(label, self.prototypes.class_names[label], int(counts[label]))
            for label in order.tolist()
            if counts[label]
        ]

    def _shared(self, label: int) -> list[Shared]:
        """Returns the prototypes of other pages that speak for a class, the weightiest first."""
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
        drawn = self.gallery.outlined(row, {view: ""}, PHOTOGRAPH, DIM)
        outlined = {
            "crops": f", the mask of {views.called(view)} outlined",
            "cells": f", {views.called(view)} outlined",
            "image": "",
        }[views.kind]
        alt = f"Training photograph {image}{outlined}"
        distance = float(self.prototypes.distance_P[list(group)].min())
        order_N = np.argsort(-self.answers.similarity_NP[:, first], kind="stable")
        others = order_N[NUM_NEAREST:][self.answers.labels_N[order_N[NUM_NEAREST:]] != label]
        nearest = [self._near(place, first) for place in order_N[:NUM_NEAREST].tolist()]
        wanted = max(0, NUM_WRONG - sum(not near.own for near in nearest))
        return Card(
            group,
            image,
            views.called(view),
            None if np.isnan(distance) else distance,
            float(self.prototypes.weights_CP[label, list(group)].sum()),
            None if drawn is None else picture(drawn, alt),
            source,
            nearest,
            [self._near(place, first) for place in others[:wanted].tolist()],
        )

    def _near(self, place: int, prototype: int) -> Near:
        row, view = int(self.answers.rows_N[place]), int(self.answers.view_NP[place, prototype])
        label, of = int(self.answers.labels_N[place]), int(self.prototypes.class_of_P[prototype])
        called = self.prototypes.views.called(view)
        alt = f"{called[0].upper()}{called[1:]} of test image {self.index.ids[row]}"
        return Near(
            label == of,
            self.prototypes.class_names[label],
            float(self.answers.similarity_NP[place, prototype]),
            bool(self.answers.predicted_N[place] == of),
            picture(self.gallery.view(row, view, THUMBNAIL), alt, QUALITY_SMALL),
        )
