"""Images that nobody picked, spread over the classes, and the worst mistakes."""

from collections.abc import Sequence

import numpy as np

from pipeline.saliency.stored_outputs import StoredOutputs


def spread_over_classes(labels: Sequence[int], count: int) -> list[int]:
    """Returns places of images spread over their classes.

    They are the first image of each class, evenly spaced over the classes; with few classes, the
    second ones as well, and so on.

    Args:
        labels: numbers of the images' classes, in the images' order.
        count: the number of images wanted; all, if there are fewer.
    """
    seen: dict[int, int] = {}
    turns = []
    for place, label in enumerate(labels):
        turns.append((seen.get(label, 0), label, place))
        seen[label] = seen.get(label, 0) + 1
    turns.sort()
    first = turns[: max(count, len(seen))]
    count = min(count, len(first))
    return [first[at * len(first) // count][2] for at in range(count)]


def worst_first(outputs: StoredOutputs) -> list[int]:
    """Returns the places of the images named wrong, in descending order of the wrong class's lead.

    Args:
        outputs: a model's outputs on the test images.
    """
    places, predicted_N = np.arange(len(outputs.labels_N)), outputs.predicted_N
    logits_NC = outputs.logits_NC
    lead_N = logits_NC[places, predicted_N] - logits_NC[places, outputs.labels_N]
    wrong = np.flatnonzero(predicted_N != outputs.labels_N)
    return wrong[np.argsort(-lead_N[wrong], kind="stable")].tolist()
