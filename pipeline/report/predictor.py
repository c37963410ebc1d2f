"""A finished model applied to any image, with a picture of the reasons for its answer."""

from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from pipeline.crops.extraction import Crops, cut_as_stored
from pipeline.crops.store import StoredCrops
from pipeline.masks.segmenter import Machine, Segmenter, with_fingerprint
from pipeline.model.base.inference import ModelOutputs, infer
from pipeline.model.base.network import PrototypeNetwork, valid_views
from pipeline.model.base.saved import About
from pipeline.model.base.typicality import typicality
from pipeline.report.contrast import Contrast, called_parts, draw_rows, plain_rows
from pipeline.report.drawing import outlined
from pipeline.report.heatmaps import relevance_of
from pipeline.report.image_page import Prediction
from pipeline.report.parts import Parts
from pipeline.report.prediction_picture import IMAGE_SIDE, Reason, draw_reasons
from pipeline.report.score_lines import Explainer
from pipeline.report.view_drawing import dim_of, draw_view
from pipeline.saliency.maps import SimilarPlaces
from pipeline.saliency.margin import margin_of
from pipeline.saliency.prototypes import Points, Prototypes
from pipeline.training.fabric import Fabric

RANKS, ROWS, EXPLAINED, REGIONS = 3, 5, 2, 5


class Predictor:
    """Classifies images with a finished model and shows why.

    Args:
        network: the model, in evaluation mode; it is moved to the device of `fabric`.
        fabric: the device and the precision of the backbone.
        about: the model's classes, and the segmenter of its masks.
        machine: the settings of this machine for the segmenter.
        prototypes: the model's prototypes, with where they came from.
        crops: store of the images' crops, as the model sees them (`PrototypeNetwork.seen`).
        ids: ids of the store's images, in order.
        parts: the parts that masks show; None: with the names that the segmenter gives them.

    Raises:
        ProtoMaskError: this version of ProtoMask does not have the model's segmenter.
    """

    def __init__(
        self,
        network: PrototypeNetwork,
        fabric: Fabric,
        about: About,
        machine: Machine,
        prototypes: Prototypes,
        crops: StoredCrops,
        ids: list[str],
        parts: Parts | None = None,
    ) -> None:
        self.network, self.fabric = network.to(fabric.device), fabric
        self.machine = machine
        self._segmenter = with_fingerprint(about.segmenter)
        self.class_names, self.prototypes = about.class_names, prototypes
        self.not_learned, self.typical = about.not_learned, about.typical
        self.crops, self.ids = crops, ids
        self.parts = parts or Parts(crops.part_names, {})

    @cached_property
    def segmenter(self) -> Segmenter:
        """What finds the masks of images, with what it has learned.

        Raises:
            ProtoMaskError: what it has learned is missing or damaged.
        """
        return self._segmenter.with_learnt(self.machine)

    def predict(self, name: str, image: NDArray[np.uint8]) -> Prediction:
        """Applies the model to an image: to the crops of its masks, or to the whole image.

        Args:
            name: the image's name, such as that of its file.
            image: the RGB image, uint8 height×width×3.

        Returns:
            The model's outputs, the first classes, the scores of the first two, split into
            contributions, and why the first rather than the second.

        Raises:
            ProtoMaskError: the segmenter's weights or masks are not available.
        """
        masks = None
        if not self.crops.whole_images:
            (masks,) = self.segmenter.segment([image], self.machine)
        crops = cut_as_stored(self.crops, image, masks)
        found = self._infer(crops)
        logits_C = found.logits_NC[0].numpy()
        order = np.argsort(-logits_C, kind="stable").tolist()[:RANKS]
        similarity_P, view_P = found.similarity_NP[0].numpy(), found.view_NP[0].numpy()
        scores = [
            self.prototypes.score(label, similarity_P, view_P, ROWS).rounded()
            for label in order[:EXPLAINED]
        ]
        ranking = [(self.class_names[label], float(logits_C[label])) for label in order]
        called = called_parts(masks, crops.masks, self.parts.names) if masks else {}
        margin = None
        if len(order) > 1:
            pair = order[0], order[1]
            margin = margin_of(self.prototypes, pair, similarity_P, view_P, REGIONS, called)
            margin = margin.rounded()
        typical = typicality(float(logits_C.max()), self.typical)
        outputs = logits_C, similarity_P, view_P, typical
        return Prediction(name, image, masks, crops, ranking, scores, margin, *outputs)

    def picture(self, prediction: Prediction) -> Image.Image:
        """Draws why the predicted class rather than the second, and its reasons: `draw_reasons`.

        Args:
            prediction: an image and the prediction for it, from `predict`.
        """
        score, views = prediction.scores[0], self.prototypes.views
        rows = [] if views.kind == "image" else score.rows
        reasons = [self._reason(points, prediction.crops) for points in rows]
        outlines = prediction.outlines(views, sorted({points.view for points in rows}))
        contrast = self._contrast(prediction)
        ranking = prediction.ranking
        return draw_reasons(
            prediction.image, outlines, ranking, score, reasons, views, contrast, prediction.doubt
        )

    def explainer(self, only_mask: bool = False) -> Explainer:
        """Returns what draws the lines of an image's page.

        Args:
            only_mask: whether relevance is drawn on the crops' masks only.
        """
        places = SimilarPlaces(self.network) if self.network.in_cells else None
        relevance = relevance_of(self.network)
        return Explainer(
            self.prototypes,
            relevance,
            self.crops,
            self.ids,
            only_mask,
            places,
            self.not_learned,
            self.parts,
        )

    @torch.inference_mode()
    def _infer(self, crops: Crops) -> ModelOutputs:
        valid_1K = torch.from_numpy(crops.valid)[None]
        arrays = (crops.pixels, crops.valid, crops.inside)
        given = (torch.from_numpy(array)[None].to(self.fabric.device) for array in arrays)
        with self.fabric.autocast():
            features_1VF = self.network.features(*given)
        embedding_1VD = self.network.embed(features_1VF.float())
        return infer(self.network, embedding_1VD, valid_views(valid_1K, embedding_1VD))

    def _contrast(self, prediction: Prediction) -> Contrast | None:
        margin, prototypes = prediction.margin, self.prototypes
        if margin is None:
            return None
        views = prototypes.views
        outlines = prediction.outlines(views, prediction.regions)
        cuts = prediction.cuts(self.crops.settings.background == "original")
        drawn = outlined(prediction.image, outlines, IMAGE_SIDE, dim_of(views))
        rows = plain_rows(margin, prototypes, self.ids, self.parts, prediction.remarks)
        return Contrast(margin, drawn, draw_rows(rows, cuts, prototypes, self.crops))

    def _reason(self, points: Points, crops: Crops) -> Reason:
        first, views = points.prototypes[0], self.prototypes.views
        row, view = int(self.prototypes.rows_P[first]), int(self.prototypes.view_P[first])
        pixels = self.crops.crops([row])[0, views.crop(view)]
        side = self.crops.settings.side
        this = draw_view(views, crops.pixels[views.crop(points.view)], points.view, side)
        name = self.class_names[int(self.prototypes.class_of_P[first])]
        that = draw_view(views, pixels, view, side)
        shows = self.parts.said(int(self.prototypes.part_P[first]))
        return Reason(points, name, self.ids[row], this, that, shows)
