"""The push: every prototype becomes the nearest training view of its class."""

from typing import NamedTuple

import torch
from torch import Tensor

from pipeline.errors import ProtoMaskError
from pipeline.model.base.network import PrototypeNetwork

IMAGES_PER_BLOCK = 128


class Nearest(NamedTuple):
    """For each prototype, the most similar view of the classes it may come from.

    Args:
        image: int64 P, place among the images.
        view: int64 P.
        distance: float64 P, squared Euclidean distance, before the push; NaN for models without.
        embedding: float32 P×D, that view's.
    """

    image: Tensor
    view: Tensor
    distance: Tensor
    embedding: Tensor


@torch.inference_mode()
def nearest_views(
    network: PrototypeNetwork, features_NVF: Tensor, valid_NV: Tensor, labels_N: Tensor
) -> Nearest:
    """Finds, for every prototype, the most similar view over all images of its classes.

    One pass over the images. Of equally similar views, that of the earliest image counts, and in
    that image the first; so with images in the order of the index the result is reproducible.

    Args:
        network: on the device to work on.
        features_NVF: features of the training images' views.
        valid_NV: bool.
        labels_N: int64 classes.

    Raises:
        ProtoMaskError: no class that a prototype may come from has an image among them.
    """
    device, head, own_CP = network.device, network.head(), network.own_CP
    P, V = network.num_prototypes, valid_NV.shape[1]
    best_P = torch.full((P,), -torch.inf, dtype=torch.float64, device=device)
    place_P = torch.zeros(P, dtype=torch.int64, device=device)
    for at in range(0, len(features_NVF), IMAGES_PER_BLOCK):
        rows = slice(at, at + IMAGES_PER_BLOCK)
        scores_BVP = head.scores(network.embed(features_NVF[rows].to(device)))
        own_BVP = valid_NV[rows, :, None].to(device) & own_CP[labels_N[rows].to(device)][:, None]
        scores_XP = scores_BVP.masked_fill(~own_BVP, -torch.inf).flatten(0, 1)
        largest_P = scores_XP.amax(0)
        place = torch.arange(len(scores_XP), device=device)[:, None]
        first_P = torch.where(scores_XP == largest_P, place, len(scores_XP)).amin(0)
        better_P = largest_P > best_P
        best_P = torch.where(better_P, largest_P, best_P)
        place_P = torch.where(better_P, first_P + at * V, place_P)
    if best_P.isinf().any():
        classes = network.class_of[best_P.isinf()].unique().tolist()
        raise ProtoMaskError(
            f"no training image of class {', '.join(map(str, classes))} to push to"
        )
    image_P, view_P = (place_P // V).cpu(), (place_P % V).cpu()
    embedding_PD = network.embed(features_NVF[image_P, view_P].to(device))
    return Nearest(image_P, view_P, network.distances_to(embedding_PD), embedding_PD)


@torch.inference_mode()
def push(network: PrototypeNetwork, nearest: Nearest) -> None:
    """Replaces the prototypes by the embeddings found, where the model has any to replace."""
    network.push(nearest.embedding)
