"""General: classification performance.

Formulas: docs/method.md, "Metrics", General; Schlinge et al. 2025 (arXiv 2507.06819). All are
shares, 0 to 1. Classes without an image in the split are excluded from the means over classes of
the accuracies; macro F1 averages over the classes that occur or are predicted.
"""

from typing import ClassVar

import torch
from torch import Tensor

from pipeline.metrics import Values
from pipeline.metrics.evidence import Evidence
from pipeline.metrics.group import SHARE, MetricGroup, Note, register


@register
class General(MetricGroup):
    """Classification performance."""

    name = "general"
    question = "Is it right?"
    notes: ClassVar = {
        "accuracy": Note(
            "Accuracy", SHARE, "higher", "Share of test images named right.", proportion=True
        ),
        "balanced_accuracy": Note(
            "Balanced accuracy", SHARE, "higher", "The same, with every class counting equally."
        ),
        "top3_accuracy": Note(
            "Top-3 accuracy",
            SHARE,
            "higher",
            "Share with the right class among the first three.",
            proportion=True,
        ),
        "balanced_top3_accuracy": Note(
            "Balanced top-3 accuracy", SHARE, "higher", "The same, every class counting equally."
        ),
        "f1_macro": Note(
            "Macro F1",
            SHARE,
            "higher",
            "Harmonic mean of precision and recall, averaged over the classes.",
        ),
        "balanced_f1_macro": Note(
            "Balanced macro F1", SHARE, "higher", "The same, every class's images weighing equally."
        ),
        "unknown_auroc": Note(
            "Unknown classes told",
            SHARE,
            "higher",
            "AUROC of the largest score, with and without that of the own class; 0.5 is chance.",
        ),
    }

    def measure(self, evidence: Evidence) -> Values:
        """Returns accuracy and top-3 accuracy (per image), macro F1, each balanced, and the AUROC.

        Args:
            evidence: a model's outputs for the N images of a split.
        """
        logits_NC, labels_N = evidence.outputs.logits_NC, evidence.labels_N
        enough = logits_NC.shape[1] > 1
        first_N = top_accuracy(logits_NC, labels_N, 1)
        third_N = top_accuracy(logits_NC, labels_N, 3)
        return {
            "accuracy": first_N,
            "balanced_accuracy": balanced_mean(first_N, labels_N),
            "top3_accuracy": third_N,
            "balanced_top3_accuracy": balanced_mean(third_N, labels_N),
            "f1_macro": f1_macro(logits_NC, labels_N),
            "balanced_f1_macro": f1_macro(logits_NC, labels_N, balanced_weights(labels_N)),
            **({"unknown_auroc": unknown_auroc(logits_NC, labels_N)} if enough else {}),
        }


def top_accuracy(logits_NC: Tensor, labels_N: Tensor, top: int) -> Tensor:
    """Returns 1 if an image's class is among its `top` largest logits, else 0: float32 N.

    Equal logits rank by class number. With fewer than `top` classes, all of them count.

    Args:
        logits_NC: class scores of the images, float N×C.
        labels_N: int64 N, the images' classes, 0..C−1.
        top: number of largest logits to consider, ≥ 1.
    """
    ranked_NC = torch.sort(logits_NC, dim=1, descending=True, stable=True).indices
    return (ranked_NC[:, :top] == labels_N[:, None]).any(dim=1).float()


def balanced_weights(labels_N: Tensor) -> Tensor:
    """Returns 1 / frequency of each image's class in the split, float64 N.

    Args:
        labels_N: int64 N, the images' classes, 0..C−1.
    """
    return len(labels_N) / labels_N.bincount()[labels_N].double()


def balanced_mean(values_N: Tensor, labels_N: Tensor) -> float:
    """Returns the mean over images, each weighted by 1 / frequency of its class.

    Applied to the accuracy, this is the mean of the classes' recalls.

    Args:
        values_N: the value of each image, float N.
        labels_N: int64 N, the images' classes, 0..C−1.
    """
    weights_N = balanced_weights(labels_N)
    return float((weights_N * values_N).sum() / weights_N.sum())


def f1_macro(logits_NC: Tensor, labels_N: Tensor, weights_N: Tensor | None = None) -> float:
    """Returns F1, the harmonic mean of precision and recall, averaged over classes: 0..1.

    The mean is over the classes that have an image in the split or are predicted for one, as
    scikit-learn's is: a class that occurs and is never predicted has F1 0, and so has one that is
    predicted and does not occur.

    Args:
        logits_NC: class scores of the images, float N×C.
        labels_N: int64 N, the images' classes, 0..C−1.
        weights_N: float N, the weight of each image in true and false positives; None: 1 each.
    """
    from sklearn.metrics import f1_score

    predicted_N = torch.sort(logits_NC, dim=1, descending=True, stable=True).indices[:, 0]
    return float(
        f1_score(
            labels_N.numpy(),
            predicted_N.numpy(),
            average="macro",
            sample_weight=None if weights_N is None else weights_N.numpy(),
            zero_division=0,
        )
    )


def unknown_auroc(logits_NC: Tensor, labels_N: Tensor) -> float:
    """Returns how well the largest class score tells known classes from unknown ones: 0..1.

    Unknown are the same images to the model without the score of their class: what it would say if
    it had no such class. Its features have been trained with that class all the same, so images of
    a class that was never there are told less well, and those of another world better.

    Args:
        logits_NC: class scores of the images, float N×C with C ≥ 2.
        labels_N: int64 N, the images' classes, 0..C−1.

    Returns:
        The area under the ROC curve; 0.5 is chance.
    """
    from sklearn.metrics import roc_auc_score

    own_NC = torch.nn.functional.one_hot(labels_N, logits_NC.shape[1]).bool()
    others_NC = logits_NC.masked_fill(own_NC, -torch.inf)
    largest = torch.cat([logits_NC.amax(dim=1), others_NC.amax(dim=1)])
    known = torch.arange(len(largest)) < len(logits_NC)
    return float(roc_auc_score(known.numpy(), largest.numpy()))
