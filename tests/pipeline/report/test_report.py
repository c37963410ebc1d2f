"""The report: what it chooses, and what stands on its pages."""

import re
import shutil
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from tiny_experiment import MEASURED, RUN

from pipeline.errors import ProtoMaskError
from pipeline.report.class_pages import NUM_NEAREST, NUM_WRONG
from pipeline.report.heatmaps import Cut
from pipeline.report.image_renderer import ImageRenderer
from pipeline.report.report import NUM_DECISIONS, Report
from pipeline.report.score_lines import Explainer
from pipeline.saliency.stored_outputs import StoredOutputs


class Outside(HTMLParser):
    """Collects what a browser would fetch, and a page's ids and links."""

    def __init__(self, page: Path) -> None:
        super().__init__()
        self.fetched: list[str] = []
        self.ids: list[str] = []
        self.links: list[str] = []
        self.feed(page.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        for name, value in attributes:
            if name == "id":
                self.ids.append(value or "")
            elif name == "href" and tag == "a":
                self.links.append(value or "")
            elif name in ("src", "href", "srcset", "poster") and not str(value).startswith("data:"):
                self.fetched.append(value or "")


@pytest.fixture(scope="module")
def index_page(tiny: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.write(tmp_path_factory.mktemp("report") / "report")


@pytest.fixture(scope="module")
def page(index_page: Path) -> str:
    return index_page.read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def class_pages(index_page: Path) -> list[str]:
    folder = index_page.parent / "classes"
    return [(folder / f"{label}.html").read_text(encoding="utf-8") for label in range(3)]


def said(page: str) -> str:
    """Returns a page's text."""
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", page.partition("<body>")[2] or page))


def test_relevance_may_be_drawn_on_the_mask_only(tiny) -> None:
    report = tiny.report()
    renderers = [
        Explainer(
            tiny.prototypes, report.explainer.relevance, tiny.crops, tiny.index.ids, only_mask
        )
        for only_mask in (False, True)
    ]
    cut = Cut(np.full((24, 24, 3), 200, np.uint8), np.eye(24, dtype=bool), True)
    whole, masked = (renderer.sides([cut], [0], ["crop"])[0] for renderer in renderers)
    assert whole.crop == masked.crop
    assert whole.heat_map != masked.heat_map


def test_where_the_mask_alone_is_seen_the_pages_say_so(
    tiny: Any, page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = "The model sees exactly the regions of the masks"
    plain = tiny.write_photograph(tmp_path / "a.html").read_text(encoding="utf-8")
    assert words not in said(page) and words not in said(plain)
    replaced = tiny.crops.settings.model_copy(update={"background": "mean"})
    monkeypatch.setattr(tiny.crops, "settings", replaced)
    assert words in said(tiny.write_photograph(tmp_path / "b.html").read_text(encoding="utf-8"))
    assert words in said(tiny.write(tmp_path / "report").read_text(encoding="utf-8"))


def test_every_score_adds_up_to_the_logit(tiny: Any) -> None:
    report = tiny.report()
    for place in range(len(tiny.outputs.rows_N)):
        for label, logit in enumerate(tiny.outputs.logits_NC[place].tolist()):
            score = report.score(place, label, top=2)
            assert sum(row.points for row in score.rows) + score.rest == pytest.approx(
                logit, abs=1e-5
            )
            shown = score.rounded()
            assert abs(shown.score - logit) < 0.0051
            cents = [round(100 * row.points) for row in shown.rows] + [round(100 * shown.rest)]
            assert sum(cents) == round(100 * shown.score)


def of(labels_N: np.ndarray, logits_NC: np.ndarray) -> StoredOutputs:
    N = len(labels_N)
    return StoredOutputs(
        np.arange(N), labels_N, logits_NC, np.zeros((N, 6)), np.zeros((N, 6), np.int64)
    )


def test_typical_images_are_the_first_of_evenly_spaced_classes(tiny: Any) -> None:
    report = tiny.report()
    report.outputs = of(np.array([0, 0, 1, 2, 2]), np.zeros((5, 3)))
    assert report.typical() == [0, 2, 3, 1, 4]
    labels_N = np.repeat(np.arange(5 * NUM_DECISIONS), 2)
    report.outputs = of(labels_N, np.zeros((len(labels_N), 5 * NUM_DECISIONS)))
    assert report.typical() == [10 * number for number in range(NUM_DECISIONS)]


def test_the_worst_mistakes_are_those_with_the_largest_lead(tiny: Any) -> None:
    report = tiny.report()
    logits_NC = np.array([[1, 2, 0], [1, 9, 0], [5, 1, 1], [1, 1, 4]], np.float32)
    report.outputs = of(np.array([0, 0, 0, 1]), logits_NC)
    assert report.worst() == [1, 3, 0]


def test_the_same_inputs_give_the_same_bytes(tiny: Any, tmp_path: Path) -> None:
    first, second = tiny.write(tmp_path / "a"), tiny.write(tmp_path / "b")
    names = {path.relative_to(first.parent) for path in first.parent.rglob("*.*")}
    assert len(names) == 10
    for name in names:
        assert (first.parent / name).read_bytes() == (second.parent / name).read_bytes()


def test_pages_fetch_nothing_and_their_links_lead_somewhere(index_page: Path) -> None:
    pages = {page.resolve(): Outside(page) for page in index_page.parent.rglob("*.html")}
    for path, outside in pages.items():
        text = path.read_text(encoding="utf-8")
        assert outside.fetched == []
        assert len(set(outside.ids)) == len(outside.ids)
        assert "@import" not in text and "<style>" in text
        for sheet in re.findall(r"url\(([^$]*?)\)", text):
            assert (path.parent / sheet).is_file() and sheet.endswith(".webp")
        for link in outside.links:
            target, _, anchor = link.partition("#")
            found = pages[(path.parent / target).resolve() if target else path]
            if "=" in anchor:  # what the table of images shows
                assert found is pages[index_page.resolve().with_name("images.html")]
            else:
                assert not anchor or anchor in found.ids
    assert sum(len(outside.links) for outside in pages.values()) > 40


def test_pages_name_no_path_of_the_machine(tiny: Any, page: str, class_pages: list[str]) -> None:
    for text in (page, *class_pages):
        assert str(tiny.root) not in text and str(tiny.masks.path.parent) not in text


def test_names_are_text_and_never_markup(page: str, class_pages: list[str]) -> None:
    assert "Grünspecht &amp; Co" in page
    for text in (page, *class_pages):
        assert "<b>bold</b>" not in text
    assert "<h1>&lt;b&gt;bold&lt;/b&gt;</h1>" in class_pages[1]
    assert "<h1>the &#34;quoted&#34; one</h1>" in class_pages[2]


def test_prototypes_of_one_crop_share_a_card(page: str, class_pages: list[str]) -> None:
    assert class_pages[0].count("<h2>Prototypes 0, 1</h2>") == 1
    assert "2 prototypes, 1 different" in class_pages[0]
    assert 'id="prototype-0"' in class_pages[0] and 'id="prototype-1"' not in class_pages[0]
    assert page.count("0.html#prototype-0") >= 1 and '#prototype-1"' not in page


def test_a_prototype_says_how_many_it_stands_for(page: str, class_pages: list[str]) -> None:
    assert "Prototype 4, which stands for 3 that are alike" in said(class_pages[2])
    assert sum(of.count("which stands for") for of in class_pages) == 1
    assert re.search(r"Prototype 4 of .*?, from .*?, which stands for 3 that are alike", said(page))


def test_a_model_that_has_not_learned_is_said_to_have_not(
    tiny: Any, tmp_path: Path, page: str, class_pages: list[str]
) -> None:
    report = tiny.report()
    report.explainer.not_learned = ["it names 9 % right", "places < 3"]
    report.write(tmp_path, RUN, MEASURED, 0, 0)
    pages = ("index.html", "images.html", "classes/0.html", "images/0.html")
    for path in [tmp_path / page for page in pages]:
        head = said(path.read_text(encoding="utf-8").partition("</header>")[0])
        assert "This model has not learned: it names 9 % right; and places &lt; 3." in head
    assert not any("has not learned" in text for text in [page, *class_pages])


def test_metrics_stand_beside_their_intervals_and_controls(page: str) -> None:
    text = said(page)
    assert "Accuracy 0.5 ↑ 0.40–0.60 0 to 1" in text
    assert "Macro F1 f1_macro 0.25 ↑ 0 to 1" in text
    assert "IOR by mask −0.125 ↑ −0.20 to −0.05 −1 to 1" in text
    assert "IOR by PRP 0.5 ↑" in text
    assert "OIRR – ↓ 3 left out" in text
    assert "Purity 60 ↑ 55–66 61 2 left out %" in text
    assert "rain 1 " in text
    assert "No better than with random weights: Purity." in text
    assert "Not measured: Consistency – the data set has no part locations." in text
    assert "Folder has no object masks: boxes stand in for them." in text


def test_a_line_says_how_much_of_the_relevance_lies_on_the_mask(page: str) -> None:
    shares = re.findall(r"Relevance on the crop's mask: (\d+) %", page)
    assert shares and set(shares) == {"100"}  # a patch's mask is its whole box
    assert "its pixels&#39; relevance for prototype" in page


def test_segmentation_is_drawn_by_rank(page: str) -> None:
    assert (
        "The mask that is cut out first lies on 50 % of the object, those of the first 2 together "
        "on 70 %."
    ) in said(page)
    section = page.partition('<section id="segmentation"')[2]
    assert section.count('<figure class="chart">') == 2


def test_a_class_page_shows_the_nearest_test_images_and_the_next_wrong_ones(
    tiny: Any, class_pages: list[str]
) -> None:
    similarity_N = tiny.outputs.similarity_NP[:, 4]
    order_N = np.argsort(-similarity_N, kind="stable")
    own_N = tiny.outputs.labels_N[order_N] == 2
    num_wrong = int((~own_N[:NUM_NEAREST]).sum())
    card = class_pages[2].partition('id="prototype-4"')[2].partition("</article>")[0]
    shown = re.findall(r'<li class="(right|wrong)">.*?Crop (\d) of test image ([^"]+)"', card)
    further = [place for place in order_N[NUM_NEAREST:] if tiny.outputs.labels_N[place] != 2]
    expected = [*order_N[:NUM_NEAREST], *further[: max(0, NUM_WRONG - num_wrong)]]
    assert [image for _, _, image in shown] == [
        tiny.index.ids[tiny.outputs.rows_N[place]] for place in expected
    ]
    assert [int(crop) for _, crop, _ in shown] == tiny.outputs.view_NP[expected, 4].tolist()
    assert [kind == "right" for kind, _, _ in shown] == [
        tiny.outputs.labels_N[place] == 2 for place in expected
    ]
    assert f"{len(own_N[:NUM_NEAREST]) - num_wrong} of its class" in said(card)


def test_a_class_page_counts_confusions(tiny: Any, class_pages: list[str]) -> None:
    labels_N, predicted_N = tiny.outputs.labels_N, tiny.outputs.predicted_N
    taken = np.bincount(predicted_N[(labels_N == 0) & (predicted_N != 0)], minlength=3)
    assert taken.any()
    text = said(class_pages[0])
    for label in np.flatnonzero(taken):
        name = {1: "&lt;b&gt;bold&lt;/b&gt;", 2: "the &#34;quoted&#34; one"}[int(label)]
        assert f"{name} {taken[label]}" in text.partition("taken for:")[2].partition(".")[0]


def test_photographs_that_are_gone_or_changed_are_said_to_be(tiny: Any, tmp_path: Path) -> None:
    root = tmp_path / "photographs"
    shutil.copytree(tiny.root, root)
    for path in root.rglob("*.png"):
        path.unlink()
    index = tiny.write(tmp_path / "report", root)
    for page in (index, index.parent / "classes" / "0.html"):
        text = page.read_text(encoding="utf-8")
        assert "not on the machine that wrote" in text
        assert "Training photograph" not in text and "data:image/webp" in text


def test_a_photograph_of_another_size_is_not_drawn_on(tiny: Any, tmp_path: Path) -> None:
    root = tmp_path / "photographs"
    shutil.copytree(tiny.root, root)
    Image.new("RGB", (61, 40)).save(root / tiny.index.table["path"][0])
    renderer = ImageRenderer(tiny.index, root, tiny.masks, tiny.crops, tiny.prototypes.views)
    assert renderer.outlined(0, {0: ""}, 100) is None
    assert renderer.outlined(1, {0: ""}, 100) is not None
    assert renderer.missing == {0}


def test_answers_of_another_model_are_refused(tiny: Any) -> None:
    report = tiny.report()
    rows_N, labels_N, logits_NC, similarity_NP, view_NP = (
        tiny.outputs.rows_N,
        tiny.outputs.labels_N,
        tiny.outputs.logits_NC,
        tiny.outputs.similarity_NP,
        tiny.outputs.view_NP,
    )
    for wrong in (
        StoredOutputs(rows_N, labels_N, logits_NC + 0.1, similarity_NP, view_NP),
        StoredOutputs(rows_N[1:], labels_N, logits_NC, similarity_NP, view_NP),
    ):
        with pytest.raises(ProtoMaskError, match="dvc repro evaluate"):
            Report(
                tiny.index,
                report.renderer,
                tiny.prototypes,
                tiny.embedding_PD,
                wrong,
                report.explainer.relevance,
            )


def test_the_page_of_a_photograph_is_whole_in_itself(tiny: Any, tmp_path: Path) -> None:
    first = tiny.write_photograph(tmp_path / "a.html")
    outside = Outside(first)
    assert outside.fetched == [] and outside.links == ["#main", "#top"]
    text = first.read_text(encoding="utf-8")
    assert "<h1>&lt;b&gt;bold&lt;/b&gt;</h1>" in text
    assert "&lt;photo&gt;.png" in text and "<photo>" not in text
    assert "Runner-up: Grünspecht &amp; Co" in said(text)
    assert text.count('<table class="sum">') == 2
    assert tiny.write_photograph(tmp_path / "b.html").read_bytes() == first.read_bytes()
