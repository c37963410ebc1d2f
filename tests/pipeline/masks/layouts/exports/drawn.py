"""What is annotated in every export: photographs of 40×30 pixels, and the parts in them."""

import numpy as np
from numpy.typing import NDArray

HEIGHT, WIDTH = 30, 40
PHOTOGRAPHS = ("crow/001.jpg", "crow/002.jpg", "wren/003.jpg")
PARTS = ("wing", "beak")
BOX = (2, 3, 10, 8)
"""An annotation with a box and no mask in the first photograph: x, y, width and height."""


def drawn(photograph: str) -> dict[str, NDArray[np.bool_]]:
    """Returns the mask of each part of a photograph, the larger first; none of the last one."""
    number = PHOTOGRAPHS.index(photograph)
    if number == 2:
        return {}
    rows, columns = np.ogrid[:HEIGHT, :WIDTH]
    wing = ((columns - 20) / 12) ** 2 + ((rows - 17) / 8) ** 2 <= 1
    beak = np.zeros((HEIGHT, WIDTH), bool)
    beak[2:7, 30 - 5 * number : 38 - 5 * number] = True
    return {"wing": wing, "beak": beak}


def polygon(mask: NDArray[np.bool_]) -> list[float]:
    """Returns a convex mask's outline: x, y, x, y, … of the pixels' corners."""
    left, right = [], []
    for y in np.flatnonzero(mask.any(axis=1)).tolist():
        inside = np.flatnonzero(mask[y])
        x0, x1 = int(inside[0]), int(inside[-1]) + 1
        left += [(x0, y), (x0, y + 1)]
        right += [(x1, y), (x1, y + 1)]
    return [float(value) for point in [*right, *reversed(left)] for value in point]
