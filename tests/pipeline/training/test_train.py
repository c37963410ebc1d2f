"""Training: what is trainable and what is frozen, schedules, and resuming to the same bits."""

import copy
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from settings import train_settings
from torch import Tensor
from torch.nn import functional

from pipeline.errors import ProtoMaskError
from pipeline.model.base.losses import class_weights, cluster, diversity, separation
from pipeline.model.base.start import sample
from pipeline.training import train
from pipeline.training.fabric import Fabric
from pipeline.training.train import Training, noise

QUICK = {
    "epochs": 3,
    "freeze_backbone": True,
    "augment": False,
    "batch_size": 4,
    "accumulate": 1,
    "lr_backbone": 1e-3,
    "lr_projection": 1e-2,
    "lr_prototypes": 1e-2,
}
JOINT = {"freeze_backbone": False, "augment": True}
SCHEDULES = {"frozen": {}, "joint": JOINT, "warm": {**JOINT, "warmup_epochs": 2, "epochs": 2}}


@pytest.fixture
def index(make_index: Callable[..., Any]) -> Any:
    return make_index()


@pytest.fixture
def make_training(
    make_network: Callable[..., Any],
    make_store: Callable[..., Any],
    index: Any,
    fabric: Fabric,
    tmp_path: Path,
) -> Callable[..., Training]:
    def make(folder: str = "run", seed: int = 0, **settings: Any) -> Training:
        model = settings.pop("model", {})
        used = settings.pop("index", index)
        return Training(
            make_network(**model),
            make_store(used),
            used,
            train_settings(**{**QUICK, **settings}),
            seed,
            fabric,
            tmp_path / folder / "checkpoints",
            tmp_path / "cache",
        )

    return make


def weights(training: Training) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in training.network.state_dict().items()}


def changed(before: dict[str, torch.Tensor], training: Training) -> set[str]:
    after = training.network.state_dict()
    return {name for name in before if not torch.equal(before[name], after[name])}


def same(one: Training, other: Training) -> bool:
    return not changed(weights(one), other)


def test_separable_problem_is_learned(
    make_training: Callable[..., Training], tmp_path: Path
) -> None:
    progress = make_training(epochs=25).run(tmp_path / "curves")
    losses = [values["train/loss"] for values in progress.history]
    assert losses[-1] < 0.5 * losses[0]
    assert progress.history[progress.best_epoch]["val/accuracy"] == 1.0


@pytest.mark.parametrize("augment", [False, True])
def test_frozen_backbone_is_bitwise_unchanged(
    make_training: Callable[..., Training], tmp_path: Path, augment: bool
) -> None:
    training = make_training(augment=augment)
    before = weights(training)
    training.run(tmp_path / "curves")
    moved = changed(before, training)
    assert not [name for name in moved if name.startswith("backbone")]
    assert moved == {
        "projection.weight",
        "projection.bias",
        "prototypes",
        "feature_mean",
        "feature_std",
    }


def test_a_trainable_backbone_is_trained_with_its_batch_norm(
    make_training: Callable[..., Training], tmp_path: Path
) -> None:
    training = make_training(freeze_backbone=False, epochs=1)
    before = weights(training)
    training.run(tmp_path / "curves")
    moved = changed(before, training)
    backbone = {name for name in before if name.startswith("backbone")}
    assert {name for name in backbone if name.endswith((".weight", "running_mean"))} <= moved
    assert {"projection.weight", "prototypes"} <= moved
    assert not {"classifier", "class_of"} & moved


def test_frozen_stages_and_statistics_stay_as_they_are(
    make_training: Callable[..., Training], tmp_path: Path
) -> None:
    training = make_training(
        freeze_backbone=False, epochs=1, freeze_until=2, batch_norm="frozen", augment=True
    )
    before = weights(training)
    training.run(tmp_path / "curves")
    moved = {name for name in changed(before, training) if name.startswith("backbone")}
    assert moved and all(
        name.startswith(
            ("backbone.network.layer2", "backbone.network.layer3", "backbone.network.layer4")
        )
        for name in moved
    )
    assert not [name for name in moved if "running" in name]
    assert {"projection.weight", "prototypes"} <= changed(before, training)


