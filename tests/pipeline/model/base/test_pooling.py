"""Pooling over the box and over the mask, with numbers worked out by hand."""

import pytest
import torch

from pipeline.model.base.pooling import cell_weights, pooled

# Two features of 2×2 cells.
MAP = torch.tensor([[[[1.0, 2.0], [3.0, 4.0]], [[10.0, 0.0], [0.0, 30.0]]]])
# Of the cells of 2×2 pixels: all of the first, half of the second, none of the third, a quarter of
# the fourth.
INSIDE = torch.tensor([[[1, 1, 1, 0], [1, 1, 1, 0], [0, 0, 1, 0], [0, 0, 0, 0]]]) > 0


def test_a_cell_weighs_as_much_as_it_has_of_the_mask() -> None:
    weights = cell_weights(INSIDE, 2, 2)
    assert weights.shape == (1, 1, 2, 2) and weights.dtype == torch.float32
    # Shares 1, ½, 0, ¼ of a sum of 1¾.
    expected = torch.tensor([[4.0, 2.0], [0.0, 1.0]]) / 7
    torch.testing.assert_close(weights[0, 0], expected)
    # (4·1 + 2·2 + 1·4)/7 and (4·10 + 1·30)/7
    torch.testing.assert_close(pooled([MAP], INSIDE), torch.tensor([[12 / 7, 10.0]]))


def test_the_box_has_the_same_weight_everywhere() -> None:
    assert pooled([MAP], None).tolist() == [[2.5, 10.0]]
    assert torch.equal(pooled([MAP], torch.ones(1, 4, 4) > 0), pooled([MAP], None))


def test_maps_of_several_stages_stand_side_by_side() -> None:
    fine = torch.arange(16.0).view(1, 1, 4, 4)
    # One cell a pixel: 0, 1, 2, 4, 5, 6 and 10 are inside.
    expected = torch.tensor([[28 / 7, 12 / 7, 10.0]])
    torch.testing.assert_close(pooled([fine, MAP], INSIDE), expected)
    assert pooled([fine, MAP], None).tolist() == [[7.5, 2.5, 10.0]]


def test_a_mask_that_was_warped_weighs_by_its_mean() -> None:
    inside = torch.tensor([[[0.5, 0.5], [0.25, 0.0]]])
    expected = torch.tensor([[0.4, 0.4], [0.2, 0.0]])
    torch.testing.assert_close(cell_weights(inside, 2, 2)[0, 0], expected)


@pytest.mark.parametrize("side", [7, 20])
def test_cells_that_do_not_divide_the_side(side: int) -> None:
    inside = torch.rand(3, side, side, generator=torch.Generator().manual_seed(0)) < 0.3
    weights = cell_weights(inside, 3, 3)
    torch.testing.assert_close(weights.sum((1, 2, 3)), torch.ones(3))


def test_a_mask_without_a_pixel_leaves_all_cells() -> None:
    """A line that is thinner than half a pixel of its crop has none there."""
    inside = torch.stack([INSIDE[0], torch.zeros(4, 4) > 0])
    found = pooled([MAP.expand(2, -1, -1, -1)], inside)
    torch.testing.assert_close(found, torch.tensor([[12 / 7, 10.0], [2.5, 10.0]]))
