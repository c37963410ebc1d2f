import json
import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import ProtoMaskError
from pipeline.metrics import measuring
from pipeline.metrics.group import METRIC_GROUPS
from pipeline.metrics.summary import summarise
from pipeline.model.base.head import LinearHead
from pipeline.model.base.inference import ModelOutputs

# What they draw and ask is known to the stand-ins by an image's number.
CHANGED_COPIES = ("continuity", "completeness", "segmentation", "truth")


def assert_same(first, second, **tolerance):
    assert first.keys() == second.keys()
    for metric, value in first.items():
        torch.testing.assert_close(
            torch.as_tensor(value), torch.as_tensor(second[metric]), **tolerance
        )


def test_each_image_is_drawn_once_for_all_groups(make_evidence):
    evidence = make_evidence(images=70)
    measuring.measure(evidence, METRIC_GROUPS.own())
    assert evidence.explanations[0].drawn == list(range(70))


def test_nothing_is_drawn_for_groups_without_maps(make_evidence):
    evidence = make_evidence()
    assert list(measuring.measure(evidence, ["compactness", "general"])) == [
        "compactness",
        "general",
    ]
    assert evidence.explanations[0].drawn == []


@pytest.mark.parametrize("name", METRIC_GROUPS.own())
def test_a_group_alone_measures_the_same(make_evidence, name):
    evidence = make_evidence()
    together = measuring.measure(evidence, METRIC_GROUPS.own())
    alone = measuring.measure(evidence, [name])[name]
    assert_same(alone, together[name], rtol=0, atol=0, equal_nan=True)


def test_another_explanation_adds_its_own_metrics(make_evidence):
    evidence = make_evidence()
    mask = evidence.explanations[0]
    both = replace(evidence, explanations=[mask, replace(mask, name="prp")])
    first = measuring.measure(evidence, ["contrastivity"])["contrastivity"]
    values = measuring.measure(both, ["contrastivity"])["contrastivity"]
    assert set(values) == {*first, "vlc_prp", "vac_prp", "distinctiveness_prp"}
    assert values["vlc_prp"].tolist() == first["vlc"].tolist()


def metrics(values):
    return {name for name, value in values.items() if torch.as_tensor(value).ndim < 2}


def test_says_what_cannot_be_measured_and_why(make_evidence):
    evidence = make_evidence(object_masks=None, parts_NQ2=None, truth=None)
    names = METRIC_GROUPS.own()
    missing = measuring.unavailable(evidence, names)
    complete = measuring.measure(make_evidence(), names)
    found = measuring.measure(evidence, names)
    for name in names:
        assert metrics(complete[name]) - metrics(found[name]) == set(missing.get(name, {})), name
    assert all(why for reasons in missing.values() for why in reasons.values())
    assert not any(measuring.unavailable(make_evidence(), names).values())


def test_a_black_box_has_no_groups_about_prototypes(make_evidence):
    names, C = METRIC_GROUPS.own(), 3
    logits_NC = torch.rand(7, C)
    evidence = make_evidence(
        prototypes=C,
        classes=C,
        top_k=1,
        head=LinearHead(torch.rand(C, 5), torch.rand(C)),
        similarity_NP=logits_NC,
        logits_NC=logits_NC,
    )
    evidence = replace(evidence, subject=replace(evidence.subject, head=evidence.head))
    assert evidence.top_Nk[:, 0].tolist() == logits_NC.argmax(1).tolist()
    missing = measuring.unavailable(evidence, names)
    assert set(missing["compactness"]) == {"global_size", "sparsity", "npr", "local_size"}
    assert "a black box has no prototypes" in missing["contrastivity"]["vlc"]
    complete, found = measuring.measure(make_evidence(), names), measuring.measure(evidence, names)
    for name in names:
        assert metrics(complete[name]) - metrics(found[name]) == set(missing.get(name, {})), name
    assert "compactness" not in measuring.unavailable(evidence, ["general"])
    json.dumps(summarise(found), allow_nan=False)


def test_views_are_counted_crop_after_crop(make_evidence):
    evidence = make_evidence(images=2, grid=(2, 3))
    assert evidence.crop_of(torch.tensor([[0, 5, 6], [11, 12, 23]])).tolist() == [
        [0, 0, 1],
        [1, 2, 3],
    ]
    valid_BV = evidence.valid_views(torch.tensor([[True, False], [False, True]]))
    assert valid_BV.tolist() == [[True] * 6 + [False] * 6, [False] * 6 + [True] * 6]
    batch = next(replace(evidence, top_k=1).batches(2))
    view_B1 = evidence.outputs.view_NP.gather(1, batch.prototypes_Bk)
    assert batch.crop_Bk.tolist() == [[view // 6] for (view,) in view_B1.tolist()]


def test_empty_split_is_refused(make_evidence):
    with pytest.raises(ProtoMaskError, match="no image"):
        measuring.measure(make_evidence(images=0), ["general"])


def test_summary_counts_images_whose_oirr_is_infinite(make_evidence):
    evidence = make_evidence(images=5)
    evidence.object_masks[2] = False
    summary = summarise(measuring.measure(evidence, ["complexity"]))["complexity"]
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
        {"prototypes_PD": torch.zeros(6, 5), "embedding_NVD": torch.zeros(7, 4, 5)},
    ],
    ids=lambda fields: "-".join(fields),
)
def test_summary_is_strict_json(make_evidence, fields):
    values = measuring.measure(make_evidence(**fields), METRIC_GROUPS.own())
    json.dumps(summarise(values), allow_nan=False)


def test_summary_of_all_zero_maps_is_strict_json(make_evidence):
    evidence = make_evidence()
    evidence.explanations[0].maps_NPSS[:] = 0
    evidence.explanations[0].masks_NPSS[:] = False
    summary = summarise(measuring.measure(evidence, METRIC_GROUPS.own()))
    json.dumps(summary, allow_nan=False)
    assert summary["complexity"]["oirr_undefined"] == 7
    assert summary["complexity"]["consistency"] == 0
    assert summary["contrastivity"]["vac"] == 0


@given(seed=st.integers(0, 1000))
def test_the_order_of_images_changes_no_metric(make_evidence, seed):
    evidence = make_evidence(images=9, seed=seed)
    order = torch.randperm(9, generator=torch.Generator().manual_seed(seed))
    explanation = replace(
        evidence.explanations[0],
        maps_NPSS=evidence.explanations[0].maps_NPSS[order],
        masks_NPSS=evidence.explanations[0].masks_NPSS[order],
    )
    by_image = ("labels_N", "valid_NK", "boxes_NK4", "object_masks", "parts_NQ2")
    shuffled = replace(
        evidence,
        ids=[evidence.ids[n] for n in order],
        outputs=ModelOutputs(*(tensor[order] for tensor in evidence.outputs)),
        explanations=[explanation],
        **{name: getattr(evidence, name)[order] for name in by_image},
    )
    names = [name for name in METRIC_GROUPS.own() if name not in CHANGED_COPIES]
    first = summarise(measuring.measure(evidence, names))
    second = summarise(measuring.measure(shuffled, names))
    for name in names:
        assert_same(first[name], second[name])


def test_values_of_other_images_are_refused(make_evidence, monkeypatch):
    monkeypatch.setattr(METRIC_GROUPS["general"], "measure", lambda _: {"lead": torch.zeros(5)})
    with pytest.raises(ProtoMaskError, match="general gave 5 values of lead for 7 images"):
        measuring.measure(make_evidence(images=7), ["general"])
