"""Draws a bird from its pose, its colours and the style of each part.

Lengths are in body lengths (breast to rump). The axes of the body's and the head's frames point
forward and down, those of the wing's and the tail's backward and down.
"""

from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

from pipeline.datasets.readers.demo.canvas import Canvas, Floats, Frame, Patch, smooth
from pipeline.datasets.readers.demo.classes import PARTS, Styles
from pipeline.datasets.readers.demo.scene import Plumage, Pose

Points = NDArray[np.float64]
Mask = NDArray[np.bool_]

HEAD = (0.43, -0.27)
WING_JOINT = (0.19, -0.10)
TAIL_JOINT = (-0.50, -0.01)
BODY_PARTS = ("crown", "cheek", "throat", "breast", "belly", "back")
TRUNK_EXTREMES = ((-0.68, -0.1), (-0.68, 0.06), (-0.3, -0.32), (-0.3, 0.32), (0.3, 0.32), (0.5, 0))
SKULL_EXTREMES = ((-0.22, -0.2), (-0.22, 0.2), (0.22, -0.2), (0.22, 0.2))
PERCH_DEPTH = 0.43
"""Distance of the perch below the body's centre."""

# Outlines, as control points of `smooth`.
WING = ((-0.06, 0.01), (-0.01, -0.11), (0.16, -0.16), (0.42, -0.12), (0.70, -0.03), (0.94, 0.06),
        (0.94, 0.06), (0.72, 0.12), (0.46, 0.20), (0.20, 0.21), (0.02, 0.13))  # fmt: skip
TAILS = {
    "square": ((0, -0.07), (0.25, -0.08), (0.52, -0.11), (0.52, -0.11), (0.55, 0.10), (0.55, 0.10),
               (0.25, 0.07), (0, 0.07)),
    "banded": ((0, -0.07), (0.25, -0.09), (0.56, -0.12), (0.62, 0.0), (0.56, 0.12), (0.25, 0.09),
               (0, 0.07)),
    "forked": ((0, -0.07), (0.22, -0.10), (0.48, -0.20), (0.72, -0.34), (0.72, -0.34),
               (0.52, -0.10), (0.30, 0.0), (0.30, 0.0), (0.52, 0.10), (0.72, 0.34), (0.72, 0.34),
               (0.48, 0.20), (0.22, 0.10), (0, 0.07)),
    "fan": ((0, -0.07), (0.12, -0.11), (0.34, -0.30), (0.50, -0.36), (0.60, -0.20), (0.66, 0.0),
            (0.60, 0.20), (0.50, 0.36), (0.34, 0.30), (0.12, 0.11), (0, 0.07)),
    "streamer": ((0, -0.07), (0.3, -0.075), (0.65, -0.06), (0.94, -0.01), (0.94, -0.01),
                 (0.65, 0.05), (0.3, 0.065), (0, 0.07)),
}  # fmt: skip
BEAKS = {
    "cone": ((0.10, -0.085), (0.19, -0.075), (0.32, 0.015), (0.32, 0.015), (0.20, 0.075),
             (0.10, 0.085)),
    "needle": ((0.10, -0.05), (0.20, -0.035), (0.52, 0.005), (0.52, 0.005), (0.20, 0.04),
               (0.10, 0.05)),
    "curved": ((0.10, -0.06), (0.22, -0.07), (0.42, -0.03), (0.60, 0.20), (0.60, 0.20),
               (0.40, 0.055), (0.20, 0.045), (0.10, 0.055)),
    "stout": ((0.06, -0.14), (0.20, -0.19), (0.40, -0.13), (0.50, 0.05), (0.48, 0.16), (0.48, 0.16),
              (0.41, 0.11), (0.24, 0.15), (0.06, 0.14)),
}  # fmt: skip
CRESTS = {
    "crest": (((0.12, -0.12), (0.04, -0.22), (-0.10, -0.33), (-0.30, -0.44), (-0.30, -0.44),
               (-0.24, -0.26), (-0.19, -0.10), (-0.10, -0.02), (0.05, -0.05)),),
    "plume": (((0.02, -0.13), (0.03, -0.26), (0.12, -0.37), (0.25, -0.38), (0.27, -0.29),
               (0.17, -0.27), (0.09, -0.22), (0.06, -0.12)),
              ((-0.04, -0.13), (-0.04, -0.28), (0.03, -0.42), (0.16, -0.47), (0.19, -0.40),
               (0.10, -0.35), (0.03, -0.26), (0.0, -0.12))),
}  # fmt: skip


