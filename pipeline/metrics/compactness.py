"""Compactness: how much there is to read in an explanation.

Formulas: method.md, "Metrics", Compactness; Schlinge et al. 2025 (arXiv 2507.06819).
"""

import torch
from torch import Tensor

from pipeline.metrics import Values
from pipeline.metrics.evidence import Evidence

METRICS = ("global_size", "sparsity", "npr", "local_size")
WEIGHT_THRESHOLD = 1e-3
SIMILARITY_THRESHOLD = 0.1


def measure(evidence: Evidence) -> Values:
    """Global size, sparsity and NPR of the last layer; local size of each image."""
    return {
        "global_size": global_size(evidence.weights_CP),
        "sparsity": sparsity(evidence.weights_CP),
        "npr": npr(evidence.weights_CP),
        "local_size": local_size(evidence.answers.similarity_NP),
    }


def global_size(weights_CP: Tensor) -> float:
    """The number of prototypes with a weight above 1e-3 to any class: 0 to P."""
    return float((weights_CP > WEIGHT_THRESHOLD).any(dim=0).sum())


def sparsity(weights_CP: Tensor) -> float:
    """The share of weights with magnitude at most 1e-3, ×100: 0 to 100."""
    return 100 * float((weights_CP.abs() <= WEIGHT_THRESHOLD).double().mean())


def npr(weights_CP: Tensor) -> float:
    """Negative-positive ratio: weights below −1e-3 per weight above 1e-3, 0 or more.

    Without a weight above 1e-3 it is infinite, or 0 if none is below −1e-3 either.
    """
    negative = int((weights_CP < -WEIGHT_THRESHOLD).sum())
    positive = int((weights_CP > WEIGHT_THRESHOLD).sum())
    if positive == 0:
        return torch.inf if negative else 0.0
    return negative / positive


def local_size(similarity_NP: Tensor) -> Tensor:
    """Each image's number of prototypes above 0.1 of its largest similarity: float32, N; 0 to P.

    An image whose similarities are all 0 has size 0.
    """
    largest_N1 = similarity_NP.amax(dim=1, keepdim=True)
    return (similarity_NP > SIMILARITY_THRESHOLD * largest_N1).sum(dim=1).float()
