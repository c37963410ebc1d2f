"""What tests of studies share: runs that nobody has run."""

from collections.abc import Callable, Mapping
from typing import Any

import pandas as pd
import pytest

from pipeline.study.runs import Params, Run

PARAMS: dict[str, Any] = {
    "seed": 0,
    "dataset": {"name": "demo", "root": None, "num_classes": None, "fold": 0, "scanned": []},
    "segmenter": {"name": "sam2", "points_per_side": 32},
    "crops": {"size": 192, "max_box_area": 1.0},
    "model": {"name": "protomask", "embedding_dim": 128},
    "train": {"lr": 1e-3},
    "evaluate": {"top_k": 5, "groups": ["general"]},
    "explain": {"only_mask": False},
    "runtime": {"workers": 2},
}


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
