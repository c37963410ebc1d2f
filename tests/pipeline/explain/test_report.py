"""The report: what it chooses, and what stands on the page."""

import re
import shutil
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from pipeline.errors import ProtoMaskError
from pipeline.explain.gallery import Gallery
from pipeline.explain.metric_notes import NOTES, note_on
from pipeline.explain.report import NUM_DECISIONS, ImageAnswers, Report, metric_rows


class Outside(HTMLParser):
    """Collects what a browser would fetch, and the ids and the links inside the page."""

    def __init__(self) -> None:
        super().__init__()
        self.fetched: list[str] = []
        self.ids: list[str] = []
        self.links: list[str] = []

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        for name, value in attributes:
            value = value or ""
            if name in ("src", "href", "srcset", "poster") and not value.startswith(("data:", "#")):
                self.fetched.append(value)
            if name == "id":
                self.ids.append(value)
            if name == "href" and value.startswith("#"):
                self.links.append(value[1:])
        assert tag != "script"


@pytest.fixture(scope="module")
def page(tiny: Any, tmp_path_factory: pytest.TempPathFactory) -> str:
    return tiny.write(tmp_path_factory.mktemp("report") / "report").read_text(encoding="utf-8")


def test_every_score_adds_up_to_the_logit(tiny: Any) -> None:
    report = tiny.report()
    for place in range(len(tiny.answers.rows_N)):
        for label, logit in enumerate(tiny.answers.logits_NC[place].tolist()):
            score = report.score(place, label, top=2)
            assert sum(row.points for row in score.rows) + score.rest == pytest.approx(
                logit, abs=1e-5
            )
            shown = score.rounded()
            assert abs(shown.score - logit) < 0.0051
            cents = [round(100 * row.points) for row in shown.rows] + [round(100 * shown.rest)]
            assert sum(cents) == round(100 * shown.score)


def test_typical_images_are_the_first_of_evenly_spaced_classes(tiny: Any) -> None:
    report = tiny.report()
    report.labels_N = np.array([0, 0, 1, 2, 2])
    assert report.typical() == [0, 2, 3, 1, 4]
    report.labels_N = np.repeat(np.arange(5 * NUM_DECISIONS), 2)
    assert report.typical() == [10 * number for number in range(NUM_DECISIONS)]


def test_the_worst_mistakes_are_those_with_the_largest_lead(tiny: Any) -> None:
    report = tiny.report()
    report.labels_N = np.array([0, 0, 0, 1])
    logits_NC = np.array([[1, 2, 0], [1, 9, 0], [5, 1, 1], [1, 1, 4]], np.float32)
    report.predicted_N = logits_NC.argmax(1)
    report.answers = ImageAnswers(np.arange(4), logits_NC, np.zeros((4, 6)), np.zeros((4, 6), int))
    assert report.worst() == [1, 3, 0]


def test_the_same_inputs_give_the_same_bytes(tiny: Any, tmp_path: Path) -> None:
    first, second = tiny.write(tmp_path / "a"), tiny.write(tmp_path / "b")
    assert first.read_bytes() == second.read_bytes()


def test_the_page_fetches_nothing_and_its_links_lead_somewhere(page: str) -> None:
    outside = Outside()
    outside.feed(page)
    assert outside.fetched == []
    assert len(set(outside.ids)) == len(outside.ids)
    assert set(outside.links) <= set(outside.ids)
    assert "url(" not in page and "@import" not in page


def test_the_page_names_no_path_of_the_machine(tiny: Any, page: str) -> None:
    assert str(tiny.root) not in page and str(tiny.masks.path.parent) not in page


def test_names_are_text_and_never_markup(tiny: Any, page: str) -> None:
    assert "Grünspecht &amp; Co" in page
    assert "<b>bold</b>" not in page and "&lt;b&gt;bold&lt;/b&gt;" in page
    assert "<h3>the &#34;quoted&#34; one</h3>" in page


def test_prototypes_of_one_crop_share_a_card(tiny: Any, page: str) -> None:
    assert page.count("<b>Prototypes 0, 1</b>") == 1
    assert "2 prototypes, 1 different" in page
    assert 'id="prototype-0"' in page and 'id="prototype-1"' not in page


def test_metrics_are_shown_as_they_stand_in_the_file(page: str) -> None:
    text = re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", page))
    assert "Macro F1 f1_macro 0.25 ↑ 0 to 1" in text
    assert "−0.125" in text
    assert "rain 1 " in text


def test_photographs_that_are_gone_or_changed_are_said_to_be(tiny: Any, tmp_path: Path) -> None:
    root = tmp_path / "photographs"
    shutil.copytree(tiny.root, root)
    for path in root.rglob("*.png"):
        path.unlink()
    page = tiny.write(tmp_path / "report", root).read_text(encoding="utf-8")
    assert "not on the machine that wrote this page" in page
    assert "Training photograph" not in page and "data:image/webp" in page


def test_a_photograph_of_another_size_is_not_drawn_on(tiny: Any, tmp_path: Path) -> None:
    root = tmp_path / "photographs"
    shutil.copytree(tiny.root, root)
    Image.new("RGB", (61, 40)).save(root / tiny.index.table["path"][0])
    gallery = Gallery(tiny.index, root, tiny.masks, tiny.crops)
    assert gallery.outlined(0, {0: ""}, 100) is None
    assert gallery.outlined(1, {0: ""}, 100) is not None
    assert gallery.missing == {0}


def test_answers_of_another_model_are_refused(tiny: Any) -> None:
    answers = tiny.answers
    gallery = Gallery(tiny.index, tiny.root, tiny.masks, tiny.crops)
    for wrong in (
        ImageAnswers(
            answers.rows_N, answers.logits_NC + 0.1, answers.similarity_NP, answers.crop_NP
        ),
        ImageAnswers(answers.rows_N[1:], answers.logits_NC, answers.similarity_NP, answers.crop_NP),
    ):
        with pytest.raises(ProtoMaskError, match="dvc repro evaluate"):
            Report(tiny.index, gallery, tiny.prototypes, wrong)


def test_every_known_metric_has_a_meaning_of_one_line() -> None:
    notes = [note for group in NOTES.values() for note in group.values()]
    assert all(note.label and note.unit and 0 < len(note.meaning) < 90 for note in notes)
    assert note_on("complexity", "oirr_undefined").label == "OIRR: left out"


def test_a_metric_that_nobody_described_is_shown_by_its_name() -> None:
    ((group, question, rows),) = metric_rows({"weather": {"rain_days": 12.0}})
    assert (group, question) == ("weather", "")
    assert (rows[0].note.label, rows[0].value) == ("rain days", "12")
