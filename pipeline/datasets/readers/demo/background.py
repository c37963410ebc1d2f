"""Draws what is behind a bird, under its feet and in front of it.

A background is painted from far to near and blurred after each layer, which simulates a small depth
of field.
"""

from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image as Pillow
from PIL import ImageDraw, ImageFilter

from pipeline.datasets.readers.demo.canvas import (
    PROP,
    Canvas,
    Floats,
    Frame,
    fractal_noise,
    smooth,
)
from pipeline.datasets.readers.demo.scene import rgb

Colours = tuple[tuple[int, int, int], ...]

GREENS: Colours = ((62, 92, 44), (98, 128, 62), (136, 156, 84), (44, 66, 42), (168, 178, 104))
AUTUMN: Colours = ((150, 96, 48), (186, 134, 62), (112, 72, 44), (96, 98, 56), (206, 164, 92))
REEDS: Colours = ((176, 160, 108), (140, 134, 84), (108, 116, 72), (200, 184, 136), (92, 92, 66))
SKY: Colours = ((150, 184, 212), (186, 206, 222), (216, 222, 224), (128, 160, 196))
WATER: Colours = ((86, 118, 132), (118, 148, 156), (70, 96, 104), (150, 172, 174))
BARK: Colours = ((104, 88, 74), (134, 118, 100), (76, 64, 54), (92, 96, 78), (150, 136, 116))
WOOD: Colours = ((98, 78, 62), (122, 104, 88), (84, 74, 66), (134, 112, 86))

CLARITY = 0.8
"""Factor of the background's contrast, which simulates haze."""

FOREGROUND_SHARE = 0.35
"""Share of birds with a leafy twig in front of them."""

PALETTES = {
    "foliage": GREENS,
    "autumn": AUTUMN,
    "reeds": REEDS,
    "sky": SKY,
    "water": WATER,
    "bark": BARK,
}
KINDS = tuple(PALETTES)

LAYERS = ((5.0, 1.5), (2.0, 1.1), (0.9, 0.8))
"""From far to near: the blur after a layer, in pixels, and the scale of its plants."""


def background(rng: np.random.Generator, width: int, height: int) -> Floats:
    """Returns a random background, float H×W×3 in 0..1."""
    kind = str(rng.choice(KINDS))
    picture = _as_picture(_wash(rng, width, height, kind))
    for blur, scale in LAYERS:
        draw = ImageDraw.Draw(picture)
        _layer(rng, draw, (width, height), kind, scale)
        picture = picture.filter(ImageFilter.GaussianBlur(blur))
    sharp = np.asarray(picture, np.float32) / np.float32(255)
    haze = sharp.mean((0, 1))
    return haze + np.float32(CLARITY) * (sharp - haze)


def _wash(rng: np.random.Generator, width: int, height: int, kind: str) -> Floats:
    """Returns the farthest layer: three colours of a palette, mixed by two noise maps."""
    palette = PALETTES[kind]
    first, second, third = (rgb(palette[i]) for i in rng.choice(len(palette), 3, replace=False))
    cells = {"water": (3, 14), "bark": (22, 3), "reeds": (12, 2)}.get(kind, (4, 4))
    mix = _share(fractal_noise(rng, width, height, cells, octaves=4))
    tint = _share(fractal_noise(rng, width, height, cells, octaves=4))
    fall = np.linspace(rng.uniform(0.95, 1.15), rng.uniform(0.75, 1.0), height, dtype=np.float32)
    picture = first + (second - first) * mix + (third - first) * tint * 0.6
    return picture * fall[:, None, None]


def _share(values: Floats) -> Floats:
    """Maps numbers around 0 to shares in 0..1, H×W×1."""
    return (1 / (1 + np.exp(-1.6 * values)))[..., None]


def _as_picture(picture: Floats) -> Pillow.Image:
    return Pillow.fromarray((np.clip(picture, 0, 1) * 255).astype(np.uint8))


