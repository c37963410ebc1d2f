"""A two-dimensional map of the prototypes, in which similar embeddings are near each other."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from pipeline.saliency.prototypes import Prototypes

FEW, PERPLEXITY = 30, 30
WIDTH, HEIGHT, MARGIN = 1000, 640, 24
GOLDEN_ANGLE = 137.508
WIDE = 15
"""Font size of names in the map's units. On a phone, classes have their numbers instead."""
LETTER = 0.64
"""Mean width of a letter as a share of the font size."""
LARGEST_DOT, SPREAD_DOT = 12, 200
STEPS = range(0, 61, 6)
"""Distances above and below the median of a class's prototypes at which its name may stand."""

Box = tuple[float, float, float, float]


class Cluster(NamedTuple):
    """The prototypes of a class on the map.

    Args:
        label: number of the class, 0..C−1.
        name: name of the class.
        hue: hue of the class's colour, in degrees.
        points: (x, y) of each distinct prototype, in the map's units.
        x, y: centre of the name's baseline, in the map's units.
        wide: whether the name fits without overlap on a wide screen.
    """

    label: int
    name: str
    hue: int
    points: list[tuple[int, int]]
    x: int
    y: int
    wide: bool = False


class PrototypeMap(NamedTuple):
    """A map of prototypes.

    Args:
        width, height: the map's size, in its own units (SVG).
        dot: diameter of a dot, in the map's units.
        method: the projection: `t-SNE` or `PCA`.
        clusters: the prototypes of each class.
    """

    width: int
    height: int
    dot: int
    method: str
    clusters: list[Cluster]


def map_prototypes(
    prototypes: Prototypes, embedding_PD: NDArray[np.floating], seed: int
) -> PrototypeMap:
    """Draws a map of a model's prototypes; those of the same view share a point.

    Args:
        prototypes: the finished model's prototypes.
        embedding_PD: the prototypes' embeddings, float P×D.
        seed: seed of t-SNE, for reproducibility.
    """
    labels = range(len(prototypes.class_names))
    first_X = [group[0] for label in labels for group in prototypes.distinct(label)]
    label_X = prototypes.class_of_P[first_X]
    place_X2 = _fit(project(np.asarray(embedding_PD, np.float64)[first_X], seed))
    clusters = [
        _cluster(label, prototypes.class_names[label], place_X2[label_X == label], place_X2)
        for label in np.unique(label_X).tolist()
    ]
    wide = _with_room(clusters, WIDE)
    return PrototypeMap(
        WIDTH,
        HEIGHT,
        round(min(LARGEST_DOT, SPREAD_DOT / len(first_X) ** 0.5)),
        _method(len(first_X)),
        [cluster._replace(wide=cluster.label in wide) for cluster in clusters],
    )


def project(embedding_XD: NDArray[np.float64], seed: int) -> NDArray[np.float64]:
    """Projects embeddings X×D to the plane: float64 X×2.

    By t-SNE (van der Maaten and Hinton, 2008), or by PCA where there are fewer than `FEW`.
    """
    from sklearn.decomposition import PCA
    from sklearn.manifold import TSNE

    X, D = embedding_XD.shape
    if _method(X) == "t-SNE":
        tsne = TSNE(perplexity=min(PERPLEXITY, (X - 1) // 3), init="pca", random_state=seed)
        # With several threads, the order of summation and so the map would differ between runs.
        with threadpool_limits(1):
            return tsne.fit_transform(embedding_XD.astype(np.float32)).astype(np.float64)
    if X == 1:
        return np.zeros((1, 2))
    count = min(2, X, D)
    place_Xc = PCA(count, svd_solver="full").fit_transform(embedding_XD)
    return np.pad(place_Xc, ((0, 0), (0, 2 - count)))


def _method(count: int) -> str:
    return "PCA" if count < FEW else "t-SNE"


def _fit(place_X2: NDArray[np.float64]) -> NDArray[np.float64]:
    """Scales a layout to the map's size, each axis separately."""
    low_2, high_2 = place_X2.min(0), place_X2.max(0)
    size_2 = np.array([WIDTH, HEIGHT]) - 2 * MARGIN
    extent_2 = np.where(high_2 > low_2, high_2 - low_2, 1)
    middle_2 = (place_X2 - (low_2 + high_2) / 2) / extent_2
    return np.array([WIDTH, HEIGHT]) / 2 + middle_2 * size_2


def _cluster(
    label: int, name: str, own_n2: NDArray[np.float64], place_X2: NDArray[np.float64]
) -> Cluster:
    """Places a class's name near the median of its dots, where it covers the fewest dots."""
    x, y = np.median(own_n2, axis=0).tolist()
    half = LETTER * WIDE * len(name) / 2
    x = min(max(x, half), WIDTH - half)
    heights = [min(max(y + way * step, WIDE), HEIGHT - WIDE) for step in STEPS for way in (-1, 1)]
    covered = [_dots(_box(name, x, height, WIDE), place_X2) for height in heights]
    points = [(round(x), round(y)) for x, y in own_n2.tolist()]
    hue = round(label * GOLDEN_ANGLE) % 360
    return Cluster(label, name, hue, points, round(x), round(heights[int(np.argmin(covered))]))


def _dots(box: Box, place_X2: NDArray[np.float64]) -> int:
    low_2, high_2 = np.array(box[:2]) - LARGEST_DOT / 2, np.array(box[2:]) + LARGEST_DOT / 2
    return int(((place_X2 > low_2) & (place_X2 < high_2)).all(axis=1).sum())


def _with_room(clusters: Sequence[Cluster], size: float) -> set[int]:
    """Returns the classes whose names fit without overlap.

    Classes whose prototypes have the smallest standard deviation take precedence.
    """
    taken: list[Box] = []
    room = set()
    for cluster in sorted(clusters, key=lambda cluster: np.std(cluster.points, axis=0).sum()):
        box = _box(cluster.name, cluster.x, cluster.y, size)
        inside = box[0] >= 0 and box[2] <= WIDTH and box[1] >= 0 and box[3] <= HEIGHT
        if inside and not any(_touch(box, other) for other in taken):
            taken.append(box)
            room.add(cluster.label)
    return room


def _box(name: str, x: float, y: float, size: float) -> Box:
    """Returns the box of a name with its baseline at y, centred at x."""
    half = LETTER * size * len(name) / 2
    return x - half, y - size, x + half, y + size / 3


def _touch(one: Box, other: Box) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]
