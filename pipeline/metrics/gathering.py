"""Computation of the evidence for metrics from a model and the stores."""

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pipeline.crops.settings import NO_MASK
from pipeline.crops.store import CropStore
from pipeline.datasets.index import Index
from pipeline.errors import NoRuleError
from pipeline.masks.store import MaskStore
from pipeline.metrics.evidence import Evidence, Segmented, Truth
from pipeline.metrics.judging import Knowledge
from pipeline.model.base.head import on_cpu
from pipeline.model.base.inference import ModelOutputs, infer
from pipeline.model.base.network import PrototypeNetwork, valid_views
from pipeline.saliency.maps import (
    Explanation,
    MaskSaliency,
    RelevanceSaliency,
    SimilaritySaliency,
    resize_mask,
)
from pipeline.training.fabric import Fabric
from pipeline.training.features import in_passes

ExplanationName = Literal["mask", "prp", "grad"]


class Examined:
    """A model and the images it is applied to; implements `evidence.Subject`.

    Args:
        network: the evaluated model, on its device, in evaluation mode.
        fabric: the device and the precision of the backbone.
        index: index of the data set's images.
        rows_N: int64 N, the images of the evidence, as rows of the index and the stores.
        crops: store of the images' crops, as the model sees them.
        masks: store of the images' masks.

    Attributes:
        pixel_std_3: float 3, the standard deviation by which the model divides each RGB channel of
            pixels in [0, 1].
    """

    def __init__(
        self,
        network: PrototypeNetwork,
        fabric: Fabric,
        index: Index,
        rows_N: NDArray[np.int64],
        crops: CropStore,
        masks: MaskStore,
    ) -> None:
        self.network, self.fabric, self.index, self.rows_N = network, fabric, index, rows_N
        self.store, self.masks = crops, masks
        self.pixel_std_3 = network.backbone.std.flatten().cpu()

    def crops(self, images_B: Tensor) -> Tensor:
        """Returns the stored crops of images, uint8 B×K×S×S×3.

        Args:
            images_B: int64 B, the images' positions in the evidence.
        """
        return torch.from_numpy(self.store.crops(self.rows_N[images_B.numpy()]))

    def inside(self, images_B: Tensor) -> Tensor:
        """Returns the masks inside the stored crops of images, bool B×K×S×S.

        Args:
            images_B: int64 B, the images' positions in the evidence.
        """
        rows = self.rows_N[images_B.numpy()].tolist()
        return torch.from_numpy(np.stack([self.store.inside(row) for row in rows]))

    @torch.inference_mode()
    def infer(self, crops_BKSS3: Tensor, valid_BK: Tensor, inside_BKSS: Tensor) -> ModelOutputs:
        """Returns the model's outputs for crops, on the CPU.

        Args:
            crops_BKSS3: RGB crops B×K×S×S×3, uint8, or float in [0, 1].
            valid_BK: bool B×K, false for missing crops; at least one true in each row.
            inside_BKSS: bool B×K×S×S, the masks inside the crops.
        """
        given = (tensor.to(self.fabric.device) for tensor in (crops_BKSS3, valid_BK, inside_BKSS))
        with self.fabric.autocast():
            features = in_passes(self.network, *given)
        embedding = self.network.embed(features.float())
        return infer(self.network, embedding, valid_views(valid_BK, embedding))

    def segmented(self, image: int) -> Segmented:
        """Returns an image's masks, object mask and part locations.

        Args:
            image: the image's position in the evidence, 0..N−1.
        """
        row = int(self.rows_N[image])
        numbers = self.store.cut_along[row]
        cropped = numbers[numbers != NO_MASK].tolist()
        parts_Q2 = parts_of(self.index, row) if self.index.part_names else None
        return Segmented(self.masks.masks(row), cropped, self.index.object_mask(row), parts_Q2)


def gather_evidence(
    network: PrototypeNetwork,
    embedding_NVD: Tensor,
    index: Index,
    rows_N: NDArray[np.int64],
    crops: CropStore,
    masks: MaskStore,
    fabric: Fabric,
    *,
    top_k: int,
    explanations: Sequence[ExplanationName] = ("mask",),
    truth: Truth | None = None,
    seed: int = 0,
) -> Evidence:
    """Applies a model to images and collects what the metrics need.

    Args:
        network: the model to evaluate, on any device.
        embedding_NVD: its embeddings of the images' views, float32 (`stored_embeddings`).
        index: index of the data set's images.
        rows_N: int64 N, the images to evaluate, as rows of the index and the stores, N ≥ 1.
        crops: store of the images' crops, as the model sees them.
        masks: store of the masks that the crops are cut from.
        fabric: the device and the precision of the backbone.
        top_k: k, the number of prototypes that explain an image, ≥ 1; limited to P, and 1 for a
            black box (the predicted class).
        explanations: names of the explanations that draw saliency maps.
        truth: ground truth of a data set that was drawn; None for any other data set.
        seed: seed of the noise in changed copies, ≥ 0.

    Returns:
        The evidence for the N images, on the CPU.
    """
    valid_NK = torch.from_numpy(crops.valid[rows_N])
    found = infer(network, embedding_NVD, valid_views(valid_NK, embedding_NVD))
    sides_N2 = index.table[["width", "height"]].to_numpy(np.int64)[rows_N]
    size, head = crops.settings.side, on_cpu(network.head())
    drawn, unexplained = _explanations(explanations, network, found, rows_N, sides_N2, crops, masks)
    return Evidence(
        ids=index.table["id"].iloc[rows_N].tolist(),
        labels_N=torch.from_numpy(index.labels[rows_N]),
        outputs=found,
        valid_NK=valid_NK,
        boxes_NK4=crop_boxes(crops, rows_N, sides_N2),
        head=head,
        class_of_P=network.class_of.cpu(),
        top_k=min(top_k, network.num_prototypes) if head.has_prototypes else 1,
        explanations=drawn,
        subject=Examined(network, fabric, index, rows_N, crops, masks),
        crops_per_image=crops.settings.per_image,
        knowledge=Knowledge.of(
            masks.parts(), masks.levels(), masks.foreground(), len(index.part_names)
        ),
        grid=network.grid(size),
        object_masks=object_masks(index, rows_N, size),
        part_names=index.part_names,
        parts_NQ2=part_locations(index, rows_N, size),
        truth=truth,
        seed=seed,
        only_inside=crops.settings.background != "original",
        unexplained=unexplained,
    )


