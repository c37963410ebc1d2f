"""What is searched, when a trial is given up, and going on after a kill; no training needed."""

from collections.abc import Mapping
from pathlib import Path

import optuna
import pytest
from optuna.study import Study
from optuna.trial import TrialState
from settings import train_settings

from pipeline.errors import ProtoMaskError
from pipeline.study import search
from pipeline.training.curve import announce, read_curve

# docs/method.md, "Published settings".
PUBLISHED = [
    (6e-5, 3e-3, 35),
    (9.4e-5, 2.7e-3, 35),
    (1e-5, 3e-3, 30),
    (2.9e-5, 3e-3, 30),
    (6e-5, 2e-3, 35),
    (7.3e-5, 3.5e-3, 35),
]
SPACE = search.space_of(train_settings())


def _open(file: Path, epochs: int = 100, seed: int = 0, **params: object) -> Study:
    return search.open_search(file, SPACE, params, seed, search.pruner_of(epochs, SPACE))


def _train(study: Study, accuracies: Mapping[int, float], seed: int = 0) -> int | None:
    """Runs a trial with this curve; returns the epoch at which it was given up."""
    trial = search.next_trial(study, SPACE, seed)
    for epoch, accuracy in accuracies.items():
        if search.gives_up(trial, epoch, {"val/accuracy": accuracy}):
            search.give_up(trial)
            return epoch
    search.finish(trial, {epoch: {"val/accuracy": value} for epoch, value in accuracies.items()})
    return None


def test_every_published_setting_is_in_the_space() -> None:
    for lr_backbone, lr_prototypes, step_size in PUBLISHED:
        setting = {
            "lr_backbone": lr_backbone,
            "lr_projection": lr_prototypes,
            "lr_prototypes": lr_prototypes,
            "warmup_epochs": 0,
            "step_size": step_size,
        }
        assert setting.keys() == SPACE.keys()
        assert all(SPACE[name]._contains(value) for name, value in setting.items())


def test_a_frozen_backbone_has_no_learning_rate_and_no_warm_up() -> None:
    frozen = search.space_of(train_settings(freeze_backbone=True))
    assert set(frozen) == {"lr_projection", "lr_prototypes", "step_size"}


def test_what_the_user_sets_is_not_searched() -> None:
    assert set(SPACE) - set(search.space_of(train_settings(), ["step_size", "seed"])) == {
        "step_size"
    }
    with pytest.raises(ProtoMaskError, match="nothing is left"):
        search.space_of(train_settings(), list(SPACE))


def test_pruning_by_hand(tmp_path: Path) -> None:
    """Five trials ran to the end; at epoch 20 they had .1 .2 .3 .4 .5, the median .3; at 21 .35."""
    study = _open(tmp_path / "s.sqlite")
    for accuracy in (0.1, 0.2, 0.3, 0.4, 0.5):
        curve = {**dict.fromkeys(range(20), 0.05), 20: accuracy, 21: accuracy + 0.05}
        assert _train(study, curve) is None
    low = dict.fromkeys(range(19), 0.0)
    # Nobody is judged before epoch 20 (a fifth of 100, and no less than the longest warm-up).
    assert _train(study, {**low, 19: 0.0, 20: 0.29, 21: 0.9}) == 20
    # The median itself is not below the median, but the next epoch's is higher.
    assert _train(study, {**low, 19: 0.0, 20: 0.3, 21: 0.3}) == 21
    # It counts what a trial has reached so far, not where it stands.
    assert _train(study, {**low, 19: 0.36, 20: 0.1, 21: 0.1}) is None
    states = [trial.state for trial in search.ended(study)]
    assert states[5:] == [TrialState.PRUNED, TrialState.PRUNED, TrialState.COMPLETE]
    assert search.score_of(search.ended(study)[5]) == 0.29
    assert search.best_of(study).number == 4


def test_the_first_five_trials_are_never_given_up(tmp_path: Path) -> None:
    study = _open(tmp_path / "s.sqlite")
    for accuracy in (0.9, 0.8, 0.1, 0.05, 0.0):
        assert _train(study, dict.fromkeys(range(40), accuracy)) is None
    assert _train(study, dict.fromkeys(range(40), 0.0)) == 20


@pytest.mark.parametrize(
    ("epochs", "frozen", "first"), [(100, False, 20), (20, False, 10), (10, True, 2)]
)
def test_the_first_epoch_that_is_judged(epochs: int, frozen: bool, first: int) -> None:
    space = search.space_of(train_settings(freeze_backbone=frozen))
    assert search.pruner_of(epochs, space)._n_warmup_steps == first


def test_the_best_epoch_is_the_one_that_training_takes(tmp_path: Path) -> None:
    """Highest accuracy, of those the lowest loss; between trials the same."""
    study = _open(tmp_path / "s.sqlite")
    curves = [
        {0: (0.5, 2.0), 1: (0.8, 0.9), 2: (0.8, 0.7), 3: (0.1, 0.1)},
        {0: (0.8, 0.6)},
        {0: (0.8, 0.8)},
    ]
    for curve in curves:
        trial = search.next_trial(study, SPACE, 0)
        search.finish(
            trial,
            {e: {"val/accuracy": acc, "val/loss": loss} for e, (acc, loss) in curve.items()},
        )
    assert [trial.value for trial in study.trials] == [0.8, 0.8, 0.8]
    assert [trial.user_attrs["loss"] for trial in study.trials] == [0.7, 0.6, 0.8]
    assert search.best_of(study).number == 1


