"""Learning a codebook from images, without any label.

Dimensions: those of `codebook`, and n images, X cells of them.
"""

from collections.abc import Iterable, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from pipeline.masks.segmenters.parts.codebook import (
    FRINGE,
    Codebook,
    Directions,
    decisive,
    from_object,
    guess,
    pooled,
    resized,
    standardised,
    unit,
)
from pipeline.masks.segmenters.parts.features import FeatureMaps
from pipeline.masks.segmenters.parts.objectness import GRID, scaled, spread
from pipeline.masks.segmenters.parts.settings import PartsSettings
from pipeline.progress import track

SEED = 0
OBJECT_DIRECTIONS, PART_DIRECTIONS = 64, 32
CELLS = 20_000
"""Number of cells that directions, objectness and parts are each learned from."""
ROUNDS = 3
"""How often objectness is learned from what the round before says of the cells."""
SURE_OBJECT, SURE_BACKGROUND = 1.0, -0.3
"""Cells between these objectnesses teach nothing; 0 is the threshold, 1 the mean of the object."""
STRENGTH = 0.01
"""scikit-learn's C of the logistic regression."""


def learn(settings: PartsSettings, backbone: str, images: Sequence[FeatureMaps]) -> Codebook:
    """Learns a codebook; the same images in the same order give the same one.

    1. The channels of each stage are standardised over all images.
    2. Objectness, in the first principal components of all stages' features: a first guess for each
       image is spread among cells that look alike; the cells that are surely object or surely
       background train a logistic regression, whose answers replace the guess; ROUNDS times. What
       is object in many images is so found in those in which the guess missed it.
    3. Parts, in the first principal components of the differences from the object as a whole,
       without the first stage, whose features are too simple: k-means of the objects' cells, once
       for each level.

    Args:
        settings: the segmenter's parameters.
        backbone: the fingerprint of the backbone.
        images: the feature maps of n images.
    """
    generator = np.random.default_rng(SEED)
    about = {**decisive(settings), "backbone_sha256": backbone, "images": len(images)}
    with threadpool_limits(1):
        mean, std = _statistics(images)
        standard = [standardised([each.values() for each in maps], mean, std) for maps in images]
        stages = tuple(range(len(mean)))
        all_cells = (_side_by_side(features, stages) for features in standard)
        for_objects = _components(all_cells, standard, stages, OBJECT_DIRECTIONS, generator)
        weights, bias = _objects(settings, images, standard, for_objects, generator)
        codebook = Codebook(mean, std, for_objects, for_objects, weights, bias, (), about)
        for_parts, centres = _parts(settings, codebook, standard, generator)
    return replace(codebook, for_parts=for_parts, centres=centres)


def _statistics(
    images: Sequence[FeatureMaps],
) -> tuple[tuple[NDArray[np.float32], ...], tuple[NDArray[np.float32], ...]]:
    """Returns each stage's mean and standard deviation of each channel; a constant has 1."""
    means, stds = [], []
    for stage in range(len(images[0])):
        values = [maps[stage].values().astype(np.float64) for maps in images]
        count = sum(each[0].size for each in values)
        mean = sum(each.sum(axis=(1, 2)) for each in values) / count
        squares = sum(((each - mean[:, None, None]) ** 2).sum(axis=(1, 2)) for each in values)
        std = np.sqrt(squares / count)
        means.append(mean.astype(np.float32))
        stds.append(np.where(std > 1e-6, std, 1).astype(np.float32))
    return tuple(means), tuple(stds)


def _side_by_side(
    features: list[NDArray[np.float32]], stages: tuple[int, ...]
) -> NDArray[np.float32]:
    """Returns the features of stages on the first stage's grid, float32 G×G×ΣC_s."""
    side = features[0].shape[-1]
    return np.concatenate([resized(features[stage], side) for stage in stages]).transpose(1, 2, 0)


