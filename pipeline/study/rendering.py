"""A study's tables as Markdown, LaTeX and HTML."""

import textwrap
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import NamedTuple

import jinja2
import pandas as pd

from pipeline.report.pages import page_templates
from pipeline.study.table import Cell, Column, Missing, Row, Table

PAGE = 6
"""Number of columns that fit on a page beside the rows' names; wider tables are continued below."""

ARROWS = {"higher": "↑", "lower": "↓", "depends": ""}
DASH = "–"
NARROW = 13

LATEX = {
    "\\": r"\textbackslash{}",
    **{sign: f"\\{sign}" for sign in "&%$#_{}"},
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "±": r"$\pm$",
    "†": r"$^{\dagger}$",
    "↑": r"$\uparrow$",
    "↓": r"$\downarrow$",
    "≥": r"$\geq$",
    "×": r"$\times$",
    "−": r"$-$",
    "–": "--",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "`": "",
}


class Figure(NamedTuple):
    """A formatted cell.

    Args:
        text: mean and standard deviation as text.
        mark: mark of the cell's standing in its column; empty for none.
        runs: number of runs as text, if it is not the expected one.
        bold: whether the cell is printed in bold.
    """

    text: str
    mark: str
    runs: str
    bold: bool


def markdown(tables: Sequence[Table]) -> str:
    """Returns the tables in GitHub's Markdown, with columns aligned for a terminal."""
    return "\n\n".join(_markdown(table) for table in tables) + "\n"


def latex(tables: Sequence[Table]) -> str:
    """Returns the tables as LaTeX floats, which need only the package booktabs.

    Missing runs, and the commands that run them, are given in comments.
    """
    return "% \\usepackage{booktabs}\n\n" + "\n\n".join(_latex(table) for table in tables) + "\n"


def html(tables: Sequence[Table]) -> str:
    """Returns the tables as a self-contained HTML page."""
    template = _templates().get_template("study.html.jinja")
    return template.render(tables=tables)


def figure(cell: Cell | None, column: Column, expected: int) -> Figure:
    """Formats a cell.

    Args:
        cell: the cell to format; None is written as a dash.
        column: the column that the cell is in.
        expected: number of runs that the row should have.
    """
    if cell is None:
        return Figure(DASH, "", "", False)
    numbers = [cell.mean] if cell.std is None else [cell.mean, cell.std]
    text = " ± ".join(f"{number:.{column.decimals}f}" for number in numbers).replace("-", "−")
    runs = f"n = {cell.runs}" if cell.runs < expected else ""
    return Figure(text, "†" if cell.standing == "same" else "", runs, cell.standing == "best")


def heading(column: Column) -> list[str]:
    """Returns a column's heading in lines: its label; unit and direction."""
    unit = f"({column.unit})" if column.unit else ""
    below = " ".join(part for part in (unit, ARROWS[column.better]) if part)
    return [
        *textwrap.wrap(column.label, NARROW, break_long_words=False),
        *([below] if below else []),
    ]


def pages(table: Table) -> list[tuple[list[Column], list[Row]]]:
    """Returns the table divided into parts of at most `PAGE` columns."""
    starts = range(0, len(table.columns), PAGE)
    return [
        (
            table.columns[start : start + PAGE],
            [row._replace(cells=row.cells[start : start + PAGE]) for row in table.rows],
        )
        for start in starts
    ]


def told(table: Table) -> str:
    """Returns a description of the table: its numbers of runs and images."""
    runs = f"{table.num_runs} run" + ("s" if table.num_runs > 1 else "")
    images = f", {table.num_images:,} test images" if table.num_images else ""
    return runs + images


def why(missing: Missing) -> str:
    """Returns the reason why a run is missing."""
    if missing.task is None:
        return "never run"
    name = missing.task.name
    return {
        "failed": f"failed as `{name}`; `dvc queue logs {name}` says why",
        "queued": f"queued as `{name}`; `dvc queue start` runs it",
        "running": f"running as `{name}`",
        "unfinished": f"`{name}` stopped before it was measured",
    }[missing.task.state]


def _markdown(table: Table) -> str:
    lines = [f"## {table.dataset}", "", told(table)]
    for frame in _frames(table, _plain, _marked, lambda column: " ".join(heading(column))):
        align = ["left", *["right"] * len(frame.columns)]
        lines += ["", frame.to_markdown(colalign=align, disable_numparse=True)]
    lines += ["", *(f"- {note}" for note in table.notes)]
    if table.missing:
        lines += ["", f"### Missing: {len(table.missing)} of {_wanted(table)} runs"]
    for missing in table.missing:
        what = f"{_plain(missing.label)}, fold {missing.fold}, seed {missing.seed}"
        lines += ["", f"- {what}: {why(missing)}", "", f"      {missing.command}"]
    return "\n".join(lines)


def _frames(
    table: Table,
    label: Callable[[str], str],
    cell: Callable[[Figure], str],
    head: Callable[[Column], str],
) -> Iterator[pd.DataFrame]:
    """The table's pages, written by functions for its rows' names, its cells and its columns."""
    for columns, rows in pages(table):
        yield pd.DataFrame(
            [
                [
                    cell(figure(value, column, len(table.repeats)))
                    for value, column in zip(row.cells, columns, strict=True)
                ]
                for row in rows
            ],
            index=[label(row.label) for row in rows],
            columns=[head(column) for column in columns],
        )


def _wanted(table: Table) -> int:
    return table.num_runs + len(table.missing)


def _marked(found: Figure) -> str:
    text = f"**{found.text}**" if found.bold else found.text
    return " ".join(
        part for part in (text, found.mark, f"({found.runs})" if found.runs else "") if part
    )


def _plain(text: str) -> str:
    return "".join(f"\\{sign}" if sign in "\\|*`[]<>" else sign for sign in text)


def _latex(table: Table) -> str:
    lines = [
        r"\begin{table*}",
        r"\centering",
        r"\small",
        rf"\caption{{{_tex(table.dataset)}: {_tex(told(table))}.}}",
        rf"\label{{tab:{''.join(c if c.isalnum() else '-' for c in table.dataset)}}}",
    ]
    for frame in _frames(table, _tex, _tex_figure, _tex_heading):
        columns = "l" + "c" * len(frame.columns)
        lines += [frame.style.to_latex(hrules=True, column_format=columns) + r"\par\medskip"]
    notes = " ".join(map(_tex, table.notes))
    lines += [rf"\parbox{{\textwidth}}{{\footnotesize {notes}}}", r"\end{table*}"]
    for missing in table.missing:
        what = f"{missing.label}, fold {missing.fold}, seed {missing.seed}: {why(missing)}"
        lines += [f"% Missing: {what}", f"%   {missing.command}"]
    return "\n".join(lines)


def _tex_heading(column: Column) -> str:
    return r"\shortstack{" + r"\\".join(map(_tex, heading(column))) + "}"


def _tex_figure(found: Figure) -> str:
    text = rf"\textbf{{{_tex(found.text)}}}" if found.bold else _tex(found.text)
    runs = rf" {{\scriptsize ({_tex(found.runs)})}}" if found.runs else ""
    return text + _tex(found.mark) + runs


def _tex(text: str) -> str:
    return "".join(LATEX.get(sign, sign) for sign in text)


@cache
def _templates() -> jinja2.Environment:
    """Returns the template environment of studies, which extends that of the report."""
    environment = page_templates(Path(__file__).parent / "templates")
    environment.globals |= {"figure": figure, "pages": pages, "told": told, "why": why}
    environment.globals |= {"arrows": ARROWS}
    return environment
