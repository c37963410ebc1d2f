import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import entropy as scipy_entropy
from sklearn.metrics import jaccard_score
from sklearn.metrics.pairwise import cosine_distances

from pipeline.metrics.groups import contrastivity
from pipeline.metrics.measuring import measure as measure_groups

LEFT = torch.tensor([[1, 0], [1, 0]], dtype=torch.bool)
TOP = torch.tensor([[1, 1], [0, 0]], dtype=torch.bool)
EMPTY = torch.zeros(2, 2, dtype=torch.bool)

seeds = st.integers(0, 1000)


def measured(evidence, *batch_size):
    return measure_groups(evidence, ["contrastivity"], *batch_size)["contrastivity"]


def rand(seed: int, *shape: int) -> torch.Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


def test_vlc_by_hand():
    # left/top share 1 of 3 pixels: 2/3; left/left 0; twice left/top, once left/left: (4/3)/3
    vlc_B = contrastivity.vlc(torch.stack([LEFT, TOP, LEFT])[None])
    assert vlc_B.tolist() == pytest.approx([100 * 4 / 9])


def test_vlc_of_empty_masks():
    # empty/empty 0, empty/left 1 (twice): 2/3
    vlc_B = contrastivity.vlc(torch.stack([EMPTY, EMPTY, LEFT])[None])
    assert vlc_B.tolist() == pytest.approx([100 * 2 / 3])
    assert contrastivity.vlc(EMPTY.expand(1, 3, 2, 2)).tolist() == [0]


def test_vac_by_hand():
    # sorted 0 1 2 4 and 0 0 2 2: Σmin 4, Σmax 7
    maps_BkSS = torch.tensor([[[[4.0, 0], [1, 2]], [[0.0, 2], [2, 0]]]])
    assert contrastivity.vac(maps_BkSS).tolist() == pytest.approx([100 * 3 / 7])


def test_vac_does_not_look_at_places():
    one = rand(0, 4, 4)
    assert contrastivity.vac(torch.stack([one, one.T.flip(0)])[None]).tolist() == [0]


def test_vac_of_all_zero_maps():
    assert contrastivity.vac(torch.zeros(1, 3, 2, 2)).tolist() == [0]
    # zero against anything is 1: of the three pairs, two
    maps = torch.stack([torch.ones(2, 2), torch.zeros(2, 2), torch.ones(2, 2)])
    assert contrastivity.vac(maps[None]).tolist() == pytest.approx([100 * 2 / 3])


def test_value_distance_sorts_both():
    # 1 2 3 and 1 1 5: Σmin 5, Σmax 8
    distance = contrastivity.value_distance(torch.tensor([3.0, 1, 2]), torch.tensor([1.0, 5, 1]))
    assert float(distance) == pytest.approx(3 / 8)


def test_distinctiveness_by_hand():
    # boxes of 7·72/224 = 2.25 pixels a side; the first map's two largest values have their centre
    # in (1, 1.5), the others lie in (1, 3) and (6, 6)
    maps_BkSS = torch.zeros(1, 3, 7, 7)
    maps_BkSS[0, 0, 1, 1:3] = 2
    maps_BkSS[0, 0, 6, 6] = 1
    maps_BkSS[0, 1, 1, 3] = maps_BkSS[0, 2, 6, 6] = 5
    # 0.75 of 2.25 columns and all rows shared by the first two, a third of a box of 5/3
    expected = 100 * ((1 - 1 / 5) + 1 + 1) / 3
    assert contrastivity.distinctiveness(maps_BkSS).tolist() == pytest.approx([expected])
    moved = maps_BkSS.transpose(2, 3).flip(1)
    assert contrastivity.distinctiveness(moved).tolist() == pytest.approx([expected])


def test_distinctiveness_of_the_same_places_and_of_none():
    maps_BkSS = torch.zeros(3, 3, 7, 7)
    maps_BkSS[0, :, 2, 4] = maps_BkSS[1, :2, 2, 4] = maps_BkSS[2, 0, 2, 4] = 1
    same, one_without, two_without = contrastivity.distinctiveness(maps_BkSS).tolist()
    assert same == one_without == 0 and math.isnan(two_without)


