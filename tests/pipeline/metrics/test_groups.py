import json
import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import ProtoMaskError
from pipeline.metrics import groups


def assert_same(first, second, **tolerance):
    assert first.keys() == second.keys()
    for metric, value in first.items():
        torch.testing.assert_close(
            torch.as_tensor(value), torch.as_tensor(second[metric]), **tolerance
        )


def test_each_image_is_drawn_once_for_all_groups(make_evidence):
    evidence = make_evidence(images=70)
    groups.measure(evidence, list(groups.GROUPS))
    assert evidence.explanation.drawn == list(range(70))


def test_nothing_is_drawn_for_groups_without_maps(make_evidence):
    evidence = make_evidence()
    assert list(groups.measure(evidence, ["compactness", "general"])) == ["compactness", "general"]
    assert evidence.explanation.drawn == []


@pytest.mark.parametrize("name", groups.GROUPS)
def test_a_group_alone_measures_the_same(make_evidence, name):
    evidence = make_evidence()
    together = groups.measure(evidence, list(groups.GROUPS))
    assert_same(groups.GROUPS[name](evidence), together[name], rtol=0, atol=0)


def test_unknown_group_names_the_choices(make_evidence):
    with pytest.raises(ProtoMaskError, match=r"typo.*choose from general, compactness"):
        groups.measure(make_evidence(), ["general", "typo"])


def test_empty_split_is_refused(make_evidence):
    with pytest.raises(ProtoMaskError, match="no image"):
        groups.measure(make_evidence(images=0), ["general"])


def test_summary_by_hand():
    values = {
        "a": {"mean": torch.tensor([1.0, 2.0, 6.0]), "plain": 4.0},
        "b": {"some": torch.tensor([1.0, math.inf, 2.0]), "none": torch.tensor([math.inf] * 3)},
        "c": {"nan": torch.tensor([math.nan, 5.0]), "infinite": math.inf},
    }
    assert groups.summarise(values) == {
        "a": {"mean": 3.0, "plain": 4.0},
        "b": {"some": 1.5, "some_undefined": 1, "none_undefined": 3},
        "c": {"nan": 5.0, "nan_undefined": 1, "infinite_undefined": 1},
    }


def test_summary_counts_images_whose_oirr_is_infinite(make_evidence):
    evidence = make_evidence(images=5)
    evidence.object_masks[2] = False
    summary = groups.summarise(groups.measure(evidence, ["complexity"]))["complexity"]
    assert summary["oirr_undefined"] == 1
    assert math.isfinite(summary["oirr"])


@pytest.mark.parametrize(
    "fields",
    [
        {"images": 1},
        {"classes": 1},
        {"classes": 1, "images": 1, "prototypes": 1},
        {"images": 4, "classes": 9},
        {"top_k": 1},
        {"top_k": 99},
        {"object_masks": torch.zeros(7, 8, 8, dtype=torch.bool)},
        {"similarity_NP": torch.zeros(7, 6)},
        {"weights_CP": -torch.ones(3, 6)},
        {"parts_NQ2": torch.full((7, 3, 2), math.nan)},
        {"prototypes_PD": torch.zeros(6, 5), "embedding_NKD": torch.zeros(7, 4, 5)},
    ],
    ids=lambda fields: "-".join(fields),
)
def test_summary_is_strict_json(make_evidence, fields):
    values = groups.measure(make_evidence(**fields), list(groups.GROUPS))
    json.dumps(groups.summarise(values), allow_nan=False)


def test_summary_of_all_zero_maps_is_strict_json(make_evidence):
    evidence = make_evidence()
    evidence.explanation.maps_NPSS[:] = 0
    evidence.explanation.masks_NPSS[:] = False
    summary = groups.summarise(groups.measure(evidence, list(groups.GROUPS)))
    json.dumps(summary, allow_nan=False)
    assert summary["complexity"]["oirr_undefined"] == 7
    assert summary["complexity"]["consistency"] == 0
    assert summary["contrastivity"]["vac"] == 0


@given(seed=st.integers(0, 1000))
def test_the_order_of_images_changes_no_metric(make_evidence, seed):
    evidence = make_evidence(images=9, seed=seed)
    order = torch.randperm(9, generator=torch.Generator().manual_seed(seed))
    by_image = ("labels_N", "logits_NC", "similarity_NP", "crop_NP", "embedding_NKD", "valid_NK")
    shuffled = replace(
        evidence,
        ids=[evidence.ids[n] for n in order],
        explanation=replace(
            evidence.explanation,
            maps_NPSS=evidence.explanation.maps_NPSS[order],
            masks_NPSS=evidence.explanation.masks_NPSS[order],
        ),
        **{
            name: getattr(evidence, name)[order]
            for name in (*by_image, "object_masks", "parts_NQ2")
        },
    )
    names = list(groups.GROUPS)
    first = groups.summarise(groups.measure(evidence, names))
    second = groups.summarise(groups.measure(shuffled, names))
    for name in names:
        assert_same(first[name], second[name])
