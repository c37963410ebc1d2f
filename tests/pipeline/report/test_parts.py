"""Parts, what they are called, and the page of them."""

import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from settings import patches
from tiny_experiment import BEHIND, EVERYWHERE, IN_EVERY_SECOND, MEASURED, RUN, Tiny

from pipeline.masks.masks import NO_PART
from pipeline.masks.part_names import PartNames
from pipeline.masks.store import MaskStore, write_store
from pipeline.report.parts import Parts, parts_in
from pipeline.report.parts_page import AT_LEAST, PartsPage, draw_around
from pipeline.report.report import Report

GIVEN = PartNames({}, {IN_EVERY_SECOND: "<i>wing</i>"})


class Written(NamedTuple):
    index: str
    classes: list[str]
    parts: str


def write(tiny: Tiny, folder: Path, names: PartNames, root: Path | None = None) -> Written:
    plain = tiny.report(root)
    report = Report(
        tiny.index,
        plain.renderer,
        tiny.prototypes,
        tiny.embedding_PD,
        tiny.outputs,
        plain.explainer.relevance,
        part_names=names,
    )
    folder.mkdir()
    report.write(folder, RUN, MEASURED, 0, 0)
    index, parts = (folder / name for name in ("index.html", "parts.html"))
    classes = sorted((folder / "classes").glob("*.html"))
    return Written(
        index.read_text(encoding="utf-8"),
        [path.read_text(encoding="utf-8") for path in classes],
        parts.read_text(encoding="utf-8"),
    )


@pytest.fixture(scope="module")
def pages(parted: Tiny, tmp_path_factory: pytest.TempPathFactory) -> Written:
    return write(parted, tmp_path_factory.mktemp("parts") / "report", GIVEN)


def said(page: str) -> str:
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", page.partition("<body>")[2] or page))


def card(page: str, part: int) -> str:
    return page.partition(f'id="part-{part}"')[2].partition("</article>")[0]


