"""The sources of prototypes come back as they were written."""

import math
from pathlib import Path

import pandas as pd
import pytest

from pipeline.errors import ProtoMaskError
from pipeline.training.prototype_sources import read_sources, write_sources

SOURCES = pd.DataFrame(
    {
        "prototype": [0, 1, 2, 3],
        # Names that pandas likes to take for something else.
        "class_name": ["NA", 'a "b", c', "007", "Žluva\nhajní"],
        "image": ["0012", "nan", "1e5", "a/b c.jpg"],
        "crop": [0, 3, 1, 0],
        "cell": [0, 48, 0, 7],
        "mask": [0, -1, 1, 2],
        "part": [7, -1, 0, 3],
        "part_name": ["wing", "", "NA", "12"],
        "distance": [0.0, 0.1 + 0.2, 1e-17, 123.45678901234567],
        "alike": [1, 3, 1, 2],
    }
)


def test_round_trip(tmp_path: Path) -> None:
    write_sources(SOURCES, tmp_path / "prototypes.csv")
    pd.testing.assert_frame_equal(
        read_sources(tmp_path / "prototypes.csv"), SOURCES, check_exact=True
    )


def test_models_without_distances(tmp_path: Path) -> None:
    sources = SOURCES.assign(distance=math.nan)
    write_sources(sources, tmp_path / "prototypes.csv")
    assert (tmp_path / "prototypes.csv").read_text().count(",nan,") == 5  # an image is called so
    pd.testing.assert_frame_equal(read_sources(tmp_path / "prototypes.csv"), sources)


def test_written_again_same_bytes(tmp_path: Path) -> None:
    """Fine-tuning hands the sources on; distances must not drift by a digit each time."""
    numbers = pd.concat([SOURCES] * 50, ignore_index=True)
    numbers["distance"] = [(place * 0.7312) ** 3 / 7 for place in range(len(numbers))]
    write_sources(numbers, tmp_path / "one.csv")
    write_sources(read_sources(tmp_path / "one.csv"), tmp_path / "two.csv")
    assert (tmp_path / "one.csv").read_bytes() == (tmp_path / "two.csv").read_bytes()


@pytest.mark.parametrize("content", [b"", b"a,b\n1,2\n", b"\xff\xfe\x00", b'"unclosed\n'])
def test_another_file(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "prototypes.csv").write_bytes(content)
    with pytest.raises(ProtoMaskError, match=r"no record of prototypes .*run `dvc repro push`"):
        read_sources(tmp_path / "push" / "prototypes.csv")


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(ProtoMaskError, match="no record of prototypes"):
        read_sources(tmp_path / "prototypes.csv")
