"""The pages of all test images, as text."""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny_experiment import NAMES, NUM_DRAWN

from pipeline.report.answers import chosen
from pipeline.report.pages import csp_hash


@pytest.fixture(scope="module")
def folder(parted: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return parted.write(tmp_path_factory.mktemp("report") / "report").parent


@pytest.fixture(scope="module")
def articles(folder: Path) -> dict[int, str]:
    """Place → what stands on the image's page."""
    text = (folder / "images" / "0.html").read_text(encoding="utf-8")
    found = re.findall(r'<article class="answer" id="image-(\d+)">(.*?)</article>', text, re.S)
    return {int(place): article for place, article in found}


def test_every_test_image_is_explained_its_margin_first(
    parted: Any, articles: dict[int, str]
) -> None:
    assert list(articles) == list(range(len(parted.outputs.rows_N)))
    for place, article in articles.items():
        margin = parted.report().contrasts.plain(place).margin
        first, second = article.index('class="regions"'), article.index('class="lines"')
        assert article.index('class="rather"') < first < second
        assert article.count("Margin") == 2 and margin.regions[0].called in article
        assert parted.index.ids[parted.outputs.rows_N[place]] in article


def test_only_the_chosen_ones_are_drawn_and_the_others_say_by_which_command(
    parted: Any, articles: dict[int, str]
) -> None:
    drawn = {place for place, article in articles.items() if "data:image/webp" in article}
    assert drawn == chosen(parted.outputs, NUM_DRAWN) and len(drawn) == NUM_DRAWN
    for place, article in articles.items():
        image = parted.index.ids[parted.outputs.rows_N[place]]
        assert f"protomask explain &#39;{image}&#39; --out why.html" in article
        assert ("This image is not drawn here." in article) == (place not in drawn)


def test_the_table_has_the_models_answers(parted: Any, folder: Path) -> None:
    text = (folder / "images.html").read_text(encoding="utf-8")
    data = json.loads(re.search(r'id="data"[^>]*>(.*?)</script>', text, re.S)[1])
    outputs = parted.outputs
    assert data["names"] == NAMES
    assert data["image"] == [parted.index.ids[row] for row in outputs.rows_N]
    assert data["actual"] == outputs.labels_N.tolist()
    assert data["named"] == outputs.predicted_N.tolist()
    softmax_NC = np.exp(outputs.logits_NC.astype(np.float64))
    softmax_NC /= softmax_NC.sum(axis=1, keepdims=True)
    assert data["confidence"] == np.round(100 * softmax_NC.max(axis=1), 1).tolist()
    assert set(data["background"]) == {None}
    assert {data["regions"][region] for region in data["region"]} >= {"the background"}


def test_the_only_script_is_the_one_that_the_policy_names(folder: Path) -> None:
    for path in folder.rglob("*.html"):
        text = path.read_text(encoding="utf-8")
        scripts = re.findall(r"<script>(.*?)</script>", text, re.S)
        policy = re.search(r'Content-Security-Policy" content="(.*?)"', text)[1]
        allowed = [f"script-src '{csp_hash(script)}'" for script in scripts]
        assert len(scripts) == (path.name == "images.html")
        assert re.findall(r"script-src [^;]*", policy) == allowed
        assert policy.startswith("default-src 'none'") and "http" not in policy


def test_without_a_script_all_pages_are_linked(folder: Path) -> None:
    text = (folder / "images.html").read_text(encoding="utf-8")
    page = re.search(r'<li id="page-0"><a href="images/0.html">(.*?)</a>', text)
    assert page and page[1].startswith("Grünspecht &amp; Co, &lt;b&gt;bold&lt;/b&gt;")
    assert re.search(r'<section id="all"[^>]* hidden>', text)
