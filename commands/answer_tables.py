"""Answers about many images as files: all of it as JSON, a row an image as CSV or Parquet."""

import csv
import io
import json
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from pipeline.errors import ProtoMaskError
from pipeline.files import atomic_file, why_no_file
from protomask import Answer

TERMINAL = Path("-")
TEXT, NUMBER = "text", "number"
COLUMNS = {
    "image": TEXT,
    "label": TEXT,
    "score": NUMBER,
    "second": TEXT,
    "second_score": NUMBER,
    "margin": NUMBER,
    "typicality": NUMBER,
    "why": TEXT,
    "remarks": TEXT,
    "error": TEXT,
}
"""Of CSV and Parquet files; where there is an error, all but the first are empty."""


class Record(NamedTuple):
    """What is kept of an answer: its image and crops would fill the memory.

    Args:
        row: its values in the columns of CSV and Parquet files.
        whole: all of it as JSON has it; None if no JSON was asked for.
    """

    row: dict[str, Any]
    whole: dict[str, Any] | None


class Tables(NamedTuple):
    """The files that were asked for; `-` is the terminal, None no file.

    Args:
        json: a list with an object an image, all that `Answer.to_dict` has, or `error`.
        csv: a row an image, with the columns `COLUMNS`.
        parquet: the same.
    """

    json: Path | None = None
    csv: Path | None = None
    parquet: Path | None = None

    @property
    def to_terminal(self) -> bool:
        """Whether one of them is printed, and nothing else may be."""
        return TERMINAL in self

    def refuse_unwritable(self, photographs: Sequence[Path]) -> None:
        """Checks that the files can be written, before hours of work.

        Args:
            photographs: those that are asked about.

        Raises:
            ProtoMaskError: one of them is no file, a photograph or another one of them, its folder
                is none or may not be written to, two are to be printed, or Parquet, which is no
                text.
        """
        if self.count(TERMINAL) > 1:
            raise ProtoMaskError("--json - and --csv - cannot both be: name a file for one of them")
        if self.parquet == TERMINAL:
            raise ProtoMaskError("--parquet - cannot be: Parquet is no text; name a file")
        taken = {path.resolve(): f"is the photograph {path}" for path in photographs}
        for kind, path in self._asdict().items():
            if path is None or path == TERMINAL:
                continue
            why = taken.get(path.resolve()) or reason_not_to_write(path)
            if why:
                raise ProtoMaskError(f"{path} {why}; --{kind} names the file to write")
            taken[path.resolve()] = f"is the file of --{kind} already"

    def record(self, path: Path, answer: Answer) -> Record:
        """Returns what is kept of the answer about a photograph."""
        second = None if answer.second is None else answer.scores[answer.second]
        row = {
            "image": _name(path),
            "label": answer.label,
            "score": answer.scores[answer.label],
            "second": answer.second,
            "second_score": second,
            "margin": answer.margin,
            "typicality": answer.typicality,
            "why": answer.why,
            "remarks": "; ".join(answer.remarks),
        }
        return Record(row, {**answer.to_dict(), "image": _name(path)} if self.json else None)

    def failure(self, path: Path, error: str) -> Record:
        """Returns what is kept of a photograph that could not be read."""
        row = {"image": _name(path), "error": error}
        return Record(row, row)

    def write(self, records: Sequence[Record]) -> list[Path]:
        """Writes the files, each whole or not at all; returns those that are not the terminal."""
        kinds: list[tuple[Path | None, Callable[[Sequence[Record]], bytes]]] = [
            (self.json, _json),
            (self.csv, _csv),
            (self.parquet, _parquet),
        ]
        written = []
        for path, made in kinds:
            if path == TERMINAL:
                sys.stdout.write(made(records).decode("utf-8"))
            elif path is not None:
                with atomic_file(path) as part:
                    part.write_bytes(made(records))
                written.append(path)
        return written


def reason_not_to_write(path: Path) -> str | None:
    """Returns why a file cannot be written, to follow its name in a sentence; None if it can."""
    if why := why_no_file(path):
        return why
    there = next(folder for folder in path.absolute().parents if folder.exists())
    if not there.is_dir():
        return f"cannot be made: {there} is no folder"
    return None if os.access(there, os.W_OK) else f"cannot be made: {there} may not be written to"


def _name(path: Path) -> str:
    """Returns a path as text; what of it is not UTF-8 as `\\xe9`."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")


def _json(records: Sequence[Record]) -> bytes:
    objects = [record.whole for record in records]
    return (json.dumps(objects, indent=1, allow_nan=False) + "\n").encode()


def _csv(records: Sequence[Record]) -> bytes:
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, list(COLUMNS), lineterminator="\n")
    writer.writeheader()
    writer.writerows(record.row for record in records)
    return text.getvalue().encode()


def _parquet(records: Sequence[Record]) -> bytes:
    import pyarrow as pa
    import pyarrow.parquet as pq

    kinds = {TEXT: pa.string(), NUMBER: pa.float64()}
    schema = pa.schema([(name, kinds[kind]) for name, kind in COLUMNS.items()])
    stream = io.BytesIO()
    table = pa.Table.from_pylist([record.row for record in records], schema)
    pq.write_table(table, stream, compression="zstd")
    return stream.getvalue()
