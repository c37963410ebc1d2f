"""The pages for people: README, CONTRIBUTING and those in docs/."""

import re
from pathlib import Path

REPOSITORY = Path(__file__).parents[1]
PAGES = [
    *(REPOSITORY / name for name in ("README.md", "CONTRIBUTING.md")),
    *sorted((REPOSITORY / "docs").glob("*.md")),
]
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
"""A block of code: its language, and its lines."""


def without_blocks(text: str) -> str:
    """Returns a page's text with empty lines in the place of blocks of code."""
    return BLOCK.sub(lambda block: "\n" * block[0].count("\n"), text)
