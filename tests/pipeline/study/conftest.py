"""What tests of studies share: runs that nobody has run."""

from collections.abc import Callable, Mapping
from typing import Any

import pandas as pd
import pytest

from pipeline.parameters import Params
from pipeline.study.runs import Run

PARAMS: dict[str, Any] = {
    "seed": 0,
    "dataset": {"name": "demo", "root": None, "num_classes": None, "fold": 0, "scanned": []},
    "segmenter": {"name": "sam2", "points_per_side": 32},
    "crops": {"side": 192, "per_image": 8, "max_box_area": 1.0},
    "model": {"name": "protomask", "embedding_dim": 128},
    "train": {"lr": 1e-3},
    "evaluate": {"top_k": 5, "groups": ["general"]},
    "explain": {"only_mask": False, "images": 4},
    "runtime": {"workers": 2},
}

PRESETS: dict[str, dict[str, dict[str, Any]]] = {
    "dataset": {name: {"dataset__name": name} for name in ("demo", "cub200")},
    "segmenter": {
        "sam2": {},
        "sam2_tiny": {"segmenter__points_per_side": 16},
        "patches": {"segmenter": {"name": "patches", "grid": 2}},
    },
    "model": {
        **{name: {"model__name": name} for name in ("protomask", "protopnet", "protopool")},
        "pipnet": {"model": {"name": "pipnet"}},
        "blackbox": {"model": {"name": "blackbox"}, "train__lr": 1e-2},
    },
    "experiment": {
        "none": {},
        "cub200-sam2": {"dataset__name": "cub200", "crops__side": 224, "train__lr": 6e-5},
    },
}
"""Group → preset → what it changes."""


def make_params(**changed: Any) -> Params:
    """Returns parameters with some changed: `make_params(seed=1, dataset__fold=2)`."""
    params = {name: dict(of) if isinstance(of, Mapping) else of for name, of in PARAMS.items()}
    for name, value in changed.items():
        section, _, leaf = name.partition("__")
        if leaf:
            params[section][leaf] = value
        else:
            params[section] = value
    return params


def compose(overrides: list[str]) -> Params:
    """Returns the parameters of presets alone: `["model=pipnet", "segmenter=patches"]`."""
    chosen = (override.split("=") for override in overrides)
    changes = [PRESETS[group][preset] for group, preset in chosen]
    return make_params(**{name: value for change in changes for name, value in change.items()})


def make_run(
    metrics: Mapping[str, float] | None = None,
    images: Mapping[str, list[float]] | None = None,
    first: int = 0,
    **changed: Any,
) -> Run:
    """Returns a finished run, or with `state` another.

    Args:
        metrics: `group.metric` → number; those of `images` are added.
        images: `group.metric` → values of the images `first`, `first + 1` and so on.
        changed: name, state, made; or parameters, as for `make_params`.
    """
    of_run = {name: changed.pop(name) for name in ("state", "made") if name in changed}
    name = changed.pop("name", "run")
    grouped: dict[str, dict[str, float]] = {}
    table = pd.DataFrame(images) if images is not None else None
    means = table.replace([float("inf"), -float("inf")], None).mean() if table is not None else {}
    for metric, value in {**dict(means), **(metrics or {})}.items():
        group, _, leaf = metric.partition(".")
        grouped.setdefault(group, {})[leaf] = float(value)
    if table is not None:
        table.insert(0, "image", [f"image {first + n:04d}" for n in range(len(table))])
    return Run(name, make_params(**changed), metrics=grouped, images=lambda: table, **of_run)


@pytest.fixture(scope="session")
def make() -> Callable[..., Run]:
    return make_run