def test_intra_pd_by_hand():
    # cosines: x·y 0, x·d √½, y·d √½; a length changes nothing
    prototypes_BkD = torch.tensor([[[2.0, 0], [0, 1], [3, 3]]])
    expected = (1 + 2 * (1 - 0.5**0.5)) / 3
    assert contrastivity.intra_pd(prototypes_BkD).tolist() == pytest.approx([expected])


def test_intra_pd_counts_tiny_distances_as_zero():
    # 1 − cos t ≈ t²/2: t = 0.004 gives 8.0e-6 (counts as 0), t = 0.005 gives 1.25e-5 (counts)
    def at(angle):
        t = torch.tensor(angle)
        return torch.stack([torch.tensor([1.0, 0]), torch.stack([t.cos(), t.sin()])])[None]

    assert contrastivity.intra_pd(at(0.004)).tolist() == [0]
    assert contrastivity.intra_pd(at(0.005)).tolist() == pytest.approx([1.25e-5], rel=0.02)


def test_intra_pd_of_a_zero_vector_is_one():
    assert contrastivity.intra_pd(torch.tensor([[[0.0, 0], [1, 1]]])).tolist() == [1]


def test_single_prototype_has_no_pairs():
    assert contrastivity.vlc(LEFT.expand(2, 1, 2, 2)).tolist() == [0, 0]
    assert contrastivity.vac(torch.rand(2, 1, 2, 2)).tolist() == [0, 0]
    assert contrastivity.intra_pd(torch.rand(2, 1, 4)).tolist() == [0, 0]


def test_inter_pd_by_hand():
    # Images a (x, x) of class 0, b (y, x) and c (x, −x) of class 1, d (y, y) of class 2;
    # distances of their 1st and 2nd: a–b 1, 0; a–c 0, 2; a–d 1, 1; b–d 0, 1; c–d 1, 1.
    x, y = [1.0, 0.0], [0.0, 1.0]
    vectors_NkD = torch.tensor([[x, x], [y, x], [x, [-1.0, 0]], [y, y]])
    # without d, both classes see a–b and a–c: 3/4
    two = contrastivity.inter_pd(vectors_NkD[:3], torch.tensor([0, 1, 1]))
    assert two == pytest.approx(3 / 4)
    # class 0: a–b, a–c, a–d: 5/6; class 1: a–b, a–c, b–d, c–d: 6/8; class 2: the d's: 5/6
    three = contrastivity.inter_pd(vectors_NkD, torch.tensor([0, 1, 1, 2]))
    assert three == pytest.approx((5 / 6 + 6 / 8 + 5 / 6) / 3)


def test_inter_pd_leaves_out_absent_classes():
    vectors_NkD = rand(0, 6, 3, 4)
    labels_N = torch.tensor([0, 0, 1, 1, 2, 2])
    assert contrastivity.inter_pd(vectors_NkD, labels_N * 5) == contrastivity.inter_pd(
        vectors_NkD, labels_N
    )


def test_inter_pd_of_one_class_is_zero():
    assert contrastivity.inter_pd(rand(0, 3, 2, 4), torch.tensor([4, 4, 4])) == 0


def test_inter_pd_of_identical_vectors_is_zero():
    vectors_NkD = rand(0, 1, 3, 40).expand(50, 3, 40)
    value = contrastivity.inter_pd(vectors_NkD, torch.arange(50) % 7)
    assert 0 <= value < 1e-12


@given(seed=seeds)
def test_inter_pd_agrees_with_all_pairs(seed):
    vectors_NkD = rand(seed, 12, 3, 5)
    labels_N = (rand(seed + 1, 12) * 4).long()
    labels_N[:2] = torch.tensor([0, 1])
    per_class = []
    for c in labels_N.unique():
        own, others = vectors_NkD[labels_N == c], vectors_NkD[labels_N != c]
        per_class.append(np.mean([cosine_distances(own[:, i], others[:, i]) for i in range(3)]))
    assert contrastivity.inter_pd(vectors_NkD, labels_N) == pytest.approx(
        np.mean(per_class), rel=1e-5
    )


@given(seed=seeds)
def test_intra_pd_agrees_with_scikit_learn(seed):
    vectors_BkD = rand(seed, 3, 4, 5)
    expected = [cosine_distances(vectors_kD).sum() / 12 for vectors_kD in vectors_BkD]
    assert contrastivity.intra_pd(vectors_BkD).tolist() == pytest.approx(expected, rel=1e-4)


