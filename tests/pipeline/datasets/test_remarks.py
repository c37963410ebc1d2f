"""Remarks on files: gathered for people, and whole in a table."""

from pathlib import Path

import pandas as pd

from pipeline.datasets.remarks import Remark, summarised, write_remarks


def test_the_same_remark_is_made_once_with_examples() -> None:
    remarks = [
        Remark("x", "odd"),
        *(Remark(f"{number}.txt", "no photograph") for number in range(4)),
    ]
    assert summarised([*remarks, Remark("y", "odd")]) == [
        "odd: x, y",
        "no photograph: 4, such as 0.txt, 1.txt, 2.txt",
    ]
    assert summarised([]) == []


def test_remarks_are_written_down(tmp_path: Path) -> None:
    write_remarks([], tmp_path / "none.csv")
    assert (tmp_path / "none.csv").read_text() == "path,remark\n"
    write_remarks([Remark("a,b.jpg", 'is "odd"')], tmp_path / "some.csv")
    assert pd.read_csv(tmp_path / "some.csv").values.tolist() == [["a,b.jpg", 'is "odd"']]
