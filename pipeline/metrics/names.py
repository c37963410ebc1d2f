"""Names of metrics in metrics.json: the metric, what drew the maps, which model was measured."""

from typing import NamedTuple

UNDEFINED = "_undefined"
EXPLANATIONS = {"prp": "PRP", "grad": "gradient"}
OWN = {"crops": "mask", "cells": "similarity map", "image": "gradient"}
"""What the explanation `mask` denotes, by the kind of a model's views."""
CONTROLS = {"random_weights": "random weights", "random_prototypes": "random prototypes"}


class Name(NamedTuple):
    """The components of a metric's name in metrics.json.

    Args:
        metric: name of the metric within its group, such as `purity`.
        explanation: the explanation that drew the saliency maps: `prp`, `grad`, or "" for `mask`.
        control: the untrained control model that was measured, "" for the trained model.
        undefined: whether the number counts the images for which the metric is undefined.
    """

    metric: str
    explanation: str
    control: str
    undefined: bool


def taken_apart(name: str) -> Name:
    """Splits a metric's name into its components: `purity_prp_random_weights_undefined`.

    Args:
        name: name of the number within its group in metrics.json.

    Returns:
        The components; a name without suffixes is returned as `metric`.
    """
    metric, undefined = name.removesuffix(UNDEFINED), name.endswith(UNDEFINED)
    control = next((control for control in CONTROLS if metric.endswith(f"_{control}")), "")
    metric = metric.removesuffix(f"_{control}")
    explanation = next((rule for rule in EXPLANATIONS if metric.endswith(f"_{rule}")), "")
    return Name(metric.removesuffix(f"_{explanation}"), explanation, control, undefined)
