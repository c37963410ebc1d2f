"""The interface of a data set: a module that reads its annotations."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray
from scipy.io import loadmat

from pipeline.datasets.index import Image
from pipeline.datasets.remarks import Remark
from pipeline.errors import ProtoMaskError


class Annotations(NamedTuple):
    """What a data set's annotations say.

    Args:
        images: the images, without hashes and sizes.
        class_names: the class names in the order of their numbers.
        part_names: the names of the data set's parts; empty if it has none.
        remarks: what was passed over, and anything else that may not be as its owner meant it.
    """

    images: list[Image]
    class_names: list[str]
    part_names: list[str]
    remarks: Sequence[Remark] = ()


class DataSet(Protocol):
    """The interface of `pipeline.datasets.cub200` and its neighbours."""

    def read(self, root: Path) -> tuple[list[Image], list[str], list[str]]:
        """Lists the images below `root` without opening them.

        Args:
            root: the data set's folder.

        Returns:
            The images, class names and part names (see `Annotations`).

        Raises:
            ProtoMaskError: `root` is not laid out as this data set is.
        """
        ...

    def object_mask(self, labels: NDArray[np.uint8]) -> NDArray[np.bool_]:
        """Returns the object mask, bool height×width, in one of the data set's mask files.

        Args:
            labels: content of the mask file, uint8 height×width.
        """
        ...


def read_table(path: Path, name: str, columns: int) -> list[list[str]]:
    """Reads a text file of space-separated columns; lines that start with # are comments.

    Args:
        path: path of the text file, in UTF-8.
        name: name of the data set, for error messages.
        columns: number of columns; the last one is the rest of the line, including spaces.

    Returns:
        The columns of each line.

    Raises:
        ProtoMaskError: the file is missing, no text in UTF-8, or a line has fewer columns.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        raise missing(path, name) from None
    except UnicodeDecodeError:
        raise ProtoMaskError(f"{path} is no text file in UTF-8; fetch {name} anew") from None
    rows = []
    for number, line in enumerate(lines, 1):
        row = line.split(maxsplit=columns - 1)
        if not row or line.startswith("#"):
            continue
        if len(row) < columns:
            raise ProtoMaskError(
                f"{path}, line {number}: {columns} columns expected, but it is {line!r}; "
                f"fetch {name} anew"
            )
        rows.append([*row[:-1], row[-1].rstrip()])
    return rows


def read_mat(path: Path, name: str) -> dict[str, Any]:
    """Reads the variables of a MATLAB file by name, without dimensions of length 1.

    Args:
        path: path of the MATLAB file.
        name: name of the data set, for error messages.

    Raises:
        ProtoMaskError: the file is missing or damaged.
    """
    try:
        with path.open("rb") as file:
            return loadmat(file, squeeze_me=True)
    except FileNotFoundError:
        raise missing(path, name) from None
    except MemoryError:
        raise
    except Exception as error:  # SciPy raises all kinds of errors at damaged files
        raise ProtoMaskError(
            f"{path} is no MATLAB file that can be read ({error}); fetch {name} anew"
        ) from None


def missing(path: Path, name: str) -> ProtoMaskError:
    """Returns the error for a file that the data set `name` lacks at `path`."""
    return ProtoMaskError(
        f"dataset.root: {path.name} is missing from {path.parent}, which is therefore not "
        f"laid out as the official {name} data set is"
    )
