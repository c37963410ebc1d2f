"""What the relevance of a crop's pixels adds up to: one score for each crop.

Dimensions: n pairs of a crop and a score, F features.
"""

from typing import Protocol

from torch import Tensor

SMALLEST = 1e-6
"""Contributions are at least this: a neuron that is active through its bias alone then hands its
relevance on instead of losing it."""


class RelevanceTarget(Protocol):
    """What is explained: one score for each crop, of the features of its map."""

    def scores(self, features_nF: Tensor) -> Tensor:
        """Returns the scores, n; differentiable."""

    def relevance(self, features_nF: Tensor) -> Tensor:
        """Returns what each feature added to the score, n×F; a row's sum is the score."""
