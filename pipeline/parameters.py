"""Parameters as in params.yaml, and by their dotted names."""

import json
import re
from collections.abc import Mapping
from typing import Any

PLAIN = re.compile(r"[A-Za-z_./][\w./-]*")
RESERVED = {"null", "true", "false", "nan", "inf"}

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


def written(value: Any) -> str:
    """Formats a value in Hydra's override grammar, as after `-S name=`."""
    if isinstance(value, list):
        return "[" + ",".join(map(written, value)) + "]"
    if isinstance(value, str) and PLAIN.fullmatch(value) and value.lower() not in RESERVED:
        return value
    return json.dumps(value, ensure_ascii=False)
