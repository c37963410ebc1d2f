"""The push: each prototype becomes the embedding of the nearest training view of its class."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor

from pipeline.crops.store import CropStore
from pipeline.datasets.index import Index
from pipeline.errors import ProtoMaskError
from pipeline.model.base.inference import IMAGES_PER_BLOCK, infer
from pipeline.model.base.network import PrototypeNetwork, valid_views
from pipeline.training.fabric import Fabric
from pipeline.training.features import stored_embeddings


class Nearest(NamedTuple):
    """For each prototype, the most similar training view of its classes.

    Args:
        image: int64 P, position of the view's image among the images searched.
        view: int64 P, the view's index within its image, 0..V−1.
        distance: float64 P, squared Euclidean distance of the prototype to the view before the
            push; NaN in models without distances.
        embedding: float32 P×D, the view's embedding, to the bit what `infer` computes for the
            same images.
    """

    image: Tensor
    view: Tensor
    distance: Tensor
    embedding: Tensor


class Pushed(NamedTuple):
    """The result of a push.

    Args:
        sources: where each prototype came from, as `prototype_sources.write_sources` describes it.
        similarity_NP: s_j of the N training images to the pushed prototypes, float32 N×P.
        validation_NP: the same of the validation images.
    """

    sources: pd.DataFrame
    similarity_NP: Tensor
    validation_NP: Tensor


def push_prototypes(
    network: PrototypeNetwork,
    index: Index,
    crops: CropStore,
    fabric: Fabric,
    cache: Path | None = None,
) -> Pushed:
    """Pushes a model's prototypes onto training views and records which views these are.

    Args:
        network: the trained model; its prototypes are changed in place.
        index: index of the data set's images.
        crops: store of the images' crops, as the model sees them (`PrototypeNetwork.seen`).
        fabric: the device and the precision of the backbone.
        cache: folder of the cache of backbone features; None caches nothing.

    Returns:
        The sources of the P prototypes, and the similarities of the training and the validation
        images to them.

    Raises:
        ProtoMaskError: a prototype has no training image of its classes, or the backbone does not
            accept crops of this size.
    """
    rows_N, among = index.rows("train"), index.rows("train", "val")

    def seen(rows: NDArray[np.int64]) -> tuple[Tensor, Tensor]:
        embedding = stored_embeddings(network, crops, rows, fabric, cache, among)
        return embedding, valid_views(torch.from_numpy(crops.valid[rows]), embedding)

    embedding_NVD, valid_NV = seen(rows_N)
    labels_N = torch.from_numpy(index.labels[rows_N])
    nearest = nearest_views(network, embedding_NVD, valid_NV, labels_N)
    push(network, nearest)
    sources = _sources(network, index, crops, rows_N, nearest, views_per_image=valid_NV.shape[1])
    similarity_NP = infer(network, embedding_NVD, valid_NV).similarity_NP
    validation = index.rows("val")
    unseen_NP = similarity_NP[:0]
    if len(validation):
        unseen_NP = infer(network, *seen(validation)).similarity_NP
    return Pushed(sources, similarity_NP, unseen_NP)


@torch.inference_mode()
def nearest_views(
    network: PrototypeNetwork, embedding_NVD: Tensor, valid_NV: Tensor, labels_N: Tensor
) -> Nearest:
    """Finds the most similar view of each prototype over all images of its classes.

    One pass over the images. Of equally similar views, the first view of the earliest image counts;
    so, with images in the order of the index, the result is reproducible.

    Args:
        network: the model, on the device to compute on.
        embedding_NVD: embeddings of the training images' views, float32 N×V×D.
        valid_NV: bool N×V, false for views of missing crops.
        labels_N: the images' classes, int64 N in 0..C−1.

    Returns:
        The view of each prototype.

    Raises:
        ProtoMaskError: a prototype has no image of its classes among these, or a similarity is not
            a number.
    """
    device, head, own_CP = network.device, network.head(), network.own_CP
    P, V = network.num_prototypes, valid_NV.shape[1]
    best_P = torch.full((P,), -torch.inf, dtype=torch.float64, device=device)
    place_P = torch.zeros(P, dtype=torch.int64, device=device)
    embedding_PD = torch.zeros_like(head.prototypes_PD)
    for at in range(0, len(embedding_NVD), IMAGES_PER_BLOCK):
        rows = slice(at, at + IMAGES_PER_BLOCK)
        embedding_BVD = embedding_NVD[rows].to(device)
        scores_BVP = head.scores(embedding_BVD)
        own_BVP = valid_NV[rows, :, None].to(device) & own_CP[labels_N[rows].to(device)][:, None]
        scores_XP = scores_BVP.masked_fill(~own_BVP, -torch.inf).flatten(0, 1)
        largest_P = scores_XP.amax(0)
        if largest_P.isnan().any():
            raise ProtoMaskError(
                "the trained model's similarities are no finite numbers: lower train.lr_backbone, "
                "train.lr_projection or train.lr_prototypes, and train again"
            )
        place = torch.arange(len(scores_XP), device=device)[:, None]
        first_P = torch.where(scores_XP == largest_P, place, len(scores_XP)).amin(0)
        better_P = largest_P > best_P
        best_P = torch.where(better_P, largest_P, best_P)
        place_P = torch.where(better_P, first_P + at * V, place_P)
        # A product of other shape rounds otherwise: the embedding is kept, not computed again.
        nearest_PD = embedding_BVD.flatten(0, 1)[first_P]
        embedding_PD = torch.where(better_P[:, None], nearest_PD, embedding_PD)
    if best_P.isinf().any():
        classes = network.class_of[best_P.isinf()].unique().tolist()
        raise ProtoMaskError(
            f"no training image of class {', '.join(map(str, classes))} to push to"
        )
    image_P, view_P = (place_P // V).cpu(), (place_P % V).cpu()
    return Nearest(image_P, view_P, network.distances_to(embedding_PD), embedding_PD)


@torch.inference_mode()
def push(network: PrototypeNetwork, nearest: Nearest) -> None:
    """Replaces the prototypes by the embeddings found, where the model has any to replace."""
    network.push(nearest.embedding)


def _sources(
    network: PrototypeNetwork,
    index: Index,
    crops: CropStore,
    rows_N: NDArray[np.int64],
    nearest: Nearest,
    views_per_image: int,
) -> pd.DataFrame:
    """Returns a row for each prototype, with the columns that `write_sources` describes."""
    images_P = rows_N[nearest.image.numpy()]
    cells = views_per_image // crops.valid.shape[1]
    crop_P, cell_P = np.divmod(nearest.view.numpy(), cells)
    part_P = crops.parts[images_P, crop_P]
    return pd.DataFrame(
        {
            "prototype": range(len(images_P)),
            "class_name": [index.class_names[label] for label in network.class_of.tolist()],
            "image": index.table["id"].to_numpy()[images_P],
            "crop": crop_P,
            "cell": cell_P,
            "mask": crops.masks[images_P, crop_P],
            "part": part_P,
            "part_name": [crops.part_names.get(part, "") for part in part_P.tolist()],
            "distance": nearest.distance.numpy(),
            "alike": 1,
        }
    )
