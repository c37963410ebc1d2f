"""The push: every prototype becomes the nearest training crop of its class."""

from typing import NamedTuple

import torch
from torch import Tensor

from pipeline.errors import ProtoMaskError
from pipeline.model.network import PrototypeNetwork, crop_distances

IMAGES_PER_BLOCK = 128


class Nearest(NamedTuple):
    """For each prototype, the nearest crop of its own class among some images.

    Args:
        image: int64 P, place among the images.
        crop: int64 P.
        distance: float64 P, squared Euclidean distance, before the push.
        embedding: float32 P×D, that crop's.
    """

    image: Tensor
    crop: Tensor
    distance: Tensor
    embedding: Tensor


@torch.inference_mode()
def nearest_crops(
    network: PrototypeNetwork, features_NKF: Tensor, valid_NK: Tensor, labels_N: Tensor
) -> Nearest:
    """Finds, for every prototype, the nearest embedding over all crops of its class.

    One pass over the images. Of equally near crops, the one of the earliest image counts, and in
    that image the first; so with images in the order of the index the result is reproducible.

    Args:
        network: on the device to work on.
        features_NKF: pooled features of the training images.
        valid_NK: bool.
        labels_N: int64 classes.

    Raises:
        ProtoMaskError: a class has no image among them.
    """
    device = network.prototypes.device
    prototypes_PD = network.prototypes.double()
    P, K = len(prototypes_PD), valid_NK.shape[1]
    best_P = torch.full((P,), torch.inf, dtype=torch.float64, device=device)
    place_P = torch.zeros(P, dtype=torch.int64, device=device)
    for at in range(0, len(features_NKF), IMAGES_PER_BLOCK):
        rows = slice(at, at + IMAGES_PER_BLOCK)
        z_BKD = network.embed(features_NKF[rows].to(device)).double()
        own_BKP = valid_NK[rows, :, None].to(device) & (
            labels_N[rows, None, None].to(device) == network.class_of
        )
        distance_XP = (
            crop_distances(z_BKD, prototypes_PD).masked_fill(~own_BKP, torch.inf).flatten(0, 1)
        )
        smallest_P = distance_XP.amin(0)
        place = torch.arange(len(distance_XP), device=device)[:, None]
        first_P = torch.where(distance_XP == smallest_P, place, len(distance_XP)).amin(0)
        nearer_P = smallest_P < best_P
        best_P = torch.where(nearer_P, smallest_P, best_P)
        place_P = torch.where(nearer_P, first_P + at * K, place_P)
    if best_P.isinf().any():
        classes = network.class_of[best_P.isinf()].unique().tolist()
        raise ProtoMaskError(
            f"no training image of class {', '.join(map(str, classes))} to push to"
        )
    image_P, crop_P = (place_P // K).cpu(), (place_P % K).cpu()
    embedding_PD = network.embed(features_NKF[image_P, crop_P].to(device))
    return Nearest(image_P, crop_P, best_P.cpu(), embedding_PD)


@torch.inference_mode()
def push(network: PrototypeNetwork, nearest: Nearest) -> None:
    """Replaces the prototypes by the embeddings found."""
    network.prototypes.copy_(nearest.embedding)