def _layer(
    rng: np.random.Generator,
    draw: ImageDraw.ImageDraw,
    size: tuple[int, int],
    kind: str,
    scale: float,
) -> None:
    """Draws the plants of one layer at a scale."""
    if kind in ("foliage", "autumn"):
        _sprays(rng, draw, size, PALETTES[kind], 4, scale)
    elif kind == "reeds":
        _blades(rng, draw, size, REEDS, 22, scale)
    elif kind == "sky":
        _sprays(rng, draw, size, GREENS if rng.random() < 0.5 else AUTUMN, 2, scale)
    elif kind == "water":
        _ripples(rng, draw, size, 14, scale)
        _blades(rng, draw, size, GREENS, 5, scale)
    else:
        _sprays(rng, draw, size, GREENS, 2, scale)


@dataclass(frozen=True)
class Spray:
    """A twig with leaves.

    Args:
        twig: the twig's outline, N×2 (x, y) in pixels.
        leaves: a frame for each leaf, from its stalk (0, 0) to its tip (1, 0).
    """

    twig: NDArray[np.float64]
    leaves: list[Frame]


def _spray(
    rng: np.random.Generator,
    start: NDArray[np.float64],
    angle: float,
    length: float,
    leaf_count: int,
    scale: float,
) -> Spray:
    """Returns a twig from a point (x, y), of a length in pixels, with leaves on both sides."""
    steps = np.linspace(0, length, 10)
    turns = angle + rng.uniform(-0.8, 0.8) * steps / length
    middle = start + np.stack([np.cos(turns), np.sin(turns)], 1) * steps[:, None]
    half = np.linspace(rng.uniform(1.2, 2.6), 0.5, 10)[:, None] * scale
    side = np.stack([-np.sin(turns), np.cos(turns)], 1) * half
    twig = np.vstack([middle + side, (middle - side)[::-1]])
    leaves = []
    for i in range(leaf_count):
        place = rng.integers(2, 10)
        aside = (-1) ** i * rng.uniform(0.4, 1.2)
        leaves.append(_leaf_frame(rng, middle[place], turns[place] + aside, scale))
    return Spray(twig, leaves)


def _sprays(
    rng: np.random.Generator,
    draw: ImageDraw.ImageDraw,
    size: tuple[int, int],
    palette: Colours,
    count: int,
    scale: float,
) -> None:
    for _ in range(count):
        start = rng.uniform(-0.1, 1.1, 2) * size
        spray = _spray(rng, start, rng.uniform(0, 2 * np.pi), rng.uniform(60, 140), 8, scale)
        _fill(draw, spray.twig, _tone(rng, WOOD))
        for frame in spray.leaves:
            _fill(draw, frame.to_image(_leaf()), _tone(rng, palette))


def _fill(
    draw: ImageDraw.ImageDraw, outline: NDArray[np.float64], colour: tuple[int, int, int]
) -> None:
    draw.polygon(list(map(tuple, outline.tolist())), fill=colour)


def _leaf_frame(
    rng: np.random.Generator, stalk: NDArray[np.float64], angle: float, scale: float
) -> Frame:
    length = rng.uniform(15, 30) * scale
    return Frame.of_image().child(stalk.tolist(), angle, (length, length * rng.uniform(0.6, 1.1)))


@cache
def _leaf() -> NDArray[np.float64]:
    return smooth(
        ((0, 0), (0, 0), (0.25, -0.2), (0.6, -0.2), (1, 0), (1, 0), (0.6, 0.2), (0.25, 0.2)), 2
    )


def _tone(rng: np.random.Generator, palette: Colours) -> tuple[int, int, int]:
    colour = np.asarray(palette[rng.integers(len(palette))]) * rng.uniform(0.75, 1.2)
    red, green, blue = np.clip(colour, 0, 255).astype(int).tolist()
    return red, green, blue


def _blades(
    rng: np.random.Generator,
    draw: ImageDraw.ImageDraw,
    size: tuple[int, int],
    palette: Colours,
    count: int,
    scale: float,
) -> None:
    width, height = size
    for _ in range(count):
        x = rng.uniform(-0.05, 1.05) * width
        lean, bend = rng.uniform(-40, 40, 2)
        top = rng.uniform(-0.1, 0.7) * height
        half = rng.uniform(1.2, 3.5) * scale
        share = np.linspace(0, 1, 8)
        xs = x + lean * share + bend * share**2
        ys = height + (top - height) * share
        thick = half * (1 - share**2)
        outline = np.vstack([np.stack([xs - thick, ys], 1), np.stack([xs + thick, ys], 1)[::-1]])
        _fill(draw, outline, _tone(rng, palette))