def test_parts_are_counted_by_image(parted: Tiny) -> None:
    half, behind, whole = parts_in(parted.masks)
    N = len(parted.index)
    assert half[:4] == (IN_EVERY_SECOND, 1, True, N // 2)
    assert half.rows.tolist() == list(range(0, N, 2))
    assert behind[:4] == (BEHIND, 1, False, N) and whole[:4] == (EVERYWHERE, 0, True, N)
    assert behind.rows.tolist() == whole.rows.tolist() == list(range(N))


def test_an_image_with_a_part_twice_counts_once(tiny: Tiny, tmp_path: Path) -> None:
    twice = np.array([1, 1, 1, NO_PART], np.int32)
    none = np.full(4, NO_PART, np.int32)
    masks = [
        replace(tiny.masks.masks(row), parts=none if row else twice)
        for row in range(len(tiny.index))
    ]
    write_store(tmp_path / "masks.zarr", tiny.index.image_files, patches(), masks)
    (part,) = parts_in(MaskStore(tmp_path / "masks.zarr"))
    assert part.num_masks == 3 and part.rows.tolist() == [0]
    assert parts_in(tiny.masks) == []


def test_a_part_is_said_by_its_name_or_by_how_often_it_is_found() -> None:
    parts = Parts({8: "wing"}, {7: 0.956, 8: 0.5, 1: 0.001, 2: 0.9999, 3: 1.0})
    assert parts.said(7) == "part 7, found in 96 % of the images"
    assert parts.said(8) == "wing" and parts.found(8) == "found in 50 % of the images"
    assert parts.found(1) == "found in 1 % of the images"
    assert parts.found(2) == "found in 99 % of the images"
    assert parts.found(3) == "found in all images"
    assert parts.said(9) == "part 9" and parts.found(9) == ""
    assert parts.said(NO_PART) == ""


def test_the_page_shows_each_part_on_its_level(pages: Written) -> None:
    heads = re.findall(r"<h([23])[^>]*>(.*?)</h", pages.parts)
    assert heads == [
        ("2", "Whole objects"),
        ("3", "Part 7"),
        ("2", "Parts"),
        ("3", "&lt;i&gt;wing&lt;/i&gt;"),
        ("2", "Background"),
        ("3", "Part 5"),
        ("2", "Names"),
    ]
    assert "found in all images · 36 masks" in said(card(pages.parts, EVERYWHERE))
    assert "part 3, found in 50 % of the images · 18 masks" in said(card(pages.parts, 3))
    assert "knows 3 parts, the same in all 36 images" in said(pages.parts)
    assert '<a href="parts.html">' in pages.index


def test_examples_are_spread_over_the_classes(parted: Tiny, pages: Written) -> None:
    page = PartsPage(parted.index, parted.report().renderer, parted.prototypes, GIVEN)
    half = next(part for part in page.found if part.number == IN_EVERY_SECOND)
    labels, shown = parted.index.labels, page.examples(half)
    # three classes: the first image of each that has the part, then the second, then the third
    firsts = [[row for row in half.rows.tolist() if labels[row] == of] for of in range(3)]
    assert shown == [firsts[of][turn] for turn in range(3) for of in range(3)]
    alts = re.findall(r'alt="([^"]+)"', card(pages.parts, IN_EVERY_SECOND))
    assert alts == [f"&lt;i&gt;wing&lt;/i&gt; in {parted.index.ids[row]}" for row in shown]


def test_the_page_counts_and_links_the_prototypes_of_a_part(pages: Written) -> None:
    whole, behind = (card(pages.parts, part) for part in (EVERYWHERE, BEHIND))
    assert "2 prototypes show it" in said(whole) and "2 prototypes show it" in said(behind)
    assert "1 prototype shows it" in said(card(pages.parts, IN_EVERY_SECOND))
    links = re.findall(r'href="(classes/\d\.html#[^"]+)">([^<]+)<', whole)
    assert links == [("classes/1.html#prototype-2", "2"), ("classes/2.html#prototype-5", "5")]
    # prototypes 0 and 1 are the same crop, and share a card
    assert re.findall(r'#prototype-0">([^<]+)<', behind) == ["0, 1"]


def test_a_prototype_is_explained_by_its_part(pages: Written) -> None:
    shows = [re.findall(r"<dt>Shows</dt><dd>(.*?)</dd>", page) for page in pages.classes]
    link = '<a href="../parts.html#part-{}">{}</a>, found in {}'
    whole = link.format(7, "part 7", "all images")
    assert shows[0] == [link.format(5, "part 5", "all images")]
    assert sorted(shows[1]) == sorted(
        [whole, link.format(3, "&lt;i&gt;wing&lt;/i&gt;", "50 % of the images")]
    )
    assert shows[2] == [whole]  # of prototype 4 no part is known
    text = said(pages.index)
    assert re.search(
        r"Prototype 2 of &lt;b&gt;bold&lt;/b&gt; \(part 7, found in all images\)", text
    )
    assert re.search(
        r"Prototype 3 of &lt;b&gt;bold&lt;/b&gt; \(&lt;i&gt;wing&lt;/i&gt;\), from", text
    )
    assert "<i>wing" not in "".join([pages.index, *pages.classes, pages.parts])


def test_regions_have_the_names_that_were_given(pages: Written) -> None:
    assert "its &lt;i&gt;wing&lt;/i&gt; (" in pages.index
    assert re.search(r"prototype 3: &lt;i&gt;wing&lt;/i&gt;", said(pages.index))


def test_the_page_has_the_file_to_copy(pages: Written) -> None:
    file = re.search(r"<pre>(.*?)</pre>", pages.parts, re.DOTALL)
    assert file and file[1] == "codebook: patches\n3: &lt;i&gt;wing&lt;/i&gt;\n5:\n7:\n"


def test_names_that_are_not_used_are_told(parted: Tiny, tmp_path: Path, pages: Written) -> None:
    names = PartNames({}, {99: "nose"}, "these are others")
    written = write(parted, tmp_path / "report", names)
    assert "These are others." in written.parts
    assert "Names were given to parts that no mask shows: 99 (nose)." in written.parts
    assert 'class="warning"' in written.parts and 'class="warning"' not in pages.parts


def test_without_the_photographs_there_are_no_examples(parted: Tiny, tmp_path: Path) -> None:
    root = tmp_path / "photographs"
    shutil.copytree(parted.root, root)
    for path in root.rglob("*.png"):
        path.unlink()
    written = write(parted, tmp_path / "report", GIVEN, root)
    assert written.parts.count("photographs were not on the machine") == 3
    assert "<img" not in written.parts


def test_without_parts_there_is_no_page(tiny: Any, tmp_path: Path) -> None:
    page = tiny.write(tmp_path / "report")
    assert not (page.parent / "parts.html").exists()
    assert "parts.html" not in page.read_text(encoding="utf-8")


def test_a_model_of_whole_images_has_no_prototypes_of_parts(parted: Tiny, tmp_path: Path) -> None:
    seeing = parted.seeing(parted.prototypes.views._replace(kind="cells", grid=(2, 3)))
    written = write(seeing._replace(masks=parted.masks), tmp_path / "report", GIVEN)
    assert "prototype" not in said(written.parts.partition("<footer>")[0])


def test_a_part_is_drawn_with_what_is_around_it() -> None:
    pixels, mask = np.full((90, 120, 3), 100, np.uint8), np.zeros((90, 120), bool)
    mask[40:50, 60:80] = True
    picture = np.asarray(draw_around(pixels, mask, [60, 40, 80, 50], 60))
    # a mask of 20×10 in a square of a third of 90 pixels, drawn twice as large
    assert AT_LEAST == 1 / 3 and picture.shape == (60, 60, 3)
    assert (picture[:19] == 40).all() and (picture[:, :9] == 40).all()
    assert (picture[25:35, 15:45] == 100).all()


@pytest.mark.parametrize("box", [[0, 0, 4, 4], [116, 86, 120, 90], [0, 0, 120, 90]])
def test_at_the_border_the_square_moves_into_the_image(box: list[int]) -> None:
    x0, y0, x1, y1 = box
    mask = np.zeros((90, 120), bool)
    mask[y0:y1, x0:x1] = True
    picture = draw_around(np.full((90, 120, 3), 100, np.uint8), mask, box, 60)
    assert picture.size == ((60, 45) if x1 - x0 == 120 else (60, 60))
