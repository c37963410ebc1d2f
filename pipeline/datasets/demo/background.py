"""Draws what is behind a bird, under its feet and in front of it.

A background is painted far to near, and blurred after each layer, as a lens with little depth of
field would.
"""

from functools import cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image as Pillow
from PIL import ImageDraw, ImageFilter

from pipeline.datasets.demo.canvas import (
    PROP,
    Canvas,
    Floats,
    Frame,
    fractal_noise,
    smooth,
)
from pipeline.datasets.demo.scene import rgb

Colours = tuple[tuple[int, int, int], ...]

GREENS: Colours = ((62, 92, 44), (98, 128, 62), (136, 156, 84), (44, 66, 42), (168, 178, 104))
AUTUMN: Colours = ((150, 96, 48), (186, 134, 62), (112, 72, 44), (96, 98, 56), (206, 164, 92))
REEDS: Colours = ((176, 160, 108), (140, 134, 84), (108, 116, 72), (200, 184, 136), (92, 92, 66))
SKY: Colours = ((150, 184, 212), (186, 206, 222), (216, 222, 224), (128, 160, 196))
WATER: Colours = ((86, 118, 132), (118, 148, 156), (70, 96, 104), (150, 172, 174))
BARK: Colours = ((104, 88, 74), (134, 118, 100), (76, 64, 54), (92, 96, 78), (150, 136, 116))
WOOD: Colours = ((98, 78, 62), (122, 104, 88), (84, 74, 66), (134, 112, 86))

KINDS = ("foliage", "autumn", "reeds", "sky", "water", "bark")


def background(rng: np.random.Generator, width: int, height: int) -> Floats:
    """Returns a random background, H×W×3 in 0..1."""
    kind = str(rng.choice(KINDS))
    picture = _as_picture(_wash(rng, width, height, kind))
    for blur, scale in ((5.0, 1.5), (2.0, 1.1), (0.9, 0.8)):
        draw = ImageDraw.Draw(picture)
        _layer(rng, draw, (width, height), kind, scale)
        picture = picture.filter(ImageFilter.GaussianBlur(blur))
    return np.asarray(picture, np.float32) / np.float32(255)


def _palette(kind: str) -> Colours:
    return {
        "foliage": GREENS,
        "autumn": AUTUMN,
        "reeds": REEDS,
        "sky": SKY,
        "water": WATER,
        "bark": BARK,
    }[kind]


def _wash(rng: np.random.Generator, width: int, height: int, kind: str) -> Floats:
    """Returns the farthest layer: two noises that mix three of a palette's colours."""
    palette = _palette(kind)
    first, second, third = (rgb(palette[i]) for i in rng.choice(len(palette), 3, replace=False))
    cells = {"water": (3, 14), "bark": (22, 3), "reeds": (12, 2)}.get(kind, (4, 4))
    octaves = {"bark": 4, "water": 4}.get(kind, 4)
    mix = _share(fractal_noise(rng, width, height, cells, octaves))
    tint = _share(fractal_noise(rng, width, height, cells, octaves))
    fall = np.linspace(rng.uniform(0.95, 1.15), rng.uniform(0.75, 1.0), height, dtype=np.float32)
    picture = first + (second - first) * mix + (third - first) * tint * 0.6
    return picture * fall[:, None, None]


def _share(values: Floats) -> Floats:
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
    if kind in ("foliage", "autumn"):
        _branches(rng, draw, size, 2, scale)
        _leaves(rng, draw, size, _palette(kind), 18, scale)
    elif kind == "reeds":
        _blades(rng, draw, size, REEDS, 22, scale)
    elif kind == "sky":
        _branches(rng, draw, size, 2, scale)
        _leaves(rng, draw, size, GREENS if rng.random() < 0.5 else AUTUMN, 8, scale)
    elif kind == "water":
        _ripples(rng, draw, size, 14, scale)
        _blades(rng, draw, size, GREENS, 5, scale)
    else:
        _leaves(rng, draw, size, GREENS, 5, scale)
        _branches(rng, draw, size, 2, scale)


def _leaves(
    rng: np.random.Generator,
    draw: ImageDraw.ImageDraw,
    size: tuple[int, int],
    palette: Colours,
    count: int,
    scale: float,
) -> None:
    for _ in range(count):
        x, y = rng.uniform(0, 1, 2) * size
        length = rng.uniform(16, 34) * scale
        outline = _leaf_frame(x, y, length, rng.uniform(0, 2 * np.pi), rng).to_image(_leaf())
        draw.polygon(list(map(tuple, outline.tolist())), fill=_tone(rng, palette))


