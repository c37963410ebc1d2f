"""Draws a bird from its pose, its colours and the style of each part.

Lengths are in body lengths (breast to rump); the body's frame points forward and down, the head's
likewise, the wing's and the tail's backward and down.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

from pipeline.datasets.demo.canvas import Canvas, Floats, Frame, Patch, smooth
from pipeline.datasets.demo.classes import PARTS
from pipeline.datasets.demo.scene import Plumage, Pose

Points = NDArray[np.float64]
Mask = NDArray[np.bool_]

HEAD = (0.43, -0.27)
WING_JOINT = (0.24, -0.10)
TAIL_JOINT = (-0.50, -0.01)
PERCH_DEPTH = 0.43
"""How far the perch lies under the body's centre."""

# Outlines, as control points of `smooth`.
WING = (
    (-0.06, 0.01),
    (-0.01, -0.11),
    (0.16, -0.16),
    (0.42, -0.12),
    (0.70, -0.03),
    (0.94, 0.06),
    (0.94, 0.06),
    (0.72, 0.12),
    (0.46, 0.20),
    (0.20, 0.21),
    (0.02, 0.13),
)
TAILS = {
    "square": ((0, -0.07), (0.25, -0.08), (0.52, -0.11), (0.52, -0.11), (0.55, 0.10), (0.55, 0.10),
               (0.25, 0.07), (0, 0.07)),
    "banded": ((0, -0.07), (0.25, -0.09), (0.58, -0.12), (0.64, 0.0), (0.58, 0.12), (0.25, 0.09),
               (0, 0.07)),
    "forked": ((0, -0.07), (0.25, -0.09), (0.50, -0.18), (0.80, -0.31), (0.80, -0.31),
               (0.55, -0.08), (0.34, 0.0), (0.34, 0.0), (0.55, 0.08), (0.80, 0.31), (0.80, 0.31),
               (0.50, 0.18), (0.25, 0.09), (0, 0.07)),
    "fan": ((0, -0.07), (0.12, -0.11), (0.34, -0.30), (0.50, -0.36), (0.60, -0.20), (0.66, 0.0),
            (0.60, 0.20), (0.50, 0.36), (0.34, 0.30), (0.12, 0.11), (0, 0.07)),
    "streamer": ((0, -0.07), (0.3, -0.07), (0.7, -0.055), (1.02, -0.01), (1.02, -0.01),
                 (0.7, 0.045), (0.3, 0.06), (0, 0.07)),
}  # fmt: skip
BEAKS = {
    "cone": ((0.10, -0.085), (0.19, -0.075), (0.32, 0.015), (0.32, 0.015), (0.20, 0.075),
             (0.10, 0.085)),
    "needle": ((0.10, -0.05), (0.20, -0.035), (0.52, 0.005), (0.52, 0.005), (0.20, 0.04),
               (0.10, 0.05)),
    "curved": ((0.10, -0.06), (0.22, -0.06), (0.38, -0.01), (0.50, 0.15), (0.50, 0.15),
               (0.36, 0.06), (0.20, 0.05), (0.10, 0.06)),
    "hooked": ((0.10, -0.10), (0.24, -0.11), (0.36, -0.03), (0.35, 0.10), (0.35, 0.10),
               (0.30, 0.05), (0.18, 0.09), (0.10, 0.09)),
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
        stand: upright, at the body's centre; feet and perch are placed in it.
        body, head, wing, tail, crest: each part's own.
    """

    stand: Frame
    body: Frame
    head: Frame
    wing: Frame
    tail: Frame
    crest: Frame

    @classmethod
    def of(cls, pose: Pose) -> "Skeleton":
        """Places the frames of a pose."""
        size = pose.size
        stand = Frame.of_image().child((pose.x, pose.y), scale=(size * pose.facing, size))
        body = stand.child((0, 0), pose.body)
        head = body.child(HEAD, pose.head - 0.5 * pose.body)
        wing = body.child(WING_JOINT, pose.wing, (-1, 1))
        tail = body.child(TAIL_JOINT, pose.tail, (-1, 1))
        return cls(stand, body, head, wing, tail, head.child((0, 0), pose.crest))


class Feathers:
    """The fine streaks of a plumage, fixed before any part is drawn."""

    EXTENT = (-1.2, -1.2, 1.2, 1.2)

    def __init__(self, rng: np.random.Generator) -> None:
        streaks = rng.standard_normal((120, 40), dtype=np.float32)
        mottle = rng.standard_normal((26, 26), dtype=np.float32)
        self.streaks, self.mottle = streaks, mottle

    def on(self, patch: Patch, frame: Frame) -> Floats:
        """Returns brightness factors around 1 at a patch's samples, H×W×1."""
        fine = patch.texture(frame, self.streaks, self.EXTENT)
        soft = patch.texture(frame, self.mottle, self.EXTENT)
        return (1 + 0.05 * fine + 0.035 * soft)[..., None]

    def ragged(self, patch: Patch, frame: Frame) -> Floats:
        """Returns small shifts, in local lengths, that fray the edge of a colour. H×W."""
        return 0.012 * patch.texture(frame, self.streaks, self.EXTENT)


class Bird:
    """One bird on a canvas.

    Args:
        canvas: where it is drawn.
        pose, plumage: see `scene`.
        styles: the style of each part that varies.
        light: (2,), where light comes from.
        feathers: fine texture.
    """

    def __init__(
        self,
        canvas: Canvas,
        pose: Pose,
        plumage: Plumage,
        styles: Mapping[str, str],
        light: Floats,
        feathers: Feathers,
    ) -> None:
        self.canvas, self.pose, self.plumage, self.styles = canvas, pose, plumage, styles
        self.light, self.feathers = light, feathers
        self.frames = Skeleton.of(pose)

    def draw(self) -> None:
        """Draws all parts, from the hindmost to the foremost."""
        self._legs()
        self._tail()
        self._crest()
        self._beak()
        self._body()
        self._wing()
        self._eye()

    def _legs(self) -> None:
        owner, stand = owner_of("legs"), self.frames.stand
        for offset, bright in ((-0.05, 0.72), (0.06, 1.0)):
            foot = self.pose.stance + offset
            colour = self.plumage.leg * np.float32(bright)
            shin = [(foot - 0.06, 0.1), (foot - 0.01, 0.1), (foot + 0.015, PERCH_DEPTH),
                    (foot - 0.015, PERCH_DEPTH)]  # fmt: skip
            self._fill(stand.to_image(shin), colour, owner)
            for toe in (-0.075, 0.03, 0.085):
                tip = (foot + toe, PERCH_DEPTH + 0.035)
                claw = [(foot - 0.02, PERCH_DEPTH - 0.025), (foot + 0.02, PERCH_DEPTH - 0.02),
                        tip, (tip[0] - 0.03, tip[1])]  # fmt: skip
                self._fill(stand.to_image(smooth(claw, 2)), colour, owner)

    def _tail(self) -> None:
        style, frame = self.styles["tail"], self.frames.tail
        patch = self.canvas.polygon(frame.to_image(_outline("tail", style)))
        u, v = patch.local(frame)
        spread = v / (0.06 + np.abs(_spread(style) * u) + 1e-6)
        colour = self.plumage.tail * (1 - 0.30 * _lines(spread * 2.5, 0.14))[..., None]
        colour = colour * (1.05 - 0.3 * np.clip(spread, -1, 1) ** 2)[..., None]
        light = self.plumage.light
        if style == "banded":
            colour = np.where(((u - 0.05) % 0.16 < 0.07)[..., None], light * 0.95, colour)
        elif style == "fan":
            rim = np.hypot(u, v * 0.9)
            colour = np.where((rim > 0.53)[..., None], light * 0.95, colour)
        self._paint(patch, frame, colour, "tail")

    def _crest(self) -> None:
        frame = self.frames.crest
        for outline in _crest_outlines(self.styles["crown"]):
            patch = self.canvas.polygon(frame.to_image(outline))
            u, v = patch.local(frame)
            ribs = _lines((u - 0.6 * v) * 16, 0.25)
            colour = self._crown_colour() * (1 - 0.22 * ribs)[..., None]
            self._paint(patch, frame, colour, "crown")

    def _crown_colour(self) -> Floats:
        style = self.styles["crown"]
        return self.plumage.dark if style in ("cap", "plume") else self.plumage.crown

    def _beak(self) -> None:
        frame = self.frames.head
        patch = self.canvas.polygon(frame.to_image(_outline("beak", self.styles["beak"])))
        u, v = patch.local(frame)
        gape = v - 0.012 - (0.9 * np.square(u - 0.1) if self.styles["beak"] == "curved" else 0)
        tone = 1.12 - 2.2 * np.abs(v + 0.02) - 0.2 * (gape > 0)
        tone = np.where(np.abs(gape) < 0.009, 0.55, tone)
        self.canvas.paint(patch, self.plumage.beak * tone[..., None], owner_of("beak"))

    def _body(self) -> None:
        canvas, body, head = self.canvas, self.frames.body, self.frames.head
        patch = canvas.box(
            body.to_image([(-0.65, -0.65), (0.75, -0.65), (0.75, 0.4), (-0.65, 0.4)])
        )
        x, y = patch.local(body)
        p, q = patch.local(head)
        trunk, skull = _trunk(x, y, self.pose.depth), _skull(p, q)
        surface = _blend(trunk, skull, 0.16)
        patch = patch.only(surface < 0)
        ragged = self.feathers.ragged(patch, body)
        regions = _regions(x, y, p, q, skull - trunk, ragged)
        relief = self._relief(surface)
        texture = self.feathers.on(patch, body)
        for part, mask in regions.items():
            colour = self._body_colour(part, x, y, p, q)
            canvas.paint(patch.only(mask), colour * relief * texture, owner_of(part))

    def _body_colour(self, part: str, x: Floats, y: Floats, p: Floats, q: Floats) -> Floats:
        plumage, style = self.plumage, self.styles.get(part)
        if part == "crown":
            return self._crown_colour()
        base: Floats = getattr(plumage, part)
        if style in (None, "plain"):
            return base
        dark = plumage.dark
        if part == "throat":
            return dark
        if part == "belly":
            marks = _lines((x + 0.25 * y) * 11, 0.30) > 0
        elif style == "spotted":
            marks = _dots(x + 0.3 * y, y, 0.105, 0.034)
        elif style == "streaked":
            marks = _dots(x * 0.45 + 0.3 * y, y - 0.25 * x, 0.068, 0.021)
        else:
            marks = np.abs(x + 0.35 * y - 0.30) < 0.065
        return np.where(marks[..., None], dark, base)

    def _relief(self, surface: Floats) -> Floats:
        """Shades a rounded body: brighter towards the light, darker at its rim. H×W×1."""
        height = np.sqrt(np.clip(-surface, 0, 0.16))
        dy, dx = np.gradient(height)
        per_length = self.pose.size * 3
        facing = -(dx * self.light[0] + dy * self.light[1]) * per_length
        shade = 0.98 + 0.16 * np.tanh(-facing * 0.9)
        return np.clip(shade * (0.72 + 0.9 * height), 0.45, 1.2)[..., None].astype(np.float32)

    def _wing(self) -> None:
        canvas, frame = self.canvas, self.frames.wing
        outline = _outline("wing", "folded")
        for drop in (0.035, 0.018):
            below = np.array([0, drop * self.pose.size])
            shadow = canvas.polygon(frame.to_image(outline) + below)
            canvas.shade(self._on_body(shadow), 0.84)
        patch = canvas.polygon(frame.to_image(outline))
        u, v = patch.local(frame)
        colour = self.plumage.wing * _wing_relief(u, v)[..., None]
        if self.styles["wing"] == "spangled":
            spots = _dots(u, v, 0.12, 0.036)
            colour = np.where(spots[..., None], self.plumage.light, colour)
        self._paint(patch, frame, colour, "wing")
        bar = patch.only(_wing_bar(u, v, self.styles["wing bar"]))
        gloss = (1.0 - 0.25 * _lines(_quill(u, v) * 5, 0.12))[..., None]
        self._paint(bar, frame, self.plumage.light * gloss, "wing bar")

    def _on_body(self, patch: Patch) -> Patch:
        owners = self.canvas.owner[patch.window]
        names = ("breast", "belly", "back", "cheek", "throat")
        return patch.only(np.isin(owners, [owner_of(name) for name in names]))

    def _eye(self) -> None:
        frame, owner = self.frames.head, owner_of("eye")
        lens = frame.child((0.065, -0.035))
        ring = _blend_colour(self.plumage.cheek, self.plumage.light, 0.6)
        black = np.full(3, 0.03, np.float32)
        for radius, colour in ((0.056, ring), (0.045, self.plumage.iris), (0.031, black)):
            self._fill(lens.to_image(_circle(radius)), colour, owner)
        glint = self.light * 0.02 * self.pose.size
        spot = lens.to_image(_circle(0.013)) + glint
        self._fill(spot, np.ones(3, np.float32), owner)

    def _fill(self, points: Points, colour: Floats, owner: int) -> None:
        self.canvas.paint(self.canvas.polygon(points), colour, owner)

    def _paint(self, patch: Patch, frame: Frame, colour: Floats, part: str) -> None:
        self.canvas.paint(patch, colour * self.feathers.on(patch, frame), owner_of(part))


def owner_of(part: str) -> int:
    """Returns a part's number in label maps: its place in `PARTS`, from 1."""
    return PARTS.index(part) + 1


@cache
def _outline(part: str, style: str) -> Points:
    outlines = {"wing": {"folded": WING}, "tail": TAILS, "beak": BEAKS}
    return smooth(outlines[part][style])


@cache
def _crest_outlines(style: str) -> tuple[Points, ...]:
    return tuple(smooth(controls) for controls in CRESTS.get(style, ()))


@cache
def _circle(radius: float) -> Points:
    turn = np.linspace(0, 2 * np.pi, 24, endpoint=False)
    return radius * np.stack([np.cos(turn), np.sin(turn)], 1)


def _trunk(x: Floats, y: Floats, depth: float) -> Floats:
    """Returns a field that is negative inside the body and its taper towards the tail."""
    egg = 0.27 * (np.hypot(x / 0.45, y / (0.26 * depth)) - 1)
    along = np.clip((-0.15 - x) / 0.45, 0, 1)
    taper = np.hypot(x + 0.15 + 0.45 * along, y + 0.02) - (0.20 - 0.135 * along)
    return _blend(egg, taper, 0.08)


def _skull(p: Floats, q: Floats) -> Floats:
    """Returns a field that is negative inside the head."""
    return 0.18 * (np.hypot(p / 0.195, q / 0.175) - 1)


def _blend(first: Floats, second: Floats, width: float) -> Floats:
    """Returns the union of two fields, rounded where they meet."""
    near = np.clip(width - np.abs(first - second), 0, None)
    return np.minimum(first, second) - near * near / (4 * width)


def _blend_colour(first: Floats, second: Floats, share: float) -> Floats:
    return first + (second - first) * np.float32(share)


def _regions(
    x: Floats, y: Floats, p: Floats, q: Floats, headness: Floats, ragged: Floats
) -> dict[str, Mask]:
    """Divides the body's surface into parts; every sample belongs to one. Each H×W."""
    crown = (q + 0.25 * np.minimum(p + 0.02, 0) < -0.055 + ragged) & (headness < 0.06)
    throat = (np.hypot((p - 0.08) / 0.17, (q - 0.19) / 0.15) < 1 + 5 * ragged) & (q > 0.04)
    cheek = headness + ragged < 0
    breast = x + 0.45 * y + 2 * ragged > 0.13
    belly = y + ragged > -0.02
    regions = {}
    free = np.ones(x.shape, bool)
    for part, mask in (
        ("crown", crown),
        ("throat", throat),
        ("cheek", cheek),
        ("breast", breast),
        ("belly", belly),
    ):
        regions[part] = free & mask
        free = free & ~mask
    return {**regions, "back": free}


def _lines(phase: Floats, share: float) -> Floats:
    """Returns 1 on lines one apart, each as wide as a share of the period, else 0."""
    return ((phase % 1.0) < share).astype(np.float32)


def _dots(u: Floats, v: Floats, period: float, radius: float) -> Mask:
    """Returns round marks in staggered rows."""
    row = np.floor(v / period)
    du = (u / period + 0.5 * (row % 2)) % 1.0 - 0.5
    dv = v / period - row - 0.5
    return np.hypot(du, dv) < radius / period


def _spread(style: str) -> float:
    """Returns how fast a tail widens, so that its feathers' edges follow its outline."""
    return {"fan": 0.75, "forked": 0.32, "streamer": -0.02}.get(style, 0.1)


def _quill(u: Floats, v: Floats) -> Floats:
    """Returns a wing's coordinate across its feathers, 0 at the upper edge, 1 at the lower."""
    top = -0.16 + 0.24 * np.clip(u, 0, None) ** 1.3
    width = np.clip(0.36 - 0.34 * u, 0.05, None)
    return (v - top) / width


def _wing_relief(u: Floats, v: Floats) -> Floats:
    """Returns a wing's brightness: rows of coverts in front, flight feathers behind."""
    across = _quill(u, v)
    quills = np.where(u > 0.40, 1 - 0.32 * _lines(across * 5 + 0.4 * u, 0.16), 1.0)
    scallop = np.abs((across * 6) % 1.0 - 0.5)
    rows = ((u + 0.05 * scallop) % 0.105) / 0.105
    coverts = np.where(u <= 0.40, 0.86 + 0.24 * rows, 1.0)
    rounded = 1.08 - 0.28 * np.clip(across - 0.25, 0, 1)
    return (quills * coverts * rounded).astype(np.float32)


def _wing_bar(u: Floats, v: Floats, style: str) -> Mask:
    """Returns where a folded wing is pale."""
    scallop = 0.025 * np.abs((_quill(u, v) * 5) % 1.0 - 0.5)
    along = u + 0.35 * v + scallop
    first = np.abs(along - 0.43) < 0.042
    if style == "single":
        return first
    if style == "double":
        return first | (np.abs(along - 0.23) < 0.036)
    if style == "patch":
        return (np.abs(u - 0.56) < 0.15) & (np.abs(_quill(u, v) - 0.62) < 0.30)
    return np.zeros(u.shape, bool)
