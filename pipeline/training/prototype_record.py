"""Where every prototype came from: the record that makes it showable."""

from pathlib import Path

import pandas as pd

from pipeline.errors import ProtoMaskError
from pipeline.files import whole_file

COLUMNS = ["prototype", "class_name", "image", "crop", "cell", "mask", "distance"]


def write_record(record: pd.DataFrame, path: Path) -> None:
    """Writes prototypes.csv.

    Args:
        record: a row a prototype; columns prototype (its number), class_name, image (its id), crop
            (0..K−1), cell (of that crop's feature map, row by row; 0 where the map is pooled), mask
            (its number in the mask store, −1 for a whole image) and distance (of the trained
            prototype to that view, squared Euclidean, before the push; nan in models without).
        path: the file.
    """
    with whole_file(path) as part:
        record[COLUMNS].to_csv(part, index=False, na_rep="nan")


def read_record(path: Path) -> pd.DataFrame:
    """Reads what `write_record` wrote.

    Raises:
        ProtoMaskError: the file is missing or is another.
    """
    try:
        record = pd.read_csv(
            path,
            dtype={"image": str, "class_name": str},
            keep_default_na=False,
            converters={"distance": float},  # exact to the last digit, as pandas 2 is not
        )
        return record[COLUMNS]
    except (OSError, KeyError, ValueError) as error:
        raise ProtoMaskError(
            f"{path} is no record of prototypes ({error}): run `dvc repro push`"
        ) from None
