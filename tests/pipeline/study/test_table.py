from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from pipeline.errors import ProtoMaskError
from pipeline.parameters import Params
from pipeline.study.commands import overrides_of
from pipeline.study.runs import Run
from pipeline.study.table import Table, tables

from .conftest import PRESETS, compose

Make = Callable[..., Run]

PATCHES: dict[str, Any] = {"segmenter": {"name": "patches", "grid": 2}}
PIPNET: dict[str, Any] = {"model": {"name": "pipnet"}}
BLACKBOX: dict[str, Any] = {"model": {"name": "blackbox"}, "train__lr": 1e-2}


def overrides(params: Params) -> list[str]:
    return overrides_of(params, compose, {group: list(PRESETS[group]) for group in PRESETS})


def table(*runs: Run, metrics: tuple[str, ...] = ()) -> Table:
    (only,) = tables(runs, metrics, overrides)
    return only


def labels(found: Table) -> list[str]:
    return [row.label for row in found.rows]


def standings(found: Table) -> list[list[str]]:
    return [[cell.standing if cell else "" for cell in row.cells] for row in found.rows]


def test_mean_and_sample_standard_deviation(make: Make) -> None:
    # Accuracies 0.5, 0.7 and 0.9: mean 0.7; squares 0.04 + 0 + 0.04, over 2: 0.04, its root 0.2.
    found = table(*(make({"general.accuracy": a}, seed=s) for s, a in enumerate((0.5, 0.7, 0.9))))
    (cell,) = found.rows[0].cells
    assert cell is not None and (cell.mean, cell.std) == (pytest.approx(70), pytest.approx(20))
    assert found.columns[0][1:3] == ("Accuracy", "%") and found.num_runs == 3
    assert found.notes == ["Mean ± sample standard deviation over 3 runs (1 fold × 3 seeds)."]


def test_one_run_has_no_deviation(make: Make) -> None:
    (cell,) = table(make({"complexity.iou": 30.0})).rows[0].cells
    assert cell is not None and (cell.mean, cell.std, cell.standing) == (30.0, None, "")


def test_runs_of_a_row(make: Make) -> None:
    of = {"general.accuracy": 0.5}
    same = table(
        make(of),
        make(of, seed=1),
        make(of, dataset__fold=1),
        make(of, seed=1, dataset__fold=1, runtime__workers=9, dataset__root="/elsewhere"),
        make(of, seed=2, explain__only_mask=True, evaluate__groups=["truth"]),
        make(of, seed=2, dataset__fold=1, crops__max_box_area=1),
    )
    assert labels(same) == ["ProtoMask (SAM 2)"] and same.num_runs == 6


def test_what_tells_rows_of_a_name_apart(make: Make) -> None:
    of = {"general.accuracy": 0.5}
    found = table(
        make(of),
        make(of, crops__max_box_area=0.6),
        make(of, evaluate__top_k=3),
        make(of, **PATCHES),
        make(of, **BLACKBOX),
    )
    assert labels(found) == [
        "ProtoMask (SAM 2)",
        "ProtoMask (SAM 2), crops.max_box_area=0.6",
        "ProtoMask (SAM 2), evaluate.top_k=3",
        "ProtoMask (patches)",
        "Black box",
    ]


def test_what_tells_rows_of_different_models_apart(make: Make) -> None:
    of, pnet = {"general.accuracy": 0.5}, {"model__name": "protopnet"}
    one_small = table(make(of), make(of, **pnet, crops__side=96), make(of, **BLACKBOX))
    assert labels(one_small) == ["ProtoMask (SAM 2)", "ProtoPNet, crops.side=96", "Black box"]
    both_changed = table(make(of, crops__side=128), make(of, **pnet, crops__side=96))
    assert labels(both_changed) == [
        "ProtoMask (SAM 2), crops.side=128",
        "ProtoPNet, crops.side=96",
    ]
    all_small = table(make(of, crops__side=96), make(of, **pnet, crops__side=96))
    assert labels(all_small) == ["ProtoMask (SAM 2)", "ProtoPNet"]


