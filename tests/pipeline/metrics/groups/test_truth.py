"""Truth: purity, discrimination and deletion on numbers worked out by hand."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from pipeline.metrics.evidence import Evidence, TruthOfSome
from pipeline.metrics.groups import truth
from pipeline.metrics.measuring import gather, measure, unavailable, values_of
from pipeline.model.base.head import PresenceHead
from pipeline.model.base.inference import ModelOutputs

seeds = st.integers(0, 1000)
nan = math.nan

# Rows: nothing, part 0, part 1; the lower right pixel shows part 2.
LABELS = torch.tensor([[0, 0], [1, 1], [2, 3]], dtype=torch.uint8)
REDRAWN = torch.tensor([[3, 0], [1, 1], [2, 0]], dtype=torch.uint8)


def close(found: Tensor, expected: list) -> None:
    torch.testing.assert_close(found, torch.tensor(expected), equal_nan=True)


def rand(seed: int, *shape: int) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


def shares(seed: int, images: int = 5, k: int = 4, parts: int = 3) -> Tensor:
    """Shares that do not sum to 1, of which one map has none."""
    share_BkQ = rand(seed, images, k, parts) / parts
    share_BkQ[0, 0] = nan
    return share_BkQ


def test_part_shares_by_hand() -> None:
    # 1 + 3 on nothing, 2 + 2 on part 0, 3 on part 1, 5 on part 2: of 16
    maps_BkSS = torch.tensor([[[[1.0, 3], [2, 2], [3, 5]], [[0.0, 0], [0, 0], [0, 0]]]])
    share_BkQ = truth.part_shares(maps_BkSS, LABELS[None], 3)
    close(share_BkQ, [[[4 / 16, 3 / 16, 5 / 16], [nan, nan, nan]]])
    assert truth.main_part(share_BkQ).tolist() == [[2, -1]]
    # the second map is left out
    close(truth.purity(share_BkQ), [500 / 16])


def test_relevance_on_no_part_has_no_main_part() -> None:
    maps_BkSS = torch.tensor([[[[1.0, 1], [0, 0], [0, 0]]]])
    share_BkQ = truth.part_shares(maps_BkSS, LABELS[None], 3)
    assert share_BkQ.tolist() == [[[0, 0, 0]]]
    assert truth.main_part(share_BkQ).tolist() == [[-1]]
    assert truth.purity(share_BkQ).tolist() == [0]


def test_each_image_has_its_own_labels() -> None:
    maps_BkSS = torch.tensor([[[[0.0, 0], [1, 0], [0, 0]]]]).expand(2, 2, 3, 2)
    labels_BSS = torch.stack([LABELS, LABELS.flip(0)])
    assert truth.main_part(truth.part_shares(maps_BkSS, labels_BSS, 3)).tolist() == [[0, 0]] * 2
    maps_BkSS = maps_BkSS.roll(1, dims=2)
    assert truth.main_part(truth.part_shares(maps_BkSS, labels_BSS, 3)).tolist() == [
        [1, 1],
        [-1, -1],
    ]


def test_purity_is_the_mean_over_maps_with_relevance() -> None:
    share_BkQ = torch.tensor([[[0.5, 0.25], [0.0, 1.0], [nan, nan]], [[nan, nan]] * 3])
    close(truth.purity(share_BkQ), [(50 + 100) / 2, nan])


@given(seed=seeds, scale=st.floats(0.01, 100))
def test_shares_add_up_and_need_no_scale(seed: int, scale: float) -> None:
    maps_BkSS = rand(seed, 2, 3, 6, 6)
    labels_BSS = (rand(seed + 1, 2, 6, 6) * 4).to(torch.uint8)
    share_BkQ = truth.part_shares(maps_BkSS, labels_BSS, 3)
    outside_Bk = (maps_BkSS * (labels_BSS == 0)[:, None]).sum((2, 3)) / maps_BkSS.sum((2, 3))
    torch.testing.assert_close(share_BkQ.sum(dim=-1) + outside_Bk, torch.ones(2, 3))
    torch.testing.assert_close(truth.part_shares(scale * maps_BkSS, labels_BSS, 3), share_BkQ)
    assert (truth.purity(share_BkQ) <= 100).all() and (truth.purity(share_BkQ) >= 0).all()
    only_one = maps_BkSS * (labels_BSS == 2)[:, None]
    only_one[..., 0, 0] += 1
    labels_BSS[:, 0, 0] = 2
    assert truth.purity(truth.part_shares(only_one, labels_BSS, 3)).tolist() == [100, 100]


def test_discrimination_by_hand() -> None:
    share_BkQ = torch.tensor([[[0.5, 0.25, 0.25], [0.1, 0.2, 0.3], [nan, nan, nan]]])
    support_Bk = torch.tensor([[2.0, 1, 1]])

    def of(*parts: int) -> Tensor:
        parts_BQ = torch.tensor([[q in parts for q in range(3)]])
        return truth.discrimination(share_BkQ, support_Bk, parts_BQ)

    # part 0: (2·0.5 + 1·0.1 + 1·0)/4; parts 1 and 2: (2·0.5 + 1·0.5)/4
    close(of(0), [100 * 1.1 / 4])
    close(of(1, 2), [100 * 1.5 / 4])
    close(of(), [nan])
    close(truth.discrimination(share_BkQ, torch.zeros(1, 3), torch.ones(1, 3) > 0), [nan])


@given(seed=seeds)
def test_discrimination_is_a_percentage_and_all_parts_share_it_out(seed: int) -> None:
    share_BkQ, support_Bk = shares(seed), rand(seed + 1, 5, 4)
    parts = torch.eye(3, dtype=torch.bool)
    single = [truth.discrimination(share_BkQ, support_Bk, part.expand(5, 3)) for part in parts]
    whole_B = truth.discrimination(share_BkQ, support_Bk, torch.ones(5, 3) > 0)
    torch.testing.assert_close(sum(single), whole_B)
    assert (whole_B >= 0).all() and (whole_B <= 100.001).all()
    order = torch.randperm(4, generator=torch.Generator().manual_seed(seed))
    torch.testing.assert_close(
        truth.discrimination(share_BkQ[:, order], support_Bk[:, order], torch.ones(5, 3) > 0),
        whole_B,
    )


def test_margin_by_hand() -> None:
    # of 3, 1, −2 and 1 points, those on part 0: 3·0.5 + 1·0.25 + 1·0; the region with 3 decides
    share_BVQ = torch.tensor([[[0.5, 0.5], [0.25, 0], [1, 0], [nan, nan]]])
    points_BV = torch.tensor([[3.0, 1, -2, 1]], dtype=torch.float64)
    parts_BQ = torch.tensor([[True, False]])
    close(truth.discrimination_margin(share_BVQ, points_BV, parts_BQ), [100 * 1.75 / 5])
    close(truth.decisive_region(share_BVQ, points_BV, parts_BQ), [50.0])
    # the first of two that have most
    equal_BV = torch.tensor([[1.0, 3, -2, 3]])
    close(truth.decisive_region(share_BVQ, equal_BV, parts_BQ), [25.0])
    for metric in (truth.discrimination_margin, truth.decisive_region):
        close(metric(share_BVQ, -points_BV.abs(), parts_BQ), [nan])
        close(metric(share_BVQ, points_BV, ~parts_BQ & parts_BQ), [nan])


def test_nearest_class_is_the_first_that_differs_in_the_fewest_parts() -> None:
    # class 0: two parts from class 1, one from 2 and from 3; class 1: like 2; class 4: like all
    differ_CCQ = torch.zeros(5, 5, 2, dtype=torch.bool)
    for first, second, parts in ((0, 1, 2), (0, 2, 1), (0, 3, 1), (1, 3, 2), (2, 3, 2)):
        differ_CCQ[first, second, :parts] = differ_CCQ[second, first, :parts] = True
    assert truth.nearest_classes(differ_CCQ).tolist() == [2, 0, 0, 0, 4]
    assert truth.nearest_classes(torch.zeros(1, 1, 3, dtype=torch.bool)).tolist() == [0]


def test_part_agreement_by_hand() -> None:
    # prototype 0: parts 1, 1, 2 -> 2/3; prototype 1: parts 0 and none -> 1/2;
    # prototype 2: none twice -> 0; prototypes 3 and 4 are used once
    top_Nk = torch.tensor([[0, 1], [2, 0], [1, 0], [2, 3], [4, 5]])
    main_part_Nk = torch.tensor([[1, 0], [-1, 1], [-1, 2], [-1, 1], [0, 0]])
    expected = 100 * (2 / 3 + 1 / 2 + 0) / 3
    assert truth.part_agreement(main_part_Nk, top_Nk, 3) == pytest.approx(expected)
    assert math.isnan(truth.part_agreement(main_part_Nk[-1:], top_Nk[-1:], 3))


@given(seed=seeds)
def test_part_agreement_needs_no_order(seed: int) -> None:
    random = torch.Generator().manual_seed(seed)
    top_Nk = torch.rand(8, 5, generator=random).argsort(dim=1)[:, :3]
    main_part_Nk = torch.randint(-1, 4, (8, 3), generator=random)
    agreement = truth.part_agreement(main_part_Nk, top_Nk, 4)
    assert 0 <= agreement <= 100
    order = torch.randperm(8, generator=random)
    again = truth.part_agreement(main_part_Nk[order].flip(1), top_Nk[order].flip(1), 4)
    assert again == pytest.approx(agreement)
    # a prototype that always has the part of its number agrees with itself
    assert truth.part_agreement(top_Nk % 4, top_Nk, 4) == 100


def test_similarity_change_by_hand() -> None:
    before = torch.tensor([4.0, 4, 2, 0, 0])
    after = torch.tensor([3.0, 6, 2, 0, 1])
    close(truth.similarity_change(before, after), [25.0, 50, 0, nan, nan])


def test_deletion_auc_by_hand() -> None:
    change_Nk = torch.tensor([[5.0, 1, 3], [3, nan, 2]])
    on_Nk = torch.tensor([[True, False, False], [True, True, False]])
    # on: 5 and 3; off: 1, 3, 2. 5 beats all three; 3 beats 1 and 2 and ties with 3: 5.5 of 6
    assert truth.deletion_auc(change_Nk, on_Nk) == pytest.approx(100 * 5.5 / 6)
    assert truth.deletion_auc(torch.ones(2, 3), on_Nk) == 50
    assert math.isnan(truth.deletion_auc(change_Nk, on_Nk | True))
    assert math.isnan(truth.deletion_auc(change_Nk, on_Nk & False))
    assert math.isnan(truth.deletion_auc(change_Nk * nan, on_Nk))


@given(seed=seeds)
def test_deletion_auc_is_the_share_of_pairs_in_order(seed: int) -> None:
    change_Nk = (rand(seed, 6, 3) * 5).floor()
    on_Nk = rand(seed + 1, 6, 3) < 0.4
    on_Nk[0, :2] = torch.tensor([True, False])
    gap = change_Nk[on_Nk][:, None] - change_Nk[~on_Nk]
    expected = 100 * float(((gap > 0) + 0.5 * (gap == 0)).mean())
    auc = truth.deletion_auc(change_Nk, on_Nk)
    assert auc == pytest.approx(expected)
    assert truth.deletion_auc(change_Nk, ~on_Nk) == pytest.approx(100 - auc)
    assert truth.deletion_auc(change_Nk + 10 * on_Nk, on_Nk) == pytest.approx(100)


@dataclass
class Known:
    """Both images show `LABELS`; part 2 is drawn again, elsewhere."""

    distinguishing_CCQ: Tensor
    drawn: list[int] = field(default_factory=list)

    def labels(self, images_B: Tensor) -> Tensor:
        return LABELS.expand(len(images_B), 3, 2)

    def labels_between(self, images_B: Tensor, first_B: Tensor, second_B: Tensor) -> Tensor:
        return self.labels(images_B)

    def redrawn(self, images_B: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        self.drawn += images_B.tolist()
        crops = images_B[:, None, None, None, None].expand(-1, 4, 2, 2, 3)
        return crops, torch.full_like(images_B, 2), REDRAWN.expand(len(images_B), 3, 2)


@dataclass
class Asked:
    """Knows what the model says of redrawn images, whose crops are filled with their number.

    Each but the last shows it everywhere; the last crop of an image is as it was.
    """

    after_NP: Tensor
    embedded: list[list] = field(default_factory=list)

    def crops(self, images_B: Tensor) -> Tensor:
        crops_BKSS3 = torch.full((len(images_B), 4, 2, 2, 3), 255)
        crops_BKSS3[:, 3] = images_B[:, None, None, None]
        return crops_BKSS3

    def inside(self, images_B: Tensor) -> Tensor:
        return torch.ones(len(images_B), 4, 2, 2, dtype=torch.bool)

    def infer(self, crops_BKSS3: Tensor, valid_BK: Tensor, inside_BKSS: Tensor) -> ModelOutputs:
        self.embedded += valid_BK.tolist()
        embedding_BVD = self.after_NP[crops_BKSS3[:, :, 0, 0, 0]]
        return ModelOutputs(embedding_BVD, *[embedding_BVD[:, 0]] * 3)


class Unchanged(Asked):
    """Its redrawn images show what the images showed."""

    def crops(self, images_B: Tensor) -> Tensor:
        return images_B[:, None, None, None, None].expand(-1, 4, 2, 2, 3)


@dataclass
class Maps:
    maps_NkSS: Tensor
    regions_NVSS: Tensor
    name: str = "mask"
    asked: list[list] = field(default_factory=list)

    def maps(self, images_B: Tensor, *ignored: Tensor) -> tuple[Tensor, Tensor]:
        maps_BkSS = self.maps_NkSS[images_B]
        return maps_BkSS, maps_BkSS < 9

    def regions(self, images_n: Tensor, views_n: Tensor, weights_nP: Tensor) -> Tensor:
        self.asked += [[images_n.tolist(), views_n.tolist(), weights_nP.tolist()]]
        return self.regions_NVSS[images_n, views_n]


@pytest.fixture
def known(make_evidence: Callable[..., Evidence]) -> Evidence:
    """Two images, three classes, three prototypes that are all in the k; image 0's are 2, 1, 0.

    Classes 0 and 1 differ in parts 0 and 1, classes 0 and 2 in part 2, classes 1 and 2 in none.
    """
    differ_CCQ = torch.zeros(3, 3, 3, dtype=torch.bool)
    differ_CCQ[0, 1, :2] = differ_CCQ[1, 0, :2] = differ_CCQ[0, 2, 2] = differ_CCQ[2, 0, 2] = True
    on_first = [[0.0, 0], [1, 0], [0, 0]]
    on_second = [[0.0, 0], [0, 0], [1, 0]]
    # 3 where part 2 is drawn anew, 2 on part 0, and a 9 outside its saliency mask
    on_new = [[3.0, 0], [2, 0], [0, 9]]
    nowhere = [[0.0, 0], [0, 0], [0, 0]]
    maps_NkSS = torch.tensor([[on_new, on_first, on_second], [on_first, nowhere, on_first]])
    # of four views: a quarter on part 0 and the rest on part 2, part 0, all of it on part 1
    mostly = [[0.0, 0], [1, 0], [0, 3]]
    regions_NVSS = torch.tensor(
        [[mostly, on_first, nowhere, on_second], [nowhere, nowhere, on_first, nowhere]]
    )
    return make_evidence(
        images=2,
        prototypes=3,
        embedding_NVD=torch.zeros(2, 4, 3),
        similarity_NP=torch.tensor([[1.0, 2, 4], [5, 4, 2]]),
        view_NP=torch.tensor([[1, 3, 0], [3, 1, 2]]),
        logits_NC=torch.tensor([[3.0, 0, 2], [2, 2, 1]]),
        head=PresenceHead(torch.tensor([[1.0, -1, 0.5], [0, 0, 0], [0, 0, 0]])),
        explanations=[Maps(maps_NkSS, regions_NVSS)],
        truth=Known(differ_CCQ),
        subject=Asked(torch.tensor([[1.0, 1, 1], [4, 4, 1]])),
    )


class Lacking(Known):
    """Shows part 2 nowhere, and lacks it in the first row."""

    def labels(self, images_B: Tensor) -> Tensor:
        return LABELS.where(LABELS != 3, 0).expand(len(images_B), 3, 2)

    def labels_between(self, images_B: Tensor, first_B: Tensor, second_B: Tensor) -> Tensor:
        labels_BSS = self.labels(images_B).clone()
        labels_BSS[(first_B == 0) & (second_B == 2), 0] = 3
        return labels_BSS


class Hidden(Lacking):
    """Something stands before the part: neither drawing shows it."""

    def labels_between(self, images_B: Tensor, first_B: Tensor, second_B: Tensor) -> Tensor:
        return self.labels(images_B)


def measured(evidence: Evidence, *batch_size: int) -> dict:
    return measure(evidence, ["truth"], *batch_size)["truth"]


def test_what_was_gathered_of_all_images_gives_the_values_of_a_sample(known: Evidence) -> None:
    sample = torch.tensor([1])
    assert known.truth is not None
    alone = replace(
        known,
        ids=[known.ids[1]],
        labels_N=known.labels_N[sample],
        outputs=ModelOutputs(*(tensor[sample] for tensor in known.outputs)),
        truth=TruthOfSome(known.truth, sample),
    )
    gathered = gather(known, ["truth"])
    gathered.of_maps["mask"]["continuity"] = {}  # nobody asks for it
    found = values_of(alone, ["truth"], gathered.of(sample))["truth"]
    both = measured(known)
    assert set(found) == set(both) and len(found["purity"]) == 1
    assert found["purity"] == both["purity"][1:]
    # Prototypes of a single image are found on a part once each, which says nothing of agreement.
    assert math.isnan(found["part_agreement"]) and not math.isnan(both["part_agreement"])


def test_truth_of_some_images_is_asked_about_these(known: Evidence) -> None:
    assert known.truth is not None
    some = TruthOfSome(known.truth, torch.tensor([1]))
    asked, expected = torch.tensor([0]), torch.tensor([1])
    assert torch.equal(some.labels(asked), known.truth.labels(expected))
    assert torch.equal(some.distinguishing_CCQ, known.truth.distinguishing_CCQ)
    for ours, theirs in zip(some.redrawn(asked), known.truth.redrawn(expected), strict=True):
        assert torch.equal(ours, theirs)
    assert not torch.equal(some.redrawn(asked)[0], known.truth.redrawn(asked)[0])


def test_all_of_it_by_hand(known: Evidence) -> None:
    values = measured(known)
    assert set(values) == set(truth.Truth.notes)
    # image 0: 2 of 5, 1, 1; image 1: 1 and 1
    close(values["purity"], [100 * (0.4 + 1 + 1) / 3, 100.0])
    # Image 0: class 0 before class 2, part 2. Support of prototypes 2, 1, 0: 4·0.5, 0, 1·1; none of
    # it on part 2 as it was. Image 1: class 0 before class 1 (a tie), parts 0 and 1. Support of
    # prototypes 0, 1, 2: 5, 0, 1, all of it on part 0.
    close(values["discrimination"], [0.0, 100])
    # Image 0: prototypes 0, 1, 2 add 1, −2, 2 in views 1, 3, 0: of 3 points, 2 lie on part 2, by
    # three quarters. Image 1: 5, −4, 1 in views 3, 1, 2; most of them in a view without saliency.
    close(values["discrimination_margin"], [50.0, 100 / 6])
    close(values["decisive_region"], [75.0, 0])
    # Image 0: class 2 is also the nearest. Image 1 is of class 1, and class 0 the only one that
    # differs from it; prototypes 0, 1, 2 add −5, 4, −1, the 4 in view 1, which is without saliency.
    close(values["discrimination_nearest"], [50.0, 0])
    close(values["decisive_nearest"], [75.0, 0])
    assert known.explanations[0].asked == [
        [[0, 0, 1, 1], [0, 1, 2, 3], [[0, 0, 0.5], [1, 0, 0], [0, 0, 0.5], [1, 0, 0]]],
        [[1], [1], [[0, 1, 0]]],  # image 0 has the same two classes
    ]
    # prototype 0: parts 1 and 0; prototype 1: part 0 and none; prototype 2: part 0 twice
    assert values["part_agreement"] == pytest.approx(100 * (0.5 + 0.5 + 1) / 3)
    # image 0: prototype 2 lies on the new part 2 (3 of 5) and falls from 4 to 1; prototypes 1 and 0
    # from 2 to 1 and from 1 to 1. Image 1: none on it; 5 to 4, 4 to 4, 2 to 1.
    close(values["deletion_on"], [75.0, nan])
    close(values["deletion_off"], [25.0, 100 * (0.2 + 0 + 0.5) / 3])
    # 75 is more than 50, 0, 20, 0, 50
    assert values["deletion_auc"] == 100


def test_a_part_that_is_gone_from_the_redrawing_was_replaced_where_it_was(known: Evidence) -> None:
    # all maps on the pixel that showed part 2 and now shows nothing
    maps_NkSS = torch.zeros(2, 3, 3, 2)
    maps_NkSS[..., 2, 1] = 1
    values = measured(
        replace(known, explanations=[replace(known.explanations[0], maps_NkSS=maps_NkSS)])
    )
    assert values["deletion_off"].isnan().all()
    close(values["deletion_on"], [(75 + 50 + 0) / 3, 100 * (0.2 + 0 + 0.5) / 3])
    assert math.isnan(values["deletion_auc"])


def test_crops_that_have_not_changed_are_not_embedded_again(known: Evidence) -> None:
    measured(known)
    assert known.subject.embedded == [[True, True, True, False]] * 2
    # The last crops are as similar as the images were, so that nothing is less similar.
    embedding_NVD = torch.zeros(2, 4, 3)
    embedding_NVD[:, 3] = known.outputs.similarity_NP
    values = measured(replace(known, outputs=known.outputs._replace(embedding_NVD=embedding_NVD)))
    close(values["deletion_on"], [0.0, nan])
    close(values["deletion_off"], [0.0, 0.0])
    nothing = replace(known, subject=Unchanged(known.subject.after_NP))
    close(measured(nothing)["deletion_on"], [0.0, nan])
    assert nothing.subject.embedded == []


def test_negative_support_counts_as_none(known: Evidence) -> None:
    head = known.head._replace(weights_CP=-known.weights_CP.abs())
    evidence = replace(known, head=head)
    values = measured(evidence)
    assert values["discrimination"].isnan().all()
    # there is no region with points for the first class rather than the second
    assert values["discrimination_margin"].isnan().all()
    assert values["decisive_region"].isnan().all()


def test_classes_without_distinguishing_parts_and_a_single_class(known: Evidence) -> None:
    logits_NC = torch.tensor([[0.0, 2, 1], [0, 1, 2]])
    evidence = replace(known, outputs=known.outputs._replace(logits_NC=logits_NC))
    single = replace(evidence, outputs=known.outputs._replace(logits_NC=logits_NC[:, :1]))
    for values in map(measured, (evidence, single)):
        for name in ("discrimination", "discrimination_margin", "decisive_region"):
            assert values[name].isnan().all()


def test_images_are_drawn_again_once_for_all_explanations(known: Evidence) -> None:
    mask = known.explanations[0]
    prp = replace(mask, maps_NkSS=mask.maps_NkSS.flip(1), name="prp")
    evidence = replace(known, explanations=[mask, prp])
    values = measured(evidence)
    assert evidence.truth.drawn == [0, 1]
    assert set(values) == {*truth.Truth.notes, *(f"{name}_prp" for name in truth.Truth.notes)}
    # image 0: prototype 0, of no change, is now the one on the new part
    assert values["deletion_on_prp"][0] == 0


def test_without_truth_nothing_is_measured(known: Evidence) -> None:
    photographs = replace(known, truth=None)
    assert measured(photographs) == {}
    missing = unavailable(photographs, ["truth"])["truth"]
    assert set(missing) == set(truth.Truth.notes)
    assert "only `demo`" in missing["purity"]
    assert unavailable(known, ["truth"]) == {"truth": {}}


def test_batch_size_changes_nothing(known: Evidence) -> None:
    whole, parts = measured(known), measured(known, 1)
    for name, value in whole.items():
        torch.testing.assert_close(
            torch.as_tensor(parts[name]), torch.as_tensor(value), equal_nan=True
        )


def test_the_place_of_a_part_that_an_image_lacks_counts(known: Evidence) -> None:
    assert known.truth is not None
    values = measured(replace(known, truth=Lacking(known.truth.distinguishing_CCQ)))
    # Image 0, of class 0 rather than 2: of support 2 and 1, the map of the former, 3 + 2 (9 is
    # outside its mask), lies by three fifths where part 2 would be.
    close(values["discrimination"][:1], [100 * 2 * 0.6 / 3])
    close(values["decisive_region"][:1], [0.0])
    # Purity is of what the image shows: 3 of 5 are on nothing.
    close(values["purity"][:1], [100 * (0.4 + 1 + 1) / 3])


def test_what_neither_drawing_shows_tells_nothing_apart(known: Evidence) -> None:
    assert known.truth is not None
    values = measured(replace(known, truth=Hidden(known.truth.distinguishing_CCQ)))
    for name in ("discrimination", "discrimination_margin", "decisive_region"):
        close(values[name][:1], [nan])
        assert not values[name][1:].isnan()
