"""A few photographs as sources, and a segmenter that has learned parts from them."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image as Pillow
from settings import parts

from pipeline.files import sha256
from pipeline.masks.segmenter import Machine, Source
from pipeline.masks.segmenters.parts.segmenter import Parts


@pytest.fixture(scope="session")
def as_sources() -> Callable[[Path, Sequence[NDArray[np.uint8]]], list[Source]]:
    """Writes images into a folder."""

    def write(root: Path, images: Sequence[NDArray[np.uint8]]) -> list[Source]:
        names = [f"{number}.png" for number in range(len(images))]
        for name, image in zip(names, images, strict=True):
            Pillow.fromarray(image).save(root / name)
        return [Source(root, name, sha256(root / name)) for name in names]

    return write


@pytest.fixture(scope="session")
def photographs(
    tmp_path_factory: pytest.TempPathFactory, make_photographs: Callable[..., Path]
) -> list[Source]:
    root = make_photographs(tmp_path_factory.mktemp("parts") / "photographs", per_class=3)
    return [
        Source(root, path.relative_to(root).as_posix(), sha256(path))
        for path in sorted(root.rglob("*.png"))
    ]


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="session")
def fitted(photographs: list[Source], cache: Path) -> Parts:
    segmenter = parts().fit(photographs, cache, Machine())
    assert isinstance(segmenter, Parts)
    return segmenter
