"""A finished experiment in a clone of the repository, made once for the tests of all files."""

from pathlib import Path

import pytest
from clones import Clone
from finished_runs import once


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory, photographs: Path) -> Clone:
    """A clone in which `dvc repro` has run once; not to be changed."""

    def make(folder: Path) -> None:
        Clone(folder, photographs).make().run("dvc", "repro")

    return Clone(once(tmp_path_factory, "finished", make), photographs)


@pytest.fixture
def clone(tmp_path: Path, finished: Clone) -> Clone:
    """A copy of the finished clone, to do anything with."""
    return finished.copy(tmp_path / "clone")
