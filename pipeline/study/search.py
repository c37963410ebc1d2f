"""Hyperparameter search: which parameters are tried, which trials are pruned, which were best.

It is an Optuna study in an SQLite file. A trial's score is the highest validation accuracy of its
epochs. Training keeps the weights of that epoch, or of a joint one that is less accurate by no more
than chance.
"""

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import optuna
from optuna.distributions import FloatDistribution, IntDistribution
from optuna.pruners import MedianPruner
from optuna.samplers import TPESampler
from optuna.study import Study
from optuna.trial import FrozenTrial, Trial, TrialState
from sqlalchemy.exc import SQLAlchemyError

from pipeline.errors import ProtoMaskError
from pipeline.training.settings import TrainSettings

Distribution = FloatDistribution | IntDistribution
Curve = Mapping[int, Mapping[str, float]]

# Each range holds all published settings (docs/method.md, "Published settings").
SPACE: dict[str, Distribution] = {
    "lr_backbone": FloatDistribution(1e-5, 1e-4, log=True),
    "lr_projection": FloatDistribution(1e-4, 1e-2, log=True),
    "lr_prototypes": FloatDistribution(1e-3, 2e-2, log=True),
    "warmup_epochs": IntDistribution(0, 10),
    "step_size": IntDistribution(10, 50, step=5),
}
OF_THE_BACKBONE = ("lr_backbone", "warmup_epochs")
ACCURACY, LOSS = "val/accuracy", "val/loss"
ERROR = "error"


def space_of(train: TrainSettings, given: Collection[str] = ()) -> dict[str, Distribution]:
    """Returns the part of `SPACE` that is searched.

    Args:
        train: the parameters of training; with a frozen backbone, its learning rate and the warm-up
            have no effect and are not searched.
        given: names of parameters of `train` that the user has set and that are not searched.

    Raises:
        ProtoMaskError: nothing is left to search.
    """
    left_out = {*given, *(OF_THE_BACKBONE if train.freeze_backbone else ())}
    space = {name: range_ for name, range_ in SPACE.items() if name not in left_out}
    if not space:
        raise ProtoMaskError(f"nothing is left to search: give fewer of {', '.join(SPACE)} with -S")
    return space


