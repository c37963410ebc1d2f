"""What a data set is to the pipeline: a module that reads its annotations."""

from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray
from scipy.io import loadmat

from pipeline.datasets.index import Image
from pipeline.errors import ProtoMaskError


class Annotations(NamedTuple):
    """The images a data set lists, its class names in order, and the names of its parts."""

    images: list[Image]
    class_names: list[str]
    part_names: list[str]


class DataSet(Protocol):
    """The face of `pipeline.datasets.cub200` and its neighbours."""

    def read(self, root: Path) -> tuple[list[Image], list[str], list[str]]:
        """Lists the images below `root`, without opening any of them: `Annotations`.

        Raises:
            ProtoMaskError: `root` is not laid out as this data set is.
        """
        ...

    def object_mask(self, labels: NDArray[np.uint8]) -> NDArray[np.bool_]:
        """Tells object from background in one of the data set's mask files."""
        ...


def read_table(path: Path, name: str, columns: int) -> list[list[str]]:
    """Reads a text file of space-separated columns; lines that start with # are comments.

    Args:
        path: the file.
        name: the data set's name, for the error.
        columns: how many there are; the last one takes the rest of a line, spaces and all.

    Raises:
        ProtoMaskError: the file is missing, or a line of it has fewer columns.
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
    """Reads a MATLAB file: its variables by name, without dimensions of length 1.

    Args:
        path: the file.
        name: the data set's name, for the error.

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
    except Exception as error:  # SciPy raises what it likes at damaged files
        raise ProtoMaskError(
            f"{path} is no MATLAB file that can be read ({error}); fetch {name} anew"
        ) from None


def missing(path: Path, name: str) -> ProtoMaskError:
    """Returns the error about a file that the data set `name` should have."""
    return ProtoMaskError(
        f"dataset.root: {path.name} is missing from {path.parent}, which is therefore not "
        f"laid out as the official {name} data set is"
    )
