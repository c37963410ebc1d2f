"""From cells to pixels: the object's outline, and the parts inside it.

Dimensions: H×W pixels of an image shrunk to the working size, G×G cells, E numbers that parts are
told from one another by.
"""

from collections.abc import Iterator

import maxflow
import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy.ndimage import (
    binary_dilation,
    binary_fill_holes,
    gaussian_filter,
    mean,
)

from pipeline.masks.masks import Region
from pipeline.masks.segmenters.parts.codebook import Codebook, unit

SIDE = 176
"""Images are cut at this many pixels a side, at most; masks have the image's own resolution."""
BINS, BLUR, NONE_OF_IT = 12, 0.7, 1e-4
"""Of the histogram of colours: bins a channel of CIELAB, its smoothing, and the share of a colour
that is not there."""
BELIEF, COLOUR, LARGEST = 1.5, 0.75, 3.0
"""Weights of objectness and of colour in the cut, and the largest log ratio of a colour."""
EXTENT = 0.45
"""How far below the threshold of objectness an outline is sought: cells are coarse, and those of
thin parts, such as tails, legs and beaks, are mostly background."""
EDGE, LENGTH = 10.0, 0.1
"""Costs of an outline: where neighbours have the same colour, and everywhere."""
NEIGHBOURS = ((0, 1), (1, 0), (1, 1), (1, -1))