def test_without_validation_accuracy(tmp_path: Path) -> None:
    trial = search.next_trial(_open(tmp_path / "s.sqlite"), SPACE, 0)
    with pytest.raises(ProtoMaskError, match="validation split"):
        search.gives_up(trial, 0, {"train/accuracy": 1.0})
    with pytest.raises(ProtoMaskError, match="no epoch"):
        search.finish(trial, {})


def test_an_interrupted_search_tries_what_it_would_have_tried(tmp_path: Path) -> None:
    """Stopped in the third and the thirteenth of fourteen trials, against never."""

    def tried(study: Study) -> list[dict[str, object]]:
        return [trial.params for trial in search.ended(study)]

    whole = _open(tmp_path / "whole.sqlite")
    for number in range(14):
        _train(whole, {0: number % 5 / 10})
    stopped = _open(tmp_path / "stopped.sqlite")
    number = 0
    for stop in (2, 12, 14):
        while number < stop:
            _train(stopped, {0: number % 5 / 10})
            number += 1
        if stop < 14:
            running = search.next_trial(stopped, SPACE, 0)
            running.report(0.9, 0)
            stopped = _open(tmp_path / "stopped.sqlite")
            for trial in search.interrupted(stopped):
                search.run_again(stopped, trial)
            assert search.interrupted(stopped) == []
    assert len(stopped.trials) == 16
    assert tried(stopped) == tried(whole)
    assert len({str(params) for params in tried(whole)}) == 14
    assert search.best_of(stopped).params == search.best_of(whole).params


def test_a_failed_trial_has_ended_and_an_interrupted_one_has_not(tmp_path: Path) -> None:
    study = _open(tmp_path / "s.sqlite")
    search.fail(search.next_trial(study, SPACE, 0), "boom")
    search.next_trial(study, SPACE, 0)
    assert [trial.user_attrs["error"] for trial in search.ended(study)] == ["boom"]
    assert [trial.number for trial in search.interrupted(study)] == [1]
    assert search.best_of(study) is None
    assert study.trials[0].params != study.trials[1].params


def test_another_seed_tries_others(tmp_path: Path) -> None:
    first = search.next_trial(_open(tmp_path / "a.sqlite"), SPACE, 0)
    other = search.next_trial(_open(tmp_path / "b.sqlite", seed=1), SPACE, 1)
    assert first.params != other.params


def test_another_search_in_the_same_file_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "s.sqlite"
    _open(file, **{"train.epochs": 100, "dataset.root": None})
    _open(file, **{"train.epochs": 100, "dataset.root": None})
    with pytest.raises(ProtoMaskError, match="--seed: 0 then, 7 now"):
        _open(file, seed=7, **{"train.epochs": 100, "dataset.root": None})
    with pytest.raises(ProtoMaskError, match=r"train\.epochs: 100 then, 50 now") as error:
        _open(file, **{"train.epochs": 50, "dataset.root": None})
    assert str(file) in str(error.value) and "dataset" not in str(error.value)
    wider = optuna.distributions.FloatDistribution(1e-5, 1e-3, log=True)
    monkeypatch.setitem(SPACE, "lr_backbone", wider)
    with pytest.raises(ProtoMaskError, match="range of lr_backbone: 1e-05 to"):
        _open(file, **{"train.epochs": 100, "dataset.root": None})


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    file = tmp_path / "s.sqlite"
    file.write_bytes(b"not a database" * 100)
    with pytest.raises(ProtoMaskError, match=r"s\.sqlite cannot be read"):
        _open(file)


def test_settings_say_what_is_run_to_three_digits(tmp_path: Path) -> None:
    study = _open(tmp_path / "s.sqlite")
    study.enqueue_trial(
        {
            "lr_backbone": 2.34567e-5,
            "lr_projection": 0.0012345,
            "lr_prototypes": 0.02,
            "warmup_epochs": 3,
            "step_size": 35,
        }
    )
    assert search.settings_of(search.next_trial(study, SPACE, 0)) == [
        "train.lr_backbone=2.35e-05",
        "train.lr_projection=0.00123",
        "train.lr_prototypes=0.02",
        "train.warmup_epochs=3",
        "train.step_size=35",
    ]


def test_a_curve_is_read_as_it_grows(tmp_path: Path) -> None:
    file = tmp_path / "curve"
    assert read_curve(file) == {}
    announce({"val/accuracy": 0.5}, 1, str(file))
    announce({"val/accuracy": 0.1}, 0, str(file))
    announce({"val/accuracy": 0.6}, 1, str(file))
    with file.open("a") as half:
        half.write('{"epoch": 2, "val/acc')
    curve = read_curve(file)
    assert list(curve.items()) == [(0, {"val/accuracy": 0.1}), (1, {"val/accuracy": 0.6})]
    with file.open("a") as half:
        half.write('uracy": 0.7}\n')
    assert read_curve(file)[2] == {"val/accuracy": 0.7}


def test_nobody_asked_for_a_curve(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    announce({"val/accuracy": 0.5}, 0, None)
    assert list(tmp_path.iterdir()) == []