def test_a_recipe_of_the_models_own_is_not_named_but_what_departs_from_it_is(make: Make) -> None:
    of = {"general.accuracy": 0.5}
    assert labels(table(make(of), make(of, **BLACKBOX))) == ["ProtoMask (SAM 2)", "Black box"]
    of_the_other = make(of, model={"name": "blackbox"}, train__lr=1e-3)
    assert labels(table(make(of), of_the_other)) == [
        "ProtoMask (SAM 2)",
        "Black box, train.lr=0.001",
    ]


def test_parameters_of_crops_are_compared_among_models_that_have_crops(make: Make) -> None:
    of, few, pnet = {"general.accuracy": 0.5}, {"crops__per_image": 4}, {"model__name": "protopnet"}
    found = table(make(of), make(of, **PATCHES, **few), make(of, **pnet, **few))
    assert labels(found) == [
        "ProtoMask (SAM 2)",
        "ProtoMask (patches), crops.per_image=4",
        "ProtoPNet",
    ]
    found = table(make(of, **few), make(of, **PATCHES, **few), make(of, **pnet))
    assert labels(found) == ["ProtoMask (SAM 2)", "ProtoMask (patches)", "ProtoPNet"]
    # The only row with crops has none to share the parameter with.
    found = table(make(of, **few), make(of, **pnet))
    assert labels(found) == ["ProtoMask (SAM 2), crops.per_image=4", "ProtoPNet"]


def test_segmenters_that_are_not_what_their_name_says(make: Make) -> None:
    of, nine = {"general.accuracy": 0.5}, {"segmenter": {"name": "patches", "grid": 3}}
    found = table(make(of), make(of, **nine), make(of, segmenter__points_per_side=16))
    assert labels(found) == [
        "ProtoMask (SAM 2)",
        "ProtoMask (SAM 2), segmenter=sam2_tiny",
        "ProtoMask (patches), segmenter.grid=3",
    ]
    found = table(make(of, **nine), make(of, model__name="protopnet"))
    assert labels(found) == ["ProtoMask (patches), segmenter.grid=3", "ProtoPNet"]


def test_presets_of_several_sections_are_named_and_that_of_the_data_set_is_not(make: Make) -> None:
    of, cub = {"general.accuracy": 0.5}, {"dataset__name": "cub200"}
    published = {**cub, "crops__side": 224, "train__lr": 6e-5}
    pnet = {"model__name": "protopnet"}
    found = table(make(of, **published), make(of, **cub, **pnet))
    assert labels(found) == ["ProtoMask (SAM 2), experiment=cub200-sam2", "ProtoPNet"]
    found = table(make(of, **published), make(of, **published, **pnet))
    assert labels(found) == ["ProtoMask (SAM 2)", "ProtoPNet"]


def test_models_of_whole_images_have_no_segmenter(make: Make) -> None:
    of, model = {"general.accuracy": 0.5}, {"model__name": "protopnet"}
    others = {"segmenter": {"name": "slit"}, "crops__max_box_area": 0.5, "seed": 1}
    assert labels(table(make(of, **model), make(of, **model, **others))) == ["ProtoPNet"]
    sides = labels(table(make(of, **model), make(of, **model, **others, crops__side=96)))
    assert sides == ["ProtoPNet", "ProtoPNet, crops.side=96"]


@pytest.mark.parametrize("model", ["protomask", "protopnet"])
def test_runs_that_call_the_side_size_are_another_row(make: Make, model: str) -> None:
    of, size = {"general.accuracy": 0.5}, {"size": 192, "per_image": 8, "max_box_area": 1.0}
    found = table(make(of, model__name=model), make(of, model__name=model, crops=size))
    new, old = labels(found)
    assert old == f"{new}, +crops.size=192, ~crops.side"


def test_data_sets_are_tables_of_their_own(make: Make) -> None:
    of = {"general.accuracy": 0.5}
    runs = [make(of), make(of, dataset__num_classes=20), make(of, dataset__name="cub200")]
    found = tables(runs, [], overrides)
    assert [t.dataset for t in found] == ["cub200", "demo", "demo (20 classes)"]
    assert [t.num_runs for t in found] == [1, 1, 1]


