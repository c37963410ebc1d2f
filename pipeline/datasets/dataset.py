"""The interface of a data set, the registry of all, and what their readers share."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, ClassVar, NamedTuple, TypeVar
from urllib.parse import urlsplit

import numpy as np
from numpy.typing import NDArray

from pipeline.datasets.index import Image
from pipeline.datasets.remarks import Remark
from pipeline.errors import ProtoMaskError
from pipeline.registry import Registry


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


@dataclass(frozen=True)
class Archive:
    """A published tar archive.

    Args:
        url: URL of the tar file.
        sha256: SHA-256 of its content, 64 hex digits.
        size: its size in bytes.
        into: the folder it is unpacked into, relative to the data set's folder.
    """

    url: str
    sha256: str
    size: int
    into: str = "."

    @property
    def name(self) -> str:
        """The archive's file name, from its URL."""
        return PurePosixPath(urlsplit(self.url).path).name


@dataclass(frozen=True)
class Publication:
    """A data set as it is published.

    Args:
        archives: the data set's archives, in the order in which they are unpacked.
        root: the folder in the unpacked archives that `dataset.root` would name.
    """

    archives: tuple[Archive, ...]
    root: str = "."


class DataSet(ABC):
    """Reads a data set's annotations, and says where its images come from.

    Attributes:
        publication: the archives that are downloaded if `dataset.root` is not set; None if it has
            to be set.
        copies: where to find a copy of a data set whose original site is gone; may be empty.
        drawn: whether `draw` makes the images, so that there is no folder to read.
        knows_truth: whether `metrics.drawn_truth` knows which parts tell the classes apart.
    """

    publication: ClassVar[Publication | None] = None
    copies: ClassVar[str] = ""
    drawn: ClassVar[bool] = False
    knows_truth: ClassVar[bool] = False

    @property
    @abstractmethod
    def name(self) -> str:
        """The data set's name, as in the parameter `dataset.name`."""

    @abstractmethod
    def read(self, root: Path) -> Annotations:
        """Lists the images below `root` without opening them.

        Args:
            root: the data set's folder.

        Raises:
            ProtoMaskError: `root` is not laid out as this data set is.
        """

    def object_mask(self, labels: NDArray[np.uint8]) -> NDArray[np.bool_]:
        """Returns the object mask, bool height×width, in one of the data set's mask files.

        Args:
            labels: content of the file that an image's `object_mask_path` names, uint8
                height×width.
        """
        raise NotImplementedError(f"{self.name} has no object masks")

    def draw(self, folder: Path, seed: int, workers: int) -> None:
        """Makes the folder that `read` reads; for a data set that is `drawn`.

        Args:
            folder: the folder to write to.
            seed: the parameter `seed`, which determines every image.
            workers: number of processes that draw.
        """
        raise NotImplementedError(f"{self.name} is read, not drawn")


DATASETS: Registry[DataSet] = Registry(
    "data set", "pipeline.datasets.readers", "protomask.datasets"
)

Reader = TypeVar("Reader", bound=type[DataSet])


def register(reader: Reader) -> Reader:
    """Class decorator that registers a data set under its name.

    Raises:
        ProtoMaskError: another data set has this name.
    """
    registered = reader()
    DATASETS.add(registered.name, registered)
    return reader


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
    from scipy.io import loadmat  # whoever only asks for a data set's name need not wait for it

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