@dataclass(frozen=True)
class Skeleton:
    """The frames of a posed bird.

    Args:
        stand: upright frame at the body's centre, for feet and perch.
        body, head, wing, tail, crest: local frame of each part, in the image.
    """

    stand: Frame
    body: Frame
    head: Frame
    wing: Frame
    tail: Frame
    crest: Frame

    @classmethod
    def of(cls, pose: Pose) -> "Skeleton":
        """Returns the frames of a pose."""
        size = pose.size
        stand = Frame.of_image().child((pose.x, pose.y), scale=(size * pose.facing, size))
        body = stand.child((0, 0), pose.body)
        head = body.child(HEAD, pose.head - 0.5 * pose.body)
        wing = body.child(WING_JOINT, pose.wing, (-1, 1))
        tail = body.child(TAIL_JOINT, pose.tail, (-1, 1))
        return cls(stand, body, head, wing, tail, head.child((0, 0), pose.crest))


class Feathers:
    """The fine texture of a plumage, drawn before any part."""

    EXTENT = (-1.2, -1.2, 1.2, 1.2)
    """The local rectangle (u0, v0, u1, v1) that the texture covers."""

    def __init__(self, rng: np.random.Generator) -> None:
        streaks = rng.standard_normal((120, 40), dtype=np.float32)
        mottle = rng.standard_normal((24, 20), dtype=np.float32)
        self.tile = 0.05 * streaks + 0.035 * mottle.repeat(5, 0).repeat(2, 1)

    def on(self, patch: Patch, frame: Frame) -> Floats:
        """Returns the texture at a patch's samples, H×W around 0, streaked along the u axis."""
        return patch.texture(frame, self.tile, self.EXTENT)


