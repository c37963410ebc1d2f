"""Parameters as in params.yaml, and by their dotted names."""

from collections.abc import Mapping
from typing import Any

Params = Mapping[str, Any]
"""Content of params.yaml: parameters and sections by name."""


def flat(params: Params, prefix: str = "") -> dict[str, Any]:
    """Flattens sections to dotted names: {"train": {"lr": 1}} becomes {"train.lr": 1}.

    Args:
        params: parameters and sections, nested to any depth.
        prefix: prefix of all names, with a dot at its end; for recursion.
    """
    leaves: dict[str, Any] = {}
    for name, value in params.items():
        if isinstance(value, Mapping):
            leaves |= flat(value, f"{prefix}{name}.")
        else:
            leaves[prefix + name] = value
    return leaves
