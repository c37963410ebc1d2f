"""The random properties of an image, independent of the class: pose, plumage colours, light.

Nothing here depends on the class, so a bird redrawn with another class's part has the same pose,
colours and light.
"""

from dataclasses import dataclass

import numpy as np

from pipeline.datasets.readers.demo.canvas import Floats

SIDE = (180, 220)
"""Range of an image's width and height, pixels."""

# Natural plumage colours, sRGB.
UPPER = (
    (92, 110, 134),
    (116, 114, 74),
    (140, 88, 58),
    (124, 108, 92),
    (72, 114, 114),
    (84, 84, 90),
    (164, 100, 62),
    (98, 122, 76),
    (112, 88, 108),
    (76, 96, 124),
)
UNDER = (
    (236, 224, 198),
    (224, 196, 152),
    (236, 234, 228),
    (232, 212, 124),
    (226, 170, 116),
    (204, 206, 208),
    (222, 172, 158),
    (196, 204, 172),
)
DARK = ((38, 34, 36), (52, 38, 30), (34, 40, 52))
LIGHT = ((246, 243, 234), (246, 232, 196), (240, 240, 244))
BRIGHT = ((206, 62, 40), (232, 150, 44), (240, 190, 60), (190, 48, 60))
BEAK = ((62, 56, 54), (214, 150, 60), (120, 100, 84), (190, 96, 60))
LEG = ((96, 74, 62), (190, 120, 84), (70, 66, 68))
IRIS = ((54, 32, 22), (30, 24, 24), (112, 54, 24))


@dataclass(frozen=True)
class Pose:
    """The pose of a bird; angles are in radians, positive ones clockwise.

    Args:
        x, y: the body's centre in pixels.
        size: the body's length without head and tail, in pixels.
        facing: 1 looks right, -1 left.
        body, head, tail, wing, crest: angles relative to the part that carries each.
        depth: the body's depth, relative to the usual one.
        stance: distance of the feet in front of the body's centre, in body lengths.
    """

    x: float
    y: float
    size: float
    facing: int
    body: float
    head: float
    tail: float
    wing: float
    crest: float
    depth: float
    stance: float


@dataclass(frozen=True)
class Plumage:
    """A bird's colours, each (3,) float32 in 0..1."""

    back: Floats
    wing: Floats
    tail: Floats
    crown: Floats
    cheek: Floats
    throat: Floats
    breast: Floats
    belly: Floats
    dark: Floats
    light: Floats
    bright: Floats
    beak: Floats
    leg: Floats
    iris: Floats


@dataclass(frozen=True)
class Light:
    """Light and exposure of an image.

    Args:
        direction: unit vector (x, y) towards the light.
        exposure: brightness factor of each channel, (3,).
        contrast: factor of the deviation from mid grey.
        grain: standard deviation of the sensor's noise, on the scale 0..1.
    """

    direction: Floats
    exposure: Floats
    contrast: float
    grain: float


def random_pose(rng: np.random.Generator, width: int, height: int) -> Pose:
    """Returns a pose in an image of this size in pixels; nearly all of the bird is visible."""
    facing = int(rng.choice([-1, 1]))
    return Pose(
        x=width * (0.5 + 0.08 * facing + rng.uniform(-0.06, 0.06)),
        y=height * rng.uniform(0.45, 0.58),
        size=min(width, height) * rng.uniform(0.40, 0.51),
        facing=facing,
        body=np.radians(rng.uniform(-40, -10)),
        head=np.radians(rng.uniform(-16, 30)),
        tail=np.radians(rng.uniform(-20, 14)),
        wing=np.radians(rng.uniform(-9, 7)),
        crest=np.radians(rng.uniform(-14, 16)),
        depth=rng.uniform(0.9, 1.12),
        stance=rng.uniform(-0.04, 0.08),
    )


def random_plumage(rng: np.random.Generator) -> Plumage:
    """Returns random plumage colours, independent of the class."""
    back = _mix(rng, UPPER)
    under = _mix(rng, UNDER)
    face = _mix(rng, UPPER)
    wing = _jitter(rng, back * np.float32(0.86))
    light = _mix(rng, LIGHT)
    return Plumage(
        back=back,
        wing=wing,
        tail=_jitter(rng, wing * np.float32(0.86)),
        crown=_jitter(rng, face * np.float32(0.86)),
        cheek=_blend(face, under, rng.uniform(0.15, 0.75)),
        throat=_blend(under, light, rng.uniform(0.3, 0.9)),
        breast=_jitter(rng, _blend(under, back, rng.uniform(0.0, 0.2))),
        belly=_blend(under, light, rng.uniform(0.1, 0.6)),
        dark=_mix(rng, DARK),
        light=light,
        bright=_mix(rng, BRIGHT),
        beak=_mix(rng, BEAK),
        leg=_mix(rng, LEG),
        iris=_mix(rng, IRIS),
    )


def random_light(rng: np.random.Generator) -> Light:
    """Returns a random light from above, left or right, with a colour cast."""
    angle = np.radians(rng.uniform(-60, 60))
    cast = 1 + rng.uniform(-0.07, 0.07, 3)
    return Light(
        direction=np.array([np.sin(angle), -np.cos(angle)], np.float32),
        exposure=(cast * rng.uniform(0.82, 1.14)).astype(np.float32),
        contrast=rng.uniform(0.85, 1.12),
        grain=rng.uniform(0.006, 0.018),
    )


def rgb(colour: tuple[int, int, int]) -> Floats:
    """Returns an 8-bit colour as (3,) float32 in 0..1."""
    return np.asarray(colour, np.float32) / np.float32(255)


def _blend(first: Floats, second: Floats, share: float) -> Floats:
    return first + (second - first) * np.float32(share)


def _jitter(rng: np.random.Generator, colour: Floats) -> Floats:
    shift = rng.uniform(0.92, 1.08) * rng.uniform(0.96, 1.04, 3)
    return np.clip(colour * shift.astype(np.float32), 0, 1)


def _mix(rng: np.random.Generator, palette: tuple[tuple[int, int, int], ...]) -> Floats:
    first, second = rng.choice(len(palette), 2)
    return _jitter(rng, _blend(rgb(palette[first]), rgb(palette[second]), rng.uniform(0, 0.5)))
