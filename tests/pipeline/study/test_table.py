from collections.abc import Callable

import numpy as np
import pytest

from pipeline.errors import ProtoMaskError
from pipeline.study.commands import overrides_of
from pipeline.study.runs import Params, Run
from pipeline.study.table import Table, tables

from .conftest import make_params

Make = Callable[..., Run]


def overrides(params: Params) -> list[str]:
    return overrides_of(params, lambda _: make_params(), {})


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
        make(of, segmenter={"name": "patches", "grid": 2}),
        make(of, model__name="blackbox"),
    )
    assert labels(found) == [
        "ProtoMask (SAM 2)",
        "ProtoMask (SAM 2), crops.max_box_area=0.6",
        "ProtoMask (SAM 2), evaluate.top_k=3",
        "ProtoMask (patches)",
        "Black box",
    ]


def test_models_of_whole_images_have_no_segmenter(make: Make) -> None:
    of, model = {"general.accuracy": 0.5}, {"model__name": "protopnet"}
    others = {"segmenter": {"name": "slit"}, "crops__max_box_area": 0.5, "seed": 1}
    assert labels(table(make(of, **model), make(of, **model, **others))) == ["ProtoPNet"]
    sizes = labels(table(make(of, **model), make(of, **model, **others, crops__size=96)))
    assert sizes == ["ProtoPNet", "ProtoPNet, crops.size=96"]


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


def test_missing_runs(make: Make) -> None:
    of = {"general.accuracy": 0.5}
    found = table(
        make(of),
        make(of, seed=1),
        make(of, seed=1, dataset__fold=1),
        make(of, model__name="pipnet"),
        make(model__name="pipnet", seed=1, state="failed", name="bad"),
        make(model__name="pipnet", seed=1, state="unfinished", name="half"),
        make(model__name="protopool", seed=3, state="unfinished"),
        make(model__name="protopnet", seed=1, state="queued", name="later"),
    )
    assert labels(found) == ["ProtoMask (SAM 2)", "PIP-Net"]
    told = [(m.label, m.fold, m.seed, m.task and m.task.name, m.command) for m in found.missing]
    queue = "dvc exp run --queue"
    assert told == [
        ("ProtoPNet", 0, 0, None, f"{queue} -S model.name=protopnet"),
        ("ProtoPNet", 0, 1, "later", f"{queue} -S seed=1 -S model.name=protopnet"),
        ("ProtoPNet", 1, 1, None, f"{queue} -S seed=1 -S dataset.fold=1 -S model.name=protopnet"),
        ("PIP-Net", 0, 1, "bad", f"{queue} -S seed=1 -S model.name=pipnet"),
        ("PIP-Net", 1, 1, None, f"{queue} -S seed=1 -S dataset.fold=1 -S model.name=pipnet"),
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
        make(images=of_noise(3, -5.0), model__name="pipnet"),
        make({"general.accuracy": 0.5}, model__name="blackbox"),
        metrics=("iou", "accuracy"),
    )
    assert standings(found) == [["best", ""], ["same", ""], ["worse", ""], ["", ""]]
    assert any(note.startswith("†") for note in found.notes) and "–: not measured." in found.notes


def test_lower_is_better(make: Make) -> None:
    a, b = {"complexity.background_overlap": 10.0}, {"complexity.background_overlap": 20.0}
    c = {"complexity.background_overlap": 10.0}
    found = table(make(b), make(a, model__name="pipnet"), make(c, model__name="protopnet"))
    # The models' order: ProtoMask, ProtoPNet, PIP-Net. Equals are both the best.
    assert standings(found) == [["untested"], ["best"], ["best"]]


def test_more_masks_are_neither_better_nor_worse(make: Make) -> None:
    a, b = {"segmentation.masks": 10.0}, {"segmentation.masks": 20.0}
    assert standings(table(make(a), make(b, model__name="pipnet"))) == [[""], [""]]


def test_a_row_is_tested_by_the_mean_of_its_runs(make: Make) -> None:
    # Each run of the second row differs much from the first; their mean does not differ at all.
    base = of_noise(1, 0.0)["complexity.iou"]
    odd = [value + 3 * (-1) ** n for n, value in enumerate(base)]
    even = [value - 3 * (-1) ** n - 1e-6 for n, value in enumerate(base)]
    found = table(
        make(images={"complexity.iou": base}),
        make(images={"complexity.iou": base}, seed=1),
        make(images={"complexity.iou": odd}, model__name="pipnet"),
        make(images={"complexity.iou": even}, model__name="pipnet", seed=1),
    )
    # 5e-7 less on every single image: certain, however small.
    assert standings(found) == [["best"], ["worse"]]


def test_undefined_values_are_left_out_of_both_rows(make: Make) -> None:
    a, b = of_noise(1, 0.0), of_noise(1, -1.0)
    a["complexity.iou"][:5] = [float("nan")] * 5
    b["complexity.iou"][5:10] = [float("inf")] * 5
    assert standings(table(make(images=a), make(images=b, model__name="pipnet")))[1] == ["worse"]
    a["complexity.iou"][:30], b["complexity.iou"][30:45] = [np.nan] * 30, [np.nan] * 15
    found = table(make(images=a), make(images=b, model__name="pipnet"))
    assert standings(found)[1] == ["untested"]
    assert "which both have on 15 test images only" in found.notes[-1]


def test_rows_of_other_images_are_not_tested(make: Make) -> None:
    found = table(
        make(images=of_noise(1, 0.0)),
        make(images=of_noise(1, -1.0), first=40, model__name="pipnet"),
    )
    assert standings(found) == [["best"], ["untested"]] and found.num_images == 100
    assert "PIP-Net against ProtoMask (SAM 2), which share 20 of 60 test images" in found.notes[-1]


def test_rows_whose_images_are_not_here_are_not_tested(make: Make) -> None:
    found = table(
        make(images=of_noise(1, 0.0)),
        make(images=of_noise(1, -0.1), model__name="pipnet"),
        make({"complexity.iou": 1.0}, model__name="protopnet"),
        make({"complexity.iou": 1.0}, model__name="protopnet", seed=1),
    )
    assert standings(found) == [["best"], ["untested"], ["worse"]]
    assert "ProtoPNet, of which the values of single images are not here" in found.notes[-1]


def test_what_is_no_mean_over_images_is_not_tested(make: Make) -> None:
    size = "compactness.global_size"
    found = table(
        make({size: 10.0}, of_noise(1, 0.0)),
        make({size: 20.0}, of_noise(1, -1.0), model__name="pipnet"),
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