@given(seed=seeds)
def test_mask_distance_agrees_with_scikit_learn(seed):
    first, second = rand(seed, 2, 5, 5) > 0.5
    expected = 1 - jaccard_score(first.flatten(), second.flatten())
    assert float(contrastivity.mask_distance(first, second)) == pytest.approx(expected, abs=1e-6)


@given(seed=seeds)
def test_vac_agrees_with_minima_and_maxima(seed):
    maps_BkSS = rand(seed, 2, 3, 6, 6) * (rand(seed + 1, 2, 3, 6, 6) > 0.5)
    ranked_BkV = np.sort(maps_BkSS.flatten(2).double().numpy(), axis=-1)
    first, second = ranked_BkV[:, [0, 0, 1]], ranked_BkV[:, [1, 2, 2]]
    pairs = 1 - np.minimum(first, second).sum(-1) / np.maximum(first, second).sum(-1)
    assert contrastivity.vac(maps_BkSS).tolist() == pytest.approx(100 * pairs.mean(-1), rel=1e-4)
    distance = contrastivity.value_distance(maps_BkSS[:, 0].flatten(1), maps_BkSS[:, 1].flatten(1))
    assert distance.tolist() == pytest.approx(pairs[:, 0], rel=1e-4)


@given(seed=seeds)
def test_vlc_of_two_masks_is_their_distance(seed):
    masks_BkSS = rand(seed, 3, 2, 5, 5) > 0.6
    distance_B = contrastivity.mask_distance(masks_BkSS[:, 0], masks_BkSS[:, 1])
    torch.testing.assert_close(contrastivity.vlc(masks_BkSS), 100 * distance_B)


@given(seed=seeds)
def test_ranges_and_order_of_prototypes_and_images(seed):
    maps_BkSS = rand(seed, 3, 4, 6, 6) * (rand(seed + 1, 3, 4, 6, 6) > 0.5)
    for function, values in ((contrastivity.vac, maps_BkSS), (contrastivity.vlc, maps_BkSS > 0.5)):
        value_B = function(values)
        assert ((value_B >= 0) & (value_B <= 100)).all()
        torch.testing.assert_close(value_B, function(values.flip(1)))
        torch.testing.assert_close(value_B.flip(0), function(values.flip(0)))


@given(seed=seeds)
def test_pair_distances_are_symmetric(seed):
    first, second = rand(seed, 2, 6, 6)
    assert torch.equal(
        contrastivity.value_distance(first.flatten(), second.flatten()),
        contrastivity.value_distance(second.flatten(), first.flatten()),
    )
    assert torch.equal(
        contrastivity.mask_distance(first > 0.5, second > 0.3),
        contrastivity.mask_distance(second > 0.3, first > 0.5),
    )


@given(seed=seeds)
def test_identical_is_zero_and_disjoint_is_a_hundred(seed):
    map_SS = rand(seed, 6, 6)
    assert contrastivity.vac(map_SS.expand(1, 3, 6, 6)).tolist() == [0]
    mask_SS = map_SS > 0.5
    mask_SS[0, :2] = torch.tensor([True, False])
    assert contrastivity.vlc(mask_SS.expand(1, 3, 6, 6)).tolist() == [0]
    assert contrastivity.vlc(torch.stack([mask_SS, ~mask_SS])[None]).tolist() == [100]


def test_entropy_by_hand():
    similarity_NP = torch.tensor(
        [
            # p0 halves: 1 bit. p1 all at the maximum: 0. p2: bins 2 (of 2.0/10), 9, 9, 9:
            # ¼·2 + ¾·log₂(4/3) = 0.8113. p3: four bins, 2 bits, clamped to 1. p4: all 0.
            [8.0, 3.0, 2.0, 1.0, 0.0],
            [8.0, 3.0, 10.0, 4.0, 0.0],
            [1.0, 3.0, 9.0, 7.0, 0.0],
            [1.5, 3.0, 9.5, 10.0, 0.0],
        ]
    )
    expected = [1, 0, 0.811278, 1, 0]
    assert contrastivity.entropy(similarity_NP).tolist() == pytest.approx(expected, abs=1e-5)


