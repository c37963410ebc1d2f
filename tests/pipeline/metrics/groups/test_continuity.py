import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import rankdata
from sklearn.metrics import jaccard_score
from torch import Tensor

from pipeline.metrics.evidence import Batch, Copies, Drawn, Evidence
from pipeline.metrics.groups import completeness, continuity
from pipeline.model.base.head import DistanceHead, LinearHead
from pipeline.model.base.inference import ModelOutputs, outputs_of

LEFT = torch.tensor([[1, 0], [1, 0]], dtype=torch.bool)
TOP = torch.tensor([[1, 1], [0, 0]], dtype=torch.bool)
EMPTY = torch.zeros(2, 2, dtype=torch.bool)
ALL_VALID = torch.ones(1, 4, dtype=torch.bool)

seeds = st.integers(0, 1000)


def rand(seed: int, *shape: int) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


def s(*values: float) -> Tensor:
    """One image's one similarity map."""
    return torch.tensor([[values]], dtype=torch.float64)


def test_vlc_by_hand():
    # left and top share 1 of 3 pixels; equal ones, empty ones too: 0; empty and left: all
    first = torch.stack([LEFT, LEFT, EMPTY, EMPTY])[None]
    second = torch.stack([TOP, LEFT, EMPTY, LEFT])[None]
    assert continuity.vlc(first, second)[0].tolist() == pytest.approx([200 / 3, 0, 0, 100])


def test_vac_by_hand():
    # sorted 0 1 2 4 and 0 0 2 2: Σmin 4, Σmax 7; all-zero: 0; zero and not: 100
    maps = torch.tensor([[4.0, 0, 1, 2], [0, 2, 2, 0], [0, 0, 0, 0]]).view(3, 2, 2)
    change_Bk = continuity.vac(maps[None, [0, 2, 2]], maps[None, [1, 2, 0]])
    assert change_Bk[0].tolist() == pytest.approx([100 * 3 / 7, 0, 100])


def test_plc_by_hand():
    change_Bk = continuity.plc(torch.tensor([[0, 7, 2]]), torch.tensor([[3, 1, 2]]))
    assert change_Bk.tolist() == [[3, 6, 0]]


def test_plc_of_cells_by_hand():
    # a crop has 2 rows and 3 columns of cells: view 11 is crop 1's (1, 2), view 3 crop 0's (1, 0)
    first, second = torch.tensor([[11, 2, 0, 5]]), torch.tensor([[3, 3, 17, 5]])
    # 1 + 0 + 2; from (0, 2) to (1, 0): 1 + 2; from crop 0's (0, 0) to crop 2's (1, 2): 2 + 1 + 2
    assert continuity.plc(first, second, (2, 3)).tolist() == [[3, 3, 5, 0]]


@given(seed=seeds)
def test_plc_of_cells_agrees_with_numpy(seed):
    shape = (4, 3, 5)
    views = torch.randint(0, 60, (2, 1, 9), generator=torch.Generator().manual_seed(seed))
    crop, row, column = np.unravel_index(views.numpy(), shape)
    expected = sum(np.abs(places[0] - places[1]) for places in (crop, row, column))
    assert continuity.plc(*views, shape[1:]).tolist() == expected.tolist()


def test_palc_by_hand():
    # from 1 to 5 the half is 3: crops 0, 1, 2; from 0 to 4 it is 2: crops 2, 3. One of four shared.
    assert continuity.palc(s(5, 3, 4, 1), s(0, 1, 4, 2), ALL_VALID).tolist() == [[75]]
    # adding and multiplying change no place
    assert continuity.palc(s(5, 3, 4, 1), s(51, 31, 41, 11), ALL_VALID).tolist() == [[0]]


def test_palc_of_a_map_that_is_the_same_everywhere():
    # all four crops count; of the other map two do
    assert continuity.palc(s(2, 2, 2, 2), s(0, 0, 1, 1), ALL_VALID).tolist() == [[50]]
    assert continuity.palc(s(2, 2, 2, 2), s(0, 0, 0, 0), ALL_VALID).tolist() == [[0]]
    single = torch.tensor([[False, True, False, False]])
    assert continuity.palc(s(9, 2, 0, 0), s(0, 1, 8, 8), single).tolist() == [[0]]


