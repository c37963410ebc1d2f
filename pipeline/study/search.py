"""A search for parameters: which are tried next, when a trial is given up, which were best.

It is an Optuna study in one SQLite file. A trial's score is the highest accuracy on the validation
split that any of its epochs reached: that epoch is the one that training keeps.
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

# Each range holds all published settings (method.md, "Published settings").
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
    """Returns the part of `SPACE` that a search goes through.

    Args:
        train: how is trained; where the backbone stands still, its learning rate and the warm-up
            mean nothing.
        given: parameters of `train` that the user has set, and that stay so.

    Raises:
        ProtoMaskError: nothing is left to search.
    """
    left_out = {*given, *(OF_THE_BACKBONE if train.freeze_backbone else ())}
    space = {name: range_ for name, range_ in SPACE.items() if name not in left_out}
    if not space:
        raise ProtoMaskError(f"nothing is left to search: give fewer of {', '.join(SPACE)} with -S")
    return space


def pruner_of(epochs: int, space: Mapping[str, Distribution]) -> MedianPruner:
    """Returns what gives up a trial whose best epoch so far is below the median of the trials that
    went to their end, at the same epoch.

    Successive halving would judge most of 20 to 40 trials at one early epoch, where a learning rate
    that is halved after 30 has not shown what it can; a median is asked at every epoch. Nothing is
    given up among the first five trials, in the first fifth of the epochs, or before the longest
    warm-up ends.

    Args:
        epochs: joint epochs.
        space: what is searched.
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
    """Begins a search, or opens the one that was begun.

    Args:
        file: where it is remembered.
        space: what is searched.
        params: everything else that decides a trial's result, as JSON values by dotted name.
        seed: of the choice of parameters.
        pruner: what gives trials up.

    Raises:
        ProtoMaskError: the search in the file is of something else, or the file is damaged.
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
    """Begins a trial: one that is to be run again, or one with new parameters.

    These follow from the seed and the trials that ended before, so that a search which was
    interrupted tries what it would have tried anyway.
    """
    state = np.random.SeedSequence([seed, len(ended(study))]).generate_state(1)
    study.sampler = TPESampler(seed=int(state[0]))
    return study.ask(dict(space))


def ended(study: Study) -> list[FrozenTrial]:
    """Returns the trials that came to an end by themselves: done, pruned or failed."""
    return [
        trial
        for trial in study.get_trials(deepcopy=False)
        if trial.state in (TrialState.COMPLETE, TrialState.PRUNED) or ERROR in trial.user_attrs
    ]


def interrupted(study: Study) -> list[FrozenTrial]:
    """Returns the trials that were running when the search was last stopped."""
    return study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))


def run_again(study: Study, trial: FrozenTrial) -> None:
    """Puts an interrupted trial's parameters first in the queue, as a trial with a new number."""
    study.tell(trial.number, state=TrialState.FAIL)
    study.enqueue_trial(trial.params)


def gives_up(trial: Trial, epoch: int, values: Mapping[str, float]) -> bool:
    """Takes note of an epoch, and returns whether the trial is not worth going on with.

    Raises:
        ProtoMaskError: there is no validation split.
    """
    trial.report(_accuracy(values), epoch)
    return trial.should_prune()


def finish(trial: Trial, curve: Curve) -> None:
    """Ends a trial that was trained to the end, with the score of its best epoch.

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
    """Ends a trial that is not worth going on with."""
    trial.study.tell(trial, state=TrialState.PRUNED)


def fail(trial: Trial, error: str) -> None:
    """Ends a trial whose training failed."""
    trial.set_user_attr(ERROR, error)
    trial.study.tell(trial, state=TrialState.FAIL)


def score_of(trial: FrozenTrial) -> float | None:
    """Returns the highest validation accuracy that a trial reached, as far as it got."""
    if trial.state == TrialState.COMPLETE:
        return trial.value
    return max(trial.intermediate_values.values(), default=None)


def best_of(study: Study) -> FrozenTrial | None:
    """Returns the trial with the highest score, of those the one with the lowest loss in its best
    epoch; None if none was trained to the end."""
    done = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    return max(done, key=lambda trial: (trial.value, -trial.user_attrs["loss"]), default=None)


def settings_of(trial: Trial | FrozenTrial) -> list[str]:
    """Returns a trial's parameters as `dvc exp run -S` takes them, to three digits."""
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
