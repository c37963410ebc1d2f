"""What a model compares prototypes with: how it is called, numbered and marked on a picture."""

import math
from collections.abc import Callable, Mapping
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pipeline.explain.pictures import Colour, Outline, colour_of, outlined, resized
from pipeline.model.network import PrototypeNetwork

Kind = Literal["crops", "cells", "image"]


class Views(NamedTuple):
    """The views of a model.

    Args:
        model: its name, as in the parameter `model.name`.
        kind: the crops of an image's masks, the cells of the feature map of the whole image, or (of
            a black box) the whole image.
        grid: rows and columns of cells.
    """

    model: str
    kind: Kind
    grid: tuple[int, int]

    @classmethod
    def of(cls, network: PrototypeNetwork, size: int) -> "Views":
        """Returns those of a network that sees images or crops of this size."""
        whole: Kind = "cells" if network.in_cells else "image"
        kind: Kind = "crops" if network.sees == "crops" else whole
        return cls(network.settings.name, kind, network.grid(size))

    @property
    def shared(self) -> bool:
        """Whether a prototype speaks for several classes from the start."""
        return self.model in ("protopool", "pipnet")

    def crop(self, view: int) -> int:
        """Returns the crop that a view is of; 0 where the image is seen whole."""
        return view // math.prod(self.grid)

    def called(self, view: int) -> str:
        """Returns `crop 3`, `cell (2, 5)` (row and column), or `whole image`."""
        return {
            "crops": f"crop {view}",
            "cells": f"cell ({', '.join(map(str, divmod(view, self.grid[1])))})",
            "image": "whole image",
        }[self.kind]

    def mark(self, view: int) -> str:
        """Returns what stands on a picture beside a view: `3` or `2,5`."""
        return ",".join(map(str, divmod(view, self.grid[1]))) if self.kind == "cells" else str(view)

    def colour(self, view: int) -> Colour:
        """Returns the colour of a view's outline; cells beside each other have different ones."""
        row, column = divmod(view, self.grid[1])
        return colour_of(3 * row + column if self.kind == "cells" else view)

    def cell(self, view: int, height: int, width: int) -> NDArray[np.bool_]:
        """Returns where a cell lies in an image of this size: bool height×width."""
        row, column = divmod(view, self.grid[1])
        at_row = np.arange(height) * self.grid[0] // height == row
        at_column = np.arange(width) * self.grid[1] // width == column
        return at_row[:, None] & at_column

    def drawn(self, pixels: NDArray[np.uint8], view: int, side: int) -> Image.Image:
        """Draws a view no larger than `side`: a crop as it is, the image with a cell outlined.

        Args:
            pixels: uint8 S×S×3, the view's crop, or the whole image.
            view: its number.
            side: in pixels.
        """
        side = min(side, len(pixels))
        if self.kind != "cells":
            return resized(pixels, side)
        place = self.cell(view, *pixels.shape[:2])
        return outlined(pixels, [Outline(place, self.colour(view))], side)

    def outlines(
        self,
        marked: Mapping[int, str],
        height: int,
        width: int,
        mask_of: Callable[[int], NDArray[np.bool_] | None],
    ) -> list[Outline]:
        """Returns where views lie in a photograph: a crop's mask, or the cell.

        Args:
            marked: view → its label.
            height, width: the photograph's.
            mask_of: gives the mask of a crop, None for a crop without.
        """
        in_cells = self.kind == "cells"
        places = [self.cell(v, height, width) if in_cells else mask_of(v) for v in marked]
        return [
            Outline(place, self.colour(view), label)
            for place, (view, label) in zip(places, marked.items(), strict=True)
            if place is not None
        ]