def test_pac_by_hand():
    # sorted 1 2 3 4 and 0 1 1 4: Σmin 6, Σmax 10
    change_Bk = continuity.pac(s(4, 3, 2, 1), s(1, 4, 0, 1), ALL_VALID)
    assert change_Bk.item() == pytest.approx(40)
    # of the first two crops alone: 3 4 and 1 4: 5 of 7
    two = torch.tensor([[True, True, False, False]])
    change_Bk = continuity.pac(s(4, 3, 2, 1), s(1, 4, 0, 1), two)
    assert change_Bk.item() == pytest.approx(200 / 7)
    assert continuity.pac(s(0, 0, 0, 0), s(0, 0, 0, 0), ALL_VALID).tolist() == [[0]]


def test_psc_by_hand():
    change_Bk = continuity.psc(torch.tensor([[4.0, 2, 3]]), torch.tensor([[3.0, 5, 3]]))
    assert change_Bk.tolist() == [[25, 150, 0]]


def test_psc_of_nothing():
    # 0 and 0 is no change; what rises from 0 has no bound
    change_Bk = continuity.psc(torch.tensor([[0.0, 0]]), torch.tensor([[0.0, 1]]))
    assert change_Bk.tolist() == [[0, math.inf]]


def test_prc_by_hand():
    # prototypes by falling similarity: 2 0 1 3, then 3 1 0 2 (0 and 1 are equal: by number 0 1)
    first, second = torch.tensor([[0.8, 0.5, 0.9, 0.1]]), torch.tensor([[0.3, 0.3, 0.1, 0.7]])
    change_Bk = continuity.prc(first, second, torch.tensor([[2, 0, 1, 3]]))
    assert change_Bk.tolist() == [[3, 0, 0, 3]]


def test_cac_by_hand():
    # sorted 1 2 5 and 1 3 4: Σmin 7, Σmax 9; −1 2 and −2 3: −2 + 2 over −1 + 3
    first, second = torch.tensor([[5.0, 2, 1]]), torch.tensor([[3.0, 1, 4]])
    assert continuity.cac(first, second).tolist() == pytest.approx([200 / 9])
    first, second = torch.tensor([[2.0, -1]]), torch.tensor([[3.0, -2]])
    assert continuity.cac(first, second).tolist() == [100]
    # −4 1 and −3 4: −3 over 1
    first, second = torch.tensor([[1.0, -4]]), torch.tensor([[4.0, -3]])
    assert continuity.cac(first, second).tolist() == [400]


def test_cac_without_a_positive_sum():
    first = torch.tensor([[-1.0, -2], [1, -1], [-1, -2], [0, 0]])
    second = torch.tensor([[-3.0, -2], [1, -2], [-2, -1], [0, 0]])
    change_B = continuity.cac(first, second)
    assert change_B[:2].isnan().all()
    assert change_B[2:].tolist() == [0, 0]


def test_crc_by_hand():
    # class 1 was first, then third, then still first; of two equal logits the lower class is first
    first = torch.tensor([[1.0, 5, 2], [1, 5, 2], [5, 5, 2]])
    second = torch.tensor([[6.0, 1, 2], [4, 7, 6], [2, 2, 2]])
    assert continuity.crc(first, second).tolist() == [2, 0, 0]


def test_stability_by_hand():
    # parts at the left, top left and right top: left has 0 and 1, top 1 and 2
    parts_BQ2 = torch.tensor([[[0.5, 1.5], [0.5, 0.5], [1.5, 0.5]]])
    first = torch.stack([LEFT, LEFT, LEFT, EMPTY])[None]
    second = torch.stack([TOP, LEFT, EMPTY, EMPTY])[None]
    share_Bk = continuity.stability(first, second, parts_BQ2)
    assert share_Bk[0, :3].tolist() == pytest.approx([100 / 3, 100, 0])
    assert share_Bk[0, 3].isnan()