def test_of_two_equal_runs_the_newest_counts(make: Make) -> None:
    new = make({"general.accuracy": 0.9}, made=2.0)
    old = make({"general.accuracy": 0.1}, made=1.0, runtime__workers=7)
    found = table(new, old)
    assert found.num_runs == 1 and found.rows[0].cells[0].mean == pytest.approx(90)  # type: ignore


FULL = {"evaluate__groups": ["general", "complexity"], "evaluate__explanations": ["mask", "prp"]}


def test_metrics_that_only_an_earlier_run_has_are_kept(make: Make) -> None:
    a, b, c = "general.accuracy", "complexity.iou", "complexity.iou_prp"
    full = make({a: 0.5, b: 10, c: 20}, made=1.0, **FULL)
    quick = make({a: 0.75, b: 30}, made=2.0, explain__only_mask=True, runtime__workers=7)
    only_general = make({a: 1.0}, made=3.0, evaluate__groups=["general"])
    found = table(only_general, full, quick, metrics=(a, b, c))
    assert found.num_runs == 1 and labels(found) == ["ProtoMask (SAM 2)"]
    assert [cell and (cell.mean, cell.runs) for cell in found.rows[0].cells] == [
        (100, 1),
        (30, 1),
        (20, 1),
    ]


def test_a_mean_stays_with_the_number_of_images_that_it_leaves_out(make: Make) -> None:
    mean, left_out = "complexity.oirr", "complexity.oirr_undefined"
    defined = make({mean: 2.0}, made=2.0)
    found = table(make({mean: 1.0, left_out: 3}, made=1.0), defined, metrics=(mean,))
    assert found.rows[0].cells[0].mean == 2.0  # type: ignore[union-attr]
    assert "oirr_undefined" not in defined.completed_by(make({left_out: 3})).metrics["complexity"]
    kept = make({"general.accuracy": 1.0}).completed_by(make({mean: 1.0, left_out: 3}))
    assert kept.metrics == {
        "general": {"accuracy": 1.0},
        "complexity": {"oirr": 1.0, "oirr_undefined": 3},
    }


def test_runs_in_which_every_image_has_a_value_leave_out_none(make: Make) -> None:
    left_out = "complexity.oirr_undefined"
    runs = [make({"complexity.oirr": 1.0}, seed=seed) for seed in (1, 2)]
    runs += [make({"complexity.oirr": 1.0, left_out: 6.0}), make({"general.accuracy": 1}, seed=3)]
    (cell,) = table(*runs, metrics=(left_out,)).rows[0].cells
    assert cell is not None and (cell.mean, cell.runs) == (2.0, 3)


def test_images_of_runs_that_complete_one_another(make: Make) -> None:
    older = make(images={"general.accuracy": [0, 0], "complexity.iou": [10, 20]}, made=1.0, **FULL)
    newer = make(images={"general.accuracy": [1, 0, 1]}, first=1, made=2.0)
    images = newer.completed_by(older).images()
    assert images is not None
    assert images.set_index("image").sort_index().fillna(-1).to_dict("index") == {
        "image 0000": {"general.accuracy": -1, "complexity.iou": 10},
        "image 0001": {"general.accuracy": 1, "complexity.iou": 20},
        "image 0002": {"general.accuracy": 0, "complexity.iou": -1},
        "image 0003": {"general.accuracy": 1, "complexity.iou": -1},
    }
    assert newer.completed_by(make({"complexity.iou": 1})).images() is None
    nothing_new = newer.completed_by(make({"general.accuracy": 1}))
    assert nothing_new is newer


def test_completed_rows_are_tested(make: Make) -> None:
    found = table(
        make(images=of_noise(1, 0.0), made=1.0, **FULL),
        make(images={"general.accuracy": [1.0] * 60}, made=2.0),
        make(images=of_noise(1, -1.0), model__name="protopnet"),
        metrics=("iou",),
    )
    assert standings(found) == [["best"], ["worse"]]


