"""A training's curve while it is being drawn: a file with a line of JSON an epoch."""

import json
from collections.abc import Mapping
from pathlib import Path

VARIABLE = "PROTOMASK_CURVE"


def announce(values: Mapping[str, float], epoch: int, curve: str | None) -> None:
    """Appends an epoch to a curve; does nothing where nobody asked for one.

    Args:
        values: by name: train/loss, val/accuracy, …
        epoch: counted from 0.
        curve: the file; the value of the environment variable `PROTOMASK_CURVE`, None if not set.
    """
    if curve:
        with Path(curve).open("a", encoding="utf-8") as file:
            file.write(json.dumps({"epoch": epoch, **values}) + "\n")


def read_curve(path: Path) -> dict[int, dict[str, float]]:
    """Returns the values of every epoch announced so far, by epoch, in their order.

    An epoch that was announced again counts as it was said last. A line that is being written is
    left for the next time, and a file that does not exist yet holds no epochs.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return {}
    whole = text[: text.rfind("\n") + 1].splitlines()
    epochs = {values.pop("epoch"): values for values in map(json.loads, whole)}
    return dict(sorted(epochs.items()))
