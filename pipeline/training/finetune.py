"""What follows the push: merging, floors, fine-tuning of the last layer V, and pruning.

All of it works on stored similarities of the training images.
"""

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from pipeline.errors import ProtoMaskError
from pipeline.model.base.distances import above, exact_distances
from pipeline.model.base.losses import class_weights, off_class_penalty
from pipeline.model.base.network import PrototypeNetwork
from pipeline.training.settings import FinetuneSettings, PruneSettings

ALIKE = 0.01
"""Embeddings whose values in (0, 1) differ by no more, as a root mean square, are alike."""


class Finetuned(NamedTuple):
    """The result of merging, fine-tuning and pruning.

    Args:
        kept: int64 P', the numbers of the prototypes that were kept, ascending.
        alike: int64 P', how many of the pushed prototypes each of them stands for, itself included.
        accuracy: share of the training images that the finished model classifies correctly.
    """

    kept: Tensor
    alike: Tensor
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

    Before, prototypes that are alike become one, and each gets its floor, if the settings say so.
    After proximal steps, prototypes without a weight for any class are removed, which changes no
    score. A model that does not declare `finetunes` stays as it is.

    Args:
        network: the pushed model; V, floors and prototypes are changed in place.
        similarity_NP: s_j of the training images to the pushed prototypes, float32 N×P.
        labels_N: the images' classes, int64 N in 0..C−1.
        settings: merging, floors, and the fine-tuning of V.
        prune: whether prototypes are pruned, and by which rule.
        seed: seed of the order of the images, ≥ 0.

    Returns:
        The prototypes that were kept, and the accuracy on the training images.

    Raises:
        ProtoMaskError: the model's prototypes are to be merged or pruned and cannot be, or the
            fine-tuning diverges.
    """
    _refuse_shared(network, settings, prune)
    kept = torch.arange(network.num_prototypes)
    alike_P = torch.ones_like(kept)
    if settings.merge:
        kept, alike_P = merge(network)
    similarity_NP = counted_NP = similarity_NP[:, kept]
    if network.finetunes:
        floor_P = floors(similarity_NP, labels_N, network.own_CP, settings.reach)
        network.set_floor(floor_P)
        counted_NP = above(similarity_NP, floor_P)
        finetune(network, counted_NP, labels_N, settings, seed)
    if prune.enabled:
        left = prototypes_to_keep(similarity_NP, labels_N, network.class_of, prune)
        network.keep(left)
        kept, alike_P, counted_NP = kept[left], alike_P[left], counted_NP[:, left]
        finetune(network, counted_NP, labels_N, settings, seed)
    if network.settings.prunes and settings.sparsity == "proximal":
        weighted = weighted_prototypes(network)
        network.keep(weighted)
        kept, alike_P, counted_NP = kept[weighted], alike_P[weighted], counted_NP[:, weighted]
    logits_NC = counted_NP @ network.head().weights_CP.T
    accuracy = (logits_NC.argmax(1) == labels_N).float().mean().item()
    return Finetuned(kept, alike_P, accuracy)


def class_scores(network: PrototypeNetwork, similarity_NP: Tensor) -> Tensor:
    """Returns a finished model's class scores for images, float N×C.

    Args:
        network: the finished model, on the CPU.
        similarity_NP: s_j of the images to its prototypes as they were pushed, float32 N×P: what a
            floor leaves of them counts.
    """
    head = network.head()
    return head.counted(similarity_NP) @ head.weights_CP.T


def _refuse_shared(
    network: PrototypeNetwork, settings: FinetuneSettings, prune: PruneSettings
) -> None:
    asked = {"prune.enabled": prune.enabled, "finetune.merge": settings.merge}
    refused = [key for key, on in asked.items() if on and not network.settings.prunes]
    if refused:
        raise ProtoMaskError(
            f"the prototypes of {network.label} do not belong to one class each and cannot be "
            f"pruned or merged: set {' and '.join(refused)} to false"
        )


@torch.no_grad()
def merge(network: PrototypeNetwork) -> tuple[Tensor, Tensor]:
    """Leaves one of each class's prototypes that are alike, with the sum of their weights.

    Scores stay as they were if the embeddings are equal.

    Args:
        network: the pushed model; V and its prototypes are changed in place.

    Returns:
        The numbers of the prototypes that were left, int64, ascending; and how many each of them
        stands for, itself included, int64.
    """
    V_CP = network.last_layer()
    into_P = alike(network.head().prototypes_PD, network.class_of)
    V_CP.copy_(torch.zeros_like(V_CP).index_add(1, into_P, V_CP))
    left, counts = into_P.unique(return_counts=True)
    network.keep(left)
    return left, counts


def alike(prototypes_PD: Tensor, class_of_P: Tensor) -> Tensor:
    """Finds which prototypes of a class are alike (`ALIKE`), or linked by others that are.

    Args:
        prototypes_PD: the pushed prototypes, float P×D in (0, 1), on the CPU.
        class_of_P: the prototypes' classes, int64 P in 0..C−1.

    Returns:
        int64 P, the first prototype that each is alike; itself if there is no earlier one.
    """
    from scipy.sparse.csgraph import connected_components

    embeddings_PD = prototypes_PD.double()
    within = embeddings_PD.shape[1] * ALIKE**2
    near_PP = exact_distances(embeddings_PD, embeddings_PD) <= within
    near_PP &= class_of_P[:, None] == class_of_P
    _, group_P = connected_components(near_PP.numpy(), directed=False)
    _, first_G, group_P = np.unique(group_P, return_index=True, return_inverse=True)
    return torch.from_numpy(first_G[group_P])


def floors(similarity_NP: Tensor, labels_N: Tensor, own_CP: Tensor, reach: float) -> Tensor:
    """Returns the similarity that each prototype exceeds for few images of other classes.

    Args:
        similarity_NP: s_j of the training images, float N×P, ≥ 0.
        labels_N: the images' classes, int64 N in 0..C−1.
        own_CP: bool C×P, whether a prototype belongs to the class; to one with images, each.
        reach: the largest share of the images of other classes that exceed it, in [0, 1].

    Returns:
        float P, ≥ 0; 0 with a reach of 1, or without images of other classes.
    """
    own_NP = own_CP[labels_N]
    others_NP = similarity_NP.masked_fill(own_NP, 0).sort(dim=0, descending=True).values
    # Without what is added, 0.29 of 100 would be 28.
    exceeding_1P = ((~own_NP).sum(0, keepdim=True).double() * reach + 1e-9).long()
    return others_NP.gather(0, exceeding_1P)[0]


def finetune(
    network: PrototypeNetwork,
    similarity_NP: Tensor,
    labels_N: Tensor,
    settings: FinetuneSettings,
    seed: int,
) -> None:
    """Trains V alone with CE, its weights for other classes held small (`FinetuneSettings`).

    Args:
        network: a model that declares `finetunes`; its last layer V is changed in place.
        similarity_NP: s_j of the training images, float32 N×P.
        labels_N: the images' classes, int64 N in 0..C−1.
        settings: epochs, learning rate, batch size, and how V is made sparse.
        seed: seed of the order of the images.

    Raises:
        ProtoMaskError: the loss or V is no longer finite.
    """
    similarity_NP = similarity_NP.to(network.device)
    labels = labels_N.to(similarity_NP.device)
    weights_C, V_CP = class_weights(labels, network.num_classes), network.last_layer()
    own_CP, proximal = network.own_CP, settings.sparsity == "proximal"
    optimizer = torch.optim.Adam([V_CP], lr=settings.lr)
    shuffler = torch.Generator().manual_seed(seed)
    for _ in range(settings.epochs):
        for rows in torch.randperm(len(labels), generator=shuffler).split(settings.batch_size):
            logits_BC = similarity_NP[rows] @ V_CP.T
            loss = functional.cross_entropy(logits_BC, labels[rows], weights_C)
            if not proximal:
                loss = loss + settings.penalty * off_class_penalty(V_CP, own_CP)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            if proximal:
                shrink(V_CP, own_CP, settings.lr * settings.penalty)
        if not (loss.isfinite() and V_CP.isfinite().all()):
            raise ProtoMaskError(
                "the fine-tuning has diverged, its loss or V is no longer finite: lower "
                f"finetune.lr={settings.lr:g} or finetune.penalty={settings.penalty:g}"
            )


@torch.no_grad()
def shrink(weights_CP: Tensor, own_CP: Tensor, by: float) -> None:
    """Moves weights of other classes towards 0 and own-class weights below 0 to 0, in place.

    The proximal step of Σ|V_cj| over j not of class c (docs/method.md, "Extensions"). What does not
    outgrow it becomes exactly 0.

    Args:
        weights_CP: V, float C×P, the weight of each prototype for each class.
        own_CP: bool C×P, whether a prototype belongs to the class.
        by: how far, ≥ 0; a smaller weight becomes 0.
    """
    shrunk_CP = weights_CP.sign() * (weights_CP.abs() - by).clamp_min(0)
    weights_CP.copy_(torch.where(own_CP, weights_CP.clamp_min(0), shrunk_CP))


def weighted_prototypes(network: PrototypeNetwork) -> Tensor:
    """Finds the prototypes that have a weight for any class, and the first of a class without one.

    The others change no score, so they explain nothing.

    Args:
        network: the model with its finished V.

    Returns:
        Their numbers, int64, ascending.
    """
    keep_P = (network.head().weights_CP != 0).any(dim=0)
    return _of_every_class(keep_P, network.class_of, torch.zeros_like(keep_P, dtype=torch.int64))


def prototypes_to_keep(
    similarity_NP: Tensor, labels_N: Tensor, class_of_P: Tensor, settings: PruneSettings
) -> Tensor:
    """Finds the prototypes that are most similar to enough training images of their own class.

    Of equally similar images, the earlier ones count as nearer. A class that would lose all its
    prototypes keeps the one with most images of its own class among the nearest (the first of
    several), so that every class keeps an explanation (docs/method.md, "Pruning").

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
    return _of_every_class(own_P >= settings.threshold, class_of_P, own_P)


def _of_every_class(keep_P: Tensor, class_of_P: Tensor, rank_P: Tensor) -> Tensor:
    """Returns the prototypes to keep, and of a class without any the first of largest rank."""
    keep_P = keep_P.clone()
    for label in class_of_P.unique():
        members = torch.nonzero(class_of_P == label).squeeze(1)
        if not keep_P[members].any():
            best = rank_P[members] == rank_P[members].max()
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
