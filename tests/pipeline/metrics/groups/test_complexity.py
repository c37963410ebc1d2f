import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import jaccard_score, precision_score, recall_score

from pipeline.metrics.groups import complexity
from pipeline.metrics.measuring import measure as measure_groups

# The object is the upper row; the saliency mask the left column and the upper right pixel.
OBJECT = torch.tensor([[[1, 1, 1], [0, 0, 0], [0, 0, 0]]], dtype=torch.bool)
MASK = torch.tensor([[[[1, 0, 1], [1, 0, 0], [1, 0, 0]]]], dtype=torch.bool)
EMPTY = torch.zeros_like(MASK)
NO_OBJECT = torch.zeros_like(OBJECT)

seeds = st.integers(0, 1000)


def measured(evidence, *batch_size):
    return measure_groups(evidence, ["complexity"], *batch_size)["complexity"]


def rand(seed: int, *shape: int) -> torch.Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


def test_overlaps_by_hand():
    # |mask| 4, |object| 3, both 2, either 5
    assert complexity.object_overlap(MASK, OBJECT).tolist() == [[pytest.approx(100 * 2 / 3)]]
    assert complexity.background_overlap(MASK, OBJECT).tolist() == [[50]]
    assert complexity.iou(MASK, OBJECT).tolist() == [[pytest.approx(40)]]


def test_empty_denominators_give_zero():
    assert complexity.object_overlap(MASK, NO_OBJECT).tolist() == [[0]]
    assert complexity.background_overlap(EMPTY, OBJECT).tolist() == [[0]]
    assert complexity.iou(EMPTY, NO_OBJECT).tolist() == [[0]]


def test_mask_off_the_object():
    assert complexity.background_overlap(MASK, NO_OBJECT).tolist() == [[100]]
    assert complexity.iou(MASK, NO_OBJECT).tolist() == [[0]]


def test_ior_and_oirr_by_hand():
    # inside: 4 and 2, mean 3 (the zero is left out); outside: 1; maximum 4
    maps_BkSS = torch.tensor([[[[4.0, 0, 2], [0, 1, 0], [0, 0, 0]]]])
    assert complexity.ior(maps_BkSS, OBJECT).tolist() == [[pytest.approx(3 / 4 - 1 / 4)]]
    assert complexity.oirr(maps_BkSS, OBJECT).tolist() == [[pytest.approx(1 / 3)]]


def test_comprehensiveness_by_hand():
    # normalised, the first is 0.6 at 4 and below it at 3.9; the second has its 9 on the object
    first = torch.tensor([[1.0, 4, 3.9], [6, 1, 1], [1, 1, 1]])
    second = torch.tensor([[0.0, 0, 9], [0, 0, 0], [0, 0, 0]])
    both = complexity.comprehensiveness(torch.stack([first, second])[None], OBJECT)
    # two of the object's three pixels, and one beside it: of 4
    assert both.tolist() == [50]
    alone = complexity.comprehensiveness(first[None, None], OBJECT)
    assert alone.tolist() == [25]


def test_comprehensiveness_of_constant_maps():
    maps_BkSS = torch.stack([torch.zeros(1, 3, 3), torch.full((1, 3, 3), 0.2)])
    found = complexity.comprehensiveness(maps_BkSS, OBJECT.expand(2, 3, 3))
    assert found.tolist() == pytest.approx([0, 100 / 3])


@pytest.mark.parametrize(
    ("map_SS", "ior", "oirr"),
    [
        ([[5, 5, 0], [0, 0, 0], [0, 0, 0]], 1, 0),
        ([[0, 0, 0], [5, 0, 5], [0, 0, 0]], -1, math.inf),
        ([[0, 0, 0], [0, 0, 0], [0, 0, 0]], 0, math.inf),
    ],
    ids=["only inside", "only outside", "all zero"],
)
def test_relevance_on_one_side_only(map_SS, ior, oirr):
    maps_BkSS = torch.tensor([[map_SS]], dtype=torch.float32)
    assert complexity.ior(maps_BkSS, OBJECT).tolist() == [[ior]]
    assert complexity.oirr(maps_BkSS, OBJECT).tolist() == [[oirr]]


def test_objects_belong_to_their_images():
    masks_BkSS = MASK.expand(2, 3, 3, 3)
    objects_BSS = torch.cat([OBJECT, OBJECT.transpose(1, 2)])
    # against the left column: |object| 3, both 3
    assert complexity.object_overlap(masks_BkSS, objects_BSS).tolist() == [
        [pytest.approx(100 * 2 / 3)] * 3,
        [100] * 3,
    ]


def test_part_hits_by_hand():
    # non-zero at column 2 of row 0 and, tiny, at column 0 of row 1
    maps_BkSS = torch.tensor([[[[0, 0, 0.5], [1e-6, 0, 0], [0, 0, 0]]]])
    nan = math.nan
    places = [[2.9, 0.9], [0, 1.99], [0.5, 2.5], [3, 0], [3.1, 0], [-0.1, 1], [nan, nan]]
    hits_BkQ = complexity.part_hits(maps_BkSS, torch.tensor([places]))
    assert hits_BkQ.tolist() == [[[True, True, False, True, False, False, False]]]


