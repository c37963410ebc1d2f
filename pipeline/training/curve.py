"""A run's training curve, written while it trains: a file with one line of JSON for each epoch."""

import json
from collections.abc import Mapping
from pathlib import Path

VARIABLE = "PROTOMASK_CURVE"


def announce(values: Mapping[str, float], epoch: int, curve: str | None) -> None:
    """Appends an epoch to a training curve; does nothing if none was requested.

    Args:
        values: the epoch's values by name, such as train/loss and val/accuracy.
        epoch: the epoch's number, counted from 0.
        curve: path of the file, the value of the environment variable `PROTOMASK_CURVE`; None if
            it is not set.
    """
    if curve:
        with Path(curve).open("a", encoding="utf-8") as file:
            file.write(json.dumps({"epoch": epoch, **values}) + "\n")


def read_curve(path: Path) -> dict[int, dict[str, float]]:
    """Reads the epochs written to a training curve so far.

    If an epoch was written more than once, the last line counts. An incomplete last line is
    ignored, and a file that does not exist yet holds no epochs.

    Returns:
        The values by name of each epoch, by epoch number, in ascending order.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return {}
    whole = text[: text.rfind("\n") + 1].splitlines()
    epochs = {values.pop("epoch"): values for values in map(json.loads, whole)}
    return dict(sorted(epochs.items()))
