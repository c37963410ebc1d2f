"""Saliency maps: the segmenter's mask, relevance inside the mask's box, or a similarity map."""

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.nn import functional

from pipeline.crops.settings import NO_MASK
from pipeline.crops.store import CropStore
from pipeline.datasets.image_file import upper_half
from pipeline.masks.store import MaskStore
from pipeline.model.base.head import Head, on_cpu
from pipeline.model.base.inference import ModelOutputs
from pipeline.model.base.network import PrototypeNetwork
from pipeline.training.features import in_passes

if TYPE_CHECKING:
    from pipeline.saliency.relevance import PrototypeRelevance

STRONGEST = 0.95
"""The quantile of a map's values at and above which pixels belong to the saliency mask."""


@dataclass(frozen=True)
class Copies:
    """Augmented or perturbed copies of images.

    Args:
        crops_XKSS3: RGB crops X×K×S×S×3, uint8, or float in [0, 1].
        outputs: the model's outputs on them.
    """

    crops_XKSS3: Tensor
    outputs: ModelOutputs


class Explanation(Protocol):
    """Draws where in an image a prototype was found."""

    name: str

    def maps(
        self,
        images_B: Tensor,
        prototypes_Bk: Tensor,
        crop_Bk: Tensor,
        copies: Copies | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Draws the saliency of prototypes in the crops where they were found.

        Args:
            images_B: int64 B, the images' positions in the evidence.
            prototypes_Bk: int64 B×k, the prototypes to draw for each image, 0..P−1.
            crop_Bk: int64 B×k, the crop of the image that each map is drawn for, 0..K−1.
            copies: the changed copies of the images to draw for; None draws the images as stored.

        Returns:
            The saliency maps (float32 ≥ 0) and saliency masks (bool), both B×k×S×S on the CPU.
        """
        ...

    def regions(self, images_n: Tensor, views_n: Tensor, weights_nP: Tensor) -> Tensor:
        """Draws the saliency of views of images for sums of similarities found in them.

        Args:
            images_n: int64 n, n ≥ 1, for each view the position of its image in the evidence,
                0..N−1; views of an image stand together.
            views_n: int64 n, the views, 0..V−1.
            weights_nP: float n×P, for each view the weight of each prototype's similarity.

        Returns:
            float32 n×S×S on the CPU, ≥ 0, zero outside the saliency mask.
        """
        ...


class MaskSaliency:
    """Draws a prototype's saliency as the mask of the crop where it was found.

    Args:
        rows_N: int64 N, the images of the evidence, as rows of the stores.
        masks: store of the images' masks.
        crops: store of the images' crops, which names the mask of each crop.
        size: S, the side of the maps in pixels.
    """

    name = "mask"

    def __init__(
        self, rows_N: NDArray[np.int64], masks: MaskStore, crops: CropStore, size: int
    ) -> None:
        self.rows_N, self.masks, self.crops, self.size = rows_N, masks, crops, size
        self._resized = lru_cache(maxsize=1024)(self._resize)

    def maps(
        self,
        images_B: Tensor,
        prototypes_Bk: Tensor,
        crop_Bk: Tensor,
        copies: Copies | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Draws the crops' masks; for the arguments see `Explanation.maps`.

        The copies have the masks of the unchanged images.

        Returns:
            The masks as maps of 0 and 1 (float32) and as bool, both B×k×S×S on the CPU.
        """
        drawn = [
            [self._resized(image, crop) for crop in crops]
            for image, crops in zip(images_B.tolist(), crop_Bk.tolist(), strict=True)
        ]
        masks_BkSS = torch.from_numpy(np.array(drawn))
        return masks_BkSS.float(), masks_BkSS

    def regions(self, images_n: Tensor, views_n: Tensor, weights_nP: Tensor) -> Tensor:
        """Draws the crops' masks, whatever the weights; see `Explanation.regions`."""
        drawn = list(map(self._resized, images_n.tolist(), views_n.tolist()))
        return torch.from_numpy(np.array(drawn)).float().reshape(len(views_n), self.size, self.size)

    def _resize(self, image: int, crop: int) -> NDArray[np.bool_]:
        row = int(self.rows_N[image])
        mask = int(self.crops.masks[row, crop])
        if mask == NO_MASK:
            return np.ones((self.size, self.size), bool)
        return resize_mask(self.masks.masks(row).full(mask), self.size)


class RelevanceSaliency:
    """Draws a prototype's saliency as the relevance of the pixels of the crop where it was found.

    Negative relevance is set to zero, and the map is put back into the crop's box. Of its pixels,
    those at or above the map's 95th percentile and above zero are kept; the others are set to zero
    (docs/method.md, "Metrics").

    Args:
        relevance: computes the relevance of the explained network.
        rows_N: int64 N, the images of the evidence, as rows of the store.
        sides_N2: int64 N×2, width and height of these images in pixels.
        crops: store of the images' crops, with their boxes.
        name: name of the explanation, `prp` or `grad`.
    """

    def __init__(
        self,
        relevance: "PrototypeRelevance",
        rows_N: NDArray[np.int64],
        sides_N2: NDArray[np.int64],
        crops: CropStore,
        name: str,
    ) -> None:
        self.name = name
        self.relevance, self.rows_N = relevance, rows_N
        self.sides_N2, self.crops = sides_N2, crops

    def maps(
        self,
        images_B: Tensor,
        prototypes_Bk: Tensor,
        crop_Bk: Tensor,
        copies: Copies | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Draws the relevance of crops; for arguments and result see `Explanation.maps`."""
        rows_B, (B, k) = self.rows_N[images_B.numpy()], crop_Bk.shape
        if copies is None:
            crops_BKSS3 = torch.from_numpy(self.crops.crops(rows_B))
        else:
            crops_BKSS3 = copies.crops_XKSS3
        used_nSS3 = crops_BKSS3[torch.arange(B)[:, None], crop_Bk].flatten(0, 1)
        places = zip(rows_B.tolist(), crop_Bk.numpy(), strict=True)
        inside_nSS = np.concatenate([self.crops.inside(row)[used] for row, used in places])
        boxes_n4 = torch.from_numpy(self.crops.boxes[rows_B[:, None], crop_Bk.numpy()])
        sides_B2 = torch.from_numpy(self.sides_N2[images_B.numpy()])
        maps_nSS = put_back(
            self.relevance(used_nSS3, prototypes_Bk.flatten(), torch.from_numpy(inside_nSS))
            .clamp_min(0)
            .cpu(),
            boxes_n4.flatten(0, 1),
            sides_B2.repeat_interleave(k, dim=0),
            self.crops.settings.side,
        )
        masks_nSS = strongest(maps_nSS)
        return (maps_nSS * masks_nSS).unflatten(0, (B, k)), masks_nSS.unflatten(0, (B, k))

    def regions(self, images_n: Tensor, views_n: Tensor, weights_nP: Tensor) -> Tensor:
        """Draws the relevance for the weighted sums; see `Explanation.regions`."""
        size = self.crops.settings.side
        cells = math.prod(self.relevance.network.grid(size))
        images_B, place_n = images_n.unique_consecutive(return_inverse=True)
        rows_B, crop_n = self.rows_N[images_B.numpy()], views_n // cells
        inside_BKSS = np.stack([self.crops.inside(row) for row in rows_B.tolist()])
        relevance_nSS = self.relevance.of_sums(
            torch.from_numpy(self.crops.crops(rows_B))[place_n, crop_n],
            views_n % cells,
            weights_nP,
            torch.from_numpy(inside_BKSS)[place_n, crop_n],
        )
        maps_nSS = put_back(
            relevance_nSS.clamp_min(0).cpu(),
            torch.from_numpy(self.crops.boxes[rows_B])[place_n, crop_n],
            torch.from_numpy(self.sides_N2[images_n.numpy()]),
            size,
        )
        return maps_nSS * strongest(maps_nSS)


class SimilaritySaliency:
    """Draws a prototype's saliency as its similarity to the cells of the image's feature map.

    The similarities are upsampled to the image (bicubic, as by Chen et al., 2019). Pixels at or
    above the map's 95th percentile and above zero are kept; the others are set to zero.

    Args:
        outputs: the model's outputs on the images of the evidence.
        head: computes the similarities of the model's prototypes to embeddings, on the CPU.
        grid: number of rows and columns of the feature map.
        size: S, the side of the maps in pixels.
    """

    name = "mask"

    def __init__(self, outputs: ModelOutputs, head: Head, grid: tuple[int, int], size: int) -> None:
        self.outputs, self.head, self.grid, self.size = outputs, head, grid, size

    def maps(
        self,
        images_B: Tensor,
        prototypes_Bk: Tensor,
        crop_Bk: Tensor,
        copies: Copies | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Draws the similarity maps; for arguments and result see `Explanation.maps`."""
        if copies is None:
            embedding_BVD = self.outputs.embedding_NVD[images_B]
        else:
            embedding_BVD = copies.outputs.embedding_NVD
        cells_BkV = similarity_maps(embedding_BVD, prototypes_Bk, self.head)
        maps_nSS = enlarged(cells_BkV.flatten(0, 1), self.grid, self.size)
        masks_nSS = strongest(maps_nSS)
        shape = prototypes_Bk.shape
        return (maps_nSS * masks_nSS).unflatten(0, shape), masks_nSS.unflatten(0, shape)

    def regions(self, images_n: Tensor, views_n: Tensor, weights_nP: Tensor) -> Tensor:
        """Draws the cells themselves, whatever the weights; see `Explanation.regions`."""
        cells_n1HW = functional.one_hot(views_n, math.prod(self.grid)).float()[:, None]
        cells_n1HW = cells_n1HW.unflatten(2, self.grid)
        return functional.interpolate(cells_n1HW, (self.size, self.size), mode="nearest")[:, 0]


class SimilarPlaces:
    """Computes the saliency masks of `SimilaritySaliency` for whole images.

    Args:
        network: a model whose views are cells, on any device.
    """

    def __init__(self, network: PrototypeNetwork) -> None:
        self.network, self.head = network, on_cpu(network.head())

    @torch.inference_mode()
    def __call__(self, crops_nSS3: Tensor, prototypes_n: Tensor) -> Tensor:
        """Returns the saliency masks of images for one prototype each.

        Args:
            crops_nSS3: RGB images n×S×S×3, uint8, or float in [0, 1].
            prototypes_n: int64 n, the prototype of each image, 0..P−1.

        Returns:
            bool n×S×S on the CPU.
        """
        crops_n1SS3 = crops_nSS3[:, None].to(self.network.device)
        valid_n1 = torch.ones(crops_n1SS3.shape[:2], dtype=torch.bool, device=crops_n1SS3.device)
        embedding_nVD = self.network.embed(in_passes(self.network, crops_n1SS3, valid_n1)).cpu()
        cells_nV = similarity_maps(embedding_nVD, prototypes_n[:, None], self.head)[:, 0]
        size = crops_nSS3.shape[1]
        return strongest(enlarged(cells_nV, self.network.grid(size), size))


def similarity_maps(embedding_BVD: Tensor, prototypes_Bk: Tensor, head: Head) -> Tensor:
    """Returns the similarity of prototypes to each view of their image.

    Args:
        embedding_BVD: embeddings of the images' views, float32 B×V×D.
        prototypes_Bk: int64 B×k, the prototypes of each image, 0..P−1.
        head: computes the similarities of the model's prototypes to embeddings.

    Returns:
        float64 B×k×V; missing views have a value as well.
    """
    scores_BVP = head.scores(embedding_BVD)
    place_BVk = prototypes_Bk[:, None].expand(-1, scores_BVP.shape[1], -1)
    return scores_BVP.gather(2, place_BVk).mT


def enlarged(cells_nV: Tensor, grid: tuple[int, int], size: int) -> Tensor:
    """Upsamples similarity maps to the image (bicubic) and sets negative values to zero.

    Args:
        cells_nV: similarities of the cells in row-major order, n×V.
        grid: number of rows and columns of cells.
        size: S, the side of the result in pixels.

    Returns:
        float32 n×S×S, ≥ 0.
    """
    cells_n1HW = cells_nV.float().unflatten(1, grid)[:, None]
    large_n1SS = functional.interpolate(cells_n1HW, (size, size), mode="bicubic")
    return large_n1SS[:, 0].clamp_min(0)


def strongest(maps_nSS: Tensor) -> Tensor:
    """Returns the pixels at or above each map's 95th percentile that are above zero: bool n×S×S."""
    values_nV = maps_nSS.flatten(1).numpy()
    least_n = torch.from_numpy(np.quantile(values_nV, STRONGEST, axis=1).astype(np.float32))
    return (maps_nSS >= least_n[:, None, None]) & (maps_nSS > 0)


def resize_mask(mask: NDArray[np.bool_], size: int) -> NDArray[np.bool_]:
    """Resizes a mask as the metrics compare it (docs/method.md, "Metrics").

    The mask is resized bilinearly with antialiasing, min–max normalised and thresholded at 0.5. An
    empty mask stays empty, and a full one full.

    Args:
        mask: the mask in the image, bool height×width.
        size: S, the side of the result in pixels.

    Returns:
        bool S×S.
    """
    grey = Image.fromarray(mask.astype(np.uint8) * 255)
    return upper_half(np.asarray(grey.resize((size, size), Image.Resampling.BILINEAR)))


def put_back(relevance_nSS: Tensor, boxes_n4: Tensor, sizes_n2: Tensor, side: int) -> Tensor:
    """Puts maps of crops into their boxes in the image resized to side×side.

    The relevance of a crop's pixel is spread evenly over the area that the pixel covers.

    Args:
        relevance_nSS: relevance maps of crops, float n×S×S.
        boxes_n4: int n×4, the crops' boxes, half-open (x0, y0, x1, y1) in pixels of the image.
        sizes_n2: int n×2, the images' width and height in pixels.
        side: side of the result in pixels.

    Returns:
        float n×side×side, zero outside the box; each map keeps its sum.
    """
    S = relevance_nSS.shape[-1]
    x0, y0, x1, y1 = boxes_n4.long().unbind(1)
    width, height = sizes_n2.long().unbind(1)
    rows = _overlap(y0, y1, height, S, side).to(relevance_nSS)
    columns = _overlap(x0, x1, width, S, side).to(relevance_nSS)
    return rows.mT @ relevance_nSS @ columns


def _overlap(start_n: Tensor, stop_n: Tensor, length_n: Tensor, S: int, side: int) -> Tensor:
    """Returns the overlap of S equal steps from start to stop with `side` equal cells of a length.

    The overlaps, n×S×side, are fractions of a step. They are computed in integers, so that nothing
    falls outside the box.
    """
    start, extent, length = start_n[:, None], (stop_n - start_n)[:, None], length_n[:, None]
    steps = (start * S + extent * torch.arange(S + 1, device=start.device)) * side
    cells = length * S * torch.arange(side + 1, device=start.device)
    low = torch.maximum(steps[:, :-1, None], cells[:, None, :-1])
    high = torch.minimum(steps[:, 1:, None], cells[:, None, 1:])
    return (high - low).clamp_min(0) / (extent * side)[..., None]
