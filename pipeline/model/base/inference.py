"""What a network says of images, gathered in one pass over their features."""

from typing import NamedTuple

import torch
from torch import Tensor

from pipeline.model.base.head import Head, best_view
from pipeline.model.base.network import PrototypeNetwork

IMAGES_PER_BLOCK = 128


class Answers(NamedTuple):
    """A network's answers on N images, on the CPU.

    Args:
        embedding_NVD: float32.
        view_NP: int64, the view that is most similar to each prototype.
        similarity_NP: float32, s_j, computed in float64.
        logits_NC: float32.
    """

    embedding_NVD: Tensor
    view_NP: Tensor
    similarity_NP: Tensor
    logits_NC: Tensor


@torch.inference_mode()
def answers(network: PrototypeNetwork, features_NVF: Tensor, valid_NV: Tensor) -> Answers:
    """Asks a network about images.

    Args:
        network: on the device to work on.
        features_NVF: the features of their views.
        valid_NV: bool.
    """
    device, head = network.device, network.head()
    blocks = []
    for features, valid in zip(
        features_NVF.split(IMAGES_PER_BLOCK), valid_NV.split(IMAGES_PER_BLOCK), strict=True
    ):
        block = answers_of(head, network.embed(features.to(device)), valid.to(device))
        blocks.append([tensor.cpu() for tensor in block])
    return Answers(*(torch.cat(column) for column in zip(*blocks, strict=True)))


def answers_of(head: Head, embedding_BVD: Tensor, valid_BV: Tensor) -> Answers:
    """Returns what follows from the embeddings of images' views, on their device.

    Args:
        head: the model's.
        embedding_BVD: rows of missing views may hold anything.
        valid_BV: bool, at least one true in each row.
    """
    scores_BVP = head.scores(embedding_BVD)
    similarity_BP = head.pooled(scores_BVP, valid_BV).float()
    return Answers(
        embedding_BVD,
        best_view(scores_BVP, valid_BV),
        similarity_BP,
        similarity_BP @ head.weights_CP.T,
    )
