"""A network's outputs for images, computed in one pass over their embeddings."""

from typing import NamedTuple

import torch
from torch import Tensor

from pipeline.errors import ProtoMaskError
from pipeline.model.base.head import Head, best_view
from pipeline.model.base.network import PrototypeNetwork

IMAGES_PER_BLOCK = 128


class ModelOutputs(NamedTuple):
    """A network's outputs for N images, on the CPU.

    Args:
        embedding_NVD: embeddings of the images' views, float32 N×V×D; rows of missing views are
            arbitrary.
        view_NP: int64 N×P, the valid view that is most similar to each prototype, 0..V−1.
        similarity_NP: s_j of each image and prototype, float32 N×P, computed in float64.
        logits_NC: the class scores y = V·s, float32 N×C.
    """

    embedding_NVD: Tensor
    view_NP: Tensor
    similarity_NP: Tensor
    logits_NC: Tensor


@torch.inference_mode()
def infer(network: PrototypeNetwork, embedding_NVD: Tensor, valid_NV: Tensor) -> ModelOutputs:
    """Computes a network's outputs for images from the embeddings of their views.

    Args:
        network: the model in evaluation mode, on the device to compute on.
        embedding_NVD: embeddings of the images' views, float32 N×V×D, on any device; rows of
            missing views are arbitrary.
        valid_NV: bool N×V, false for missing views; at least one true in each row.

    Returns:
        The outputs for the N images, on the CPU.

    Raises:
        ProtoMaskError: a class score is not a finite number.
    """
    device, head = network.device, network.head()
    blocks = []
    for embedding, valid in zip(
        embedding_NVD.split(IMAGES_PER_BLOCK), valid_NV.split(IMAGES_PER_BLOCK), strict=True
    ):
        block = outputs_of(head, embedding.to(device), valid.to(device))
        blocks.append([tensor.cpu() for tensor in block[1:]])
    columns = (torch.cat(column) for column in zip(*blocks, strict=True))
    found = ModelOutputs(embedding_NVD.cpu(), *columns)
    if not found.logits_NC.isfinite().all():
        raise ProtoMaskError(
            "the model's class scores are no finite numbers: lower the learning rates train.lr_* "
            "and finetune.lr, and train again"
        )
    return found


def outputs_of(head: Head, embedding_BVD: Tensor, valid_BV: Tensor) -> ModelOutputs:
    """Computes the outputs that follow from the embeddings of images' views.

    Args:
        head: the model's head, on the device of the embeddings.
        embedding_BVD: embeddings of the images' views, float B×V×D; rows of missing views are
            arbitrary.
        valid_BV: bool B×V, false for missing views; at least one true in each row.

    Returns:
        The outputs for the B images, on the device of the embeddings.
    """
    scores_BVP = head.scores(embedding_BVD)
    similarity_BP = head.pooled(scores_BVP, valid_BV).float()
    return ModelOutputs(
        embedding_BVD,
        best_view(scores_BVP, valid_BV),
        similarity_BP,
        similarity_BP @ head.weights_CP.T,
    )