def test_similarity_maps_by_hand():
    # distances of (0, 0) and (1, 0) to (1, 1): 2 and 1; to (0, 0): 0 and 1
    maps_BkK = continuity.similarity_maps(
        torch.tensor([[[0.0, 0], [1, 0]]]),
        torch.tensor([[2, 0]]),
        DistanceHead(
            torch.tensor([[0.0, 0], [9, 9], [1, 1]]), torch.zeros(1, 3), 0.5, torch.zeros(3)
        ),
    )
    expected = [math.log(3 / 2.5), math.log(2 / 1.5), math.log(2), math.log(2 / 1.5)]
    assert maps_BkK.flatten().tolist() == pytest.approx(expected)


Metric = Callable[[Tensor, Tensor], Tensor]

SYMMETRIC = ("vlc", "vac", "plc", "palc", "pac", "prc", "cac", "stability")
LARGEST = {"plc": 5, "psc": math.inf, "prc": 8, "crc": 7}


def metrics(seed: int) -> dict[str, tuple[Metric, Tensor, Tensor]]:
    """Name -> the metric, and what it takes of 3 images and of their copies."""
    valid_BK = rand(seed, 3, 6) > 0.4
    valid_BK[:, 2] = True
    parts_BQ2 = rand(seed + 1, 3, 4, 2) * 5
    maps = rand(seed, 2, 3, 4, 5, 5) * (rand(seed + 1, 2, 3, 4, 5, 5) > 0.5)
    s_maps, similarities, logits = rand(seed, 2, 3, 4, 6), rand(seed, 2, 3, 9), rand(seed, 2, 3, 8)
    top_Bk = similarities[0].argsort(dim=1)[:, :4]
    return {
        "vlc": (continuity.vlc, *(maps > 0.5)),
        "vac": (continuity.vac, *maps),
        "plc": (continuity.plc, *s_maps.argmax(dim=-1)),
        "palc": (partial(continuity.palc, valid_BV=valid_BK), *s_maps),
        "pac": (partial(continuity.pac, valid_BV=valid_BK), *s_maps),
        "psc": (continuity.psc, *similarities),
        "prc": (partial(continuity.prc, prototypes_Bk=top_Bk), *similarities),
        "cac": (continuity.cac, *logits),
        "crc": (continuity.crc, *logits),
        "stability": (partial(continuity.stability, parts_BQ2=parts_BQ2), *(maps > 0.5)),
    }


@given(seed=seeds)
def test_ranges(seed):
    for name, (metric, first, second) in metrics(seed).items():
        values = metric(first, second)
        assert (values.isnan() | ((values >= 0) & (values <= LARGEST.get(name, 100)))).all(), name


@given(seed=seeds)
def test_no_change_is_zero(seed):
    for name, (metric, first, _) in metrics(seed).items():
        values = metric(first, first)
        if name == "stability":
            assert (values.isnan() | (values == 100)).all()
        else:
            assert (values == 0).all(), name


@given(seed=seeds)
def test_image_and_copy_may_change_places(seed):
    of_names = metrics(seed)
    for name in SYMMETRIC:
        metric, first, second = of_names[name]
        torch.testing.assert_close(metric(first, second), metric(second, first), equal_nan=True)


@given(seed=seeds)
def test_missing_crops_do_not_matter(seed):
    first, second, noise = rand(seed, 3, 2, 3, 6).double()
    valid_BK = rand(seed + 1, 2, 6) > 0.5
    valid_BK[:, 0] = True
    other = torch.where(valid_BK[:, None], first, 9 * noise)
    for metric in (continuity.palc, continuity.pac):
        assert torch.equal(metric(first, second, valid_BK), metric(other, second, valid_BK))


@given(seed=seeds)
def test_palc_agrees_with_scikit_learn(seed):
    maps_2K = rand(seed, 2, 9)
    valid_K = rand(seed + 1, 9) > 0.3
    valid_K[:2] = True
    halves = [
        (m[valid_K] - m[valid_K].min()) / (m[valid_K].max() - m[valid_K].min()) >= 0.5
        for m in maps_2K
    ]
    change = continuity.palc(*maps_2K[:, None, None], valid_K[None])
    assert change.item() == pytest.approx(100 * (1 - jaccard_score(*halves)), abs=1e-4)


