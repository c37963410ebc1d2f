"""The built-in data set: images of birds drawn from a seed.

Twelve classes of small birds; each differs from its sister class in one part only. Pose, light and
cluttered background vary. Colours are drawn at random and independent of the class, which the
shapes and patterns of parts determine. The ground truth is exact: the object, every part, and the
parts that distinguish two classes.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image as Pillow

from pipeline.datasets.dataset import Annotations, DataSet, register
from pipeline.datasets.index import Image, Part
from pipeline.datasets.readers.demo.background import background, foreground, perch
from pipeline.datasets.readers.demo.bird import PERCH_DEPTH, Bird, Feathers
from pipeline.datasets.readers.demo.canvas import Canvas, Floats, noise
from pipeline.datasets.readers.demo.classes import (
    CLASS_NAMES,
    CLASSES,
    PARTS,
    Styles,
    distinguishing_parts,
    styles_of,
)
from pipeline.datasets.readers.demo.scene import (
    SIDE,
    Light,
    random_light,
    random_plumage,
    random_pose,
)
from pipeline.errors import ProtoMaskError
from pipeline.progress import track
from pipeline.workers import worker_pool

TRAIN_PER_CLASS = 40
TEST_PER_CLASS = 20
JPEG_QUALITY = 92


@dataclass(frozen=True)
class Drawing:
    """A drawn image and its ground truth.

    Args:
        image: the RGB image, uint8 H×W×3.
        labels: visible parts, uint8 H×W: 0 is background, i the i-th of `PARTS`.
    """

    image: NDArray[np.uint8]
    labels: NDArray[np.uint8]


def draw_image(
    seed: int, class_name: str, number: int, parts_from: Mapping[str, str] | None = None
) -> Drawing:
    """Draws the image determined by seed, class and number.

    Args:
        seed: seed of the data set.
        class_name: name of the class, one of `CLASS_NAMES`.
        number: number of the image in its class, from 1.
        parts_from: parts to take from other classes (part: class). Pose, colours, light and
            background are the same, so that only these parts' pixels change.

    Raises:
        ProtoMaskError: there is no such class or part.
    """
    styles = styles_of(class_name, parts_from)
    sequence = np.random.SeedSequence(seed, spawn_key=(CLASS_NAMES.index(class_name), number))
    return render(styles, sequence)


def render(styles: Styles, sequence: np.random.SeedSequence) -> Drawing:
    """Draws a bird in a random scene.

    Args:
        styles: style of each part that varies; see `classes.CLASSES`.
        sequence: seed sequence that determines everything else.
    """
    streams = [np.random.default_rng(child) for child in sequence.spawn(5)]
    scene, behind, props, feathers, finish = streams
    width, height = (int(side) for side in scene.integers(SIDE[0], SIDE[1], 2, endpoint=True))
    pose, plumage = random_pose(scene, width, height), random_plumage(scene)
    light = random_light(scene)
    canvas = Canvas(width, height)
    feet = pose.x + pose.facing * pose.stance * pose.size, pose.y + PERCH_DEPTH * pose.size
    perch(canvas, props, *feet)
    Bird(canvas, pose, plumage, styles, light.direction, Feathers(feathers)).draw()
    foreground(canvas, props, pose.x, pose.y, pose.size)
    picture = canvas.over(background(behind, width, height))
    return Drawing(_developed(picture, light, finish), canvas.labels())


def _developed(picture: Floats, light: Light, rng: np.random.Generator) -> NDArray[np.uint8]:
    """Simulates a camera on a picture (H×W×3, 0..1): light, colour cast, contrast and noise."""
    height, width = picture.shape[:2]
    dapple = 1 + 0.06 * noise(rng, width, height, (3, 3))
    exposed = picture * dapple[..., None] * light.exposure
    grain = rng.standard_normal(picture.shape, dtype=np.float32) * np.float32(light.grain)
    developed = 0.5 + (exposed - 0.5) * np.float32(light.contrast) + grain
    return (np.clip(developed, 0, 1) * 255 + 0.5).astype(np.uint8)


def draw(
    folder: Path,
    seed: int,
    train_per_class: int = TRAIN_PER_CLASS,
    test_per_class: int = TEST_PER_CLASS,
    workers: int = 1,
) -> None:
    """Draws the data set into a folder; the same arguments give the same bytes on one machine.

    Processors round sines and exponentials differently, so on another machine one in many thousands
    of pixels may differ by 1: share a drawn folder rather than draw it again.

    Writes `images/<class>/<number>.jpg`, `parts/<class>/<number>.png` (label images as in
    `Drawing`) and `classes.json`. The first numbers of a class are its training images.

    Args:
        folder: the folder to write to, created if missing.
        seed: seed of the data set, which determines every image.
        train_per_class: number of training images in each class.
        test_per_class: number of test images in each class.
        workers: number of processes that draw.
    """
    one_class = partial(_draw_class, folder, seed, train_per_class + test_per_class)
    if workers == 1:
        list(track(map(one_class, CLASS_NAMES), "Drawing classes", len(CLASS_NAMES)))
    else:
        with worker_pool(workers) as pool:
            drawn = pool.map(one_class, CLASS_NAMES)
            list(track(drawn, "Drawing classes", len(CLASS_NAMES)))
    about = {
        "seed": seed,
        "train_per_class": train_per_class,
        "test_per_class": test_per_class,
        "parts": PARTS,
        "classes": CLASSES,
        "distinguishing_parts": _distinguishing_parts(),
    }
    (folder / "classes.json").write_text(json.dumps(about, indent=2) + "\n")


def _draw_class(folder: Path, seed: int, images: int, class_name: str) -> None:
    slug = _slug(class_name)
    (folder / "images" / slug).mkdir(parents=True, exist_ok=True)
    (folder / "parts" / slug).mkdir(parents=True, exist_ok=True)
    for number in range(1, images + 1):
        drawing = draw_image(seed, class_name, number)
        Pillow.fromarray(drawing.image).save(
            folder / "images" / slug / f"{number:03d}.jpg", quality=JPEG_QUALITY
        )
        Pillow.fromarray(drawing.labels).save(folder / "parts" / slug / f"{number:03d}.png")


def _distinguishing_parts() -> dict[str, dict[str, list[str]]]:
    """Returns, for each class and each other class, the parts in which they differ."""
    return {
        first: {
            second: distinguishing_parts(first, second) for second in CLASS_NAMES if second != first
        }
        for first in CLASS_NAMES
    }


@register
class Demo(DataSet):
    """Images of birds drawn from a seed."""

    name = "demo"
    drawn = True
    knows_truth = True

    def draw(self, folder: Path, seed: int, workers: int) -> None:
        """Draws the data set with its usual number of images (see the function `draw`).

        Args:
            folder: the folder to write to, created if missing.
            seed: seed of the data set, which determines every image.
            workers: number of processes that draw.
        """
        draw(folder, seed, workers=workers)

    def read(self, root: Path) -> Annotations:
        """Reads a folder written by `draw`.

        An image's object mask file is its label image.

        Args:
            root: the data set's folder.

        Raises:
            ProtoMaskError: the folder is missing or does not hold the demo.
        """
        try:
            about = json.loads((root / "classes.json").read_text())
            class_names, part_names = list(about["classes"]), list(about["parts"])
            train, test = about["train_per_class"], about["test_per_class"]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ProtoMaskError(f"{root} holds no demo data set ({error})") from None
        images = [
            _image(root, class_name, number, number <= train, part_names)
            for class_name in class_names
            for number in range(1, train + test + 1)
        ]
        return Annotations(images, class_names, part_names)

    def object_mask(self, labels: NDArray[np.uint8]) -> NDArray[np.bool_]:
        """Returns the object mask of a label image of parts, bool height×width.

        Args:
            labels: the part that each pixel shows, uint8 height×width, 0 for none.
        """
        return labels > 0


def _image(root: Path, class_name: str, number: int, train: bool, part_names: list[str]) -> Image:
    name = f"{_slug(class_name)}/{number:03d}"
    label_path = f"parts/{name}.png"
    with Pillow.open(root / label_path) as picture:
        labels = np.asarray(picture)
    return Image(
        id=name,
        path=f"images/{name}.jpg",
        class_name=class_name,
        split="train" if train else "test",
        object_box=_tight_box(labels > 0),
        object_mask_path=label_path,
        part_mask_path=label_path,
        parts=part_locations(labels, part_names),
    )


def part_locations(labels: NDArray[np.uint8], part_names: list[str]) -> tuple[Part, ...]:
    """Returns the location of each visible part: the centre of its pixel nearest to its centroid.

    Args:
        labels: label image, H×W; i marks the i-th part.
        part_names: names of all parts, in order.
    """
    parts = []
    for number, name in enumerate(part_names, start=1):
        y, x = np.nonzero(labels == number)
        if len(x):
            nearest = np.argmin(np.square(x - x.mean()) + np.square(y - y.mean()))
            parts.append(Part(name, float(x[nearest]) + 0.5, float(y[nearest]) + 0.5))
    return tuple(parts)


def _tight_box(mask: NDArray[np.bool_]) -> tuple[int, int, int, int]:
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1


def _slug(class_name: str) -> str:
    return class_name.replace(" ", "-")
