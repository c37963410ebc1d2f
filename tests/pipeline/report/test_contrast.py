"""Why this class rather than that one: what stands on the pages adds up, and names its regions."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.masks.masks import Masks, Region
from pipeline.report.contrast import SIDE, called_parts
from pipeline.report.drawing import colour_of
from pipeline.saliency.views import Views

VIEWS = {
    "protomask": Views("crops", (1, 1)),
    "protopnet": Views("cells", (2, 3)),
    "blackbox": Views("image", (1, 1), pushed=False),
}


@pytest.fixture(scope="module")
def pages(tiny: Any, tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[str]]:
    """Model → index.html and the pages of its classes."""
    found = {}
    for model, views in VIEWS.items():
        of = tiny if model == "protomask" else tiny.seeing(views)
        index = of.write(tmp_path_factory.mktemp("contrast") / model)
        paths = [index, *sorted((index.parent / "classes").glob("*.html"))]
        found[model] = [path.read_text(encoding="utf-8") for path in paths]
    return found


def cents(text: str) -> int:
    return round(100 * float(text.replace("−", "-")))


def tables(page: str) -> list[str]:
    return re.findall(r'<table class="regions">.*?</table>', page, re.DOTALL)


@pytest.mark.parametrize("model", ["protomask", "protopnet"])
def test_the_regions_shown_add_up_to_the_margin_and_that_to_the_scores(
    pages: dict[str, list[str]], model: str
) -> None:
    index, *classes = pages[model]
    assert len(tables(index)) > 10 and sum(len(tables(page)) for page in classes) >= 2
    for table in [table for page in pages[model] for table in tables(page)]:
        *points, margin = map(cents, re.findall(r'class="points">([+−\d.]+)<', table))
        for row in re.findall(r"<tr>\s*<td>.*?</tr>", table, re.DOTALL):
            _, pro, con, whole = row.split("<td>")[1:]
            best = [re.search(r"= ([−\d.]+)<", of) for of in (pro, con)]
            for_first, for_second = (cents(found[1]) if found else 0 for found in best)
            others = re.search(r"others found in it: ([+−\d.]+)", whole)
            total = re.search(r'"points">([+−\d.]+)<', whole)
            assert total and cents(total[1]) == for_first - for_second + (
                cents(others[1]) if others else 0
            )
        scores = re.search(r"Margin: ([−\d.]+) of .* less ([−\d.]+) of", table)
        assert scores and sum(points) == margin == cents(scores[1]) - cents(scores[2])


@pytest.mark.parametrize("model", ["protomask", "protopnet"])
def test_the_sentence_says_what_the_table_shows(pages: dict[str, list[str]], model: str) -> None:
    sentences = re.findall(r'<p class="rather">(.*?)\.</p>', pages[model][0])
    assert len(sentences) == len(tables(pages[model][0]))
    for sentence, table in zip(sentences, tables(pages[model][0]), strict=True):
        figures = [cents(number) for number in re.findall(r"[(: ]([+−]?\d+\.\d\d)", sentence)]
        body, _, foot = table.partition("<tfoot>")
        rows = [cents(number) for number in re.findall(r'class="points">([+−\d.]+)<', body)]
        *rest, margin = map(cents, re.findall(r'class="points">([+−\d.]+)<', foot))
        assert figures[0] == margin
        assert sorted(figures[1:]) == sorted(rows + [points for points in rest if points])


def test_the_predicted_class_is_held_against_the_next_and_a_mistake_against_the_truth(
    tiny: Any, pages: dict[str, list[str]]
) -> None:
    report = tiny.report()
    outputs = report.outputs
    order_NC = np.argsort(-outputs.logits_NC, axis=1, kind="stable")
    for place in (*report.typical(), *report.worst()):
        label = outputs.labels_N[place]
        wrong = outputs.predicted_N[place] != label
        contrast = report.contrasts.of(place, int(label) if wrong else None)
        second = label if wrong else order_NC[place, 1]
        assert contrast.margin.labels == (order_NC[place, 0], second)
        first, second = outputs.logits_NC[place][[order_NC[place, 0], second]].round(2)
        assert contrast.margin.points == pytest.approx(first - second, abs=0.0051)
        views = [row.region.view for row in contrast.rows]
        assert views == [region.view for region in contrast.margin.regions] and views
        for row in contrast.rows:
            assert row.mark == str(row.region.view) and row.colour == colour_of(row.region.view)
            assert row.region.called == f"region {row.mark}"
            for speaker in filter(None, (row.pro, row.con)):
                assert set(speaker.points.prototypes) <= set(
                    np.flatnonzero(outputs.view_NP[place] == row.region.view)
                )
                assert max(speaker.picture.size) <= SIDE
        assert max(abs(row.share) for row in contrast.rows) == 1
    assert "Why this class rather than that one." in pages["protomask"][0]


def test_a_class_page_shows_the_most_frequent_runner_up(
    tiny: Any, pages: dict[str, list[str]]
) -> None:
    outputs = tiny.outputs
    second_N = np.argsort(-outputs.logits_NC, axis=1, kind="stable")[:, 1]
    for label, page in enumerate(pages["protomask"][1:]):
        named = outputs.predicted_N == label
        if not named.any():
            assert 'id="rather"' not in page
            continue
        counts = np.bincount(second_N[named])
        place = np.flatnonzero(named & (second_N == counts.argmax()))[0]
        assert f"is next in {counts.max()}" in page
        assert f"Test photograph {tiny.index.ids[outputs.rows_N[place]]}, the regions" in page


def test_a_black_box_says_that_it_knows_no_regions(pages: dict[str, list[str]]) -> None:
    index, *classes = pages["blackbox"]
    assert "does not say which region" in index and not tables(index)
    sentences = re.findall(r'<p class="rather">(.*)</p>', index)
    assert len(sentences) == index.count("<article")
    for sentence in sentences:
        tied = r"\(0\.00\)\.$"
        assert re.search(rf"\((\+\d\.\d\d)\): by the whole image \(\1\)\.$|{tied}", sentence)
    assert any("does not say which region" in page for page in classes)


def test_the_page_of_a_photograph_starts_with_it(tiny: Any, tmp_path: Path) -> None:
    page = tiny.write_photograph(tmp_path / "page.html").read_text(encoding="utf-8")
    assert page.index('id="rather"') < page.index('id="why"')
    assert "Why &lt;b&gt;bold&lt;/b&gt; rather than Grünspecht &amp; Co" in page
    assert len(tables(page)) == 1


def test_a_region_is_called_by_the_part_that_its_mask_shows() -> None:
    square = np.ones((4, 4), bool)
    kinds = (
        (4, 7, 2, True),
        (3, -1, 0, True),
        (2, 5, 1, True),
        (4, 2, 0, True),
        (3, 9, 0, True),
        (2, 8, 1, False),
    )
    regions = [
        Region(0, 0, square[:side, :side], (1.0,), part, level, foreground)
        for side, part, level, foreground in kinds
    ]
    masks = Masks.of(9, 9, regions, 1)
    assert masks.parts.tolist() == [7, 2, -1, 9, 5, 8]
    # the smallest mask, the largest, one of no part, none, two of whole objects, and one behind
    called = called_parts(masks, np.array([4, 0, 2, -1, 1, 3, 5]), {5: "beak", 2: "bird"})
    assert called == {
        0: "its beak",
        1: "its part 7",
        4: "the whole bird",
        5: "the whole object",
        6: "the background",
    }