def _components(
    cells: Iterable[NDArray[np.float32]],
    standard: Sequence[list[NDArray[np.float32]]],
    stages: tuple[int, ...],
    count: int,
    generator: np.random.Generator,
) -> Directions:
    """Returns the first principal components of the cells of all images.

    Args:
        cells: of each image, the features of the stages side by side, float32 (any)×ΣC_s.
        standard: the standardised features of each image.
        stages: places of the stages.
        count: largest number of components.
        generator: draws the cells that are used.
    """
    from sklearn.decomposition import PCA

    each = max(1, CELLS // len(standard))
    drawn = []
    for of_image in cells:
        flat = of_image.reshape(-1, of_image.shape[-1])
        drawn.append(flat[generator.permutation(len(flat))[:each]])
    sample = np.concatenate(drawn)
    if len(sample) == 1:  # one small object in one image: what differs in it is not defined
        sample = sample.repeat(2, axis=0)
    with np.errstate(invalid="ignore"):  # images of one colour differ in nothing
        pca = PCA(min(count, *sample.shape), svd_solver="covariance_eigh").fit(sample)
    sizes = np.cumsum([len(standard[0][stage]) for stage in stages])[:-1]
    matrices = np.split(pca.components_.astype(np.float32), sizes, axis=1)
    return Directions(stages, tuple(matrix.T for matrix in matrices))


def _objects(
    settings: PartsSettings,
    images: Sequence[FeatureMaps],
    standard: Sequence[list[NDArray[np.float32]]],
    directions: Directions,
    generator: np.random.Generator,
) -> tuple[NDArray[np.float32], float]:
    """Returns weights and bias of the linear objectness."""
    from sklearn.linear_model import LogisticRegression

    guesses, coarse = [], []
    for maps, features in zip(images, standard, strict=True):
        fine = directions.of(features, features[0].shape[-1])
        side = min(GRID, len(fine))
        coarse.append(pooled(fine, side))
        first = guess(settings, maps, fine).astype(np.float32)
        guesses.append(pooled(first[..., None], side)[..., 0])
    cells = np.stack(coarse).reshape(-1, coarse[0].shape[-1])
    scale = np.maximum(cells.std(axis=0), 1e-6)
    weights, bias = np.zeros(len(scale), np.float32), -1.0
    objectness = np.stack(guesses)
    for _ in track(range(ROUNDS), "Learning what is object"):
        pairs = zip(coarse, objectness, strict=True)
        even = np.stack([scaled(spread(unit(look), of)) for look, of in pairs]).ravel()
        sure = np.flatnonzero((even > SURE_OBJECT) | (even < SURE_BACKGROUND))
        chosen = generator.permutation(sure)[:CELLS]
        is_object = even[chosen] > 0
        if is_object.all() or not is_object.any():
            break
        fit = LogisticRegression(C=STRENGTH, max_iter=200).fit(cells[chosen] / scale, is_object)
        weights, bias = (fit.coef_[0] / scale).astype(np.float32), float(fit.intercept_[0])
        objectness = (cells @ weights + bias).reshape(objectness.shape)
    return weights, bias


def _parts(
    settings: PartsSettings,
    codebook: Codebook,
    standard: Sequence[list[NDArray[np.float32]]],
    generator: np.random.Generator,
) -> tuple[Directions, tuple[NDArray[np.float32], ...]]:
    """Returns the directions in which parts differ, and the centres of each level's parts."""
    from sklearn.cluster import KMeans

    objectness = [codebook.objectness(features) for features in standard]
    all_stages = tuple(range(len(standard[0])))
    stages = all_stages[len(all_stages) >= 3 :]
    differences = (
        from_object(_side_by_side(features, stages), of)[_belonging(of)]
        for features, of in zip(standard, objectness, strict=True)
    )
    directions = _components(differences, standard, stages, PART_DIRECTIONS, generator)
    codebook = replace(codebook, for_parts=directions)
    looks = [
        codebook.looks(features, of)[_belonging(of)]
        for features, of in track(list(zip(standard, objectness, strict=True)), "Learning parts")
    ]
    cells = np.concatenate(looks)
    cells = cells[generator.permutation(len(cells))[:CELLS]]
    distinct = len(np.unique(cells.round(4), axis=0))
    found = (
        KMeans(min(count, distinct), n_init=3, random_state=SEED).fit(cells)
        for count in settings.levels
    )
    return directions, tuple(unit(each.cluster_centers_.astype(np.float32)) for each in found)


def _belonging(objectness: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Returns which cells parts are learned from, G×G: the object's; all, if there is no object."""
    inside = objectness > -FRINGE
    return inside if inside.any() else np.ones_like(inside)
