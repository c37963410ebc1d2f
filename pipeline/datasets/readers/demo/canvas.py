"""A supersampled canvas that records which part was painted last at each sample."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import ArrayLike, NDArray
from PIL import Image as Pillow
from PIL import ImageDraw

SUPERSAMPLING = 3
"""Samples per pixel along each axis."""

PROP = 255
"""Owner of samples that hide the background but belong to no part: perches, leaves, twigs."""

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Frame:
    """A local coordinate system in the image.

    Args:
        origin: position of the origin, (x, y) in pixels.
        axes: 2×2, whose columns are the local unit vectors in pixels.
    """

    origin: NDArray[np.float64]
    axes: NDArray[np.float64]

    @classmethod
    def of_image(cls) -> "Frame":
        """Returns the frame whose local coordinates are pixels."""
        return cls(np.zeros(2), np.eye(2))

    def child(
        self,
        origin: Sequence[float],
        angle: float = 0.0,
        scale: tuple[float, float] = (1.0, 1.0),
    ) -> "Frame":
        """Returns a frame at a local point, scaled, then rotated by an angle in radians."""
        cosine, sine = np.cos(angle), np.sin(angle)
        turn = np.array([[cosine, -sine], [sine, cosine]])
        return Frame(self.to_image([origin])[0], self.axes @ turn @ np.diag(scale))

    def to_image(self, points: ArrayLike) -> NDArray[np.float64]:
        """Maps N×2 local points to pixels."""
        return np.asarray(points, np.float64) @ self.axes.T + self.origin

    @cached_property
    def inverse(self) -> NDArray[np.float64]:
        """The 2×2 matrix from pixels (relative to the origin) to local coordinates."""
        return np.linalg.inv(self.axes).astype(np.float64)

    def to_local(self, x: Floats, y: Floats) -> tuple[Floats, Floats]:
        """Maps a row x and a column y of pixel coordinates to two H×W grids of local ones."""
        inverse = self.inverse.astype(np.float32)
        dx = x - np.float32(self.origin[0])
        dy = y - np.float32(self.origin[1])
        return (
            inverse[0, 0] * dx + inverse[0, 1] * dy,
            inverse[1, 0] * dx + inverse[1, 1] * dy,
        )


@dataclass(frozen=True)
class Patch:
    """A rectangle of samples, and which of them a shape covers.

    Args:
        window: slices of the rows and columns of the canvas's samples.
        x, y: the samples' pixel coordinates, 1×W and H×1.
        mask: the samples inside the shape, bool H×W.
    """

    window: tuple[slice, slice]
    x: Floats
    y: Floats
    mask: NDArray[np.bool_]

    def only(self, mask: NDArray[np.bool_]) -> "Patch":
        """Returns the patch with its shape restricted to a mask (H×W)."""
        return Patch(self.window, self.x, self.y, self.mask & mask)

    def local(self, frame: Frame) -> tuple[Floats, Floats]:
        """Returns the samples' two local coordinates in a frame, each H×W."""
        return frame.to_local(self.x, self.y)

    def texture(
        self, frame: Frame, tile: Floats, extent: tuple[float, float, float, float]
    ) -> Floats:
        """Samples a tile that covers a local rectangle (u0, v0, u1, v1): H×W, 0 outside it."""
        u0, v0, u1, v1 = extent
        across = (tile.shape[1] / (u1 - u0), tile.shape[0] / (v1 - v0))
        step = frame.inverse / SUPERSAMPLING
        corner = np.array([self.window[1].start, self.window[0].start]) / SUPERSAMPLING
        start = frame.inverse @ (corner - frame.origin) - (u0, v0)
        matrix = [
            value * scale
            for row, offset, scale in zip(step, start, across, strict=True)
            for value in (*row, offset)
        ]
        height, width = self.mask.shape
        if not self.mask.size:
            return np.zeros((height, width), np.float32)
        picture = Pillow.fromarray(tile).transform(
            (width, height), Pillow.Transform.AFFINE, matrix, Pillow.Resampling.BILINEAR
        )
        return np.asarray(picture)


