import re
from collections.abc import Callable
from html.parser import HTMLParser

import numpy as np
import pytest

from pipeline.parameters import Params
from pipeline.study.rendering import PAGE, html, latex, markdown
from pipeline.study.runs import Run
from pipeline.study.table import USUAL, Table, tables

Make = Callable[..., Run]
VOID = {"meta", "link", "br", "img", "input"}


@pytest.fixture
def study(make: Make) -> list[Table]:
    """Two rows of a model whose parameters need escaping, and of another that misses a run."""
    random = np.random.default_rng(0)

    def images(shift: float) -> dict[str, list[float]]:
        return {name: (50 + shift + random.normal(0, 1, 50)).tolist() for name in USUAL[2:]}

    odd = "50% & <b>_x_$#{}~^\\|*"
    runs = [
        make({"general.accuracy": 0.5 + seed / 10}, images(shift), seed=seed, model__backbone=name)
        for seed in (0, 1)
        for name, shift in ((odd, 0.0), ("plain", 0.01))
    ]
    failed = make(model__name="pipnet", seed=1, state="failed", name="so-so")
    other = make({"general.accuracy": 0.25}, model__name="pipnet")

    def overrides(params: Params) -> list[str]:
        backbone = params["model"].get("backbone")
        return [f"model.backbone={backbone}"] if backbone else [f"dataset.root={odd}"]

    return tables([*runs, other, failed], [], overrides)


def test_markdown(study: list[Table]) -> None:
    text = markdown(study)
    lines = [line for line in text.splitlines() if line.startswith("| ")]
    cells = [re.split(r"(?<!\\)\|", line)[1:-1] for line in lines]
    assert {len(row) for row in cells} == {PAGE + 1, len(study[0].columns) - PAGE + 1}
    assert "\\<b\\>_x_" in text and "**55.0 ± 7.1**" in text and "25.0 (n = 1)" in text
    assert "failed as `so-so`; `dvc queue logs so-so`" in text
    assert "Missing: 1 of 6 runs" in text


def test_latex_is_escaped_and_balanced(study: list[Table]) -> None:
    text = latex(study)
    body = "\n".join(line for line in text.splitlines() if not line.startswith("%"))
    assert r"50\% \& \textless{}b\textgreater{}\_x\_\$\#\{\}\textasciitilde{}" in body
    assert r"\textasciicircum{}\textbackslash{}" in body
    bare = re.sub(r"\\[\\{}%&$#_]", "", body)
    assert bare.count("{") == bare.count("}") and bare.count("$") % 2 == 0
    assert not re.search(r"[%#~^<>±†↑↓–≥×−`]", bare.replace("^{\\dagger}", ""))
    begun, ended = (re.findall(rf"\\{word}{{([\w*]+)}}", body) for word in ("begin", "end"))
    assert begun == ["table*", "tabular", "tabular"] and ended == ["tabular", "tabular", "table*"]
    parts = re.findall(r"\\midrule\n(.*?)\n\\bottomrule", body, re.DOTALL)
    counts = [{len(re.findall(r"(?<!\\)&", row)) for row in part.splitlines()} for part in parts]
    assert counts == [{PAGE}, {len(study[0].columns) - PAGE}]
    assert "% Missing: PIP-Net, fold 0, seed 1: failed as" in text


class Balanced(HTMLParser):
    """Keeps what is open, and all text."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tables: list[list[list[str]]] = []
        self.texts: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in VOID:
            self.open.append(tag)
        if tag == "table":
            self.tables.append([])
        elif tag == "tr":
            self.tables[-1].append([])
        elif tag in ("td", "th"):
            self.tables[-1][-1].append("")
        for name, value in attrs:
            assert name not in ("src", "href") or (value or "").startswith(("#", "data:"))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.texts.append(data)
        if "td" in self.open or "th" in self.open:
            self.tables[-1][-1][-1] += data


def test_html(study: list[Table]) -> None:
    page = Balanced()
    page.feed(html(study))
    page.close()
    assert page.open == []
    first, second = page.tables
    assert {len(row) for row in first} == {PAGE + 1}
    assert {len(row) for row in second} == {len(study[0].columns) - PAGE + 1}
    assert [row[0] for row in first[1:]][1:] == ["ProtoMask (SAM 2)model.backbone=plain", "PIP-Net"]
    assert first[3][1] == "25.0n = 1" and first[3][2] == "–"
    assert "dvc exp run --queue evaluate -S 'dataset.root=50% & <b>_x_$#{}~^\\|*'" in page.texts


def test_the_same_runs_give_the_same_bytes(study: list[Table]) -> None:
    assert html(study) == html(study) and latex(study) == latex(study)
