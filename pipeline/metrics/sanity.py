"""Sanity check: whether a model's explanations are better than those of an untrained control."""

import numpy as np
import torch

from pipeline.metrics import Values
from pipeline.metrics.summary import bootstrap

HIGHER_IS_BETTER = (
    "purity",
    "part_agreement",
    "discrimination",  # and discrimination_margin, discrimination_nearest
    "decisive",
    "deletion_auc",
)


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


def _beats(learned: Values, control: Values, name: str, seed: int) -> bool:
    ours, theirs = (torch.as_tensor(values[name]).double() for values in (learned, control))
    difference = (ours - theirs).numpy()
    if difference.ndim == 0:
        return bool(difference > 0)
    return bool(np.isfinite(difference).any()) and bootstrap(difference, seed)[0] > 0
