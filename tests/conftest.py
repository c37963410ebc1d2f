"""What tests of several folders share: tiny photographs, and where the real ones are."""

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import settings
from numpy.typing import NDArray
from PIL import Image as Pillow

from pipeline.datasets.index import ImageFiles
from pipeline.datasets.listing import list_files
from pipeline.datasets.prepare import build_index
from pipeline.workers import share_cores

# Before PyTorch is imported: pytest-xdist runs tests beside each other.
share_cores(int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1")))

pytest_plugins = ["browsers", "finished_runs", "tiny_experiment"]

REPOSITORY = Path(__file__).parents[1]
SHARED_DATA = REPOSITORY.parent / "shared" / "data"

# A busy machine's first call into a library takes longer than Hypothesis' default deadline.
settings.register_profile("no deadline", deadline=None, max_examples=40)
settings.load_profile("no deadline")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begins with files that have slow tests: at the end no process has a long one to itself."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The real photographs, which are not part of the repository."""
    if not SHARED_DATA.is_dir():
        pytest.skip(f"no real photographs at {SHARED_DATA}")
    return SHARED_DATA


def draw_photograph(seed: int, width: int = 40, height: int = 30) -> NDArray[np.uint8]:
    """Returns a picture of a few flat rectangles and some noise, H×W×3."""
    random = np.random.default_rng(seed)
    pixels = np.full((height, width, 3), random.integers(0, 256, 3), np.uint8)
    for _ in range(4):
        x0, y0 = random.integers(0, width // 2), random.integers(0, height // 2)
        x1, y1 = random.integers(x0 + 2, width), random.integers(y0 + 2, height)
        pixels[y0:y1, x0:x1] = random.integers(0, 256, 3)
    return (pixels // 2 + random.integers(0, 9, pixels.shape)).astype(np.uint8)


@pytest.fixture(scope="session")
def make_photographs() -> Callable[..., Path]:
    """Fills a folder with one folder a class of small PNG photographs; returns it."""

    def make(root: Path, classes: int = 2, per_class: int = 5, **size: int) -> Path:
        for label in range(classes):
            folder = root / f"class {label}"
            folder.mkdir(parents=True)
            for number in range(per_class):
                pixels = draw_photograph(1000 * label + number, **size)
                Pillow.fromarray(pixels).save(folder / f"{number:03d}.png")
        return root

    return make


@pytest.fixture
def photograph_folder(tmp_path: Path, make_photographs: Callable[..., Path]) -> Path:
    """Two classes of five photographs, 40×30 pixels each."""
    return make_photographs(tmp_path / "photographs")


@pytest.fixture(scope="session")
def image_files_in() -> Callable[[Path], ImageFiles]:
    """Lists a folder of photographs, as `prepare` does."""

    def read(root: Path) -> ImageFiles:
        return build_index("folder", root, list_files(root), threads=1)[0].image_files

    return read
