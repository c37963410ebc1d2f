"""Why test images were given one class rather than another, from the stored outputs."""

from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pipeline.crops.settings import NO_MASK
from pipeline.masks.masks import Masks
from pipeline.report.contrast import Contrast, called_parts, draw_rows, plain_rows
from pipeline.report.crop_remarks import crop_remarks
from pipeline.report.heatmaps import Cut, read_cut
from pipeline.report.image_renderer import ImageRenderer
from pipeline.report.parts import Parts
from pipeline.saliency.margin import Margin, margin_of
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
        plain = self.plain(place, rather_than)
        if plain is None:
            return None
        drawn = self.outlined(place, plain.margin)
        rows = draw_rows(
            plain.rows, self.cuts(place, plain.margin), self.prototypes, self.renderer.crops
        )
        return Contrast(plain.margin, drawn, rows)

    def plain(self, place: int, rather_than: int | None = None) -> Contrast | None:
        """Returns the same without pictures."""
        outputs = self.outputs
        if outputs.logits_NC.shape[1] == 1:
            return None
        first = int(outputs.predicted_N[place])
        second = int(self.second_N[place]) if rather_than is None else rather_than
        row = int(outputs.rows_N[place])
        masks = None
        if self.prototypes.views.kind == "crops":
            masks = self.renderer.masks.masks(row)
        margin = margin_of(
            self.prototypes,
            (first, second),
            outputs.similarity_NP[place],
            outputs.view_NP[place],
            REGIONS,
            self._called(row, masks),
        ).rounded()
        remarks = self._remarks(row, masks, margin)
        rows = plain_rows(margin, self.prototypes, self.renderer.ids, self.parts, remarks)
        return Contrast(margin, None, rows)

    def outlined(self, place: int, margin: Margin, side: int = IMAGE_SIDE) -> Image.Image | None:
        """Draws a test image with the regions of its margin outlined.

        Args:
            place: position of the image in the outputs.
            margin: its margin.
            side: the picture's longer side in pixels.

        Returns:
            The picture; None if the image's file is not available.
        """
        views = self.prototypes.views
        marks = {view: views.mark(view) for view in sorted(r.view for r in margin.regions)}
        return self.renderer.outlined(int(self.outputs.rows_N[place]), marks, side)

    def cuts(self, place: int, margin: Margin) -> dict[int, Cut]:
        """Returns the crops of a test image in which the regions of its margin lie, by number."""
        row, views = int(self.outputs.rows_N[place]), self.prototypes.views
        crops = sorted({views.crop(region.view) for region in margin.regions})
        return {crop: read_cut(self.renderer.crops, row, crop) for crop in crops}

    def _remarks(self, row: int, masks: Masks | None, margin: Margin) -> dict[int, str]:
        """Returns what is to be said of the crops of an image's margin, by number."""
        if masks is None:
            return {}
        shown = [region.view for region in margin.regions]
        mask_K = np.full_like(self.renderer.crops.masks[row], NO_MASK)
        mask_K[shown] = self.renderer.crops.masks[row][shown]
        return crop_remarks(masks, mask_K, self.renderer.object_mask(row))

    def _called(self, row: int, masks: Masks | None) -> dict[int, str]:
        """Returns what the part that each crop of an image shows is called, where it is known."""
        if masks is None:
            return {}
        return called_parts(masks, self.renderer.crops.masks[row], self.parts.names)
