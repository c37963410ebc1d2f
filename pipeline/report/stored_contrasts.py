"""Why test images were given one class rather than another, from the stored outputs."""

from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from pipeline.report.contrast import Contrast, called_parts, draw_rows
from pipeline.report.heatmaps import read_cut
from pipeline.report.image_renderer import ImageRenderer
from pipeline.report.parts import Parts
from pipeline.saliency.margin import margin_of
from pipeline.saliency.prototypes import Prototypes
from pipeline.saliency.stored_outputs import StoredOutputs

REGIONS, IMAGE_SIDE = 4, 320


class Contrasts:
    """Draws why a test image was given one class rather than another.

    Args:
        renderer: draws the data set's images and their views.
        prototypes: the finished model's prototypes and weights.
        outputs: the model's outputs on the test images.
        parts: the parts that the masks show.
    """

    def __init__(
        self,
        renderer: ImageRenderer,
        prototypes: Prototypes,
        outputs: StoredOutputs,
        parts: Parts,
    ) -> None:
        self.renderer, self.prototypes = renderer, prototypes
        self.outputs, self.parts = outputs, parts

    @cached_property
    def second_N(self) -> NDArray[np.int64]:
        """The second class of each test image by logit, int64 N; there are at least two."""
        return np.argsort(-self.outputs.logits_NC, axis=1, kind="stable")[:, 1]

    def of(self, place: int, rather_than: int | None = None) -> Contrast | None:
        """Draws why a test image was given the predicted class rather than another one.

        Args:
            place: position of the image in the outputs.
            rather_than: number of the other class, 0..C−1; None for the second.

        Returns:
            The contrast; None with a single class.
        """
        outputs, views = self.outputs, self.prototypes.views
        if outputs.logits_NC.shape[1] == 1:
            return None
        first = int(outputs.predicted_N[place])
        second = int(self.second_N[place]) if rather_than is None else rather_than
        row = int(outputs.rows_N[place])
        similarity_P, view_P = outputs.similarity_NP[place], outputs.view_NP[place]
        margin = margin_of(
            self.prototypes, (first, second), similarity_P, view_P, REGIONS, self._called(row)
        ).rounded()
        shown = sorted(region.view for region in margin.regions)
        crops, ids = self.renderer.crops, self.renderer.ids
        cuts = {crop: read_cut(crops, row, crop) for crop in map(views.crop, shown)}
        marks = {view: views.mark(view) for view in shown}
        outlined = self.renderer.outlined(row, marks, IMAGE_SIDE)
        rows = draw_rows(margin, cuts, self.prototypes, crops, ids, self.parts)
        return Contrast(margin, outlined, rows)

    def _called(self, row: int) -> dict[int, str]:
        """Returns what the part that each crop of an image shows is called, where it is known."""
        renderer = self.renderer
        if self.prototypes.views.kind != "crops":
            return {}
        masks = renderer.masks.masks(row)
        return called_parts(masks, renderer.crops.masks[row], self.parts.names)
