"""Pictures that a data set holds more than once: the same file in two splits or classes."""

from typing import NamedTuple

import pandas as pd

from pipeline.datasets.index import Index
from pipeline.datasets.remarks import counted

PAIRS = (("train", "test"), ("val", "test"), ("train", "val"))


class Repeat(NamedTuple):
    """Pictures that stand in two places.

    Args:
        where: the two places, as in "in both train and test".
        pictures: the ids of each picture's images, at least two.
    """

    where: str
    pictures: list[list[str]]

    def __str__(self) -> str:
        examples = counted([" = ".join(ids) for ids in self.pictures])
        return f"the same picture {self.where}: {examples}"


def find_repeats(index: Index) -> list[Repeat]:
    """Finds the pictures whose files have the same content, by the SHA-256 in the index.

    Args:
        index: the data set's images.

    Returns:
        Pictures in both train and test, val and test, and train and val, and those under two
        classes; only kinds of which there are any. The pictures are sorted by their first id.
    """
    table = index.table[["id", "sha256", "split", "class_name"]]
    table = table[table["sha256"].duplicated(keep=False)]
    copies = [rows for _, rows in table.groupby("sha256", sort=False)]
    kinds = {
        f"in both {one} and {other}": [rows for rows in copies if {one, other} <= {*rows["split"]}]
        for one, other in PAIRS
    }
    kinds["under two classes"] = [rows for rows in copies if rows["class_name"].nunique() > 1]
    return [Repeat(where, _ids(found)) for where, found in kinds.items() if found]


def numbers(repeats: list[Repeat]) -> str:
    """Returns the number of pictures of each kind as text."""
    kinds = [f"{len(pictures)} {where}" for where, pictures in repeats]
    return ", ".join(kinds) or "none in two splits or under two classes"


def _ids(copies: list[pd.DataFrame]) -> list[list[str]]:
    return sorted(rows["id"].tolist() for rows in copies)
