"""The report of models that see images whole: cells are places, and a black box claims nothing."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.saliency.views import Views

CELLS = {
    "protopnet": Views("cells", (2, 3)),
    "protopool": Views("cells", (2, 3), shared=True, focal=True),
    "pipnet": Views("cells", (2, 3), shared=True, pushed=False),
}
IMAGE = Views("image", (1, 1), pushed=False)
MODELS = CELLS | {"blackbox": IMAGE}


@pytest.fixture(scope="module")
def pages(tiny: Any, tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[str]]:
    """Model → index.html and the pages of its classes."""
    found = {}
    for name, views in MODELS.items():
        index = tiny.seeing(views).write(tmp_path_factory.mktemp("report") / name)
        paths = [index, *(index.parent / "classes" / f"{label}.html" for label in range(3))]
        found[name] = [path.read_text(encoding="utf-8") for path in paths]
    return found


def said(page: str) -> str:
    body = page.partition("<body>")[2]
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", body))


@pytest.mark.parametrize("model", MODELS)
def test_nothing_is_said_of_crops_or_masks_of_crops(pages: Any, model: str) -> None:
    index, *classes = pages[model]
    for page in (index, *classes):
        body = page.partition("<main")[2]
        assert not re.search(r"crop \d|Crop \d|the crop|crops of", body)
    assert "seen whole" in said(index)
    assert "This network sees images whole, and nothing of these masks." in said(index)
    assert '<article class="segmented">' not in index


@pytest.mark.parametrize("model", CELLS)
def test_a_prototype_is_shown_in_its_place(tiny: Any, pages: Any, model: str) -> None:
    views, prototypes = CELLS[model], tiny.seeing(CELLS[model]).prototypes
    index, *classes = pages[model]
    for prototype in (2, 5):
        card = classes[prototypes.class_of_P[prototype]]
        card = card.partition(f'id="prototype-{prototype}"')[2].partition("</article>")[0]
        called = views.called(int(prototypes.cell_P[prototype]))
        image = tiny.index.ids[prototypes.rows_P[prototype]]
        assert f"Training photograph {image}, {called} outlined" in card
        assert f"{image} , {called}" in said("<body>" + card)
        assert re.search(r"Relevance in the place (\d+ %|there is none)", said("<body>" + card))
    marks = set(re.findall(r'<span class="mark">(.*?)</span>', index))
    assert marks and marks <= {views.mark(view) for view in range(6)}
    assert "the 6 cells of its feature map" in said(index)
    assert re.search(r"of it in the place outlined", index)


def test_what_differs_between_models_of_cells_is_said(pages: Any) -> None:
    assert "Pushed by" in pages["protopnet"][1] and "Pushed by" in pages["protopool"][1]
    assert "Pushed by" not in pages["pipnet"][1] and "nan" not in said(pages["pipnet"][1])
    assert "the push moved" not in pages["pipnet"][1]
    assert "less the mean over all" in said(pages["protopool"][0])
    assert "less the mean over all" not in said(pages["protopnet"][0])
    assert "shared by all classes" in said(pages["protopool"][0])
    assert "Map of prototypes" not in pages["pipnet"][0]
    assert "Map of prototypes" in pages["protopnet"][0]


def test_a_shared_prototype_is_named_where_it_speaks_for_another_class(
    tiny: Any, pages: Any
) -> None:
    weights_CP, num_others = tiny.seeing(CELLS["pipnet"]).prototypes.weights_CP, 0
    for label, page in enumerate(pages["pipnet"][1:]):
        others = [j for j in range(6) if j // 2 != label and weights_CP[label, j] > 0]
        num_others += len(others)
        for j in others:
            assert f'href="{j // 2}.html#prototype-{j}"' in page
    assert num_others > 2
    assert "weigh more for another class" not in pages["protopnet"][1]


def test_prototypes_that_one_cell_shows_stay_apart(tiny: Any) -> None:
    pushed, shown = (tiny.seeing(CELLS[model]).prototypes for model in ("protopool", "pipnet"))
    for prototypes in (pushed, shown):
        prototypes.cell_P[:2] = 4
    assert shown.distinct(0)[0] != (0, 1) and len(shown.distinct(0)) == 2


def test_a_black_box_claims_no_prototypes(tiny: Any, pages: Any) -> None:
    index, *classes = pages["blackbox"]
    assert "a black box and what it decides" in said(index)
    assert "It has no prototypes" in said(index)
    for page in (index, *classes):
        assert "This looks like that" not in page and "looks like" not in page
        assert "similarity × weight" not in page and "prototypes.csv" not in page
        assert not re.search(r"\d prototype", said(page))
        assert "prototypical" not in page
    for label, page in enumerate(classes):
        assert "A black box has no prototypes." in page and "weight" not in said(page).lower()
        assert page.count('<article class="prototype"') == 1
        row = tiny.seeing(IMAGE).prototypes.rows_P[label]
        assert f"Training photograph {tiny.index.ids[row]}" in page
    assert "Logit of Grünspecht" in said(index)
    assert "relevance for the Logit of" in index


@pytest.mark.parametrize("model", MODELS)
def test_scores_are_those_of_the_answers(tiny: Any, pages: Any, model: str) -> None:
    logits_NC = tiny.seeing(MODELS[model]).outputs.logits_NC
    shown = re.findall(r'<b class="score">([−\d.]+)</b>', pages[model][0])
    assert float(shown[0].replace("−", "-")) == pytest.approx(logits_NC[0].max(), abs=0.005)


@pytest.mark.parametrize("model", MODELS)
def test_the_page_of_a_photograph(tiny: Any, tmp_path: Path, model: str) -> None:
    path = tiny.seeing(MODELS[model]).write_photograph(tmp_path / "page.html")
    page = path.read_text(encoding="utf-8")
    assert "The photograph was seen whole" in page
    assert "All crops" not in page and "masks" not in said(page)
    assert ("This looks like that" in page) == (model != "blackbox")
    assert ('<table class="sum">' in page) == (model != "blackbox")


def test_the_place_is_outlined_in_the_picture(tiny: Any) -> None:
    cells = tiny.seeing(CELLS["protopnet"])
    sides = cells.report().explainer.sources(range(6))
    plain = tiny.seeing(IMAGE).report().explainer.sources(range(3))
    assert all(side.crop.src != other.crop.src for side, other in zip(sides, plain, strict=False))
    shares = []
    for side, row in zip(sides, cells.prototypes.rows_P, strict=True):
        bright = np.maximum(cells.crops.crops([row])[0, 0].astype(float).mean(-1) - 100, 0)
        share = bright[:, :12].sum() / bright.sum() if bright.any() else None
        assert side.on_mask == (None if share is None else pytest.approx(share, rel=1e-3))
        shares.append(share)
    assert any(share is not None and 0 < share < 1 for share in shares)
