"""What a stage says of the files that it did not use, or not as they are."""

from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import pandas as pd

SHOWN = 3


class Remark(NamedTuple):
    """A remark on a file, a folder or a class.

    Args:
        path: path of the file or folder relative to the data set's root, or name of the class.
        remark: what is to be said of it; the same words for the same reason.
    """

    path: str
    remark: str


def summarised(remarks: Iterable[Remark]) -> list[str]:
    """Returns a line for each thing said: how often, and the first `SHOWN` examples."""
    said: dict[str, list[str]] = {}
    for path, remark in remarks:
        said.setdefault(remark, []).append(path)
    return [f"{remark}: {counted(paths)}" for remark, paths in said.items()]


def counted(names: list[str]) -> str:
    """Returns names as text: all of up to `SHOWN`, or how many they are and the first ones."""
    shown = ", ".join(names[:SHOWN])
    return shown if len(names) <= SHOWN else f"{len(names)}, such as {shown}"


def write_remarks(remarks: Iterable[Remark], path: Path) -> None:
    """Writes a CSV file with the columns path and remark; the header alone without remarks."""
    pd.DataFrame(list(remarks), columns=list(Remark._fields)).to_csv(path, index=False)