def outline(image: NDArray[np.uint8], objectness: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Returns which pixels are object, bool H×W.

    A graph cut (Boykov & Jolly, 2001): objectness, and how much commoner a pixel's colour is in the
    sure object than in the sure background (as in GrabCut, Rother et al., 2004), against the cost
    of an outline, which is low along edges. Holes are filled, and what holds no pixel of the sure
    object is dropped. The outline is drawn one pixel outside, since a pixel on it is partly object.

    Args:
        image: RGB, uint8 H×W×3.
        objectness: G×G, 0 at the threshold, 1 for an object.
    """
    from skimage.color import rgb2lab

    lab = rgb2lab(image).astype(np.float32)
    found = _interpolated(objectness, image.shape[:2]) + EXTENT
    gain = BELIEF * np.clip(found, -1, 1) + COLOUR * _colour_gain(lab, found)
    inside = binary_fill_holes(_cut(lab, gain))
    return binary_dilation(_with_seed(inside, found > 1)) if inside.any() else inside


def regions(
    image: NDArray[np.uint8],
    objectness: NDArray[np.float64],
    looks: NDArray[np.float32],
    codebook: Codebook,
    superpixel: float,
    min_area: float,
) -> Iterator[Region]:
    """Yields the object and its parts, level by level, at the image's own resolution.

    The parts of each level cover the object and do not overlap. An image of one colour has none.

    Args:
        image: RGB, uint8 height×width×3.
        objectness: G×G, from `Codebook.objectness`.
        looks: unit vectors G×G×E, from `Codebook.looks`.
        codebook: the parts.
        superpixel: felzenszwalb's `scale`.
        min_area: smallest area of a mask as a fraction of the image.
    """
    if (image == image[0, 0]).all():
        return
    small = _shrunk(image)
    smallest = max(1, round(min_area * small.shape[0] * small.shape[1]))
    inside = _large(outline(small, objectness), smallest)
    score = _interpolated(objectness, small.shape[:2])
    pieces = _superpixels(small, superpixel)
    of_pieces = unit(_means(looks, pieces))
    labels, first = [np.zeros(small.shape[:2], np.int64)], [0, 1]
    for centres in codebook.centres:
        labels.append((of_pieces @ centres.T).argmax(axis=1)[pieces])
        first.append(first[-1] + len(centres))
    for level, part_of in enumerate(labels):
        whole = _without_crumbs(np.where(inside, part_of, -1), smallest)
        components, parts = _components(whole)
        scores = mean(score, components, range(1, len(parts) + 1))
        large = _enlarged(components, image.shape[:2])
        for number, (part, its) in enumerate(zip(parts, scores, strict=True), start=1):
            yield Region(0, 0, large == number, (float(its),), first[level] + part, level)


def _colour_gain(lab: NDArray[np.float32], objectness: NDArray) -> NDArray[np.float64]:
    """Returns the log ratio of each pixel's colour in the object and in the background, H×W."""
    scaled = np.stack([lab[..., 0] / 100, lab[..., 1] / 120 + 0.5, lab[..., 2] / 120 + 0.5])
    bins = np.clip(scaled * BINS, 0, BINS - 1).astype(np.int64)
    place = np.ravel_multi_index(tuple(bins), (BINS,) * 3).ravel()
    inner, outer = (_histogram(place, np.clip(sign * objectness, 0, 1).ravel()) for sign in (1, -1))
    gain = np.log((inner + NONE_OF_IT) / (outer + NONE_OF_IT))
    return np.clip(gain, -LARGEST, LARGEST)[place].reshape(objectness.shape)


def _histogram(place: NDArray[np.int64], weight: NDArray) -> NDArray[np.float64]:
    counts = np.bincount(place, weight, BINS**3).reshape((BINS,) * 3)
    smooth = gaussian_filter(counts, BLUR).ravel()
    return smooth / max(smooth.sum(), 1e-9)


def _cut(lab: NDArray[np.float32], gain: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Returns the pixels of the object with the largest gain minus the cost of its outline."""
    height, width = gain.shape
    graph = maxflow.Graph[float]()
    nodes = graph.add_grid_nodes(gain.shape)
    differences = []
    for down, right in NEIGHBOURS:
        here = lab[: height - down, max(0, -right) : width - max(0, right)]
        there = lab[down:, max(0, right) : width - max(0, -right)]
        differences.append(((here - there) ** 2).sum(axis=-1))
    usual = 2 * np.mean([each.mean() for each in differences if each.size] or [0.0]) + 1e-9
    for (down, right), difference in zip(NEIGHBOURS, differences, strict=True):
        cost = np.zeros(gain.shape)
        place = cost[: height - down, max(0, -right) : width - max(0, right)]
        place[...] = (EDGE * np.exp(-difference / usual) + LENGTH) / np.hypot(down, right)
        structure = np.zeros((3, 3))
        structure[1 + down, 1 + right] = 1
        graph.add_grid_edges(nodes, cost, structure=structure, symmetric=True)
    graph.add_grid_tedges(nodes, np.maximum(gain, 0), np.maximum(-gain, 0))
    graph.maxflow()
    return ~graph.get_grid_segments(nodes)


def _with_seed(inside: NDArray[np.bool_], seed: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Keeps the connected regions that hold a seed; all, if none does."""
    from skimage.measure import label

    labels = label(inside, connectivity=2)
    kept = np.unique(labels[seed & inside])
    return np.isin(labels, kept) if len(kept) else inside


def _superpixels(image: NDArray[np.uint8], scale: float) -> NDArray[np.int64]:
    from skimage.segmentation import felzenszwalb

    return felzenszwalb(image, scale, sigma=0.5, min_size=20, channel_axis=-1)


def _means(looks: NDArray[np.float32], pieces: NDArray[np.int64]) -> NDArray[np.float32]:
    """Returns the mean of what each superpixel looks like, pieces×E."""
    flat, counts = pieces.ravel(), np.bincount(pieces.ravel())
    columns = [
        np.bincount(flat, _interpolated(channel, pieces.shape).ravel()) / counts
        for channel in np.moveaxis(looks, -1, 0)
    ]
    return np.stack(columns, axis=1).astype(np.float32)


def _large(inside: NDArray[np.bool_], smallest: int) -> NDArray[np.bool_]:
    """Drops connected regions with fewer than `smallest` pixels."""
    from skimage.measure import label

    found = label(inside, connectivity=1)
    return inside & (np.bincount(found.ravel()) >= smallest)[found]


def _without_crumbs(labels: NDArray[np.int64], smallest: int) -> NDArray[np.int64]:
    """Returns labels in which regions that are too small have become part of their neighbours.

    A connected region with fewer than `smallest` pixels is shared out among the larger ones that
    it is connected to, each pixel to the one with the shortest way to it; where there is none, all
    take the commonest label. So no region is too small, if no connected part of the object is.

    Args:
        labels: numbers ≥ 0 of the object's pixels, −1 of others, H×W.
        smallest: number of pixels.
    """
    from skimage.measure import label
    from skimage.segmentation import watershed

    found = label(labels, background=-1, connectivity=1)
    large = (np.bincount(found.ravel()) >= smallest)[found] & (labels >= 0)
    flat = np.zeros(labels.shape)
    shared = watershed(flat, np.where(large, labels + 1, 0), 1, mask=labels >= 0) - 1
    alone = label((labels >= 0) & (shared < 0), connectivity=1)
    for number in range(1, alone.max() + 1):
        shared[alone == number] = np.bincount(labels[alone == number]).argmax()
    return shared.astype(np.int64)


def _components(labels: NDArray[np.int64]) -> tuple[NDArray[np.int64], list[int]]:
    """Numbers the connected regions of pixels with the same label ≥ 0.

    Returns:
        The regions' numbers, from 1, and 0 elsewhere, H×W; and the label of each.
    """
    from skimage.measure import label

    found, count = label(labels, background=-1, connectivity=1, return_num=True)
    return found, [int(labels[found == number][0]) for number in range(1, count + 1)]


def _shrunk(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    height, width = image.shape[:2]
    factor = min(1, SIDE / max(height, width))
    size = max(1, round(width * factor)), max(1, round(height * factor))
    return np.array(Image.fromarray(image).resize(size, Image.Resampling.BILINEAR))


def _interpolated(cells: NDArray, shape: tuple[int, ...]) -> NDArray[np.float32]:
    height, width = shape
    found = Image.fromarray(cells.astype(np.float32)).resize(
        (width, height), Image.Resampling.BICUBIC
    )
    return np.array(found)


def _enlarged(components: NDArray[np.int64], shape: tuple[int, ...]) -> NDArray[np.int64]:
    """Interpolates the outlines of regions to the image's own resolution.

    A pixel of the whole object belongs to the region that has most of it, so that regions neither
    overlap nor leave gaps.

    Args:
        components: the regions' numbers, from 1, and 0 elsewhere, H×W.
        shape: the image's height and width.
    """
    if components.shape == tuple(shape):
        return components
    owner, most = np.zeros(shape, np.int64), np.zeros(shape, np.uint8)
    for number in range(1, components.max() + 1):
        share = _share(components == number, shape)
        more = share > most
        owner[more], most[more] = number, share[more]
    return np.where(_share(components > 0, shape) > 127, owner, 0)


def _share(bitmap: NDArray[np.bool_], shape: tuple[int, ...]) -> NDArray[np.uint8]:
    """Returns how much of each pixel of the image a bitmap has, 0 to 255."""
    height, width = shape
    grey = Image.fromarray(bitmap.astype(np.uint8) * 255)
    return np.array(grey.resize((width, height), Image.Resampling.BILINEAR))
