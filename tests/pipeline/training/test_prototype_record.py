"""The record of prototypes comes back as it was written."""

import math
from pathlib import Path

import pandas as pd
import pytest

from pipeline.errors import ProtoMaskError
from pipeline.training.prototype_record import read_record, write_record

RECORD = pd.DataFrame(
    {
        "prototype": [0, 1, 2, 3],
        # Names that pandas likes to take for something else.
        "class_name": ["NA", 'a "b", c', "007", "Žluva\nhajní"],
        "image": ["0012", "nan", "1e5", "a/b c.jpg"],
        "crop": [0, 3, 1, 0],
        "cell": [0, 48, 0, 7],
        "mask": [0, -1, 1, 2],
        "distance": [0.0, 0.1 + 0.2, 1e-17, 123.45678901234567],
    }
)


def test_round_trip(tmp_path: Path) -> None:
    write_record(RECORD, tmp_path / "prototypes.csv")
    pd.testing.assert_frame_equal(
        read_record(tmp_path / "prototypes.csv"), RECORD, check_exact=True
    )


def test_models_without_distances(tmp_path: Path) -> None:
    record = RECORD.assign(distance=math.nan)
    write_record(record, tmp_path / "prototypes.csv")
    assert (tmp_path / "prototypes.csv").read_text().count(",nan\n") == 4
    pd.testing.assert_frame_equal(read_record(tmp_path / "prototypes.csv"), record)


def test_written_again_same_bytes(tmp_path: Path) -> None:
    """Fine-tuning hands the record on; distances must not drift by a digit each time."""
    numbers = pd.concat([RECORD] * 50, ignore_index=True)
    numbers["distance"] = [(place * 0.7312) ** 3 / 7 for place in range(len(numbers))]
    write_record(numbers, tmp_path / "one.csv")
    write_record(read_record(tmp_path / "one.csv"), tmp_path / "two.csv")
    assert (tmp_path / "one.csv").read_bytes() == (tmp_path / "two.csv").read_bytes()


@pytest.mark.parametrize("content", [b"", b"a,b\n1,2\n", b"\xff\xfe\x00", b'"unclosed\n'])
def test_another_file(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "prototypes.csv").write_bytes(content)
    with pytest.raises(ProtoMaskError, match=r"no record of prototypes .*run `dvc repro push`"):
        read_record(tmp_path / "push" / "prototypes.csv")


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(ProtoMaskError, match="no record of prototypes"):
        read_record(tmp_path / "prototypes.csv")
