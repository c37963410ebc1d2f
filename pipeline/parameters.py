"""Parameters as params.yaml holds them, and by their names."""

from collections.abc import Mapping
from typing import Any

Params = Mapping[str, Any]
"""What params.yaml holds."""


def flat(params: Params, prefix: str = "") -> dict[str, Any]:
    """Takes sections apart: {"train": {"lr": 1}} becomes {"train.lr": 1}."""
    leaves: dict[str, Any] = {}
    for name, value in params.items():
        if isinstance(value, Mapping):
            leaves |= flat(value, f"{prefix}{name}.")
        else:
            leaves[prefix + name] = value
    return leaves