@given(seed=st.integers(0, 2**32), share=st.floats(0, 0.99))
def test_a_share_of_the_crops_is_left_out_and_one_stays(seed: int, share: float) -> None:
    torch.manual_seed(seed)
    valid_BK = torch.rand(40, 6) < 0.7
    valid_BK[:, seed % 6] = True
    left_BK = train.without_some(valid_BK, share)
    assert not (left_BK & ~valid_BK).any() and left_BK.any(dim=1).all()
    for count, left in zip(valid_BK.sum(1).tolist(), left_BK.sum(1).tolist(), strict=True):
        assert left == count - math.floor(share * count)
    assert torch.equal(train.without_some(valid_BK, 0.0), valid_BK)


def test_each_crop_is_left_out_as_often() -> None:
    """Of twelve a quarter stays, always three; of five two."""
    torch.manual_seed(0)
    valid_BK = torch.ones(4000, 12, dtype=torch.bool)
    valid_BK[::2, 5:] = False
    left_BK = train.without_some(valid_BK, 0.75)
    assert set(left_BK[1::2].sum(dim=1).tolist()) == {3}
    assert set(left_BK[::2].sum(dim=1).tolist()) == {2}
    assert left_BK[1::2].double().mean(0) == pytest.approx([0.25] * 12, abs=0.04)


def test_joint_steps_see_some_crops_and_the_warm_up_all(
    make_training: Callable[..., Training], tmp_path: Path
) -> None:
    training = make_training(
        freeze_backbone=False, warmup_epochs=1, epochs=1, start="crops", drop_crops=0.6
    )
    seen: dict[bool, list[float]] = {True: [], False: []}
    forward = training.network.forward

    def spied(views: Tensor, valid: Tensor, *more: Any) -> Any:
        if training.network.training:
            seen[views.dim() == 5].append(float(valid.float().mean()))
        return forward(views, valid, *more)

    training.network.forward = spied
    training.run(tmp_path / "curves")
    every = float(training.valid[training.train_rows].float().mean())
    assert np.mean(seen[False]) == pytest.approx(every, abs=0.05)
    assert 0.3 * every < np.mean(seen[True]) < 0.8 * every


def test_backbone_begins_with_what_the_warm_up_ended_with(
    make_training: Callable[..., Training], tmp_path: Path
) -> None:
    """With batch norms that keep their statistics, that is; a batch's own give other features."""

    def loss_of_first_joint_step(batch_norm: str) -> tuple[float, float]:
        training = make_training(
            batch_norm,
            freeze_backbone=False,
            warmup_epochs=2,
            epochs=1,
            batch_norm=batch_norm,
            batch_size=100,
            lr_backbone=0.0,
            lr_projection=0.0,
            lr_prototypes=0.0,
        )
        warm, joint = training.run(tmp_path / "curves").history[-2:]
        return warm["train/loss"], joint["train/loss"]

    warm, joint = loss_of_first_joint_step("frozen")
    assert joint == pytest.approx(warm, rel=1e-5)
    warm, joint = loss_of_first_joint_step("batch")
    assert joint != pytest.approx(warm, rel=1e-2)


def test_warm_up_from_crops_reads_every_crop_once(
    make_training: Callable[..., Training], tmp_path: Path
) -> None:
    training = make_training(
        freeze_backbone=False, augment=True, start="crops", warmup_epochs=3, epochs=0
    )
    training.run(tmp_path / "curves")
    assert sorted(training.store.read) == sorted([*training.train_rows, *training.val_rows])


def test_warm_up_stands_still_and_then_moves(
    make_training: Callable[..., Training], make_index: Callable[..., Any], tmp_path: Path
) -> None:
    settings = {"index": make_index(val=0), "freeze_backbone": False, "warmup_epochs": 2}
    warm = make_training("warm", epochs=0, **settings)
    before = weights(warm)
    warm.run(tmp_path / "curves")
    assert {"projection.weight", "prototypes"} <= changed(before, warm)
    assert not [name for name in changed(before, warm) if name.startswith("backbone")]
    joint = make_training("joint", epochs=1, **settings)
    joint.run(tmp_path / "curves")
    assert [name for name in changed(before, joint) if name.startswith("backbone")]


