"""Sanity check: whether a model's explanations are better than those of an untrained control."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from pipeline.metrics import Values
from pipeline.metrics.summary import bootstrap

HIGHER_IS_BETTER = (
    "purity",
    "part_agreement",
    "discrimination",  # and discrimination_margin, discrimination_nearest
    "decisive",
    "deletion_auc",
)

CONTROL_IMAGES = 120
"""Test images that controls are measured on, at most."""


@dataclass(frozen=True)
class Controls:
    """What the group `truth` says of a model's controls.

    Args:
        images_n: int64 n, the positions of the images that they were measured on among the N.
        values: control → metric → value, a value per image for each of the n.
        no_better: control → the metrics in which the model is no better on these images.
    """

    images_n: Tensor = field(default_factory=lambda: torch.arange(0))
    values: Mapping[str, Values] = field(default_factory=dict)
    no_better: Mapping[str, list[str]] = field(default_factory=dict)

    def named(self) -> Values:
        """Returns the values by names that end in the control's: `purity_random_weights`."""
        return {
            f"{metric}_{control}": value
            for control, values in self.values.items()
            for metric, value in values.items()
        }

    def of_images(self, num_images: int) -> Values:
        """Returns the values per image, float N each: NaN for images that are not measured on.

        Args:
            num_images: N.
        """
        return {
            name: value.new_full((num_images,), torch.nan).index_put((self.images_n,), value)
            for name, value in self.named().items()
            if isinstance(value, Tensor) and value.ndim == 1
        }


def no_better(learned: Values, control: Values, seed: int) -> list[str]:
    """Returns the metrics of the group `truth` in which a model does not beat its control.

    A metric with a value per image is better if the bootstrap 95 % interval of the images' mean
    difference lies above 0 (`summary.bootstrap`); one that is not a mean over images, if it is
    larger. A metric that is undefined for either model is not better.

    Args:
        learned: values of the trained model, by metric.
        control: values of a model with random weights or random prototypes, with the same metrics.
        seed: seed of the bootstrap, ≥ 0.
    """
    names = [name for name in learned if name.startswith(HIGHER_IS_BETTER)]
    return [name for name in names if not _beats(learned, control, name, seed)]


def evenly_spaced(total: int, most: int) -> Tensor:
    """Returns evenly spaced numbers below a total, all of them if they are not too many.

    Args:
        total: the number that all are below, ≥ 1.
        most: how many are returned at most, ≥ 1.

    Returns:
        int64 min(total, most), ascending.
    """
    few = min(total, most)
    return torch.arange(few) * total // few


def _beats(learned: Values, control: Values, name: str, seed: int) -> bool:
    ours, theirs = (torch.as_tensor(values[name]).double() for values in (learned, control))
    difference = (ours - theirs).numpy()
    if difference.ndim == 0:
        return bool(difference > 0)
    return bool(np.isfinite(difference).any()) and bootstrap(difference, seed)[0] > 0