class Bird:
    """One bird on a canvas.

    Args:
        canvas: the canvas that the bird is drawn on.
        pose, plumage: the bird's pose and colours.
        styles: style of each part that varies.
        light: (2,), unit vector towards the light.
        feathers: fine texture of the plumage.
    """

    def __init__(
        self,
        canvas: Canvas,
        pose: Pose,
        plumage: Plumage,
        styles: Styles,
        light: Floats,
        feathers: Feathers,
    ) -> None:
        self.canvas, self.pose, self.plumage, self.styles = canvas, pose, plumage, styles
        self.light, self.feathers = light, feathers
        self.frames = Skeleton.of(pose)

    def draw(self) -> None:
        """Draws all parts, from back to front."""
        self._legs()
        self._tail()
        self._crest()
        self._beak()
        self._body()
        self._wing()
        self._eye()

    def _legs(self) -> None:
        owner, stand, depth = owner_of("legs"), self.frames.stand, PERCH_DEPTH
        for offset, brightness in ((-0.05, 0.72), (0.06, 1.0)):
            foot = self.pose.stance + offset
            colour = _tint(self.plumage.leg, brightness)
            shin = [(foot - 0.06, 0.1), (foot - 0.01, 0.1), (foot + 0.015, depth),
                    (foot - 0.015, depth)]  # fmt: skip
            self._fill(stand.to_image(shin), colour, owner)
            for reach in (-0.075, 0.03, 0.085):
                tip = foot + reach
                toe = [(foot - 0.02, depth - 0.025), (foot + 0.02, depth - 0.02),
                       (tip, depth + 0.035), (tip - 0.03, depth + 0.035)]  # fmt: skip
                self._fill(stand.to_image(smooth(toe, 2)), colour, owner)

    def _tail(self) -> None:
        style, frame = self.styles["tail"], self.frames.tail
        patch = self.canvas.polygon(frame.to_image(_tail_outline(style)))
        u, v = patch.local(frame)
        spread = v / (0.06 + np.abs(_tail_widening(style) * u))
        edges = 1 - 0.30 * _lines(spread * 2.5, 0.14)
        colour = _tint(self.plumage.tail, edges * (1.05 - 0.3 * np.clip(spread, -1, 1) ** 2))
        pale = _tail_marks(u, v, style)
        self._feather(patch, frame, np.where(pale, _tint(self.plumage.light, 0.95), colour), "tail")

    def _crest(self) -> None:
        frame = self.frames.crest
        for outline in _crest_outlines(self.styles["crown"]):
            patch = self.canvas.polygon(frame.to_image(outline))
            u, v = patch.local(frame)
            ribs = 1 - 0.22 * _lines((u - 0.6 * v) * 16, 0.25)
            self._feather(patch, frame, _tint(self._crown_colour(), ribs), "crown")

    def _crown_colour(self) -> Floats:
        plumage = self.plumage
        colours = {"cap": plumage.dark, "plume": plumage.dark, "crest": plumage.bright}
        return colours.get(self.styles["crown"], plumage.crown)

    def _beak(self) -> None:
        style, frame = self.styles["beak"], self.frames.head
        patch = self.canvas.polygon(frame.to_image(_beak_outline(style)))
        u, v = patch.local(frame)
        gape = v - 0.012 - (0.9 * np.square(u - 0.1) if style == "curved" else 0)
        tone = 1.12 - 1.6 * np.abs(v + 0.02) - 0.2 * (gape > 0)
        tone = np.where(np.abs(gape) < 0.009, np.float32(0.55), tone)
        horn = self.plumage.bright if style == "stout" else self.plumage.beak
        colour = _tint(horn, tone)
        if style == "stout":
            colour = np.where(u > 0.38, _tint(self.plumage.dark, tone), colour)
        self.canvas.paint(patch, colour, owner_of("beak"))

    def _body(self) -> None:
        body, head = self.frames.body, self.frames.head
        extremes = [body.to_image(TRUNK_EXTREMES), head.to_image(SKULL_EXTREMES)]
        patch = self.canvas.box(np.vstack(extremes))
        x, y = patch.local(body)
        p, q = patch.local(head)
        trunk, skull = _trunk(x, y, self.pose.depth), _skull(p, q)
        surface = _union(trunk, skull, 0.16)
        texture = self.feathers.on(patch, body)
        owners = _regions(x, y, p, q, skull - trunk, 0.24 * texture)
        colour = self._body_base()[:, owners]
        np.copyto(colour, _tint(self.plumage.dark), where=self._body_marks(x, y, owners))
        colour *= self._relief(surface) * (1 + texture)
        self.canvas.paint(patch.only(surface < 0), colour, owners)

    def _body_base(self) -> Floats:
        """Returns the colour of each part of the body, 3×(parts + 1)."""
        base = np.zeros((3, len(PARTS) + 1), np.float32)
        for part in BODY_PARTS:
            base[:, owner_of(part)] = getattr(self.plumage, part)
        base[:, owner_of("crown")] = self._crown_colour()
        if self.styles["throat"] == "bib":
            base[:, owner_of("throat")] = self.plumage.dark
        return base

    def _body_marks(self, x: Floats, y: Floats, owners: NDArray[np.uint8]) -> Mask:
        """Returns where breast and belly have dark marks, H×W."""
        marks = np.zeros(x.shape, bool)
        breast = _breast_marks(x, y, self.styles["breast"])
        marks |= (owners == owner_of("breast")) & breast
        if self.styles["belly"] == "barred":
            bars = _lines((x + 0.25 * y) * 11, 0.30) > 0
            marks |= (owners == owner_of("belly")) & bars
        return marks

    def _relief(self, surface: Floats) -> Floats:
        """Returns the shading of a rounded body: brighter towards the light, darker at its edge."""
        height = np.sqrt(np.clip(-surface, 0, 0.16))
        dy, dx = np.gradient(height)
        slope = (dx * self.light[0] + dy * self.light[1]) * np.float32(2.7 * self.pose.size)
        shade = 0.98 - 0.16 * np.tanh(slope)
        return np.clip(shade * (0.72 + 0.9 * height), 0.45, 1.2)

    def _wing(self) -> None:
        canvas, frame = self.canvas, self.frames.wing
        outline = frame.to_image(_wing_outline())
        for drop in (0.035, 0.018):
            shadow = canvas.polygon(outline + np.array([0, drop * self.pose.size]))
            canvas.shade(self._on_body(shadow), 0.84)
        patch = canvas.polygon(outline)
        u, v = patch.local(frame)
        across = _across_wing(u, v)
        colour = _tint(self.plumage.wing, _wing_relief(u, across))
        if self.styles["wing"] == "spangled":
            colour = np.where(_dots(u, v, 0.12, 0.036), _tint(self.plumage.light), colour)
        self._feather(patch, frame, colour, "wing")
        bar = patch.only(_wing_bar(u, v, across, self.styles["wing bar"]))
        gloss = _tint(self.plumage.light, 1.0 - 0.25 * _lines(across * 5, 0.12))
        self._feather(bar, frame, gloss, "wing bar")

    def _on_body(self, patch: Patch) -> Patch:
        owners = self.canvas.owner[patch.window]
        return patch.only(np.isin(owners, [owner_of(part) for part in BODY_PARTS]))

    def _eye(self) -> None:
        owner = owner_of("eye")
        frame = self.frames.head.child((0.065, -0.035))
        ring = self.plumage.cheek + np.float32(0.6) * (self.plumage.light - self.plumage.cheek)
        black, white = np.full(3, 0.03, np.float32), np.ones(3, np.float32)
        for radius, colour in ((0.056, ring), (0.045, self.plumage.iris), (0.031, black)):
            self._fill(frame.to_image(_circle(radius)), _tint(colour), owner)
        glint = self.light * np.float32(0.02 * self.pose.size)
        self._fill(frame.to_image(_circle(0.013)) + glint, _tint(white), owner)

    def _fill(self, points: Points, colour: Floats, owner: int) -> None:
        self.canvas.paint(self.canvas.polygon(points), colour, owner)

    def _feather(self, patch: Patch, frame: Frame, colour: Floats, part: str) -> None:
        """Paints a part with the texture of feathers, in a colour 3×H×W."""
        self.canvas.paint(patch, colour * (1 + self.feathers.on(patch, frame)), owner_of(part))


