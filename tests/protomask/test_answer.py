"""What a model says of an image, as data: it adds up, and JSON has all of it."""

import json
from pathlib import Path

import numpy as np
import pytest
from pycocotools import mask as rle

from pipeline.saliency.views import Views
from protomask import Answer, load


@pytest.fixture(scope="module")
def answer(finished_run: Path) -> Answer:
    return load(finished_run).predict(finished_run / "photographs" / "class 1" / "003.png")


def test_scores_are_in_descending_order_and_the_margin_is_their_difference(answer: Answer) -> None:
    scores = list(answer.scores.values())
    assert len(scores) == 3 and scores == sorted(scores, reverse=True)
    assert list(answer.scores)[:2] == [answer.label, answer.second]
    assert answer.margin == pytest.approx(scores[0] - scores[1])
    assert answer.why.startswith(f"{answer.label} rather than {answer.second} (")


def test_regions_add_up_to_the_margin_and_matches_to_the_regions(answer: Answer) -> None:
    assert answer.regions
    assert sum(region.points for region in answer.regions) == pytest.approx(answer.margin, abs=1e-5)
    points = [region.points for region in answer.regions]
    assert points == sorted(points, reverse=True)
    for region in answer.regions:
        assert sum(match.points for match in region.matches) == pytest.approx(region.points)
        for match in region.matches:
            assert match.points == pytest.approx(match.similarity * match.weight)
            assert match.image.startswith(f"{match.class_name}/")


def test_a_region_is_its_mask(answer: Answer) -> None:
    for region in answer.regions:
        x0, y0, x1, y1 = region.box
        assert region.mask.shape == (40, 60)
        assert region.mask[y0:y1, x0:x1].all() and region.mask.sum() == (y1 - y0) * (x1 - x0)
        assert region.part is None and region.name.startswith("region ")


def test_json_has_all_of_it(answer: Answer) -> None:
    said = json.loads(json.dumps(answer.to_dict(), allow_nan=False))
    assert said["label"] == answer.label and said["scores"] == dict(answer.scores)
    assert said["image"] == "003.png" and said["remarks"] == []
    for region, told in zip(answer.regions, said["regions"], strict=True):
        assert np.array_equal(rle.decode(told["mask"]), region.mask)
        assert told["box"] == list(region.box) and told["points"] == region.points
        assert [match["prototype"] for match in told["matches"]] == [
            match.prototype for match in region.matches
        ]


def test_a_view_is_its_place(answer: Answer) -> None:
    prediction = answer._prediction
    cell = prediction.place(Views("cells", (2, 3)), 4)
    assert cell.sum() == 20 * 20 and cell[20:, 20:40].all()
    assert prediction.place(Views("image", (1, 1)), 0).all()
