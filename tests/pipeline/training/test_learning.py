"""A model that has not learned is told by its accuracy, its places and its similarities."""

import numpy as np
import pandas as pd
import pytest
import torch

from pipeline.training.learning import doubts_of_accuracy, doubts_of_push, said


@pytest.mark.parametrize(
    ("classes", "enough", "little"),
    [(12, 0.167, 0.166), (100, 0.0201, 0.0199), (3, 0.434, 0.433), (2, 0.61, 0.59), (1, 1.0, 0.9)],
)
def test_accuracy_is_held_against_guessing(classes: int, enough: float, little: float) -> None:
    """Twice 1/12 is 0.1667; of three classes, 1/3 + 0.1; a single class leaves no guess."""
    assert doubts_of_accuracy(enough, classes) == []
    (why,) = doubts_of_accuracy(little, classes)
    assert f"{little:.1%}" in why and f"guessing {1 / classes:.1%}" in why and "train.start" in why


def places(*images: int) -> pd.DataFrame:
    return pd.DataFrame({"image": [f"{image:02d}" for image in images], "crop": 0, "cell": 0})


def spread(prototypes: int) -> torch.Tensor:
    return torch.linspace(0.2, 0.8, 20)[:, None].repeat(1, prototypes)


def test_prototypes_from_few_places_have_fallen_together() -> None:
    """Two classes of four prototypes: two places of eight are few, three are not."""
    crops = np.array([9, 9])
    (why,) = doubts_of_push(places(0, 0, 0, 0, 1, 1, 1, 1), crops, spread(8))
    assert "8 prototypes come from only 2 places" in why and "train.loss.cluster" in why
    assert doubts_of_push(places(0, 0, 0, 2, 1, 1, 1, 1), crops, spread(8)) == []


def test_prototypes_of_few_crops_cannot_come_from_many_places() -> None:
    """A class with a single crop has one place for all of its prototypes."""
    one = np.array([1, 1])
    assert doubts_of_push(places(0, 0, 0, 0, 1, 1, 1, 1), one, spread(8)) == []


def test_similarities_that_are_all_alike() -> None:
    """Of 41 images in a range of `width` around 0.5, the inner 90 % are within 0.9 · width."""
    sources, crops = places(0, 1, 2, 3), np.array([9, 9])
    for width, alike in ((0.005, True), (0.006, False)):
        one = 0.5 + width * torch.linspace(-0.5, 0.5, 41)[:, None].repeat(1, 4)
        one[0] = 9.2  # the crop that a prototype is
        found = doubts_of_push(sources, crops, one)
        assert len(found) == alike and all("equally similar" in why for why in found)
    half = torch.cat([spread(2), torch.full((20, 2), 0.5)], dim=1)
    assert doubts_of_push(sources, crops, half) == []
    assert doubts_of_push(sources, crops, torch.zeros(20, 4)) != []


def test_the_sentence_has_all_reasons() -> None:
    assert said(["one; a", "two; b"]) == "this model has not learned: one; a; and two; b"