def _leaf_frame(x: float, y: float, length: float, angle: float, rng: np.random.Generator) -> Frame:
    narrow = length * rng.uniform(0.6, 1.0)
    return Frame.of_image().child((x, y), angle, (length, narrow))


@cache
def _leaf() -> NDArray[np.float64]:
    return smooth(
        ((0, 0), (0, 0), (0.25, -0.2), (0.6, -0.2), (1, 0), (1, 0), (0.6, 0.2), (0.25, 0.2)), 2
    )


def _tone(rng: np.random.Generator, palette: Colours) -> tuple[int, int, int]:
    colour = np.asarray(palette[rng.integers(len(palette))]) * rng.uniform(0.75, 1.2)
    red, green, blue = np.clip(colour, 0, 255).astype(int).tolist()
    return red, green, blue


def _branches(
    rng: np.random.Generator,
    draw: ImageDraw.ImageDraw,
    size: tuple[int, int],
    count: int,
    scale: float,
) -> None:
    for _ in range(count):
        start = rng.uniform(-0.1, 1.1, 2) * size
        angle = rng.uniform(0, 2 * np.pi)
        steps = np.linspace(0, rng.uniform(80, 220), 7)
        bend = rng.uniform(-0.006, 0.006)
        turns = angle + bend * steps
        middle = start + np.stack([np.cos(turns), np.sin(turns)], 1) * steps[:, None]
        thick = np.linspace(rng.uniform(2, 5), 0.8, 7)[:, None] * scale
        side = np.stack([-np.sin(turns), np.cos(turns)], 1) * thick
        outline = np.vstack([middle + side, (middle - side)[::-1]])
        draw.polygon(list(map(tuple, outline.tolist())), fill=_tone(rng, WOOD))


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
        draw.polygon(list(map(tuple, outline.tolist())), fill=_tone(rng, palette))


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


def perch(canvas: Canvas, rng: np.random.Generator, x: float, y: float, light: Floats) -> None:
    """Draws a branch through the point (x, y), in pixels, that a bird stands on."""
    thick = rng.uniform(5, 9)
    frame = Frame.of_image().child((x, y + thick * 0.75), rng.uniform(-0.22, 0.22), (thick, thick))
    reach = 300 / thick
    along = np.linspace(-reach, reach, 40)
    wobble = rng.uniform(-0.12, 0.12, (2, 40))
    bend = 0.0006 * rng.uniform(-1, 1) * along**2 * thick
    upper = np.stack([along, -1 + wobble[0] + bend], 1)
    lower = np.stack([along, 1 + wobble[1] + bend], 1)[::-1]
    patch = canvas.polygon(frame.to_image(np.vstack([upper, lower])))
    u, v = patch.local(frame)
    v = v - np.interp(u, along, bend).astype(np.float32)
    tile = rng.standard_normal((14, 90), dtype=np.float32)
    grain = patch.texture(frame, tile, (-reach, -2, reach, 2))
    shade = 0.62 + 0.5 * np.sqrt(np.clip(1 - np.square(v + 0.35) * 0.5, 0, 1)) + 0.10 * grain
    wood = rgb(WOOD[rng.integers(len(WOOD))]) * np.float32(rng.uniform(0.85, 1.2))
    canvas.paint(patch, wood * shade[..., None].astype(np.float32), PROP)


def foreground(
    canvas: Canvas, rng: np.random.Generator, x: float, y: float, size: float, light: Floats
) -> None:
    """Now and then hangs leaves in front of a bird at (x, y) whose body is so many pixels long."""
    count = int(rng.choice([0, 0, 0, 1, 2, 3]))
    palette = GREENS if rng.random() < 0.6 else AUTUMN
    for _ in range(count):
        angle, distance = rng.uniform(0, 2 * np.pi), rng.uniform(0.45, 0.9) * size
        place = (x + distance * np.cos(angle), y + 0.8 * distance * np.sin(angle))
        frame = _leaf_frame(*place, rng.uniform(20, 34), rng.uniform(0, 2 * np.pi), rng)
        patch = canvas.polygon(frame.to_image(_leaf()))
        u, v = patch.local(frame)
        vein = (np.abs(v) < 0.015) | (np.abs((u - np.abs(v)) % 0.16 - 0.08) < 0.008)
        tone = np.where(v > 0, 0.86, 1.06) * np.where(vein, 1.16, 1.0)
        colour = rgb(_tone(rng, palette)) * tone[..., None].astype(np.float32)
        canvas.paint(patch, colour, PROP)
