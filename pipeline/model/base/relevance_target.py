"""Targets of relevance propagation: one score per crop.

Dimensions: n pairs of a crop and a score, F features.
"""

from typing import Protocol

from torch import Tensor

SMALLEST = 1e-6
"""Lower bound of denominators: a neuron that is active through its bias alone then distributes its
relevance instead of losing it."""


class RelevanceTarget(Protocol):
    """The explained quantity: one score per crop as a function of its features."""

    def scores(self, features_nF: Tensor) -> Tensor:
        """Returns the scores, float n; differentiable.

        Args:
            features_nF: backbone features of the explained views, float n×F.
        """

    def relevance(self, features_nF: Tensor) -> Tensor:
        """Returns the contributions of the features to the score, float n×F; rows sum to it.

        Args:
            features_nF: backbone features of the explained views, float n×F.
        """