def _ripples(
    rng: np.random.Generator,
    draw: ImageDraw.ImageDraw,
    size: tuple[int, int],
    count: int,
    scale: float,
) -> None:
    for _ in range(count):
        x, y = rng.uniform(-0.1, 1.0, 2) * size
        half, thick = rng.uniform(8, 32) * scale, rng.uniform(0.6, 1.8) * scale
        draw.ellipse((x - half, y - thick, x + half, y + thick), fill=_tone(rng, WATER))


def perch(canvas: Canvas, rng: np.random.Generator, x: float, y: float) -> None:
    """Draws a branch under the bird's feet, through the point (x, y) in pixels."""
    half = rng.uniform(5, 9)
    frame = Frame.of_image().child((x, y + half * 0.75), rng.uniform(-0.22, 0.22), (half, half))
    reach = 300 / half
    along = np.linspace(-reach, reach, 40)
    wobble = rng.uniform(-0.12, 0.12, (2, 40))
    bend = 0.0006 * half * rng.uniform(-1, 1) * along**2
    upper = np.stack([along, -1 + wobble[0] + bend], 1)
    lower = np.stack([along, 1 + wobble[1] + bend], 1)[::-1]
    patch = canvas.polygon(frame.to_image(np.vstack([upper, lower])))
    u, v = patch.local(frame)
    bent = np.float32(bend[0] / along[0] ** 2)
    grain = rng.standard_normal((14, 90), dtype=np.float32)
    streaks = patch.texture(frame, grain, (-reach, -2, reach, 2))
    roundness = np.sqrt(np.clip(1 - 0.5 * np.square(v - bent * u * u + 0.35), 0, 1))
    tone = 0.62 + 0.5 * roundness + 0.10 * streaks
    wood = rgb(WOOD[rng.integers(len(WOOD))]) * np.float32(rng.uniform(0.85, 1.2))
    canvas.paint(patch, wood[:, None, None] * tone, PROP)


def foreground(canvas: Canvas, rng: np.random.Generator, x: float, y: float, size: float) -> None:
    """Draws a leafy twig in front of a part of the bird, for a share `FOREGROUND_SHARE` of birds.

    Args:
        canvas: the canvas that the bird is drawn on.
        rng: random generator that determines whether and where.
        x: horizontal position of the bird's centre in pixels.
        y: vertical position of the bird's centre in pixels.
        size: length of the bird's body in pixels.
    """
    if rng.random() >= FOREGROUND_SHARE:
        return
    toward = rng.uniform(0, 2 * np.pi)
    outward = np.array([np.cos(toward), np.sin(toward)])
    length = rng.uniform(60, 110)
    start = np.array([x, y]) + (rng.uniform(0.5, 0.8) * size + length) * outward
    spray = _spray(rng, start, toward + np.pi, length, 5, 0.8)
    twig = np.asarray(_tone(rng, WOOD), np.float32)[:, None, None] / np.float32(255)
    canvas.paint(canvas.polygon(spray.twig), twig, PROP)
    palette = GREENS if rng.random() < 0.6 else AUTUMN
    for frame in spray.leaves:
        patch = canvas.polygon(frame.to_image(_leaf()))
        u, v = patch.local(frame)
        colour = rgb(_tone(rng, palette))[:, None, None]
        canvas.paint(patch, colour * _leaf_relief(u, v), PROP)


def _leaf_relief(u: Floats, v: Floats) -> Floats:
    """Returns a leaf's brightness, with two halves and veins."""
    rib = (u - np.abs(v)) / 0.16
    vein = (np.abs(v) < 0.015) | (rib - np.floor(rib) < 0.1)
    return np.where(v > 0, np.float32(0.86), np.float32(1.06)) * np.where(vein, 1.16, 1.0)