def test_missing_runs(make: Make) -> None:
    of = {"general.accuracy": 0.5}
    found = table(
        make(of),
        make(of, seed=1),
        make(of, seed=1, dataset__fold=1),
        make(of, **PIPNET),
        make(**PIPNET, seed=1, state="failed", name="bad"),
        make(**PIPNET, seed=1, state="unfinished", name="half"),
        make(model__name="protopool", seed=3, state="unfinished"),
        make(model__name="protopnet", seed=1, state="queued", name="later"),
    )
    assert labels(found) == ["ProtoMask (SAM 2)", "PIP-Net"]
    told = [(m.label, m.fold, m.seed, m.task and m.task.name, m.command) for m in found.missing]
    queue = "dvc exp run --queue evaluate"
    assert told == [
        ("ProtoPNet", 0, 0, None, f"{queue} -S model=protopnet"),
        ("ProtoPNet", 0, 1, "later", f"{queue} -S model=protopnet -S seed=1"),
        ("ProtoPNet", 1, 1, None, f"{queue} -S model=protopnet -S seed=1 -S dataset.fold=1"),
        ("PIP-Net", 0, 1, "bad", f"{queue} -S model=pipnet -S seed=1"),
        ("PIP-Net", 1, 1, None, f"{queue} -S model=pipnet -S seed=1 -S dataset.fold=1"),
    ]
    assert found.notes[0].endswith("over 3 runs. n: how many, where some are missing.")


def test_a_failure_that_was_run_again_is_not_missing(make: Make) -> None:
    assert not table(make({"general.accuracy": 1.0}), make(state="failed")).missing


def of_noise(seed: int, shift: float, images: int = 60) -> dict[str, list[float]]:
    """Values of images: some noise of their own, and `shift` in common."""
    noise = np.random.default_rng(seed).normal(0, 1, images)
    return {"complexity.iou": (50 + shift + noise).tolist()}


def test_best_and_what_is_no_different(make: Make) -> None:
    found = table(
        make(images=of_noise(1, 0.0)),
        make(images=of_noise(2, -0.2), model__name="protopnet"),
        make(images=of_noise(3, -5.0), **PIPNET),
        make({"general.accuracy": 0.5}, **BLACKBOX),
        metrics=("iou", "accuracy"),
    )
    assert standings(found) == [["best", ""], ["same", ""], ["worse", ""], ["", ""]]
    assert any(note.startswith("†") for note in found.notes) and "–: not measured." in found.notes


def test_lower_is_better(make: Make) -> None:
    a, b = {"complexity.background_overlap": 10.0}, {"complexity.background_overlap": 20.0}
    c = {"complexity.background_overlap": 10.0}
    found = table(make(b), make(a, **PIPNET), make(c, model__name="protopnet"))
    # The models' order: ProtoMask, ProtoPNet, PIP-Net. Equals are both the best.
    assert standings(found) == [["untested"], ["best"], ["best"]]


def test_more_masks_are_neither_better_nor_worse(make: Make) -> None:
    a, b = {"segmentation.masks": 10.0}, {"segmentation.masks": 20.0}
    assert standings(table(make(a), make(b, **PIPNET))) == [[""], [""]]


def test_a_row_is_tested_by_the_mean_of_its_runs(make: Make) -> None:
    # Each run of the second row differs much from the first; their mean does not differ at all.
    base = of_noise(1, 0.0)["complexity.iou"]
    odd = [value + 3 * (-1) ** n for n, value in enumerate(base)]
    even = [value - 3 * (-1) ** n - 1e-6 for n, value in enumerate(base)]
    read = {"dataset__name": "cub200"}
    found = table(
        make(images={"complexity.iou": base}, **read),
        make(images={"complexity.iou": base}, seed=1, **read),
        make(images={"complexity.iou": odd}, **read, **PIPNET),
        make(images={"complexity.iou": even}, **read, **PIPNET, seed=1),
    )
    # 5e-7 less on every single image: certain, however small.
    assert standings(found) == [["best"], ["worse"]]


