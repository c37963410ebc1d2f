"""No two files import each other, directly or in a longer circle.

Imports inside functions and those that only type checkers follow count, too.
"""

from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import grimp
import pytest


def circle(*packages: str) -> str:
    """Returns a circle among the modules of packages, each importing the next; "" if none."""
    graph = grimp.build_graph(*packages, cache_dir=None)
    imports = {name: graph.find_modules_directly_imported_by(name) for name in graph.modules}
    try:
        TopologicalSorter(imports).prepare()
    except CycleError as error:
        return " → ".join(reversed(error.args[1]))
    return ""


def test_no_circle() -> None:
    assert circle("pipeline", "stages", "commands") == ""


@pytest.mark.parametrize(
    ("last", "found"),
    [
        ("import ring.a", True),
        ("def f():\n    from ring import a", True),
        ("from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from ring.a import x", True),
        ("import ring.d", False),
    ],
)
def test_a_circle_of_three_is_seen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, last: str, found: bool
) -> None:
    ring = tmp_path / "ring"
    ring.mkdir()
    files = {"__init__": "", "a": "import ring.b", "b": "import ring.c", "c": last, "d": ""}
    for name, text in files.items():
        (ring / f"{name}.py").write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    assert bool(said := circle("ring")) == found
    assert not found or set(said.split(" → ")) == {"ring.a", "ring.b", "ring.c"}
