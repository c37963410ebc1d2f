"""The pages as a site: built without a warning, every link leads somewhere, nothing is fetched."""

import os
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
from pages import REPOSITORY

pytest.importorskip("mkdocs", reason="MkDocs is not installed: `pip install -e '.[docs]'`")
pytestmark = pytest.mark.slow


class Page(HTMLParser):
    """What a page links to, what it loads, and where it can be linked to."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.links: list[str] = []
        self.loaded: list[str] = []
        self.names = {""}
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self.names.add(given.get("id") or given.get("name") or "")
        if tag == "a" and given.get("href"):
            self.links.append(given["href"] or "")
        elif tag in ("img", "script", "link") and (given.get("src") or given.get("href")):
            self.loaded.append(given.get("src") or given.get("href") or "")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)],
        cwd=REPOSITORY,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture(scope="module")
def pages(site: Path) -> dict[Path, Page]:
    found = {path: Page(path) for path in site.glob("*.html") if path.name != "404.html"}
    assert len(found) > 15
    return found


def test_every_link_and_anchor_leads_somewhere(pages: dict[Path, Page]) -> None:
    broken, followed = [], 0
    for path, page in pages.items():
        for link in page.links:
            parts = urlsplit(link)
            if parts.scheme:
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            known = target in pages and unquote(parts.fragment) in pages[target].names
            broken += [] if known or (target not in pages and target.is_file()) else [(path, link)]
            followed += 1
    assert followed > 1000
    assert broken == []


def test_nothing_is_fetched_from_elsewhere(pages: dict[Path, Page]) -> None:
    for path, page in pages.items():
        assert len(page.loaded) > 2
        assert [name for name in page.loaded if urlsplit(name).netloc] == []
        missing = [name for name in page.loaded if not (path.parent / urlsplit(name).path).exists()]
        assert missing == []


def test_docstrings_are_there(site: Path) -> None:
    assert "A finished model that answers questions about images" in _text(site, "api.html")
    components = _text(site, "components.html")
    for name in ("Segmenter", "PrototypeNetwork", "Head", "MetricGroup", "DataSet"):
        assert f'.{name}"' in components


def _text(site: Path, name: str) -> str:
    return (site / name).read_text(encoding="utf-8")