def owner_of(part: str) -> int:
    """Returns a part's number in label images: its position in `PARTS`, from 1."""
    return PARTS.index(part) + 1


@cache
def _wing_outline() -> Points:
    return smooth(WING)


@cache
def _tail_outline(style: str) -> Points:
    return smooth(TAILS[style])


@cache
def _beak_outline(style: str) -> Points:
    return smooth(BEAKS[style])


@cache
def _crest_outlines(style: str) -> tuple[Points, ...]:
    return tuple(smooth(control_points) for control_points in CRESTS.get(style, ()))


@cache
def _circle(radius: float) -> Points:
    turn = np.linspace(0, 2 * np.pi, 24, endpoint=False)
    return radius * np.stack([np.cos(turn), np.sin(turn)], 1)


def _tint(colour: Floats, tone: Floats | float = 1.0) -> Floats:
    """Returns a colour, (3,), times a brightness, one number or H×W: 3×1×1 or 3×H×W."""
    return colour[:, None, None] * np.asarray(tone, np.float32)


def _trunk(x: Floats, y: Floats, depth: float) -> Floats:
    """Returns a field that is negative inside the body and its taper towards the tail."""
    egg = 0.27 * (np.hypot(x / 0.45, y / (0.26 * depth)) - 1)
    along = np.clip((-0.15 - x) / 0.45, 0, 1)
    taper = np.hypot(x + 0.15 + 0.45 * along, y + 0.02) - (0.20 - 0.135 * along)
    return _union(egg, taper, 0.08)


def _skull(p: Floats, q: Floats) -> Floats:
    """Returns a field that is negative inside the head."""
    return 0.18 * (np.hypot(p / 0.195, q / 0.175) - 1)


def _union(first: Floats, second: Floats, width: float) -> Floats:
    """Returns the union of two fields, rounded where they meet."""
    near = np.clip(width - np.abs(first - second), 0, None)
    return np.minimum(first, second) - near * near / (4 * width)


