"""What `dvc exp run -S` is given, judged before params.yaml is composed of it and the presets.

Imports nothing that computes, since DVC waits for it.
"""

import difflib
import shlex
from collections.abc import Iterable, Mapping, Sequence
from itertools import product
from pathlib import Path

import yaml
from hydra import compose, initialize_config_dir
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from omegaconf import OmegaConf

from pipeline.errors import ProtoMaskError
from pipeline.parameters import Params, flat, written

DATASET = "dataset"


def refuse_unusable(overrides: Sequence[str], root: Path) -> None:
    """Checks overrides before they change params.yaml.

    Args:
        overrides: as `dvc exp run -S` takes them, in Hydra's grammar.
        root: the repository, with `conf/` and, if something has been run, `params.yaml`.

    Raises:
        ProtoMaskError: there is no such preset or parameter; the message names the nearest. Or no
            data set is named, and params.yaml has another than the presets: it would be replaced.
        HydraException: an override is not in Hydra's grammar.
    """
    presets = root / "conf"
    parsed = OverridesParser.create().parse_overrides(list(overrides))
    groups = [given for given in parsed if _is_group(given, presets)]
    for given in groups:
        _refuse_unknown_preset(given, presets)
    composed = [composed_of(choice, presets) for choice in _choices(groups)]
    known = {name: None for params in composed for name in _names(params)}
    for given in parsed:
        if given not in groups and not given.is_add() and given.key_or_group not in known:
            raise ProtoMaskError(_no_such_parameter(given.key_or_group, list(known)))
    if DATASET not in {given.key_or_group for given in groups}:
        _refuse_change_of_data_set(composed[0], root)


def composed_of(overrides: Iterable[str], presets: Path) -> Params:
    """Returns the parameters that DVC composes from the presets and overrides.

    Args:
        overrides: in Hydra's grammar, without sweeps.
        presets: the folder `conf/`.
    """
    with initialize_config_dir(str(presets.resolve()), version_base=None):
        config = compose("config", list(overrides))
    params: Params = OmegaConf.to_container(config, resolve=True)  # type: ignore[assignment]
    return params


def _is_group(given: Override, presets: Path) -> bool:
    return (presets / given.key_or_group).is_dir()


def _refuse_unknown_preset(given: Override, presets: Path) -> None:
    group = given.key_or_group
    known = sorted(path.stem for path in (presets / group).glob("[!_]*.yaml"))
    for name in _names_of(given):
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            hint = f"; did you mean {near[0]}?" if near else ""
            raise ProtoMaskError(
                f"{group}={name}: there is no such preset{hint} (there are: {', '.join(known)})"
            )


def _names_of(given: Override) -> list[str]:
    """Returns the names of the presets that an override takes, one after the other in a sweep."""
    if given.is_sweep_override():
        return list(given.sweep_string_iterator())
    return [str(given.value())]


def _choices(groups: Sequence[Override]) -> list[list[str]]:
    """Returns every combination of the presets that are taken."""
    named = [[f"{given.key_or_group}={name}" for name in _names_of(given)] for given in groups]
    return [list(choice) for choice in product(*named)]


def _names(params: Params, prefix: str = "") -> list[str]:
    """Returns the dotted names of all parameters and of the sections that hold them."""
    names = []
    for name, value in params.items():
        names.append(prefix + name)
        if isinstance(value, Mapping):
            names += _names(value, f"{prefix}{name}.")
    return names


def _no_such_parameter(name: str, known: Sequence[str]) -> str:
    last = name.rpartition(".")[2]
    near = [other for other in known if other.rpartition(".")[2] == last and other != last]
    near = near or difflib.get_close_matches(name, known, n=1)
    hint = f"; did you mean {' or '.join(near)}?" if near else ""
    return f"{name}: there is no such parameter{hint} (`protomask params` lists all)"


def _refuse_change_of_data_set(composed: Params, root: Path) -> None:
    """Refuses to go back to the presets' data set, where nothing says that it is meant.

    An experiment's preset may name a data set, too.
    """
    now = _data_set_of(root / "params.yaml")
    presets = root / "conf"
    by_default = composed_of([], presets)[DATASET]["name"]
    if now is None or now["name"] == by_default or composed[DATASET]["name"] != by_default:
        return
    raise ProtoMaskError(
        f"this run names no data set, and the presets' is {by_default}, while params.yaml has "
        f"{now['name']}. Add {_options(now, presets)} to go on with that, or "
        f"-S {DATASET}={by_default}"
    )


def _data_set_of(path: Path) -> Params | None:
    """Returns the data set that params.yaml has, or None where it has none to be kept."""
    try:
        section = yaml.safe_load(path.read_text(encoding="utf-8"))[DATASET]
        return section if isinstance(section["name"], str) else None
    except (OSError, ValueError, LookupError, TypeError, yaml.YAMLError):
        return None


def _options(section: Params, presets: Path) -> str:
    """Returns the options that give a section of the data set."""
    chosen = f"{DATASET}={section['name']}"
    if not (presets / DATASET / f"{section['name']}.yaml").is_file():
        return f"-S {chosen}"
    preset = flat({DATASET: composed_of([chosen], presets)[DATASET]})
    derived = {f"{DATASET}.scanned"}
    changed = [
        f"{name}={written(value)}"
        for name, value in flat({DATASET: section}).items()
        if name in preset and preset[name] != value and name not in derived
    ]
    return " ".join(f"-S {shlex.quote(override)}" for override in (chosen, *changed))