def test_consistency_by_hand():
    # Prototype 4: in images 0, 1, 2; part 0 hit in 2 of 3, part 1 in 1 of 3, part 2 never:
    # (2/3 + 1/3)/2 = 1/2. Prototype 7: in images 0, 1; part 2 in 2 of 2: 1.
    # Prototype 9: in image 2, no part: 0. Mean (1/2 + 1 + 0)/3 = 1/2.
    top_Nk = torch.tensor([[4, 7], [7, 4], [9, 4]])
    hits_NkQ = torch.tensor(
        [
            [[1, 1, 0], [0, 0, 1]],
            [[0, 0, 1], [1, 0, 0]],
            [[0, 0, 0], [0, 0, 0]],
        ],
        dtype=torch.bool,
    )
    assert complexity.consistency(hits_NkQ, top_Nk) == pytest.approx(50)


def test_consistency_without_hits_is_zero():
    assert (
        complexity.consistency(torch.zeros(2, 1, 3, dtype=torch.bool), torch.tensor([[0], [1]]))
        == 0
    )


@given(seed=seeds)
def test_consistency_agrees_with_a_plain_count(seed):
    top_Nk = rand(seed + 1, 8, 6).argsort(dim=1)[:, :3]
    hits_NkQ = rand(seed, 8, 3, 4) > 0.7
    per_prototype = []
    for prototype in top_Nk.unique():
        rows = hits_NkQ[top_Nk == prototype].float()
        shares = [share for share in rows.mean(0).tolist() if share > 0]
        per_prototype.append(sum(shares) / len(shares) if shares else 0)
    assert complexity.consistency(hits_NkQ, top_Nk) == pytest.approx(
        100 * sum(per_prototype) / len(per_prototype)
    )


@given(seed=seeds)
def test_overlaps_agree_with_scikit_learn(seed):
    mask_SS, object_SS = rand(seed, 2, 5, 5) > 0.5
    arguments = mask_SS[None, None], object_SS[None]
    flat = object_SS.flatten(), mask_SS.flatten()
    assert complexity.object_overlap(*arguments).item() == pytest.approx(100 * recall_score(*flat))
    assert complexity.background_overlap(*arguments).item() == pytest.approx(
        100 * (1 - precision_score(*flat)), abs=1e-4
    )
    assert complexity.iou(*arguments).item() == pytest.approx(100 * jaccard_score(*flat))


@given(seed=seeds, scale=st.floats(0.01, 100))
def test_relevance_ranges_and_scale(seed, scale):
    maps_BkSS = rand(seed, 2, 3, 5, 5) * (rand(seed + 1, 2, 3, 5, 5) > 0.6)
    objects_BSS = rand(seed + 2, 2, 5, 5) > 0.5
    ior_Bk = complexity.ior(maps_BkSS, objects_BSS)
    oirr_Bk = complexity.oirr(maps_BkSS, objects_BSS)
    assert ((ior_Bk >= -1) & (ior_Bk <= 1)).all()
    assert (oirr_Bk >= 0).all()
    torch.testing.assert_close(complexity.ior(scale * maps_BkSS, objects_BSS), ior_Bk)
    torch.testing.assert_close(complexity.oirr(scale * maps_BkSS, objects_BSS), oirr_Bk)
    torch.testing.assert_close(complexity.ior(maps_BkSS, ~objects_BSS), -ior_Bk)


def test_measure_with_all_ground_truth(make_evidence):
    values = measured(make_evidence(images=7))
    masked = {"object_overlap", "background_overlap", "iou", "comprehensiveness", "ior", "oirr"}
    assert set(values) == masked | {"consistency"}
    assert all(values[name].shape == (7,) for name in masked)
    assert isinstance(values["consistency"], float)


def test_measure_leaves_out_what_has_no_ground_truth(make_evidence):
    assert set(measured(make_evidence(object_masks=None))) == {"consistency"}
    assert "consistency" not in measured(make_evidence(parts_NQ2=None))
    assert measured(make_evidence(object_masks=None, parts_NQ2=None)) == {}


def test_measure_means_an_images_maps(make_evidence):
    evidence = make_evidence(images=4, top_k=2)
    expected = []
    for image, prototypes in enumerate(evidence.top_Nk):
        masks_kSS = evidence.explanations[0].masks_NPSS[image, prototypes]
        object_SS = evidence.object_masks[image]
        expected.append(
            sum(100 * float((m & object_SS).sum() / object_SS.sum()) for m in masks_kSS) / 2
        )
    assert measured(evidence)["object_overlap"].tolist() == pytest.approx(expected)


def test_measure_takes_relevance_from_the_maps(make_evidence):
    evidence = make_evidence(images=4, top_k=2)
    maps = evidence.explanations[0].maps_NPSS[torch.arange(4)[:, None], evidence.top_Nk]
    values = measured(evidence)
    expected = complexity.ior(maps, evidence.object_masks).mean(dim=1)
    torch.testing.assert_close(values["ior"], expected)
    expected = complexity.oirr(maps, evidence.object_masks).mean(dim=1)
    torch.testing.assert_close(values["oirr"], expected)


def test_part_values_come_from_the_map_and_not_the_mask(make_evidence):
    evidence = make_evidence()
    evidence.explanations[0].masks_NPSS[:] = False
    assert measured(evidence)["consistency"] > 0


def test_batch_size_changes_nothing(make_evidence):
    evidence = make_evidence(images=7)
    whole = measured(evidence, 100)
    for size in (1, 3):
        parts = measured(evidence, size)
        torch.testing.assert_close(parts, whole)