def test_learning_rates_halve_every_step_size_joint_epochs(
    make_training: Callable[..., Training], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    training = make_training(
        epochs=5,
        warmup_epochs=2,
        freeze_backbone=False,
        step_size=2,
        lr_backbone=8e-5,
        lr_projection=4e-5,
        lr_prototypes=1.6e-4,
    )
    rates: list[list[float]] = []
    epoch = training._epoch

    def watched(number: int) -> dict[str, float]:
        values = epoch(number)
        rates.append([group["lr"] for group in training.optimizer.param_groups])
        return values

    monkeypatch.setattr(training, "_epoch", watched)
    training.run(tmp_path / "curves")
    # Two warm-up epochs, then 2 joint ones at the full rate, 2 at a half, 1 at a quarter.
    factors = [1, 1, 1, 1, 0.5, 0.5, 0.25]
    expected = [[8e-5 * factor, 4e-5 * factor, 1.6e-4 * factor] for factor in factors]
    assert rates == [pytest.approx(row) for row in expected]


def published_loss(
    output: Any, labels: torch.Tensor, network: Any, weights: torch.Tensor
) -> torch.Tensor:
    """CE + 0.8·Clst − 0.2·Sep + 0.2·Div, of classes with two prototypes each."""
    own_BP = labels[:, None] == network.class_of
    spread_C = diversity(network.prototypes.view(3, 2, -1))
    return (
        functional.cross_entropy(output.logits, labels, weights)
        + 0.8 * cluster(output.distance, own_BP)
        - 0.2 * separation(output.distance, own_BP)
        + 0.2 * spread_C[labels].mean()
    )


def test_first_step_by_hand(
    make_training: Callable[..., Training], make_network: Callable[..., Any], tmp_path: Path
) -> None:
    """One batch, one step: Adam moves every weight by about its learning rate, against the
    gradient of L."""
    training = make_training(epochs=1, batch_size=12, model={"standardise": False})
    network = make_network(standardise=False)
    rows = training.train_rows
    features = training._stored_features(rows)
    valid, labels = training.valid[rows], training.labels[rows]
    output = network(features, valid)
    loss = published_loss(output, labels, network, class_weights(labels, 3))
    loss.backward()
    progress = training.run(tmp_path / "curves")
    assert progress.history[0]["train/loss"] == pytest.approx(loss.item(), rel=1e-5)
    for name, value, gradient in [
        ("prototypes", network.prototypes, network.prototypes.grad),
        ("projection.weight", network.projection.weight, network.projection.weight.grad),
    ]:
        step = training.network.state_dict()[name] - value
        clear = gradient.abs() > 1e-5
        assert clear.any()
        torch.testing.assert_close(step[clear], -1e-2 * gradient.sign()[clear], rtol=2e-3, atol=0)


def gradients_of_first_step(
    training: Training, monkeypatch: pytest.MonkeyPatch
) -> tuple[list[torch.Tensor], int]:
    """Returns W's and the prototypes' gradients as the first step sees them, and the steps."""
    found: list[list[torch.Tensor]] = []
    step = training.optimizer.step

    def watched() -> None:
        weight = training.network.projection.weight
        found.append([p.grad.clone() for p in (weight, training.network.prototypes)])
        step()

    monkeypatch.setattr(training.optimizer, "step", watched)
    training._start()
    training._epoch(0)
    return found[0], len(found)


def test_accumulated_gradients_are_those_of_a_larger_batch(
    make_training: Callable[..., Training],
    make_index: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Classes are even here, so every weight is 1 and the mean of means of equal batches is the
    mean. (With uneven ones cross-entropy divides by each batch's own sum of weights.)"""
    index = make_index(train=12, val=0, test=0)
    whole, steps = gradients_of_first_step(
        make_training("whole", index=index, batch_size=12), monkeypatch
    )
    assert steps == 1
    parts, steps = gradients_of_first_step(
        make_training("parts", index=index, batch_size=4, accumulate=3), monkeypatch
    )
    assert steps == 1
    for one, other in zip(whole, parts, strict=True):
        assert one.abs().max() > 0
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize(
    ("batch_size", "accumulate", "steps"),
    # 12 images: 12 batches; 3 batches in twos: 1 whole and 1 half; 3 of 5, 5, 2; one batch.
    [(1, 1, 12), (4, 2, 2), (5, 1, 3), (5, 4, 1), (12, 1, 1), (100, 4, 1)],
)
def test_steps_in_an_epoch(
    make_training: Callable[..., Training],
    monkeypatch: pytest.MonkeyPatch,
    batch_size: int,
    accumulate: int,
    steps: int,
    make_index: Callable[..., Any],
) -> None:
    training = make_training(
        index=make_index(train=12), batch_size=batch_size, accumulate=accumulate
    )
    assert gradients_of_first_step(training, monkeypatch)[1] == steps


def test_rest_of_an_accumulation_counts_in_full(
    make_training: Callable[..., Training],
    make_index: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """One batch where four are asked for is divided by one, not by four."""
    index = make_index(train=12, val=0, test=0)
    alone, _ = gradients_of_first_step(
        make_training("alone", index=index, batch_size=12, accumulate=1), monkeypatch
    )
    rest, _ = gradients_of_first_step(
        make_training("rest", index=index, batch_size=12, accumulate=4), monkeypatch
    )
    for one, other in zip(alone, rest, strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_same_seed_same_bits(
    make_training: Callable[..., Training], tmp_path: Path, schedule: str
) -> None:
    one, other = (make_training(folder, **SCHEDULES[schedule]) for folder in ("one", "other"))
    curves = [training.run(tmp_path / "curves").history for training in (one, other)]
    assert curves[0] == curves[1] and same(one, other)


def test_another_seed_other_bits(make_training: Callable[..., Training], tmp_path: Path) -> None:
    one, other = make_training("one"), make_training("other", seed=1)
    for training in (one, other):
        training.run(tmp_path / "curves")
    assert not same(one, other)


def files(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def kill(training: Training, monkeypatch: pytest.MonkeyPatch, where: str, nth: int) -> None:
    """Lets the n-th call (from 0) of one of the training's methods be its last."""
    method, calls = getattr(training, where), []

    def killed(*arguments: Any) -> Any:
        calls.append(arguments)
        if len(calls) > nth:
            raise KeyboardInterrupt
        return method(*arguments)

    monkeypatch.setattr(training, where, killed)


EVERYWHERE = [
    (schedule, where, nth)
    for schedule in SCHEDULES
    # Before an epoch, within it, and between its best weights and its checkpoint.
    for where in ("_epoch", "_validate", "_save_checkpoint")
    for nth in range(4 if schedule == "warm" else 3)
]
QUICKLY = [("frozen", "_epoch", 1), ("joint", "_validate", 1), ("warm", "_save_checkpoint", 2)]


@pytest.mark.parametrize(
    ("schedule", "where", "nth"),
    [pytest.param(*case, marks=() if case in QUICKLY else pytest.mark.slow) for case in EVERYWHERE],
)
def test_killed_run_ends_in_the_same_bits(
    make_training: Callable[..., Training],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    schedule: str,
    where: str,
    nth: int,
) -> None:
    settings = SCHEDULES[schedule]
    undisturbed = make_training("undisturbed", **settings)
    expected = undisturbed.run(tmp_path / "undisturbed" / "curves")
    first = make_training("killed", **settings)
    kill(first, monkeypatch, where, nth)
    with pytest.raises(KeyboardInterrupt):
        first.run(tmp_path / "killed" / "curves before")
    second = make_training("killed", **settings)
    epochs: list[int] = []
    epoch = second._epoch
    monkeypatch.setattr(second, "_epoch", lambda number: (epochs.append(number), epoch(number))[1])
    found = second.run(tmp_path / "killed" / "curves")
    assert epochs == list(range(nth, len(expected.history)))
    assert found == expected
    assert same(second, undisturbed)
    assert files(tmp_path / "killed" / "curves") == files(tmp_path / "undisturbed" / "curves")


def test_killed_after_the_last_epoch(
    make_training: Callable[..., Training], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = make_training()
    expected = first.run(tmp_path / "curves")
    second = make_training()
    kill(second, monkeypatch, "_epoch", 0)
    assert second.run(tmp_path / "curves") == expected
    assert same(second, first)


def truncated(content: bytes) -> bytes:
    return content[: len(content) * 2 // 3]


def flipped(content: bytes) -> bytes:
    changed = bytearray(content)
    changed[len(content) // 2] ^= 0x40
    return bytes(changed)


def empty(content: bytes) -> bytes:
    return b""


def garbage(content: bytes) -> bytes:
    return b"garbage" * 99


@pytest.mark.parametrize("name", ["last.pt", "best.pt"])
@pytest.mark.parametrize("content", [truncated, flipped, empty, garbage])
def test_damaged_checkpoint_counts_as_none(
    make_training: Callable[..., Training],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    content: Callable[[bytes], bytes],
) -> None:
    undisturbed = make_training("undisturbed")
    expected = undisturbed.run(tmp_path / "curves")
    first = make_training("killed")
    kill(first, monkeypatch, "_epoch", 2)
    with pytest.raises(KeyboardInterrupt):
        first.run(tmp_path / "curves")
    path = tmp_path / "killed" / "checkpoints" / name
    path.write_bytes(content(path.read_bytes()))
    second = make_training("killed")
    assert second.run(tmp_path / "curves") == expected
    assert same(second, undisturbed)


@pytest.mark.parametrize("name", ["last.pt", "best.pt"])
def test_missing_checkpoint_counts_as_none(
    make_training: Callable[..., Training], tmp_path: Path, name: str
) -> None:
    first = make_training()
    expected = first.run(tmp_path / "curves")
    (tmp_path / "run" / "checkpoints" / name).unlink()
    second = make_training()
    assert second.run(tmp_path / "curves") == expected
    assert same(second, first)


@pytest.mark.parametrize(
    "model", [{"embedding_dim": 5}, {"backbone": "test_convnext"}, {"prototypes_per_class": 3}]
)
def test_checkpoint_of_another_model_counts_as_none(
    make_training: Callable[..., Training], tmp_path: Path, model: dict[str, Any]
) -> None:
    make_training("other", model=model).run(tmp_path / "curves")
    undisturbed, second = make_training("undisturbed"), make_training("other")
    expected = undisturbed.run(tmp_path / "curves")
    assert second.run(tmp_path / "curves") == expected
    assert same(second, undisturbed)


@pytest.mark.parametrize("held", [[1, 2], {"network": {}}, {"progress": {"surprise": 1}}])
def test_checkpoint_that_is_none(
    make_training: Callable[..., Training], tmp_path: Path, held: Any
) -> None:
    checkpoints = tmp_path / "run" / "checkpoints"
    checkpoints.mkdir(parents=True)
    for name in ("last.pt", "best.pt"):
        torch.save(held, checkpoints / name)
    assert make_training().run(tmp_path / "curves").epoch == 3


def test_best_epoch_has_the_highest_accuracy_then_the_lowest_loss(
    make_training: Callable[..., Training], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    training = make_training(epochs=5)
    scores = iter([(0.5, 0.1), (0.9, 0.8), (0.9, 0.7), (0.9, 0.7), (0.8, 0.0)])
    after: list[torch.Tensor] = []

    def validate(_: bool) -> dict[str, float]:
        after.append(training.network.prototypes.detach().clone())
        accuracy, loss = next(scores)
        return {"val/accuracy": accuracy, "val/loss": loss}

    monkeypatch.setattr(training, "_validate", validate)
    progress = training.run(tmp_path / "curves")
    assert progress.best_epoch == 2
    assert torch.equal(training.network.prototypes, after[2])
    assert not torch.equal(after[2], after[4])


def test_warm_up_is_best_only_if_it_is_better_than_chance_makes_it(
    make_training: Callable[..., Training], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """0.98 of 96 images is within 0.039 of 0.95, and not of 0.93."""
    training = make_training(epochs=3, warmup_epochs=2)
    training.val_rows = np.arange(96)
    scores = iter([(0.9, 0.1), (0.98, 0.2), (0.93, 0.1), (0.95, 0.3), (0.945, 0.0)])

    def validate(_: bool) -> dict[str, float]:
        return dict(zip(("val/accuracy", "val/loss"), next(scores), strict=True))

    monkeypatch.setattr(training, "_validate", validate)
    assert training.run(tmp_path / "curves").best_epoch == 3


def test_noise_by_hand() -> None:
    """98 and 50 of 100, with two successes and two failures added."""
    assert noise(1.0, 96) == pytest.approx(2 * (0.98 * 0.02 / 100) ** 0.5)
    assert noise(0.5, 96) == pytest.approx(0.1)


def test_without_validation_split_the_last_epoch_is_taken(
    make_training: Callable[..., Training], make_index: Callable[..., Any], tmp_path: Path
) -> None:
    training = make_training(index=make_index(val=0))
    progress = training.run(tmp_path / "curves")
    assert progress.best_epoch == 2
    assert all(set(values) == set(progress.history[0]) for values in progress.history)
    assert not [name for name in progress.history[0] if name.startswith("val/")]


@pytest.mark.parametrize("block", [1, 128])
def test_validation_by_hand(
    make_training: Callable[..., Training],
    make_index: Callable[..., Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    block: int,
) -> None:
    """Two validation images, of two of the three classes, in blocks of one and together."""
    monkeypatch.setattr(train, "IMAGES_PER_BLOCK", block)
    training = make_training(index=make_index(val=2), epochs=1)
    (values,) = training.run(tmp_path / "curves").history
    rows, network = training.val_rows, training.network
    crops = torch.from_numpy(training.store.crops(rows))
    with torch.inference_mode():
        output = network(crops, training.valid[rows])
        labels = training.labels[rows]
        loss = published_loss(output, labels, network, training.class_weights)
    assert values["val/accuracy"] in (0.0, 0.5, 1.0)
    assert values["val/accuracy"] == (output.logits.argmax(1) == labels).float().mean()
    assert values["val/loss"] == pytest.approx(loss.item(), rel=1e-4)


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_test_split_is_never_read(
    make_training: Callable[..., Training], tmp_path: Path, schedule: str
) -> None:
    training = make_training(**SCHEDULES[schedule])
    training.run(tmp_path / "curves")
    assert not set(training.store.read) & set(training.index.rows("test"))


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_network_is_left_in_evaluation_mode(
    make_training: Callable[..., Training],
    make_index: Callable[..., Any],
    tmp_path: Path,
    schedule: str,
) -> None:
    training = make_training(index=make_index(val=0), **SCHEDULES[schedule])
    training.run(tmp_path / "curves")
    assert not any(module.training for module in training.network.modules())


def test_standardised_by_training_crops_alone(
    make_training: Callable[..., Training], tmp_path: Path
) -> None:
    training = make_training(epochs=0)
    training.run(tmp_path / "curves")
    rows = training.train_rows
    features = training._stored_features(rows)[training.valid[rows]].double()
    mean = training.network.feature_mean.double()
    torch.testing.assert_close(mean, features.mean(0), rtol=1e-5, atol=1e-7)


def test_no_epochs_leaves_the_start(make_training: Callable[..., Training], tmp_path: Path) -> None:
    training = make_training(epochs=0, model={"standardise": False})
    before = weights(training)
    progress = training.run(tmp_path / "curves")
    assert progress.best_epoch == -1 and not changed(before, training)


def test_frozen_training_reads_every_crop_once(
    make_training: Callable[..., Training], tmp_path: Path
) -> None:
    training = make_training(epochs=3)
    training.run(tmp_path / "curves")
    wanted = sorted([*training.train_rows, *training.val_rows])
    assert sorted(training.store.read) == wanted
    again = make_training("again", epochs=4)
    again.run(tmp_path / "curves")
    assert again.store.read == []


@pytest.mark.parametrize("interrupted", [False, True])
def test_every_step_is_in_training_mode(
    make_training: Callable[..., Training], tmp_path: Path, interrupted: bool
) -> None:
    """Of what nothing but an epoch asks for features of, too, and after a beginning elsewhere."""
    settings = {"model": {"standardise": False}, "start": "random", "epochs": 2}
    if interrupted:
        make_training(**{**settings, "epochs": 1}).run(tmp_path / "curves")
    training = make_training(**settings)
    modes: list[bool] = []
    backward = training._backward
    training._backward = lambda *given: (  # type: ignore[method-assign]
        modes.append(training.network.training),
        backward(*given),
    )[1]
    training.run(tmp_path / "curves")
    assert len(modes) > 1 and all(modes)


def test_frozen_training_augments_and_leaves_out_after_the_warm_up(
    make_training: Callable[..., Training], tmp_path: Path
) -> None:
    """It reads no crop again in the warm-up; then augmented ones, or fewer stored features."""

    def trained(name: str, **settings: Any) -> Training:
        settings = {"start": "crops", "warmup_epochs": 1, "epochs": 1, **settings}
        training = make_training(name, **settings)
        training.run(tmp_path / "curves")
        return training

    plain = trained("plain")
    known = len(plain.train_rows) + len(plain.val_rows)
    assert len(plain.store.read) == known
    augmented = trained("augmented", augment=True)
    assert len(augmented.store.read) == len(augmented.train_rows)
    fewer = trained("fewer", drop_crops=0.6)
    assert not fewer.store.read
    assert not same(plain, augmented) and not same(plain, fewer)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_loss_that_is_no_number_is_said(
    make_training: Callable[..., Training], tmp_path: Path, value: float
) -> None:
    training = make_training()
    with torch.no_grad():
        training.network.prototypes[0, 0] = value
    with pytest.raises(ProtoMaskError, match=r"no longer a finite number.*train\.lr_prototypes"):
        training.run(tmp_path / "curves")
    assert not (tmp_path / "run" / "checkpoints" / "last.pt").exists()


@pytest.mark.parametrize(("split", "val"), [("train", 0), ("val", 6)])
def test_a_single_step_that_diverges_is_said(
    make_training: Callable[..., Training],
    make_index: Callable[..., Any],
    tmp_path: Path,
    split: str,
    val: int,
) -> None:
    """The loss before it is finite; without a validation split, training images show it."""
    training = make_training(index=make_index(val=val), epochs=1, batch_size=99, lr_prototypes=1e30)
    with pytest.raises(ProtoMaskError, match=rf"{split}/loss .*train\.lr_prototypes=1e\+30"):
        training.run(tmp_path / "curves")


def test_curves_have_a_row_an_epoch(make_training: Callable[..., Training], tmp_path: Path) -> None:
    progress = make_training().run(tmp_path / "curves")
    for name in ("train/loss", "train/accuracy", "val/loss", "val/accuracy"):
        table = (tmp_path / f"curves/plots/metrics/{name}.tsv").read_text().splitlines()
        header, *rows = [line.split("\t") for line in table]
        assert header == ["step", name.split("/")[1]]
        assert [int(step) for step, _ in rows] == [0, 1, 2]
        expected = [values[name] for values in progress.history]
        assert [float(value) for _, value in rows] == pytest.approx(expected)


def test_network_sees_augmented_crops_other_ones_in_every_epoch(
    make_training: Callable[..., Training],
    make_index: Callable[..., Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    index = make_index(val=0)
    training = make_training(
        index=index, epochs=2, augment=True, batch_size=12, model={"standardise": False}
    )
    seen: list[torch.Tensor] = []
    backbone = training.network.backbone
    compute = backbone.feature_maps

    def watched(images: torch.Tensor, stages: tuple[int, ...]) -> list[torch.Tensor]:
        seen.append(images)
        return compute(images, stages)

    monkeypatch.setattr(backbone, "feature_maps", watched)
    training.run(tmp_path / "curves")
    raw = training.store.pixels[training.store.valid].mean((1, 2)) / 255
    # At the end a batch is looked at as it is, for want of a validation split.
    *seen, _ = seen
    assert [len(images) for images in seen] == [training.store.valid[training.train_rows].sum()] * 2
    colours = [sorted(images.mean((1, 2, 3)).tolist()) for images in seen]
    assert colours[0] != pytest.approx(colours[1], abs=1e-3)
    assert not set(colours[0]) & set(raw.mean(1).tolist())


def test_masks_are_augmented_with_their_crops(
    make_training: Callable[..., Training], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Crops that are white inside their masks and black outside show where these lie."""
    model = {"pooling": "mask", "stages": (-2, -1)}
    training = make_training(epochs=1, **JOINT, model=model)
    training.store.pixels[:] = 255 * training.store.inside(0)[..., None]
    before, seen = weights(training), []
    features = training.network.features

    def watched(crops: torch.Tensor, valid: torch.Tensor, inside: torch.Tensor) -> torch.Tensor:
        if crops.is_floating_point():
            seen.append((crops[valid].mean(-1), inside[valid]))
        return features(crops, valid, inside)

    monkeypatch.setattr(training.network, "features", watched)
    progress = training.run(tmp_path / "curves")
    assert math.isfinite(progress.history[0]["train/loss"])
    assert "backbone.network.conv1.0.weight" in changed(before, training)
    light, inside = (torch.cat(found) for found in zip(*seen, strict=True))
    assert len(light) == training.store.valid[training.train_rows].sum()
    half = inside.mean((1, 2)) < 0.9
    assert 0.4 < half.float().mean() < 0.9
    middle = (light.amax((1, 2)) + light.amin((1, 2))) / 2
    agree = (light > middle[:, None, None]) == (inside > 0.5)
    assert agree[half].float().mean() > 0.98
    # A mask that was not moved with its crop would be one of the two halves.
    first, second = (torch.from_numpy(mask) for mask in training.store.inside(0)[:2])
    unmoved = ((inside > 0.5) == first).all((1, 2)) | ((inside > 0.5) == second).all((1, 2))
    assert not unmoved[half].all()


def test_starts_from_the_training_crops_alone(
    make_training: Callable[..., Training], tmp_path: Path
) -> None:
    training = make_training(epochs=0, start="crops")
    at_first = copy.deepcopy(training.network)
    training.run(tmp_path / "curves")
    rows = torch.from_numpy(training.train_rows)
    valid = training.valid[rows]
    features = training._stored_features(rows)[valid]
    at_first.standardise(features)
    labels = training.labels[rows].unsqueeze(1).expand_as(valid)[valid]
    at_first.start_from(features, labels, valid.shape[1], training.seed)
    for name, value in at_first.state_dict().items():
        torch.testing.assert_close(training.network.state_dict()[name], value)
    assert not valid.all(), "a missing crop must not count"


def test_a_large_data_set_starts_from_a_sample(
    make_training: Callable[..., Training], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    training = make_training(epochs=0)
    rows = training.train_rows
    valid = training.valid[rows]
    features = training._stored_features(rows)[valid].double()
    labels = training.labels[rows].unsqueeze(1).expand_as(valid)[valid].numpy()
    monkeypatch.setattr(train, "START_VIEWS", 11)
    monkeypatch.setattr(train, "OF_A_CLASS", 2)
    training.run(tmp_path / "curves")
    kept = sample(labels, 11, 2, training.seed)
    assert len(kept) < len(features)
    mean = training.network.feature_mean.double()
    torch.testing.assert_close(mean, features[kept].mean(0), rtol=1e-5, atol=1e-7)
