"""Draws a search for learning rates: validation accuracy over each rate, a dot for each trial.

`python benchmarks/learning_rates.py NAME OUT.svg` after `protomask study tune --name NAME …`.
"""

import math
from pathlib import Path
from typing import Annotated

import optuna
import typer
from optuna.trial import FrozenTrial

from pipeline.files import atomic_file
from pipeline.study import search
from stages.workspace import Workspace

WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 300, 240, 48, 12, 34, 40
RADIUS = 4
INK, FAINT, DOT, BEST = "#1b1b1f", "#8a8a90", "#2f7fb8", "#c0392b"


def main(
    name: Annotated[str, typer.Argument(help="Of the search.")],
    out: Annotated[Path, typer.Argument(help="The drawing, an SVG file.")],
) -> None:
    file = Workspace().cache / "tune" / f"{name}.sqlite"
    study = optuna.load_study(study_name="search", storage=f"sqlite:///{file}")
    trials = [trial for trial in search.ended(study) if search.score_of(trial) is not None]
    rates = [key for key in search.SPACE if key.startswith("lr_") and key in trials[0].params]
    with atomic_file(out) as part:
        part.write_text(drawing(trials, rates), encoding="utf-8")
    print(f"{len(trials)} trials in {out}")


def drawing(trials: list[FrozenTrial], rates: list[str]) -> str:
    """Returns an SVG with a panel for each rate, side by side."""
    scores = [search.score_of(trial) or 0.0 for trial in trials]
    low = math.floor(10 * min(scores)) / 10
    panels = [
        panel(rate, [trial.params[rate] for trial in trials], scores, low, number * WIDTH)
        for number, rate in enumerate(rates)
    ]
    size = f'viewBox="0 0 {WIDTH * len(rates)} {HEIGHT}" width="{WIDTH * len(rates)}"'
    font = 'font-family="sans-serif" font-size="12"'
    body = "\n".join(panels)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" {size} height="{HEIGHT}" {font}>\n'
        f'<rect width="100%" height="100%" fill="#fff"/>\n{body}\n</svg>\n'
    )


def panel(rate: str, values: list[float], scores: list[float], low: float, offset: int) -> str:
    """Returns a panel: dots at (log of the rate, validation accuracy), the best in red."""
    ends = [math.floor(math.log10(min(values))), math.ceil(math.log10(max(values)))]

    def x(value: float) -> float:
        share = (math.log10(value) - ends[0]) / (ends[1] - ends[0])
        return round(offset + LEFT + share * (WIDTH - LEFT - RIGHT), 1)

    def y(score: float) -> float:
        return round(HEIGHT - BOTTOM - (score - low) / (1 - low) * (HEIGHT - TOP - BOTTOM), 1)

    best = scores.index(max(scores))
    dots = [
        f'<circle cx="{x(value)}" cy="{y(score)}" r="{RADIUS}" '
        f'fill="{BEST if place == best else DOT}" fill-opacity="0.75"/>'
        for place, (value, score) in enumerate(zip(values, scores, strict=True))
    ]
    below, left = HEIGHT - BOTTOM, offset + LEFT
    ticks = [
        f'<text x="{x(10.0**power)}" y="{below + 16}" text-anchor="middle" fill="{INK}">'
        f"{10.0**power:g}</text>"
        for power in range(ends[0], ends[1] + 1)
    ]
    levels = [
        f'<line x1="{left}" x2="{offset + WIDTH - RIGHT}" y1="{y(level)}" y2="{y(level)}" '
        f'stroke="{FAINT}" stroke-opacity="0.35"/>'
        f'<text x="{left - 6}" y="{y(level) + 4}" text-anchor="end" fill="{INK}">{level:.2f}</text>'
        for level in (low, (low + 1) / 2, 1.0)
    ]
    title = f'<text x="{left}" y="16" fill="{INK}">validation accuracy over train.{rate}</text>'
    return "\n".join([title, *levels, *ticks, *dots])


if __name__ == "__main__":
    typer.run(main)