@given(seed=seeds)
def test_quotients_agree_with_numpy(seed):
    first, second = np.sort(rand(seed, 2, 9).double().numpy(), axis=-1)
    expected = 100 * (1 - np.minimum(first, second).sum() / np.maximum(first, second).sum())
    one, two = rand(seed, 2, 1, 9).double()
    everything = torch.ones(1, 9, dtype=torch.bool)
    assert continuity.cac(one, two).item() == pytest.approx(expected)
    assert continuity.pac(one[None], two[None], everything).item() == pytest.approx(expected)


@given(seed=seeds)
def test_ranks_agree_with_scipy(seed):
    first, second = rand(seed, 2, 9)
    ranks = [rankdata(-values.numpy(), method="ordinal") for values in (first, second)]
    change_Bk = continuity.prc(first[None], second[None], torch.arange(9)[None])
    assert change_Bk[0].tolist() == np.abs(ranks[0] - ranks[1]).tolist()
    change_B = continuity.crc(first[None], second[None])
    assert change_B.tolist() == [ranks[1][int(first.argmax())] - 1]


@dataclass
class CropBoxes:
    """Draws the box of a crop, as bright as the crop is."""

    boxes_NK4: Tensor
    crops_NKSS3: Tensor
    name: str = "boxes"

    def maps(
        self,
        images_B: Tensor,
        prototypes_Bk: Tensor,
        crop_Bk: Tensor,
        copies: Copies | None = None,
    ) -> tuple[Tensor, Tensor]:
        size = self.crops_NKSS3.shape[2]
        crops = self.crops_NKSS3[images_B] if copies is None else copies.crops_XKSS3
        bright_Bk = crops.double().mean(dim=(2, 3, 4)).gather(1, crop_Bk)
        x0, y0, x1, y1 = self.boxes_NK4[images_B[:, None], crop_Bk][..., None, None].unbind(dim=2)
        column, row = torch.arange(size) + 0.5, torch.arange(size)[:, None] + 0.5
        masks = (column >= x0) & (column < x1) & (row >= y0) & (row < y1)
        return (masks * bright_Bk[..., None, None]).float(), masks


def in_cells(make_evidence, **fields) -> Evidence:
    """Two images of two crops, each of 1 row and 2 columns of cells; image 1 lacks crop 1."""
    return make_evidence(
        images=2,
        prototypes=1,
        top_k=1,
        grid=(1, 2),
        prototypes_PD=torch.zeros(1, 1),
        weights_CP=torch.ones(1, 1),
        epsilon=0.5,
        valid_NK=torch.tensor([[True, True], [True, False]]),
        **fields,
    )


def test_of_answers_in_cells_by_hand(make_evidence):
    evidence = in_cells(make_evidence)
    # s of a distance d is log((d + 1) / (d + ½)): embeddings √d that make s from s
    distance = {s: (1 - 0.5 * math.exp(s)) / (math.exp(s) - 1) for s in (0.1, 0.2, 0.3, 0.4, 0.6)}
    assert math.log((distance[0.2] + 1) / (distance[0.2] + 0.5)) == pytest.approx(0.2)
    rows = (
        [[0.1, 0.4, 0.2, 0.3], [0.2, 0.1, 0.6, 0.6]],
        [[0.1, 0.2, 0.2, 0.4], [0.1, 0.2, 0.3, 0.3]],
    )
    both = []
    for similarity in rows:
        embedding_NVD = torch.tensor([[distance[s] for s in row] for row in similarity])[..., None]
        valid_NV = evidence.valid_views(evidence.valid_NK)
        found = outputs_of(evidence.head, embedding_NVD.sqrt(), valid_NV)
        both.append(found)
    changes = continuity.of_outputs(
        evidence, *both, evidence.valid_NK, torch.zeros(2, 1, dtype=torch.int64)
    )
    # Image 0: view 1, crop 0's (0, 1), to view 3, crop 1's (0, 1). Image 1, of whose second crop
    # nothing counts: view 0 to view 1.
    assert changes["plc"].tolist() == [[1], [1]]
    # From 0.1 to 0.4 the half is 0.25: cells 1 and 3, then 3 alone. Cell 0, then cell 1.
    assert changes["palc"].flatten().tolist() == pytest.approx([50, 100], abs=1e-3)
    # Sorted 0.1 0.2 0.3 0.4 and 0.1 0.2 0.2 0.4: 0.9 of 1. Sorted 0.1 0.2 twice; the crop that
    # is missing would make it 0.9 of 1.5.
    assert changes["pac"].flatten().tolist() == pytest.approx([10, 0], abs=1e-3)
    assert changes["psc"].flatten().tolist() == pytest.approx([0, 0], abs=1e-3)


