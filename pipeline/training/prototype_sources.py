"""The sources of prototypes: the training image and view that each prototype came from."""

from pathlib import Path

import pandas as pd
from torch import Tensor

from pipeline.errors import ProtoMaskError, rerun
from pipeline.files import atomic_file

COLUMNS = [
    "prototype",
    "class_name",
    "image",
    "crop",
    "cell",
    "mask",
    "part",
    "part_name",
    "distance",
    "alike",
]


def write_sources(sources: pd.DataFrame, path: Path) -> None:
    """Writes prototypes.csv.

    Args:
        sources: one row for each prototype, with the columns prototype (its index), class_name,
            image (its id), crop (0..K−1), cell (of that crop's feature map in row-major order; 0
            where the map is pooled), mask (its index in the mask store, −1 for a whole image), part
            (the number of the part that the mask shows, −1 where none is known), part_name (empty
            where the segmenter does not name it), distance (squared Euclidean distance of the
            trained prototype to that view before the push; NaN in models without distances) and
            alike (how many prototypes it stands for, itself included; 1 until alike ones are
            merged).
        path: path of the CSV file, which is replaced.
    """
    with atomic_file(path) as part:
        sources[COLUMNS].to_csv(part, index=False, na_rep="nan")


def read_sources(path: Path) -> pd.DataFrame:
    """Reads a table written by `write_sources`.

    Args:
        path: path of prototypes.csv, in a folder named after the stage that made it: errors advise
            to run that again.

    Returns:
        A table with the columns described there.

    Raises:
        ProtoMaskError: the file is missing or is not such a table.
    """
    try:
        sources = pd.read_csv(
            path,
            dtype={"image": str, "class_name": str, "part_name": str},
            keep_default_na=False,
            converters={"distance": float},  # exact to the last digit, as pandas 2 is not
        )
        return sources[COLUMNS]
    except (OSError, KeyError, ValueError) as error:
        raise ProtoMaskError(
            f"{path} is no record of prototypes ({error}): {rerun(path.parent.name)}"
        ) from None


def kept_rows(sources: pd.DataFrame, kept: Tensor, alike: Tensor) -> pd.DataFrame:
    """Returns the sources of the prototypes that merging and pruning have kept, numbered anew.

    Args:
        sources: one row for each prototype, with the columns that `write_sources` describes.
        kept: int64, the numbers of the prototypes that were kept, ascending.
        alike: int64, how many prototypes each of these stands for.
    """
    rows = sources.iloc[kept.tolist()]
    return rows.assign(prototype=range(len(kept)), alike=alike.tolist())