def _explanations(
    names: Sequence[ExplanationName], network: PrototypeNetwork, *made_of: Any
) -> tuple[list[Explanation], dict[str, str]]:
    """Returns the explanations that the model can have, and why it cannot have the others."""
    drawn: list[Explanation] = []
    unexplained: dict[str, str] = {}
    for name in names:
        try:
            drawn.append(_explanation(name, network, *made_of))
        except NoRuleError as error:
            unexplained[name] = str(error)
    return drawn, unexplained


def _explanation(
    name: ExplanationName,
    network: PrototypeNetwork,
    found: ModelOutputs,
    rows_N: NDArray[np.int64],
    sides_N2: NDArray[np.int64],
    crops: CropStore,
    masks: MaskStore,
) -> Explanation:
    """Returns an explanation by name; `mask` denotes the regions that the model itself compares."""
    size = crops.settings.side
    if name == "mask" and network.sees == "crops":
        return MaskSaliency(rows_N, masks, crops, size)
    if name == "mask" and network.in_cells:
        head = on_cpu(network.head())
        return SimilaritySaliency(found, head, network.grid(size), size)
    from pipeline.saliency.relevance import PrototypeRelevance  # imports zennit and timm

    rule = "grad" if name == "mask" else name
    return RelevanceSaliency(PrototypeRelevance(network, rule), rows_N, sides_N2, crops, name)


def crop_boxes(crops: CropStore, rows_N: NDArray[np.int64], sides_N2: NDArray[np.int64]) -> Tensor:
    """Returns each crop's box (x0, y0, x1, y1) in S×S pixels of its image, float32 N×K×4.

    Args:
        crops: store of the images' crops, with their boxes.
        rows_N: int64 N, the images of the evidence, as rows of the store.
        sides_N2: int64 N×2, width and height of these images in pixels.
    """
    scale_N14 = crops.settings.side / np.tile(sides_N2, 2)[:, None]
    return torch.from_numpy((crops.boxes[rows_N] * scale_N14).astype(np.float32))


def object_masks(index: Index, rows_N: NDArray[np.int64], size: int) -> Tensor | None:
    """Returns the object masks, bool N×S×S, or None unless every image has one.

    Args:
        index: index of the data set's images.
        rows_N: int64 N, the images of the evidence, as rows of the index.
        size: S, the side in pixels that the masks are resized to.
    """
    found = np.empty((len(rows_N), size, size), bool)
    for place, row in enumerate(rows_N.tolist()):
        mask = index.object_mask(row)
        if mask is None:
            return None
        found[place] = resize_mask(mask, size)
    return torch.from_numpy(found)


def part_locations(index: Index, rows_N: NDArray[np.int64], size: int) -> Tensor | None:
    """Returns part locations (x, y) in S×S pixels, float32 N×Q×2; NaN if a part is not visible.

    Args:
        index: index of the data set's images.
        rows_N: int64 N, the images of the evidence, as rows of the index.
        size: S, the side in pixels that the images are scaled to.

    Returns:
        None if the data set has no part locations.
    """
    if not index.part_names:
        return None
    sides_N2 = index.table[["width", "height"]].to_numpy(np.float32)[rows_N]
    parts_NQ2 = torch.stack([parts_of(index, int(row)) for row in rows_N])
    return parts_NQ2 * size / torch.from_numpy(sides_N2)[:, None]


def parts_of(index: Index, row: int) -> Tensor:
    """Returns an image's part locations (x, y) in its own pixels, float32 Q×2; NaN if not visible.

    Args:
        index: index of the data set's images.
        row: the image, as a row of the index.
    """
    found = {part["name"]: (part["x"], part["y"]) for part in index.table["parts"].iloc[row] or ()}
    nowhere = (np.nan, np.nan)
    return torch.tensor([found.get(name, nowhere) for name in index.part_names])