def test_undefined_values_are_left_out_of_both_rows(make: Make) -> None:
    a, b = of_noise(1, 0.0), of_noise(1, -1.0)
    a["complexity.iou"][:5] = [float("nan")] * 5
    b["complexity.iou"][5:10] = [float("inf")] * 5
    assert standings(table(make(images=a), make(images=b, **PIPNET)))[1] == ["worse"]
    a["complexity.iou"][:30], b["complexity.iou"][30:45] = [np.nan] * 30, [np.inf] * 15
    found = table(make(images=a), make(images=b, **PIPNET))
    assert standings(found)[1] == ["untested"]
    assert "which both have on 15 test images only" in found.notes[-1]


def test_rows_of_other_images_are_not_tested(make: Make) -> None:
    found = table(
        make(images=of_noise(1, 0.0)),
        make(images=of_noise(1, -1.0), first=40, **PIPNET),
    )
    assert standings(found) == [["best"], ["untested"]] and found.num_images == 100
    assert "PIP-Net against ProtoMask (SAM 2), which share 20 of 60 test images" in found.notes[-1]


@pytest.mark.parametrize(("first", "standing"), [(30, "worse"), (31, "untested")])
def test_rows_that_share_half_of_their_images_are_tested(
    make: Make, first: int, standing: str
) -> None:
    # of 60 images 30, and 29; a mean difference of 5 is far beyond noise of 1
    found = table(
        make(images=of_noise(1, 0.0)),
        make(images=of_noise(1, -5.0), first=first, **PIPNET),
    )
    assert standings(found) == [["best"], [standing]]


def test_images_that_another_seed_draws_are_others(make: Make) -> None:
    demo = {"dataset__name": "demo"}
    same = make(images=of_noise(1, -1.0), **demo, **PIPNET)
    found = table(make(images=of_noise(1, 0.0), **demo), same)
    assert standings(found) == [["best"], ["worse"]] and found.num_images == 60
    other = make(images=of_noise(1, -1.0), seed=1, **demo, **PIPNET)
    found = table(make(images=of_noise(1, 0.0), **demo), other)
    assert standings(found) == [["best"], ["untested"]] and found.num_images == 120


def test_rows_whose_images_are_not_here_are_not_tested(make: Make) -> None:
    found = table(
        make(images=of_noise(1, 0.0)),
        make(images=of_noise(1, -0.1), **PIPNET),
        make({"complexity.iou": 1.0}, model__name="protopnet"),
        make({"complexity.iou": 1.0}, model__name="protopnet", seed=1),
    )
    assert standings(found) == [["best"], ["untested"], ["worse"]]
    assert "ProtoPNet, of which the values of single images are not here" in found.notes[-1]


def test_what_is_no_mean_over_images_is_not_tested(make: Make) -> None:
    size = "compactness.global_size"
    found = table(
        make({size: 10.0}, of_noise(1, 0.0)),
        make({size: 20.0}, of_noise(1, -1.0), **PIPNET),
    )
    assert standings(found) == [["best", "best"], ["untested", "worse"]]
    assert "Not tested, since no mean over images: Global size." in found.notes


def test_metrics_by_name(make: Make) -> None:
    of = {"contrastivity.vlc": 1.0, "continuity.vlc": 2.0, "general.accuracy": 0.5}
    of |= {"complexity.iou_prp": 3.0, "complexity.oirr_undefined": 4.0}
    found = table(make(of), metrics=("vlc", "complexity.iou_prp", "oirr_undefined"))
    assert [(column.label, column.better) for column in found.columns] == [
        ("Location change (contrastivity)", "higher"),
        ("Location change (continuity)", "lower"),
        ("IoU, PRP", "higher"),
        ("OIRR, left out", "depends"),
    ]
    with pytest.raises(ProtoMaskError, match="'acuracy'; did you mean accuracy"):
        table(make(of), metrics=("acuracy",))


def test_without_a_finished_run(make: Make) -> None:
    with pytest.raises(ProtoMaskError, match="no finished experiment"):
        table(make(state="failed"))
