"""The views that a model compares prototypes with (crops, cells, whole images), and their names."""

import math
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pipeline.model.base.network import PrototypeNetwork

Kind = Literal["crops", "cells", "image"]


class Views(NamedTuple):
    """The views of a model.

    Args:
        kind: the crops of an image's masks, the cells of the feature map of the whole image, or (of
            a black box) the whole image.
        grid: rows and columns of cells.
        shared: whether a prototype speaks for several classes from the start.
        pushed: whether prototypes are points in the embedding space, which were pushed onto
            training views; otherwise a training view only illustrates a prototype.
        focal: whether an image's similarity is that of its most similar view minus the mean over
            its views.
    """

    kind: Kind
    grid: tuple[int, int]
    shared: bool = False
    pushed: bool = True
    focal: bool = False

    @classmethod
    def of(cls, network: PrototypeNetwork, size: int) -> "Views":
        """Returns the views of a network for crops or images of size×size pixels."""
        whole: Kind = "cells" if network.in_cells else "image"
        kind: Kind = "crops" if network.sees == "crops" else whole
        return cls(
            kind, network.grid(size), network.shares_prototypes, network.pushes, network.focal
        )

    def crop(self, view: int) -> int:
        """Returns the index of the crop that contains a view; 0 where the whole image is seen."""
        return view // math.prod(self.grid)

    def called(self, view: int) -> str:
        """Returns a view's name: `crop 3`, `cell (2, 5)` (row and column), or `whole image`."""
        return {
            "crops": f"crop {view}",
            "cells": f"cell ({', '.join(map(str, divmod(view, self.grid[1])))})",
            "image": "whole image",
        }[self.kind]

    def region(self, view: int) -> str:
        """Returns a view's name as a region of the image: `region 3` is what crop 3 shows of it."""
        return {"crops": f"region {view}", "image": "the whole image"}.get(
            self.kind, self.called(view)
        )

    def mark(self, view: int) -> str:
        """Returns a view's label in a picture: `3`, or `2,5` for a cell."""
        return ",".join(map(str, divmod(view, self.grid[1]))) if self.kind == "cells" else str(view)

    def cell(self, view: int, height: int, width: int) -> NDArray[np.bool_]:
        """Returns the pixels of a cell in an image of this size in pixels: bool height×width."""
        row, column = divmod(view, self.grid[1])
        at_row = np.arange(height) * self.grid[0] // height == row
        at_column = np.arange(width) * self.grid[1] // width == column
        return at_row[:, None] & at_column