def _regions(
    x: Floats, y: Floats, p: Floats, q: Floats, headness: Floats, ragged: Floats
) -> NDArray[np.uint8]:
    """Divides the body's surface into parts.

    Args:
        x: coordinates of the samples along the body's first axis, H×W.
        y: coordinates along the body's second axis, H×W.
        p: coordinates along the head's first axis, H×W.
        q: coordinates along the head's second axis, H×W.
        headness: field that is negative on the head, H×W.
        ragged: small shifts that fray the borders, H×W.

    Returns:
        The number of the part that each sample belongs to, uint8 H×W.
    """
    tests = {
        "crown": (q + 0.25 * np.minimum(p + 0.02, 0) < ragged - 0.055) & (headness < 0.06),
        "throat": (np.hypot((p - 0.07) / 0.20, (q - 0.21) / 0.18) < 1 + 4 * ragged) & (q > 0.04),
        "cheek": headness + ragged < 0,
        "breast": x + 0.45 * y + 2 * ragged > 0.13,
        "belly": y + ragged > 0.4 * np.clip(-0.3 - x, 0, None) - 0.02,
    }
    owners = np.full(x.shape, owner_of("back"), np.uint8)
    for part, test in reversed(tests.items()):
        owners[test] = owner_of(part)
    return owners


def _breast_marks(x: Floats, y: Floats, style: str) -> Mask:
    """Returns where a breast of this style is dark."""
    if style == "spotted":
        return _dots(x + 0.3 * y, y, 0.105, 0.034)
    if style == "streaked":
        return _dots(x * 0.45 + 0.3 * y, y - 0.25 * x, 0.068, 0.021)
    return np.full(x.shape, style == "dark")


def _lines(phase: Floats, share: float) -> Floats:
    """Returns 1 on lines one apart, each as wide as a share of the period, else 0."""
    return (phase - np.floor(phase) < share).astype(np.float32)


def _dots(u: Floats, v: Floats, period: float, radius: float) -> Mask:
    """Returns round marks in staggered rows."""
    row = np.floor(v / period)
    column = u / period + 0.5 * (row - 2 * np.floor(row / 2))
    du = column - np.floor(column) - 0.5
    dv = v / period - row - 0.5
    return np.square(du) + np.square(dv) < (radius / period) ** 2


def _tail_widening(style: str) -> float:
    """Returns how fast a tail widens, so that its feathers follow its outline."""
    return {"fan": 0.75, "forked": 0.35, "streamer": -0.02}.get(style, 0.1)


def _tail_marks(u: Floats, v: Floats, style: str) -> Mask:
    """Returns where a tail is pale."""
    if style == "banded":
        return _lines((u - 0.05) / 0.16, 0.44) > 0
    if style == "fan":
        return np.hypot(u, 0.9 * v) > 0.53
    return np.zeros(u.shape, bool)


def _across_wing(u: Floats, v: Floats) -> Floats:
    """Returns a wing's coordinate across its feathers, 0 at the upper edge, 1 at the lower."""
    top = -0.16 + 0.24 * np.clip(u, 0, None) ** 1.3
    width = np.clip(0.36 - 0.34 * u, 0.05, None)
    return (v - top) / width


def _wing_relief(u: Floats, across: Floats) -> Floats:
    """Returns a wing's brightness: rows of coverts in front, flight feathers behind."""
    quills = 1 - 0.32 * _lines(across * 5 + 0.4 * u, 0.16)
    fringe = across * 6
    scallop = np.abs(fringe - np.floor(fringe) - 0.5)
    row = (u + 0.05 * scallop) / 0.105
    coverts = 0.86 + 0.24 * (row - np.floor(row))
    rounded = 1.08 - 0.28 * np.clip(across - 0.25, 0, 1)
    return np.where(u > 0.40, quills, coverts) * rounded


def _wing_bar(u: Floats, v: Floats, across: Floats, style: str) -> Mask:
    """Returns where a folded wing is pale."""
    if style == "patch":
        return (np.abs(u - 0.54) < 0.17) & (np.abs(across - 0.60) < 0.34)
    scallop = np.abs(across * 5 - np.floor(across * 5) - 0.5)
    along = u + 0.35 * v + 0.025 * scallop
    middles = {"single": (0.43,), "double": (0.23, 0.43)}.get(style, ())
    bars = np.zeros(u.shape, bool)
    for middle in middles:
        bars |= np.abs(along - middle) < 0.040
    return bars
