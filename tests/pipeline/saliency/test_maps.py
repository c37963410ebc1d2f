"""Saliency: masks as they are, relevance where its crop lies in the image, similar cells."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from settings import model_settings

from pipeline.backbone.backbone import Backbone
from pipeline.metrics.evidence import Copies
from pipeline.model.base.head import PresenceHead
from pipeline.model.base.inference import ModelOutputs, outputs_of
from pipeline.model.protopnet.model import ProtoPNet
from pipeline.saliency.maps import (
    MaskSaliency,
    RelevanceSaliency,
    SimilaritySaliency,
    SimilarPlaces,
    enlarged,
    put_back,
    resize_mask,
    strongest,
)

S = 24


class Constant:
    """Relevance that is −1 in each crop's left half and the prototype's number in the right."""

    rule = "prp"

    def __call__(
        self,
        crops_nSS3: torch.Tensor,
        prototypes_n: torch.Tensor,
        inside_nSS: torch.Tensor | None = None,
    ) -> torch.Tensor:
        maps = torch.full((len(crops_nSS3), S, S), -1.0)
        maps[:, :, S // 2 :] = prototypes_n[:, None, None].float()
        return maps

    class network:
        @staticmethod
        def grid(size: int) -> tuple[int, int]:
            return 1, 1

    def of_sums(
        self,
        crops_nSS3: torch.Tensor,
        cells_n: torch.Tensor,
        weights_nP: torch.Tensor,
        inside_nSS: torch.Tensor,
    ) -> torch.Tensor:
        assert len(inside_nSS) == len(crops_nSS3)
        assert not cells_n.any()
        return self(crops_nSS3, weights_nP.sum(1))


@pytest.fixture
def rows(tiny):
    return tiny.index.rows("test")


def relevance(tiny, rows):
    sides_N2 = tiny.index.table[["width", "height"]].to_numpy(np.int64)[rows]
    return RelevanceSaliency(Constant(), rows, sides_N2, tiny.crops, "prp")


def test_a_mask_is_its_own_map(tiny, rows):
    saliency = MaskSaliency(rows, tiny.masks, tiny.crops, S)
    maps, masks = saliency.maps(torch.tensor([1]), torch.tensor([[0, 3]]), torch.tensor([[0, 3]]))
    # the quarters of a photograph: upper left and lower right
    expected = torch.zeros(2, S, S, dtype=torch.bool)
    expected[0, : S // 2, : S // 2] = expected[1, S // 2 :, S // 2 :] = True
    assert masks[0].equal(expected)
    assert maps.equal(masks.float())


def test_an_image_without_a_mask_is_all_of_its_map(tiny, rows):
    saliency = MaskSaliency(rows, tiny.masks, tiny.crops.whole(), S)
    place = torch.tensor([[0]])
    maps, masks = saliency.maps(torch.tensor([1]), place, place)
    assert masks.all() and maps.equal(torch.ones(1, 1, S, S))
    assert saliency.regions(torch.tensor([1]), place[0], torch.zeros(1, 6)).equal(maps[0])


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


def test_regions_are_drawn_as_the_crops_of_prototypes(tiny, rows):
    views, weights = torch.tensor([3, 0]), torch.tensor([[0.0, 5], [1, 1]])
    prototypes = torch.tensor([[5, 2]])
    for saliency in (MaskSaliency(rows, tiny.masks, tiny.crops, S), relevance(tiny, rows)):
        maps, masks = saliency.maps(torch.tensor([1]), prototypes, views[None])
        found = saliency.regions(torch.full_like(views, 1), views, weights)
        assert found.any() and found.equal((maps * masks)[0])
        of_two = saliency.regions(torch.tensor([0, 1]), views, weights)
        assert of_two[1].equal(found[1])
        assert of_two[:1].equal(saliency.regions(views[1:], views[:1], weights[:1]))


def test_relevance_of_a_cell_is_that_cells_and_cut_to_its_strongest_twentieth(tiny, rows):
    class Rising(Constant):
        class network:
            @staticmethod
            def grid(size: int) -> tuple[int, int]:
                return 2, 2

        def of_sums(self, crops_nSS3, cells_n, weights_nP, inside_nSS):
            return rising * (cells_n[:, None, None] + 1)

    # 1 to 576, and four times as much: the 95th percentile is 1 + 0.95·575 = 547.25 of them
    rising = torch.arange(1.0, S * S + 1).view(S, S)
    saliency = relevance(tiny, rows)
    saliency.relevance, saliency.crops = Rising(), tiny.crops.whole()
    found = saliency.regions(torch.tensor([1, 1]), torch.tensor([0, 3]), torch.zeros(2, 6))
    first = torch.where(rising >= 548, rising, 0)
    torch.testing.assert_close(found, torch.stack([first, 4 * first]))


def test_a_region_of_cells_is_the_cell():
    saliency = similar(cells([[0.1, 0.9], [0.4, 0.2]]))
    found = saliency.regions(torch.tensor([0, 0]), torch.tensor([1, 2]), torch.zeros(2, 2))
    expected = torch.zeros(2, S, S)
    expected[0, : S // 2, S // 2 :] = expected[1, S // 2 :, : S // 2] = 1
    assert found.equal(expected)


def test_changed_crops_are_explained_instead_of_the_stored_ones(tiny, rows):
    seen = []

    class Spy(Constant):
        def __call__(
            self,
            crops_nSS3: torch.Tensor,
            prototypes_n: torch.Tensor,
            inside_nSS: torch.Tensor | None = None,
        ) -> torch.Tensor:
            assert inside_nSS.numpy().tolist() == tiny.crops.inside(int(rows[0]))[[2]].tolist()
            seen.append(crops_nSS3)
            return super().__call__(crops_nSS3, prototypes_n)

    saliency = relevance(tiny, rows)
    saliency.relevance = Spy()
    crops = torch.rand(1, 4, S, S, 3)
    places = torch.tensor([0]), torch.tensor([[1]]), torch.tensor([[2]])
    saliency.maps(*places, Copies(crops, None))
    saliency.maps(*places)
    assert seen[0].equal(crops[:, 2])
    assert seen[1].numpy().tolist() == tiny.crops.crops(rows[:1])[:, 2].tolist()


def cells(*of_images: list[list[float]]) -> ModelOutputs:
    """Images of 2×2 cells that are so much of prototype 0, and the rest of prototype 1."""
    first_NV1 = torch.tensor(of_images).flatten(1)[..., None]
    embedding_NVD = torch.cat([first_NV1, 1 - first_NV1], dim=-1)
    return outputs_of(
        PresenceHead(torch.ones(1, 2)), embedding_NVD, torch.ones(first_NV1.shape[:2]) > 0
    )


def similar(outputs: ModelOutputs) -> SimilaritySaliency:
    return SimilaritySaliency(outputs, PresenceHead(torch.ones(1, 2)), (2, 2), S)


def bicubic(values: list[list[float]]) -> np.ndarray:
    """Enlarges 2×2 values to S×S: Keys' kernel with a = −0.75, the border's values beyond it."""

    def weight(x: float) -> float:
        x, a = abs(x), -0.75
        if x < 1:
            return (a + 2) * x**3 - (a + 3) * x**2 + 1
        return a * (x**3 - 5 * x**2 + 8 * x - 4) if x < 2 else 0

    rows = np.zeros((S, 2))
    for pixel in range(S):
        at = (pixel + 0.5) * 2 / S - 0.5
        for cell in range(int(np.floor(at)) - 1, int(np.floor(at)) + 3):
            rows[pixel, min(max(cell, 0), 1)] += weight(at - cell)
    return rows @ np.array(values) @ rows.T


def test_similarities_are_enlarged_bicubically() -> None:
    values = [[0.1, 0.9], [0.4, 0.2]]
    (found,) = enlarged(torch.tensor(values).view(1, 4), (2, 2), S)
    np.testing.assert_allclose(found, np.maximum(bicubic(values), 0), atol=1e-5)
    # Pillow's bicubic takes a = −0.5: the same but for a few hundredths
    pillow = Image.fromarray(np.array(values, np.float32)).resize((S, S), Image.Resampling.BICUBIC)
    np.testing.assert_allclose(found, np.asarray(pillow), atol=0.06)
    assert found.shape == (S, S) and found[:, S // 2 :].argmax() > 0


def test_a_map_of_few_rows_and_many_columns() -> None:
    (found,) = enlarged(torch.arange(6.0).view(1, 6), (1, 6), S)
    torch.testing.assert_close(found, found[:1].expand(S, S))
    assert (found[0].view(6, S // 6).mean(1).diff() > 0.5).all()


def test_similar_cells_are_the_map_and_its_strongest_twentieth_the_mask() -> None:
    first, second = [[0.1, 0.9], [0.4, 0.2]], [[0.3, 0.3], [0.8, 0.1]]
    maps, masks = similar(cells(first, second)).maps(
        torch.tensor([1, 0]), torch.tensor([[0, 1], [0, 1]]), torch.zeros(2, 2, dtype=torch.int64)
    )
    assert maps.shape == masks.shape == (2, 2, S, S)
    others = [[1 - np.array(values) for values in image] for image in (second, first)]
    for image, values in enumerate((second, first)):
        for j, of in enumerate((values, others[image])):
            whole = np.maximum(bicubic(of), 0).astype(np.float32)
            least = np.sort(whole.ravel())[int(0.95 * (S * S - 1))]
            clear = np.abs(whole - least) > 1e-4
            found = masks[image, j].numpy()
            assert (found == (whole >= least))[clear].all()
            np.testing.assert_allclose(maps[image, j], whole * found, atol=1e-5)
            assert 0.04 < found.mean() < 0.07
            row, column = np.unravel_index(np.array(of).argmax(), (2, 2))
            corner = found[row * S // 2 :, column * S // 2 :][: S // 2, : S // 2]
            assert corner.sum() == found.sum(), "all of it lies in the most similar cell"


def test_changed_copies_have_their_own_map() -> None:
    stored, changed = [[0.9, 0.1], [0.1, 0.1]], [[0.1, 0.1], [0.1, 0.9]]
    places = torch.tensor([0]), torch.tensor([[0]]), torch.tensor([[0]])
    saliency = similar(cells(stored))
    before, _ = saliency.maps(*places)
    after, masks = saliency.maps(*places, Copies(torch.zeros(1, 1, S, S, 3), cells(changed)))
    torch.testing.assert_close(after, before.flip(2, 3))
    assert not masks[..., : S // 2, :].any() and masks[..., S // 2 :, S // 2 :].any()


def test_where_cells_are_most_similar_is_where_saliency_says() -> None:
    torch.manual_seed(0)
    network = ProtoPNet(
        model_settings("protopnet", embedding_dim=4), 2, Backbone("test_resnet", "none")
    ).eval()
    crops = torch.randint(0, 256, (3, 64, 64, 3), dtype=torch.uint8)
    prototypes = torch.tensor([0, 7, 19])
    with torch.inference_mode():
        valid = torch.ones(3, 1, dtype=torch.bool)
        embedding = network.embed(network.features(crops[:, None], valid))
        outputs = outputs_of(network.head(), embedding, torch.ones(embedding.shape[:2]) > 0)
    saliency = SimilaritySaliency(outputs, network.head(), network.grid(64), 64)
    _, masks = saliency.maps(torch.arange(3), prototypes[:, None], torch.zeros(3, 1).long())
    found = SimilarPlaces(network)(crops, prototypes)
    assert found.dtype == torch.bool and (found == masks[:, 0]).float().mean() > 0.999


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


def test_put_back_by_hand() -> None:
    """A crop of 2×2 from the box (0, 1)–(6, 3) of an image of 8×4, resized to 4×4."""
    relevance = torch.tensor([[[1.0, 2.0], [4.0, -8.0]]])
    found = put_back(relevance, torch.tensor([[0, 1, 6, 3]]), torch.tensor([[8, 4]]), 4)
    # A cell is 2×1 pixels of the image. Each column of the crop covers 3 of them: one cell and a
    # half; each row covers 1, the cells of rows 1 and 2.
    expected = [
        [0, 0, 0, 0],
        [2 / 3, 1 / 3 + 2 / 3, 4 / 3, 0],
        [8 / 3, 4 / 3 - 8 / 3, -16 / 3, 0],
        [0, 0, 0, 0],
    ]
    torch.testing.assert_close(found, torch.tensor([expected]))


def test_put_back_of_a_whole_image_is_the_crop() -> None:
    relevance = torch.randn(2, 7, 7)
    sizes = torch.tensor([[301, 199], [7, 5000]])
    boxes = torch.cat([torch.zeros_like(sizes), sizes], dim=1)
    assert torch.equal(put_back(relevance, boxes, sizes, 7), relevance)


@st.composite
def boxes_in_images(draw: Callable) -> tuple[list[int], list[int]]:
    width, height = draw(st.integers(2, 700)), draw(st.integers(2, 700))
    x0, y0 = draw(st.integers(0, width - 1)), draw(st.integers(0, height - 1))
    x1, y1 = draw(st.integers(x0 + 1, width)), draw(st.integers(y0 + 1, height))
    return [x0, y0, x1, y1], [width, height]


@settings(deadline=None)
@given(st.lists(boxes_in_images(), min_size=1, max_size=4), st.integers(1, 20), st.integers(1, 20))
def test_put_back_keeps_the_sum_and_the_box(
    places: list[tuple[list[int], list[int]]], S: int, side: int
) -> None:
    relevance = torch.rand(len(places), S, S, generator=torch.Generator().manual_seed(S)) + 0.1
    boxes, sizes = (torch.tensor(values) for values in zip(*places, strict=True))
    found = put_back(relevance, boxes, sizes, side)
    assert found.shape == (len(places), side, side)
    torch.testing.assert_close(found.sum((1, 2)), relevance.sum((1, 2)))
    for map_ss, ((x0, y0, x1, y1), (width, height)) in zip(found, places, strict=True):
        at = np.arange(side)
        rows = ((at + 1) * height > y0 * side) & (at * height < y1 * side)
        columns = ((at + 1) * width > x0 * side) & (at * width < x1 * side)
        assert np.array_equal(map_ss.numpy() > 0, np.outer(rows, columns))
