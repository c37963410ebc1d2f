"""A hook of MkDocs: takes files from outside docs/ into the site, and points links at them.

Links stand in the pages as they are in the repository, where GitHub follows them.
"""

import posixpath
import re

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

PLACES = {
    "README.md": "index.md",
    "CONTRIBUTING.md": "contributing.md",
    "CITATION.cff": "CITATION.cff",
    "LICENSE": "LICENSE",
    "notebooks/explain.ipynb": "explain.ipynb",
}
"""Where a file of the repository lies in the site."""
FENCED = re.compile(r"(^```.*?^```$)", re.DOTALL | re.MULTILINE)
LINK = re.compile(r"(?<=\]\()(?!\w+:|#)([^)#\s]+)")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Adds the files from outside docs/."""
    root = posixpath.dirname(config.config_file_path)
    for name, place in PLACES.items():
        files.append(File.generated(config, place, abs_src_path=posixpath.join(root, name)))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Points a page's links at where their files lie in the site."""
    names = {place: name for name, place in PLACES.items()}
    folder = posixpath.dirname(names.get(page.file.src_uri, f"docs/{page.file.src_uri}"))
    parts = FENCED.split(markdown)
    parts[::2] = [LINK.sub(lambda link: _in_site(folder, link[1]), part) for part in parts[::2]]
    return "".join(parts)


def _in_site(folder: str, target: str) -> str:
    """Returns a link's target, relative to a folder of the repository, as the site has it."""
    name = posixpath.normpath(posixpath.join(folder, target))
    return PLACES.get(name, name.removeprefix("docs/"))
