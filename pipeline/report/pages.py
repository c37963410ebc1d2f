"""Self-contained HTML pages from templates: a page loads no other files."""

import base64
import hashlib
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import jinja2
from PIL import Image

from pipeline.masks.masks import NO_PART
from pipeline.report.drawing import QUALITY, data_uri, web_colour
from pipeline.report.heatmaps import RAMP
from pipeline.saliency.margin import signed
from pipeline.saliency.prototypes import figure


class Picture(NamedTuple):
    """An image element.

    Args:
        src: the picture as a data URI.
        width, height: the picture's size in pixels.
        alt: what it shows, in words.
    """

    src: str
    width: int
    height: int
    alt: str


def picture(image: Image.Image, alt: str, quality: int = QUALITY) -> Picture:
    """Returns a picture as an image element.

    Args:
        image: the picture to embed, in mode RGB.
        alt: what it shows, in words.
        quality: quality of the WebP compression, 0..100.
    """
    return Picture(data_uri(image, quality), image.width, image.height, alt)


def write_page(path: Path, template: str, **values: Any) -> None:
    """Fills a template of this package and writes the page; the same values give the same bytes.

    Args:
        path: path of the HTML file.
        template: file name of the template.
        **values: the template's variables, by name.
    """
    with path.open("wb") as file:
        _templates().get_template(template).stream(**values).dump(file, encoding="utf-8")


def page_templates(*folders: Path) -> jinja2.Environment:
    """Returns the template environment of this package and of further folders.

    Args:
        *folders: further template folders, which take precedence over this package's.
    """
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader([*folders, Path(__file__).parent / "templates"]),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters["figure"] = figure
    environment.filters["signed"] = signed
    environment.filters["picture"] = picture
    environment.filters["web_colour"] = web_colour
    environment.globals["no_part"] = NO_PART
    environment.globals["ramp"] = ", ".join(web_colour(colour) for colour in RAMP)
    environment.filters["csp_hash"] = csp_hash
    environment.filters["capitalize_first"] = lambda text: text[:1].upper() + text[1:]
    return environment


def csp_hash(script: str) -> str:
    """Returns the hash by which a Content-Security-Policy allows an inline script, and no other."""
    digest = hashlib.sha256(script.encode("utf-8")).digest()
    return "sha256-" + base64.b64encode(digest).decode("ascii")


@cache
def _templates() -> jinja2.Environment:
    return page_templates()
