"""No parameter escapes the key of DVC's run cache, which leaves out keys of some names.

DVC's own hash function is asked, for all parameters of all presets and every stage that tracks
them, so that this holds for later versions of DVC and later parameters, too.
"""

import copy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from dvc.stage.cache import _get_cache_hash
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from stages import provenance

REPOSITORY = Path(__file__).parents[2]
CONF = REPOSITORY / "conf"
GROUPS = ("dataset", "segmenter", "backbone", "model", "training", "experiment", "evaluate")
STAGES: dict[str, dict[str, Any]] = {
    name: stage.get("do", stage)
    for name, stage in yaml.safe_load((REPOSITORY / "dvc.yaml").read_text())["stages"].items()
}
PRESETS = [
    f"{group}={path.stem}" for group in GROUPS for path in sorted(CONF.glob(f"{group}/[!_]*"))
]


def composed(*overrides: str) -> dict[str, Any]:
    with initialize_config_dir(str(CONF), version_base=None):
        config = OmegaConf.to_container(compose("config", list(overrides)), resolve=True)
    assert isinstance(config, dict)
    return config


def leaves(value: Any, *place: str) -> Iterator[tuple[str, ...]]:
    if isinstance(value, dict) and value:
        for key, inner in value.items():
            yield from leaves(inner, *place, key)
    else:
        yield place


def at(values: Any, place: tuple[str, ...]) -> Any:
    for key in place:
        values = values[key]
    return values


def tracked(stage: str) -> list[str]:
    """The parameters of params.yaml that a stage tracks; of code it tracks formats."""
    return [name for name in STAGES[stage].get("params", []) if isinstance(name, str)]


def key(stage: str, params: dict[str, Any]) -> str:
    """What DVC looks a run of a stage up by; its dependencies are the same throughout."""
    values = {name: at(params, tuple(name.split("."))) for name in tracked(stage)}
    entry = {"cmd": STAGES[stage]["cmd"], "params": {"params.yaml": values}, "outs": []}
    return _get_cache_hash(copy.deepcopy(entry), key=True)


@pytest.mark.parametrize("preset", PRESETS)
def test_every_parameter_is_in_the_key(preset: str) -> None:
    params = composed(preset)
    for stage in STAGES:
        for name in tracked(stage):
            section = tuple(name.split("."))
            for place in leaves(at(params, section), *section):
                changed = copy.deepcopy(params)
                at(changed, place[:-1])[place[-1]] = ["another"]
                assert key(stage, changed) != key(stage, params), (stage, ".".join(place))


def test_the_test_would_see_a_name_that_dvc_leaves_out() -> None:
    """With `crops.size`, as the side of a crop was once called, it did not hold."""
    params = composed()
    params["crops"]["size"] = 64
    changed = copy.deepcopy(params)
    changed["crops"]["size"] = 32
    assert key("crops", changed) == key("crops", params)


def test_outputs_say_all_tracked_parameters() -> None:
    """`max_bad_fraction` decides only whether `prepare` goes on."""
    for stage, sections in provenance.TRACKED.items():
        assert set(tracked(stage)) - {"dataset.max_bad_fraction"} == set(sections)
