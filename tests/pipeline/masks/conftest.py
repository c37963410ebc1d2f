"""Masks made of nothing but numbers, and how to compare two images' masks."""

from collections.abc import Callable

import numpy as np
import pytest

from pipeline.masks.masks import Masks, Region


@pytest.fixture(scope="session")
def make_masks() -> Callable[..., Masks]:
    """Draws `count` random masks in an image of 30×40, of any part, level and ground."""

    def make(seed: int, count: int = 5, height: int = 30, width: int = 40) -> Masks:
        random = np.random.default_rng(seed)
        regions = [
            Region(
                int(random.integers(0, width - 12)),
                int(random.integers(0, height - 12)),
                random.random((12, 12)) < 0.7,
                (float(random.random()),),
                int(random.integers(-1, 50)),
                int(random.integers(0, 3)),
                bool(random.random() < 0.5),
            )
            for _ in range(count)
        ]
        return Masks.of(height, width, regions, 1)

    return make


@pytest.fixture(scope="session")
def same_masks() -> Callable[[Masks, Masks], bool]:
    def same(one: Masks, other: Masks) -> bool:
        return (
            (one.height, one.width) == (other.height, other.width)
            and list(one.counts) == list(other.counts)
            and all(
                np.array_equal(getattr(one, name), getattr(other, name))
                and getattr(one, name).dtype == getattr(other, name).dtype
                for name in ("boxes", "areas", "scores", "parts", "levels", "foreground")
            )
        )

    return same
