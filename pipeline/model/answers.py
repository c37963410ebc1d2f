"""What a network says of images, gathered in one pass over their pooled features."""

from typing import NamedTuple

import torch
from torch import Tensor

from pipeline.model.network import (
    PrototypeNetwork,
    crop_distances,
    nearest_crop,
    similarity,
    smallest_distance,
)

IMAGES_PER_BLOCK = 128


class Answers(NamedTuple):
    """A network's answers on N images, on the CPU.

    Args:
        embedding_NKD: float32.
        distance_NP: float32, d_j, computed in float64.
        crop_NP: int64, the crop nearest to each prototype.
        similarity_NP: float32, s_j.
        logits_NC: float32.
    """

    embedding_NKD: Tensor
    distance_NP: Tensor
    crop_NP: Tensor
    similarity_NP: Tensor
    logits_NC: Tensor


@torch.inference_mode()
def answers(network: PrototypeNetwork, features_NKF: Tensor, valid_NK: Tensor) -> Answers:
    """Asks a network about images.

    Args:
        network: on the device to work on.
        features_NKF: pooled features of the crops.
        valid_NK: bool.
    """
    device = network.prototypes.device
    blocks = []
    for features, valid in zip(
        features_NKF.split(IMAGES_PER_BLOCK), valid_NK.split(IMAGES_PER_BLOCK), strict=True
    ):
        block = answers_of(
            network.embed(features.to(device)),
            valid.to(device),
            network.prototypes,
            network.classifier,
            network.settings.epsilon,
        )
        blocks.append([tensor.cpu() for tensor in block])
    return Answers(*(torch.cat(column) for column in zip(*blocks, strict=True)))


def answers_of(
    embedding_BKD: Tensor,
    valid_BK: Tensor,
    prototypes_PD: Tensor,
    weights_CP: Tensor,
    epsilon: float,
) -> Answers:
    """Returns what follows from the embeddings of images' crops, on their device.

    Args:
        embedding_BKD: rows of missing crops may hold anything.
        valid_BK: bool, at least one true in each row.
        prototypes_PD: the prototypes.
        weights_CP: the last layer V.
        epsilon: ε of the similarity.
    """
    distance_BKP = crop_distances(embedding_BKD.double(), prototypes_PD.double())
    distance_BP = smallest_distance(distance_BKP, valid_BK)
    similarity_BP = similarity(distance_BP, epsilon).float()
    return Answers(
        embedding_BKD,
        distance_BP.float(),
        nearest_crop(distance_BKP, valid_BK),
        similarity_BP,
        similarity_BP @ weights_CP.T,
    )
