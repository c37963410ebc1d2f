"""Fine-tuning of the last layer V, and pruning, on stored similarities."""

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from pipeline.errors import ProtoMaskError
from pipeline.model.base.losses import class_weights, off_class_penalty
from pipeline.model.base.network import PrototypeNetwork
from pipeline.training.settings import FinetuneSettings, PruneSettings


class Finetuned(NamedTuple):
    """The result of fine-tuning and pruning.

    Args:
        kept: int64, the numbers of the prototypes that were kept, ascending.
        accuracy: share of the training images that the finished model classifies correctly.
    """

    kept: Tensor
    accuracy: float


def finetune_and_prune(
    network: PrototypeNetwork,
    similarity_NP: Tensor,
    labels_N: Tensor,
    settings: FinetuneSettings,
    prune: PruneSettings,
    seed: int,
) -> Finetuned:
    """Finishes a pushed model: fine-tunes V and, if asked to, prunes and fine-tunes it again.

    A model that does not declare `finetunes` stays as it is.

    Args:
        network: the pushed model; V and its prototypes are changed in place.
        similarity_NP: s_j of the training images to the pushed prototypes, float32 N×P.
        labels_N: the images' classes, int64 N in 0..C−1.
        settings: epochs, learning rate, batch size and penalty of the fine-tuning.
        prune: whether prototypes are pruned, and by which rule.
        seed: seed of the order of the images, ≥ 0.

    Returns:
        The prototypes that were kept, and the accuracy on the training images.

    Raises:
        ProtoMaskError: the model's prototypes are to be pruned and cannot be, or the fine-tuning
            diverges.
    """
    if prune.enabled and not network.settings.prunes:
        raise ProtoMaskError(
            f"the prototypes of {network.label} do not belong to one class each and cannot be "
            "pruned: set prune.enabled to false"
        )
    kept = torch.arange(network.num_prototypes)
    if network.finetunes:
        finetune(network, similarity_NP, labels_N, settings, seed)
    if prune.enabled:
        kept = prototypes_to_keep(similarity_NP, labels_N, network.class_of, prune)
        network.keep(kept)
        finetune(network, similarity_NP[:, kept], labels_N, settings, seed)
    logits_NC = similarity_NP[:, kept] @ network.head().weights_CP.T
    return Finetuned(kept, (logits_NC.argmax(1) == labels_N).float().mean().item())


def finetune(
    network: PrototypeNetwork,
    similarity_NP: Tensor,
    labels_N: Tensor,
    settings: FinetuneSettings,
    seed: int,
) -> None:
    """Trains V alone with CE + penalty · Σ|V_cj| over j not of class c (method.md, "Training").

    Args:
        network: a model that declares `finetunes`; its last layer V is changed in place.
        similarity_NP: s_j of the training images, float32 N×P.
        labels_N: the images' classes, int64 N in 0..C−1.
        settings: epochs, learning rate, batch size and penalty.
        seed: seed of the order of the images.

    Raises:
        ProtoMaskError: the loss or V is no longer finite.
    """
    similarity_NP = similarity_NP.to(network.device)
    labels = labels_N.to(similarity_NP.device)
    weights_C, V_CP = class_weights(labels, network.num_classes), network.last_layer()
    optimizer = torch.optim.Adam([V_CP], lr=settings.lr)
    shuffler = torch.Generator().manual_seed(seed)
    for _ in range(settings.epochs):
        for rows in torch.randperm(len(labels), generator=shuffler).split(settings.batch_size):
            logits_BC = similarity_NP[rows] @ V_CP.T
            loss = functional.cross_entropy(logits_BC, labels[rows], weights_C)
            loss = loss + settings.penalty * off_class_penalty(V_CP, network.own_CP)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        if not (loss.isfinite() and V_CP.isfinite().all()):
            raise ProtoMaskError(
                "the fine-tuning has diverged, its loss or V is no longer finite: lower "
                f"finetune.lr={settings.lr:g} or finetune.penalty={settings.penalty:g}"
            )


def prototypes_to_keep(
    similarity_NP: Tensor, labels_N: Tensor, class_of_P: Tensor, settings: PruneSettings
) -> Tensor:
    """Finds the prototypes that are most similar to enough training images of their own class.

    Of equally similar images, the earlier ones count as nearer. A class that would lose all its
    prototypes keeps the one with most images of its own class among the nearest (the first of
    several), so that every class keeps an explanation (method.md, "Pruning").

    Args:
        similarity_NP: s_j of the training images, float32 N×P.
        labels_N: the images' classes, int64 N in 0..C−1.
        class_of_P: the prototypes' classes, int64 P in 0..C−1.
        settings: k nearest images, and how many of them must be of the prototype's class.

    Returns:
        The indices of the prototypes that are kept, int64, ascending.
    """
    ranked_NP = torch.sort(similarity_NP, dim=0, descending=True, stable=True).indices
    nearest_kP = ranked_NP[: settings.nearest]
    own_P = (labels_N[nearest_kP] == class_of_P).sum(0)
    keep_P = own_P >= settings.threshold
    for label in class_of_P.unique():
        members = torch.nonzero(class_of_P == label).squeeze(1)
        if not keep_P[members].any():
            best = own_P[members] == own_P[members].max()
            keep_P[members[best.nonzero()[0]]] = True
    return torch.nonzero(keep_P).squeeze(1)


def classes_below_threshold(
    labels_N: Tensor, class_of_P: Tensor, settings: PruneSettings
) -> list[int]:
    """Returns the classes with too few training images for any of their prototypes to be kept.

    By the rule alone: `prototypes_to_keep` keeps one of each class all the same.

    Args:
        labels_N: the images' classes, int64 N in 0..C−1.
        class_of_P: the prototypes' classes, int64 P in 0..C−1.
        settings: how many images of a prototype's class must be among the nearest.
    """
    counts_C = torch.bincount(labels_N, minlength=int(class_of_P.max()) + 1)
    few = counts_C[class_of_P] < settings.threshold
    return [int(label) for label in class_of_P[few].unique()]