def test_a_black_box_has_no_similarity_maps(make_evidence):
    # logits −4 and 2 of the class that is named, then −5 and 1: a quarter and a half
    evidence = make_evidence(images=2, head=LinearHead(torch.ones(2, 1), torch.zeros(2)))
    view_NP, embedding_NVD = torch.zeros(2, 2, dtype=torch.int64), torch.zeros(2, 1, 1)
    logits = torch.tensor([[-4.0, -9], [1, 2]]), torch.tensor([[-5.0, -3], [0, 1]])
    both = [ModelOutputs(embedding_NVD, view_NP, logits_NC, logits_NC) for logits_NC in logits]
    changes = continuity.of_outputs(
        evidence, *both, torch.ones(2, 1, dtype=torch.bool), torch.tensor([[0], [1]])
    )
    assert {name: value.flatten().tolist() for name, value in changes.items()} == {
        "psc": [25, 50],
        "prc": [1, 0],
    }
    assert set(continuity.Continuity().unavailable(evidence)) == {"plc", "palc", "pac"}
    assert set(completeness.Completeness().unavailable(evidence)) == {"plc", "palc", "pac"}


@pytest.fixture
def evidence(make_evidence) -> Evidence:
    """What the model of `conftest` truly says; some images lack crops."""
    made = make_evidence(images=6)
    valid_NK = torch.ones_like(made.valid_NK)
    valid_NK[1, 2:], valid_NK[4, 1:] = False, False
    crops_NKSS3 = made.subject.crops_NKSS3
    # Colours that differ, as those of images do.
    crops_NKSS3 = (crops_NKSS3 * rand(1, 6, 4, 1, 1, 3)).to(torch.uint8)
    subject = replace(made.subject, crops_NKSS3=crops_NKSS3)
    return replace(
        made,
        subject=subject,
        valid_NK=valid_NK,
        outputs=subject.infer(crops_NKSS3, valid_NK),
        explanations=[CropBoxes(made.boxes_NK4, crops_NKSS3)],
    )


def measured(evidence: Evidence, batch_size: int) -> dict[str, Tensor]:
    found = []
    for batch in evidence.batches(batch_size):
        explanation = evidence.explanations[0]
        maps = explanation.maps(batch.images_B, batch.prototypes_Bk, batch.crop_Bk)
        drawn = Drawn(explanation, *maps)
        found.append(
            continuity.Continuity().of_batch(batch) | continuity.Continuity().of_maps(batch, drawn)
        )
    return {name: torch.cat([values[name] for values in found]) for name in found[0]}


