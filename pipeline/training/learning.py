"""What speaks against a model's having learned anything, in words, with what to do about it."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from torch import Tensor

FEW = 0.25
"""Prototypes from at most this share of the places that they could come from come from few."""
ALIKE = 0.01
"""Similarities whose range is at most this share of their median are alike."""
MARGIN = 0.1


def doubts_of_accuracy(accuracy: float, num_classes: int) -> list[str]:
    """Returns what a training accuracy says against a model, if anything.

    It does if it is less than twice that of guessing, 1/C, or, where there are fewer than ten
    classes, less than 0.1 above it.

    Args:
        accuracy: share of the training images that are classified correctly.
        num_classes: C, the number of classes, ≥ 1.
    """
    chance = 1 / num_classes
    if accuracy >= chance + min(chance, MARGIN, 1 - chance):
        return []
    return [
        f"it names {accuracy:.1%} of the training images right, and guessing {chance:.1%}; start "
        "from the training crops (train.start=crops), train for longer, or change train.lr_*"
    ]


def doubts_of_push(
    sources: pd.DataFrame, crops_per_class: NDArray[np.int64], similarity_NP: Tensor
) -> list[str]:
    """Returns what prototypes say against a model, if anything: that they have fallen together.

    They have if they come from few places, or if for most of them all images are alike.

    Args:
        sources: one row for each prototype, with the columns that `write_sources` describes.
        crops_per_class: int64 C, the number of training crops of each class.
        similarity_NP: s_j of the training images to the pushed prototypes, float N×P.
    """
    found = []
    places = len(sources.drop_duplicates(["image", "crop", "cell"]))
    each = -(-len(sources) // len(crops_per_class))
    possible = min(len(sources), int(np.minimum(crops_per_class, each).sum()))
    if places <= FEW * possible:
        found.append(
            f"its {len(sources)} prototypes come from only {places} places of the training images; "
            "start from the training crops (train.start=crops), lower train.loss.cluster, or "
            "change train.lr_*"
        )
    low_P, middle_P, high_P = np.quantile(similarity_NP.numpy(), [0.05, 0.5, 0.95], axis=0)
    if np.mean(high_P - low_P <= ALIKE * middle_P) > 0.5:
        found.append(
            "all training images are equally similar to its prototypes; start from the training "
            "crops (train.start=crops), lower model.embedding_dim, or change train.lr_*"
        )
    return found


def said(doubts: Sequence[str]) -> str:
    """Returns the doubts as a sentence.

    Args:
        doubts: what speaks against a model, at least one.
    """
    return "this model has not learned: " + "; and ".join(doubts)