def pruner_of(epochs: int, space: Mapping[str, Distribution]) -> MedianPruner:
    """Returns the pruner, which stops trials that are worse than the median of the finished ones.

    A trial is stopped if its best epoch so far is below the median of the finished trials' values
    at the same epoch. Successive halving would judge most of 20 to 40 trials at one early epoch,
    before a learning rate that is halved after 30 epochs shows its effect; the median is compared
    at every epoch. Nothing is stopped among the first five trials, in the first fifth of the
    epochs, or before the longest warm-up ends.

    Args:
        epochs: number of joint epochs.
        space: the distributions of the searched parameters, by name.
    """
    warmup = space["warmup_epochs"].high if "warmup_epochs" in space else 0
    return MedianPruner(n_startup_trials=5, n_warmup_steps=int(max(epochs // 5, warmup)))


def open_search(
    file: Path,
    space: Mapping[str, Distribution],
    params: Mapping[str, Any],
    seed: int,
    pruner: MedianPruner,
) -> Study:
    """Creates a search, or opens an existing one.

    Args:
        file: path of the search's SQLite file.
        space: the distributions of the searched parameters, by name.
        params: all other parameters that determine a trial's result, as JSON values by dotted name.
        seed: seed of the sampling of parameters.
        pruner: the pruner that stops trials.

    Raises:
        ProtoMaskError: the file holds a search with other parameters, or is damaged.
    """
    ranges = {f"range of {name}": _range(searched) for name, searched in space.items()}
    about = {"--seed": seed, **ranges, **params}
    file.parent.mkdir(parents=True, exist_ok=True)
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        study = optuna.create_study(
            storage=f"sqlite:///{file}",
            study_name="search",
            direction="maximize",
            pruner=pruner,
            load_if_exists=True,
        )
        _refuse_another(file, study.user_attrs.get("about", about), about)
        study.set_user_attr("about", about)
    except SQLAlchemyError as error:
        raise ProtoMaskError(
            f"{file} cannot be read as a search's memory ({error}): move it away, or take another "
            "--name"
        ) from None
    return study


def next_trial(study: Study, space: Mapping[str, Distribution], seed: int) -> Trial:
    """Starts a trial: one that was interrupted, or one with new parameters.

    New parameters follow from the seed and the trials that ended before, so an interrupted search
    continues as it would have without the interruption.
    """
    state = np.random.SeedSequence([seed, len(ended(study))]).generate_state(1)
    study.sampler = TPESampler(seed=int(state[0]))
    return study.ask(dict(space))


def ended(study: Study) -> list[FrozenTrial]:
    """Returns the trials that completed, were pruned or failed."""
    return [
        trial
        for trial in study.get_trials(deepcopy=False)
        if trial.state in (TrialState.COMPLETE, TrialState.PRUNED) or ERROR in trial.user_attrs
    ]


def interrupted(study: Study) -> list[FrozenTrial]:
    """Returns the trials that were running when the search was last stopped."""
    return study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))


def run_again(study: Study, trial: FrozenTrial) -> None:
    """Enqueues an interrupted trial's parameters first, as a trial with a new number."""
    study.tell(trial.number, state=TrialState.FAIL)
    study.enqueue_trial(trial.params)


def gives_up(trial: Trial, epoch: int, values: Mapping[str, float]) -> bool:
    """Reports an epoch's values, and returns whether the trial should be pruned.

    Args:
        trial: the trial that is running.
        epoch: the epoch's number, counted from 0.
        values: the epoch's values by name, such as val/accuracy.

    Raises:
        ProtoMaskError: there is no validation split.
    """
    trial.report(_accuracy(values), epoch)
    return trial.should_prune()


def finish(trial: Trial, curve: Curve) -> None:
    """Completes a trial with the score of its best epoch.

    Args:
        trial: the trial that was running.
        curve: the values of each epoch.

    Raises:
        ProtoMaskError: there is no validation split, or no epoch.
    """
    if not curve:
        raise ProtoMaskError("a trial has trained no epoch: set train.epochs")
    loss = {epoch: values.get(LOSS, 0.0) for epoch, values in curve.items()}
    best = max(curve, key=lambda epoch: (_accuracy(curve[epoch]), -loss[epoch]))
    trial.set_user_attr("loss", loss[best])
    trial.study.tell(trial, _accuracy(curve[best]))


def give_up(trial: Trial) -> None:
    """Ends a trial as pruned."""
    trial.study.tell(trial, state=TrialState.PRUNED)


def fail(trial: Trial, error: str) -> None:
    """Ends a trial as failed, with the error's message."""
    trial.set_user_attr(ERROR, error)
    trial.study.tell(trial, state=TrialState.FAIL)


def score_of(trial: FrozenTrial) -> float | None:
    """Returns a trial's highest validation accuracy so far; None before its first epoch."""
    if trial.state == TrialState.COMPLETE:
        return trial.value
    return max(trial.intermediate_values.values(), default=None)


def best_of(study: Study) -> FrozenTrial | None:
    """Returns the completed trial with the highest score; None if there is none.

    Of equal ones, it is the one with the lowest validation loss in its best epoch.
    """
    done = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    return max(done, key=lambda trial: (trial.value, -trial.user_attrs["loss"]), default=None)


def settings_of(trial: Trial | FrozenTrial) -> list[str]:
    """Returns a trial's parameters as overrides of `dvc exp run -S`, with three digits."""
    return [f"train.{name}={value:.3g}" for name, value in trial.params.items()]


def _accuracy(values: Mapping[str, float]) -> float:
    if ACCURACY not in values:
        raise ProtoMaskError(
            "without a validation split no trial is better than another: the training images are "
            "too few for dataset.folds"
        )
    return values[ACCURACY]


def _range(searched: Distribution) -> str:
    scale = "logarithmic" if searched.log else f"in steps of {searched.step}"
    return f"{searched.low:g} to {searched.high:g} {scale}"


def _refuse_another(file: Path, begun: dict[str, Any], about: dict[str, Any]) -> None:
    differing = sorted(name for name in {*begun, *about} if begun.get(name) != about.get(name))
    if differing:
        said = "; ".join(
            f"{name}: {begun.get(name)} then, {about.get(name)} now" for name in differing
        )
        raise ProtoMaskError(
            f"the search in {file} was begun with other settings ({said}): give the same again, or "
            "take another --name"
        )