def test_of_evidence_against_a_loop(evidence):
    values = measured(evidence, 6)
    batch = Batch(evidence, torch.arange(6))
    first, second = batch.outputs, batch.perturbed.outputs
    moved = 0
    for image in range(6):
        K = int(evidence.valid_NK[image].sum())
        plc, palc, psc, vlc = [], [], [], []
        for j in evidence.top_Nk[image]:
            maps = []
            for outputs in (first, second):
                z_KD, p_D = outputs.embedding_NVD[image, :K].double(), evidence.prototypes_PD[j]
                d_K = ((z_KD - p_D.double()) ** 2).sum(dim=1)
                maps.append(((d_K + 1) / (d_K + evidence.head.epsilon)).log())
            places = [int(m.argmax()) for m in maps]
            halves = [m - m.min() >= 0.5 * (m.max() - m.min()) for m in maps]
            masks = [
                evidence.explanations[0].maps(torch.tensor([image]), j.view(1, 1), crop)[1]
                for crop in torch.tensor(places).view(2, 1, 1)
            ]
            plc.append(abs(places[0] - places[1]))
            palc.append(100 * (1 - jaccard_score(*halves)))
            psc.append(100 * float(abs(maps[0].max() - maps[1].max()) / maps[0].max()))
            vlc.append(100 * (1 - jaccard_score(*[m.flatten() for m in masks])))
        assert values["plc"][image].item() == pytest.approx(np.mean(plc))
        assert values["palc"][image].item() == pytest.approx(np.mean(palc), abs=1e-4)
        assert values["psc"][image].item() == pytest.approx(np.mean(psc), rel=1e-4)
        assert values["vlc"][image].item() == pytest.approx(np.mean(vlc), abs=1e-4)
        moved += sum(plc)
    assert moved > 0


def test_class_scores_are_compared_and_the_class_that_the_image_has_is_looked_for(make_evidence):
    # sorted 1 2 5 and 1 3 4: 7 of 9. Class 0 is the image's first and the copy's second; class 2,
    # the copy's first, is the image's third. Similarities are all different.
    made = make_evidence(images=1, logits_NC=torch.tensor([[5.0, 2, 1]]))
    second = made.outputs._replace(
        logits_NC=torch.tensor([[3.0, 1, 4]]), similarity_NP=made.outputs.similarity_NP + 9
    )
    made.subject.infer = lambda *crops: second
    values = continuity.Continuity().of_batch(Batch(made, torch.tensor([0])))
    assert values["cac"].tolist() == pytest.approx([200 / 9])
    assert values["crc"].tolist() == [1]


def test_parts_are_stable_on_masks_wherever_maps_are_not_zero(make_evidence):
    # Parts at the lower left, upper left and upper right: the image's mask, the left half, has two
    # of them and the copy's, the upper half, two; one of three is on both. Maps cover all.
    left, top = torch.zeros(2, 1, 1, 8, 8, dtype=torch.bool)
    left[..., :4], top[..., :4, :] = True, True
    maps = torch.ones(1, 1, 8, 8)
    evidence = make_evidence(
        images=1,
        prototypes=1,
        top_k=1,
        parts_NQ2=torch.tensor([[[1.0, 6], [1, 1], [6, 1]]]),
    )
    explanation = replace(evidence.explanations[0], maps_NPSS=maps, masks_NPSS=top)
    drawn = Drawn(explanation, maps, left)
    values = continuity.Continuity().of_maps(Batch(evidence, torch.tensor([0])), drawn)
    assert values["stability"].tolist() == pytest.approx([100 / 3])


def test_batches_and_order_change_nothing(evidence):
    together, alone = measured(evidence, 6), measured(evidence, 1)
    assert set(together) == {
        *("vlc", "vac", "plc", "palc", "pac", "psc", "prc", "cac", "crc", "stability")
    }
    for name, values in together.items():
        assert values.shape == (6,)
        torch.testing.assert_close(values, alone[name], equal_nan=True)


def test_a_pair_that_hits_no_part_is_left_out(evidence):
    # Nothing is drawn in the copies, and in the images only image 0's first map: of its parts, all
    # of them on that map, none is on both.
    explanation = replace(evidence.explanations[0], boxes_NK4=torch.zeros(6, 4, 4))
    masks_BkSS = torch.zeros(6, 3, 8, 8, dtype=torch.bool)
    masks_BkSS[0, 0] = True
    batch = Batch(evidence, torch.arange(6))
    drawn = Drawn(explanation, masks_BkSS.float(), masks_BkSS)
    values = continuity.Continuity().of_maps(batch, drawn)["stability"]
    assert values[0] == 0
    assert values[1:].isnan().all()


def test_without_parts_there_is_no_stability(evidence):
    without = replace(evidence, parts_NQ2=None)
    assert "stability" not in measured(without, 6)
    assert set(continuity.Continuity().unavailable(without)) == {"stability"}
    assert continuity.Continuity().unavailable(evidence) == {}
