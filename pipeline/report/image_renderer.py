"""Pictures of a data set's images, with masks or cells outlined, and of their views."""

from collections.abc import Mapping
from functools import lru_cache, partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pipeline.crops.settings import NO_MASK
from pipeline.crops.store import CropStore
from pipeline.datasets.image_file import read_image
from pipeline.datasets.index import Index
from pipeline.masks.store import MaskStore
from pipeline.report.drawing import outlined
from pipeline.report.view_drawing import dim_of, draw_view, outlines_of_views
from pipeline.saliency.views import Views


class ImageRenderer:
    """Draws the images of an index and their views.

    An image whose file is missing, or is another than the one segmented, has no picture; its
    crops are read from the store.

    Args:
        index: the data set's images, with ids and paths.
        root: the folder that the index's paths are relative to.
        masks: store of the images' masks.
        crops: store of the images' crops, as the model sees them.
        views: the kind of view that the model compares prototypes with.

    Raises:
        ProtoMaskError: a store was made from other images.
    """

    def __init__(
        self, index: Index, root: Path, masks: MaskStore, crops: CropStore, views: Views
    ) -> None:
        masks.refuse_other_images(index.image_files)
        crops.refuse_unless(crops.settings, index.image_files)
        self.ids, self.masks, self.crops, self.views = index.ids, masks, crops, views
        self._paths = [root / path for path in index.table["path"]]
        self.object_mask = index.object_mask
        self.image = lru_cache(maxsize=4)(self._read)
        self.missing: set[int] = set()

    def view(self, row: int, view: int, side: int) -> Image.Image:
        """Returns a picture of a view as the network sees it.

        Args:
            row: row of the image in the index.
            view: index of the view, 0..V−1.
            side: the picture's largest side in pixels.
        """
        return draw_view(self.views, self.crops.crops([row])[0, self.views.crop(view)], view, side)

    def outlined(self, row: int, views: Mapping[int, str], side: int) -> Image.Image | None:
        """Draws some of an image's views on it: the masks of crops, or cells.

        The picture is darkened outside the masks, but not outside cells, which need what is around
        them to be seen for what they are.

        Args:
            row: row of the image in the index.
            views: label of each view to outline, by view; the colour follows from the view.
            side: the picture's longer side in pixels.

        Returns:
            The picture; None if the image's file is not available.
        """
        pixels = self.image(row)
        if pixels is None:
            return None
        height, width = pixels.shape[:2]
        outlines = outlines_of_views(self.views, views, height, width, partial(self._mask, row))
        return outlined(pixels, outlines, side, dim_of(self.views))

    def _mask(self, row: int, crop: int) -> NDArray[np.bool_] | None:
        mask = int(self.crops.masks[row, crop])
        return None if mask == NO_MASK else self.masks.masks(row).full(mask)

    def _read(self, row: int) -> NDArray[np.uint8] | None:
        path = self._paths[row]
        if self.masks.is_of(row, path):
            return read_image(path)
        self.missing.add(row)
        return None
