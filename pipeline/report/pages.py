"""Pages: HTML from templates, each a file of its own that fetches nothing."""

from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import jinja2
from PIL import Image

from pipeline.report.drawing import QUALITY, data_uri, web_colour
from pipeline.report.heatmaps import RAMP
from pipeline.saliency.prototypes import figure


class Picture(NamedTuple):
    """An image element: data URI, size in pixels, and what it shows in words."""

    src: str
    width: int
    height: int
    alt: str


def picture(image: Image.Image, alt: str, quality: int = QUALITY) -> Picture:
    return Picture(data_uri(image, quality), image.width, image.height, alt)


def write_page(path: Path, template: str, **values: Any) -> None:
    """Fills a template of this folder and writes the page; the same values give the same bytes."""
    with path.open("wb") as file:
        _templates().get_template(template).stream(**values).dump(file, encoding="utf-8")


def page_templates(*folders: Path) -> jinja2.Environment:
    """Returns what fills the templates of this folder, and those of others that stand on them."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader([*folders, Path(__file__).parent / "templates"]),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters["figure"] = figure
    environment.globals["ramp"] = ", ".join(web_colour(colour) for colour in RAMP)
    environment.filters["capitalize_first"] = lambda text: text[:1].upper() + text[1:]
    return environment


@cache
def _templates() -> jinja2.Environment:
    return page_templates()