def test_entropy_drops_probabilities_under_a_thousandth():
    # 1 of 1001 is under 0.001 and dropped, the rest is −p·log₂p of p = 1000/1001;
    # 1 of 1000 is not under 0.001 and counts
    def one_of(images):
        similarity_NP = torch.ones(images, 1)
        similarity_NP[0] = 0.05
        return float(contrastivity.entropy(similarity_NP))

    assert one_of(1001) == pytest.approx(-1000 / 1001 * np.log2(1000 / 1001), rel=1e-6)
    assert one_of(1000) == pytest.approx(scipy_entropy([0.001, 0.999], base=2), rel=1e-6)


@given(seed=seeds)
def test_entropy_agrees_with_numpy_histograms(seed):
    similarity_NP = 7 * rand(seed, 30, 4).clamp(0.45, 0.55)
    expected = [
        min(1, scipy_entropy(np.histogram(s / s.max(), bins=10, range=(0, 1))[0], base=2))
        for s in similarity_NP.double().T.numpy()
    ]
    assert contrastivity.entropy(similarity_NP).tolist() == pytest.approx(expected, abs=1e-6)


def test_measure_keys_and_kinds(make_evidence):
    values = measured(make_evidence(images=7))
    assert set(values) == {
        "vlc",
        "vac",
        "distinctiveness",
        "intra_pd",
        "inter_pd",
        "intra_fd",
        "inter_fd",
        "entropy",
    }
    assert {name for name, value in values.items() if isinstance(value, float)} == {
        "inter_pd",
        "inter_fd",
        "entropy",
    }
    assert all(values[name].shape == (7,) for name in ("vlc", "vac", "intra_pd", "intra_fd"))


def test_measure_takes_the_top_prototypes_and_the_crops_they_used(make_evidence):
    # the second image's two best are prototypes 2 and 0, found in its crops 1 and 0
    evidence = make_evidence(
        images=2,
        prototypes=3,
        classes=2,
        top_k=2,
        similarity_NP=torch.tensor([[3.0, 2.0, 1.0], [2.0, 1.0, 3.0]]),
        view_NP=torch.tensor([[0, 1, 2], [0, 2, 1]]),
        prototypes_PD=torch.tensor([[1.0, 0], [1, 1], [0, 1]]),
        embedding_NVD=torch.tensor([[[1.0, 0], [0, 1], [9, 9]], [[1, 0], [0, 1], [9, 9]]]),
    )
    values = measured(evidence)
    assert values["intra_pd"].tolist() == pytest.approx([1 - 0.5**0.5, 1])
    assert values["intra_fd"].tolist() == pytest.approx([1, 1])
    # ranks: p0–p2 distance 1, p1–p0 distance 1 − √½; crops: (1,0)–(0,1) 1, (0,1)–(1,0) 1, and 0
    # if the second image's stood in the order of their numbers
    assert values["inter_pd"] == pytest.approx((1 + 1 - 0.5**0.5) / 2)
    assert values["inter_fd"] == pytest.approx(1)


def test_entropy_leaves_out_prototypes_in_no_images_top_k(make_evidence):
    # prototype 0 is in both images' k (bins 9 and 5: 1 bit), 1 and 2 in none
    similarity_NP = torch.tensor([[8.0, 0.1, 0.1], [4.0, 0.1, 0.1]])
    evidence = make_evidence(images=2, prototypes=3, top_k=1, similarity_NP=similarity_NP)
    assert measured(evidence)["entropy"] == pytest.approx(1)


def test_more_top_prototypes_than_prototypes_means_all_of_them(make_evidence):
    evidence = make_evidence(prototypes=3, top_k=3)
    more = measured(replace(evidence, top_k=50))
    for name, value in measured(evidence).items():
        torch.testing.assert_close(torch.as_tensor(more[name]), torch.as_tensor(value))


@pytest.mark.parametrize("fields", [{"images": 1}, {"classes": 1}, {"prototypes": 1, "top_k": 5}])
def test_degenerate_splits_are_finite(make_evidence, fields):
    for value in measured(make_evidence(**fields)).values():
        assert torch.as_tensor(value).isfinite().all()


def test_batch_size_changes_nothing(make_evidence):
    evidence = make_evidence(images=7)
    whole = measured(evidence, 100)
    for size in (1, 3):
        parts = measured(evidence, size)
        torch.testing.assert_close(parts, whole)
