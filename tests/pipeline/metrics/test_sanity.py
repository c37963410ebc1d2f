import math

import pytest
import torch

from pipeline.metrics.sanity import Controls, evenly_spaced, no_better


def values(**changes):
    return {
        "purity": torch.tensor([50.0, 60, 70]),
        "deletion_auc": 60.0,
        "deletion_on": 1.0,
    } | changes


def test_nothing_beats_itself():
    assert no_better(values(), values(), 0) == ["purity", "deletion_auc"]


def test_a_model_beats_what_is_worse_in_every_image():
    worse = values(purity=torch.tensor([40.0, 50, 60]), deletion_auc=50.0)
    assert no_better(values(), worse, 0) == []


def test_a_mean_that_is_larger_by_chance_beats_nothing():
    # differences −20, 0, 26: the mean is 2, and half of all resamples have one below 0
    control = values(purity=torch.tensor([70.0, 60, 44]), deletion_auc=50.0)
    assert no_better(values(), control, 0) == ["purity"]


def test_differences_are_those_of_the_same_image():
    # sums are alike to a tenth, but ours is ahead in every single image
    control = values(purity=torch.tensor([49.9, 59.9, 69.9]), deletion_auc=50.0)
    assert no_better(values(), control, 0) == []


def test_what_is_not_known_beats_nothing():
    unknown = values(purity=torch.full((3,), math.nan), deletion_auc=math.nan)
    assert no_better(values(), unknown, 0) == ["purity", "deletion_auc"]
    assert no_better(unknown, values(), 0) == ["purity", "deletion_auc"]


def test_explanations_are_compared_each_for_itself():
    ours = {"purity": torch.tensor([9.0, 9]), "purity_prp": torch.tensor([1.0, 1])}
    theirs = {"purity": torch.tensor([5.0, 5]), "purity_prp": torch.tensor([5.0, 5])}
    assert no_better(ours, theirs, 0) == ["purity_prp"]


@pytest.mark.parametrize(
    ("total", "most", "expected"),
    [(10, 4, [0, 2, 5, 7]), (3, 4, [0, 1, 2]), (4, 4, [0, 1, 2, 3]), (5, 1, [0])],
)
def test_samples_are_evenly_spaced_by_hand(total, most, expected):
    assert evenly_spaced(total, most).tolist() == expected


def test_a_control_says_nothing_of_images_outside_its_sample():
    controls = Controls(torch.tensor([0, 2]), {"random_weights": values(purity=torch.ones(2))})
    assert set(controls.named()) == {
        "purity_random_weights",
        "deletion_auc_random_weights",
        "deletion_on_random_weights",
    }
    of_images = controls.of_images(3)
    assert list(of_images) == ["purity_random_weights"]
    expected = torch.tensor([1, math.nan, 1])
    torch.testing.assert_close(of_images["purity_random_weights"], expected, equal_nan=True)
