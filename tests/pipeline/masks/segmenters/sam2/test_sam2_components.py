"""Small components: by hand, and both ways of finding them against each other."""

import pytest
import torch
from torch import Tensor

from pipeline.masks.segmenters.sam2.components import (
    connected_components,
    small_components,
    spread_numbers,
)


def drawn(*rows: str) -> Tensor:
    return torch.tensor([[[sign == "#" for sign in row] for row in rows]])


MASK = drawn(
    "##....#.",
    "..#...#.",
    "......##",
    "#.......",
    ".....##.",
)


@pytest.mark.parametrize("find", [small_components, spread_numbers])
def test_by_hand(find: object) -> None:
    """Components of 3 (joined at a corner), 4, 1 and 2 pixels."""
    sizes = {1: 1, 2: 3, 3: 6, 4: 10, 5: 10}
    for largest, pixels in sizes.items():
        assert find(MASK, largest).sum() == pixels
    assert torch.equal(find(MASK, 2), drawn("." * 8, "." * 8, "." * 8, "#.......", ".....##."))


@pytest.mark.parametrize("share", [0.05, 0.3, 0.5, 0.95])
@pytest.mark.parametrize("largest", [1, 10])
def test_both_ways_find_the_same(share: float, largest: int) -> None:
    generator = torch.Generator().manual_seed(round(100 * share))
    masks = torch.rand(6, 40, 50, generator=generator) < share
    assert torch.equal(spread_numbers(masks, largest), small_components(masks, largest))


def test_a_long_snake_is_not_small() -> None:
    """A component that the numbers cannot cross in ten steps."""
    rows = ["#" * 30 if row % 4 == 0 else ("." * 29 + "#", "#" + "." * 29)[row // 4 % 2]
            for row in range(20)]  # fmt: skip
    assert not spread_numbers(drawn(*rows), 10).any()


def test_sizes_of_all_components() -> None:
    labels, areas = connected_components(MASK[:, None])
    assert labels.shape == areas.shape == (1, 1, 5, 8)
    assert sorted(areas[areas > 0].tolist()) == [1, 2, 2, 3, 3, 3, 4, 4, 4, 4]
    assert ((labels > 0) == MASK[:, None]).all()
