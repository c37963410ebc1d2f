"""The overrides that give a run's parameters, and the command that queues it."""

import shlex
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from pipeline.parameters import Params, flat, written

Compose = Callable[[list[str]], Params]
"""Returns the parameters that DVC would compose with these overrides."""


def overrides_of(
    wanted: Params, compose: Compose, groups: Mapping[str, Sequence[str]]
) -> list[str]:
    """Returns the overrides that give exactly these parameters, `runtime` excepted.

    Presets replace as many single overrides as possible; a model's parameters start from the preset
    of its name.

    Args:
        wanted: the parameters that the overrides must give.
        compose: function that composes parameters from overrides, as DVC does.
        groups: names of the presets in each group, as in `-S dataset=cub200`.
    """
    chosen: list[str] = []
    for group, presets in groups.items():
        choices: list[list[str]] = [[], *([f"{group}={preset}"] for preset in presets)]
        distances = [_distance(wanted, compose(choice), group) for choice in choices]
        chosen.extend(choices[distances.index(min(distances))])
    # Alone, an experiment is closer than none if it has the same segmenter; beside that
    # segmenter's preset, it may be further away.
    for choice in list(chosen):
        others, group = [other for other in chosen if other != choice], choice.partition("=")[0]
        if _distance(wanted, compose(others), group) < _distance(wanted, compose(chosen), group):
            chosen = others
    for choice in list(chosen):
        others = [other for other in chosen if other != choice]
        if not differences(compose(chosen), compose(others)):
            chosen = others
    return chosen + differences(wanted, compose(chosen))


def queue_command(overrides: Sequence[str]) -> str:
    """Returns the command `dvc exp run --queue evaluate -S …` with these overrides.

    It ends with the metrics, and draws no report.
    """
    return " ".join(
        ["dvc exp run --queue evaluate", *(f"-S {shlex.quote(override)}" for override in overrides)]
    )


def differences(wanted: Params, given: Params) -> list[str]:
    """Returns the overrides that turn `given` into `wanted`, in Hydra's syntax."""
    there, here = _of_every_machine(wanted), _of_every_machine(given)
    changed = [
        f"{name}={written(value)}" if name in here else f"+{name}={written(value)}"
        for name, value in there.items()
        if name not in here or here[name] != value
    ]
    return changed + [f"~{name}" for name in here if name not in there]


def _distance(wanted: Params, given: Params, group: str) -> tuple[bool, int]:
    """Returns whether a preset's name differs from the wanted one, and how many overrides it needs.

    Args:
        wanted: the parameters that the overrides must give.
        given: the parameters that the preset gives.
        group: the group that the preset belongs to.
    """
    return _name(wanted, group) != _name(given, group), len(differences(wanted, given))


def _name(params: Params, section: str) -> Any:
    of = params.get(section)
    return of.get("name") if isinstance(of, Mapping) else None


def _of_every_machine(params: Params) -> dict[str, Any]:
    return {name: value for name, value in flat(params).items() if not name.startswith("runtime.")}
