"""Compactness: the size of an explanation.

Formulas: docs/method.md, "Metrics", Compactness; Schlinge et al. 2025 (arXiv 2507.06819).
"""

from typing import ClassVar

import torch
from torch import Tensor

from pipeline.metrics import Values
from pipeline.metrics.evidence import Evidence
from pipeline.metrics.group import PERCENT, MetricGroup, Note, register

WEIGHT_THRESHOLD = 1e-3
SIMILARITY_THRESHOLD = 0.1


@register
class Compactness(MetricGroup):
    """The size of an explanation."""

    name = "compactness"
    question = "How much is there to read?"
    notes: ClassVar = {
        "global_size": Note(
            "Global size", "prototypes", "lower", "Prototypes with a positive weight to any class."
        ),
        "sparsity": Note(
            "Sparsity", PERCENT, "higher", "Share of the weights that are zero and need no reading."
        ),
        "npr": Note(
            "NPR", "ratio", "lower", "Weights that argue against a class, for each that argues for."
        ),
        "local_size": Note(
            "Local size", "prototypes", "lower", "Prototypes that are noticeably like one image."
        ),
    }
    needs_prototypes = True

    def measure(self, evidence: Evidence) -> Values:
        """Returns global size, sparsity and NPR of the last layer, and each image's local size.

        Args:
            evidence: a model's outputs for the N images of a split.
        """
        return {
            "global_size": global_size(evidence.weights_CP),
            "sparsity": sparsity(evidence.weights_CP),
            "npr": npr(evidence.weights_CP),
            "local_size": local_size(evidence.outputs.similarity_NP),
        }


def global_size(weights_CP: Tensor) -> float:
    """Returns the number of prototypes with a weight above 1e-3 to any class, 0..P.

    Args:
        weights_CP: V, float C×P, the weight of each prototype for each class.
    """
    return float((weights_CP > WEIGHT_THRESHOLD).any(dim=0).sum())


def sparsity(weights_CP: Tensor) -> float:
    """Returns the share of weights with a magnitude of at most 1e-3, ×100: 0..100.

    Args:
        weights_CP: V, float C×P, the weight of each prototype for each class.
    """
    return 100 * float((weights_CP.abs() <= WEIGHT_THRESHOLD).double().mean())


def npr(weights_CP: Tensor) -> float:
    """Returns the negative-positive ratio: weights below −1e-3 / weights above 1e-3, ≥ 0.

    Without a weight above 1e-3 it is infinite, or 0 if none is below −1e-3 either.

    Args:
        weights_CP: V, float C×P, the weight of each prototype for each class.
    """
    negative = int((weights_CP < -WEIGHT_THRESHOLD).sum())
    positive = int((weights_CP > WEIGHT_THRESHOLD).sum())
    if positive == 0:
        return torch.inf if negative else 0.0
    return negative / positive


def local_size(similarity_NP: Tensor) -> Tensor:
    """Returns the number of prototypes above 0.1 of each image's largest similarity.

    Args:
        similarity_NP: s_j of each image and prototype, float N×P.

    Returns:
        float32 N, 0..P; 0 for an image whose similarities are all 0.
    """
    largest_N1 = similarity_NP.amax(dim=1, keepdim=True)
    return (similarity_NP > SIMILARITY_THRESHOLD * largest_N1).sum(dim=1).float()