class Canvas:
    """A transparent canvas to paint on.

    Args:
        width, height: the canvas's size in pixels.
    """

    def __init__(self, width: int, height: int) -> None:
        self.width, self.height = width, height
        size = (height * SUPERSAMPLING, width * SUPERSAMPLING)
        self.rgb: Floats = np.zeros((3, *size), np.float32)
        self.owner = np.zeros(size, np.uint8)

    def box(self, points: NDArray[np.float64], margin: float = 1.0) -> Patch:
        """Returns the samples in the bounding box of N×2 pixel coordinates, all covered."""
        limit = np.array([self.width, self.height]) * SUPERSAMPLING
        low = np.floor((points.min(0) - margin) * SUPERSAMPLING).astype(int).clip(0, limit)
        high = np.ceil((points.max(0) + margin) * SUPERSAMPLING).astype(int).clip(0, limit)
        (x0, y0), (x1, y1) = low, high
        x = _centres(x0, x1)[None, :]
        y = _centres(y0, y1)[:, None]
        window = (slice(int(y0), int(y1)), slice(int(x0), int(x1)))
        return Patch(window, x, y, np.ones((y1 - y0, x1 - x0), bool))

    def polygon(self, points: NDArray[np.float64]) -> Patch:
        """Returns the samples inside a polygon of N×2 pixel coordinates."""
        patch = self.box(points)
        height, width = patch.mask.shape
        if not patch.mask.size:
            return patch
        corner = (patch.window[1].start, patch.window[0].start)
        picture = Pillow.new("1", (width, height))
        outline = points * SUPERSAMPLING - corner - 0.5
        ImageDraw.Draw(picture).polygon(list(map(tuple, outline.tolist())), fill=1)
        return patch.only(np.asarray(picture))

    def paint(self, patch: Patch, colour: Floats, owner: int | NDArray[np.uint8]) -> None:
        """Paints a patch's shape and records the owner of its samples.

        Args:
            patch: the shape to paint.
            colour: RGB colour in 0..1, 3×1×1, or of each sample, 3×H×W.
            owner: a part's number or `PROP`, or one for each sample, H×W.
        """
        rows, columns = patch.window
        np.copyto(self.rgb[:, rows, columns], colour, where=patch.mask)
        np.copyto(self.owner[patch.window], owner, where=patch.mask, casting="unsafe")

    def shade(self, patch: Patch, factor: float) -> None:
        """Multiplies what was painted under a patch's shape by a factor."""
        rows, columns = patch.window
        self.rgb[:, rows, columns] *= np.where(patch.mask, np.float32(factor), np.float32(1))

    def over(self, background: Floats) -> Floats:
        """Returns the canvas, averaged to pixels, over a background: H×W×3."""
        alpha = _average((self.owner > 0).astype(np.float32))[..., None]
        colour = np.stack([_average(channel) for channel in self.rgb], -1)
        return background * (1 - alpha) + colour

    def labels(self) -> NDArray[np.uint8]:
        """Returns the part at each pixel's centre, 0 for none: H×W."""
        middle = self.owner[
            SUPERSAMPLING // 2 :: SUPERSAMPLING, SUPERSAMPLING // 2 :: SUPERSAMPLING
        ]
        return np.where(middle == PROP, 0, middle).astype(np.uint8)


def _centres(start: int, stop: int) -> Floats:
    """Returns the pixel coordinates of the centres of samples."""
    return (np.arange(start, stop, dtype=np.float32) + np.float32(0.5)) / np.float32(SUPERSAMPLING)


def _average(samples: Floats) -> Floats:
    return np.asarray(Pillow.fromarray(samples).reduce(SUPERSAMPLING))


def smooth(points: ArrayLike, rounds: int = 3) -> NDArray[np.float64]:
    """Returns a closed, smooth outline around N×2 control points; a doubled point is a corner."""
    from skimage.measure import subdivide_polygon  # reading parameters need not wait for it

    outline = np.asarray(points, float)
    outline = np.vstack([outline, outline[:1]])
    for _ in range(rounds):
        outline = subdivide_polygon(outline, degree=3)
    return outline


def noise(rng: np.random.Generator, width: int, height: int, cells: tuple[float, float]) -> Floats:
    """Returns smooth noise with a standard deviation of about 1, H×W.

    Args:
        rng: random generator that determines the noise.
        width: width of the result in samples.
        height: height of the result in samples.
        cells: number of cells of the noise grid across and down.
    """
    columns, rows = (max(2, round(count)) for count in cells)
    grid = rng.standard_normal((rows, columns), dtype=np.float32)
    picture = Pillow.fromarray(grid).resize((width, height), Pillow.Resampling.BICUBIC)
    return np.asarray(picture)


def fractal_noise(
    rng: np.random.Generator, width: int, height: int, cells: tuple[float, float], octaves: int
) -> Floats:
    """Returns the sum of noise over octaves, each twice as fine and half as strong: H×W."""
    total = np.zeros((height, width), np.float32)
    for octave in range(octaves):
        fine = 2.0**octave
        total += noise(rng, width, height, (cells[0] * fine, cells[1] * fine)) / np.float32(fine)
    return total
