"""Saliency: masks as they are, and relevance where its crop lies in the image."""

import numpy as np
import pytest
import torch

from pipeline.explain.saliency import MaskSaliency, RelevanceSaliency, resize_mask, strongest

S = 24


class Constant:
    """Relevance that is −1 in each crop's left half and the prototype's number in the right."""

    rule = "prp"

    def __call__(self, crops_nSS3: torch.Tensor, prototypes_n: torch.Tensor) -> torch.Tensor:
        maps = torch.full((len(crops_nSS3), S, S), -1.0)
        maps[:, :, S // 2 :] = prototypes_n[:, None, None].float()
        return maps


@pytest.fixture
def rows(tiny):
    return tiny.index.rows("test")


def relevance(tiny, rows):
    sides_N2 = tiny.index.table[["width", "height"]].to_numpy(np.int64)[rows]
    return RelevanceSaliency(Constant(), rows, sides_N2, tiny.crops)


def test_a_mask_is_its_own_map(tiny, rows):
    saliency = MaskSaliency(rows, tiny.masks, tiny.crops, S)
    maps, masks = saliency.maps(torch.tensor([1]), torch.tensor([[0, 3]]), torch.tensor([[0, 3]]))
    # the quarters of a photograph: upper left and lower right
    expected = torch.zeros(2, S, S, dtype=torch.bool)
    expected[0, : S // 2, : S // 2] = expected[1, S // 2 :, S // 2 :] = True
    assert masks[0].equal(expected)
    assert maps.equal(masks.float())


def test_relevance_lies_in_the_crops_box_and_negative_is_cut(tiny, rows):
    maps, masks = relevance(tiny, rows).maps(
        torch.tensor([0, 1]), torch.tensor([[2, 5], [1, 0]]), torch.tensor([[0, 3], [1, 2]])
    )
    # the right half of the upper left quarter; each of its 12·6 pixels takes 4 of the crop's
    expected = torch.zeros(S, S)
    expected[: S // 2, S // 4 : S // 2] = 2 * 4
    torch.testing.assert_close(maps[0, 0], expected)
    assert maps[0, 1, : S // 2].eq(0).all() and maps[0, 1, :, : S // 2].eq(0).all()
    assert maps[0, 1].sum() == pytest.approx(5 * S * S / 2)
    assert maps[1, 1].eq(0).all() and not masks[1, 1].any()
    assert masks.equal(maps > 0)


def test_changed_crops_are_explained_instead_of_the_stored_ones(tiny, rows):
    seen = []

    class Spy(Constant):
        def __call__(self, crops_nSS3: torch.Tensor, prototypes_n: torch.Tensor) -> torch.Tensor:
            seen.append(crops_nSS3)
            return super().__call__(crops_nSS3, prototypes_n)

    saliency = relevance(tiny, rows)
    saliency.relevance = Spy()
    crops = torch.rand(1, 4, S, S, 3)
    places = torch.tensor([0]), torch.tensor([[1]]), torch.tensor([[2]])
    saliency.maps(*places, crops)
    saliency.maps(*places)
    assert seen[0].equal(crops[:, 2])
    assert seen[1].numpy().tolist() == tiny.crops.crops(rows[:1])[:, 2].tolist()


def test_the_strongest_twentieth_by_hand():
    # values 0 to 99: their 95th percentile is 94.05, and five lie above
    maps = torch.arange(100.0).view(1, 10, 10)
    assert strongest(maps).flatten().nonzero().flatten().tolist() == [95, 96, 97, 98, 99]


def test_without_relevance_nothing_is_found():
    # a percentile of 0 would otherwise take in the whole image
    assert not strongest(torch.zeros(1, 10, 10)).any()
    one = torch.zeros(1, 10, 10)
    one[0, 3, 4] = 0.5
    assert strongest(one).nonzero().tolist() == [[0, 3, 4]]


@pytest.mark.parametrize("value", [False, True])
def test_a_mask_without_an_edge_stays_as_it_is(value):
    assert (resize_mask(np.full((9, 7), value), 5) == value).all()
