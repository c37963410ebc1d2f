"""What GitHub shows: links of pages lead to files and headings, and the picture is true."""

import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree

from pages import PAGES, REPOSITORY, without_blocks

LINK = re.compile(r"\]\((?!\w+:)([^)#\s]*)(?:#([^)\s]+))?\)")
HEADING = re.compile(r"^#+ (.+)$", re.MULTILINE)


def _links() -> Iterator[tuple[Path, Path, str | None]]:
    """Yields page, the file that it links to, and the heading's name there."""
    for page in PAGES:
        for link in LINK.finditer(without_blocks(page.read_text(encoding="utf-8"))):
            yield page, (page.parent / link[1]).resolve() if link[1] else page, link[2]


def _names(page: Path) -> set[str]:
    """Returns the names that GitHub gives to a page's headings."""
    text = without_blocks(page.read_text(encoding="utf-8"))
    plain = [re.sub(r"[^\w\- ]", "", heading.lower()) for heading in HEADING.findall(text)]
    return {heading.replace(" ", "-") for heading in plain}


def test_every_link_leads_to_a_file_and_a_heading() -> None:
    links = list(_links())
    assert len(links) > 90
    assert [(page, target) for page, target, _ in links if not target.exists()] == []
    headings = [(page, target, name) for page, target, name in links if name is not None]
    assert len(headings) > 20
    assert [link for link in headings if link[2] not in _names(link[1])] == []


def test_every_page_can_be_found() -> None:
    linked = {target for page, target, _ in _links() if target != page}
    assert {*PAGES[1:]} - linked == set()


def test_the_picture_has_the_layers_that_are_checked() -> None:
    settings = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))
    (contract,) = settings["tool"]["importlinter"]["contracts"]
    layers = [layer.split(" | ") for layer in contract["layers"]]
    picture = ElementTree.parse(REPOSITORY / "docs" / "layers.svg").getroot()
    rows = [text for text in picture.iterfind(".//{*}text") if text.get("class") == "layer"]
    drawn = [(float(row.get("y", "")), re.split(r" · ", row.text or "")) for row in rows]
    assert [names for _, names in sorted(drawn)] == layers
