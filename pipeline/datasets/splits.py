"""Splitting a class's images into folds that do not depend on other classes."""

import hashlib
from collections import defaultdict
from dataclasses import replace

from pipeline.datasets.index import Image, Split

TEST_FOLDS = 5


def cut_test(images: list[Image], seed: int) -> list[Image]:
    """Moves every fifth image of each class to a test split, in an order given by the seed.

    A data set with a test split keeps it.

    Args:
        images: all images of the data set.
        seed: seed of the split.

    Returns:
        The images in the same order, with the new split.
    """
    if any(image.split == "test" for image in images):
        return images
    return _cut(images, "test", fold=0, folds=TEST_FOLDS, salt=f"test {seed}")


def cut_validation(images: list[Image], seed: int, fold: int, folds: int) -> list[Image]:
    """Moves one fold of the training images to the validation split, class by class.

    A data set with a validation split keeps it. A class with a single image keeps it for training.

    Args:
        images: all images of the data set.
        seed: seed of the assignment of images to folds.
        fold: index of the fold to move, 0..folds−1.
        folds: number of folds that the training images of each class are divided into, at least 2.

    Returns:
        The images in the same order, with the new split.
    """
    if any(image.split == "val" for image in images):
        return images
    return _cut(images, "val", fold, folds, salt=f"validation {seed}")


def _cut(images: list[Image], to: Split, fold: int, folds: int, salt: str) -> list[Image]:
    by_class: dict[str, list[Image]] = defaultdict(list)
    for image in images:
        if image.split == "train":
            by_class[image.class_name].append(image)
    moved = set()
    for members in by_class.values():
        if len(members) > 1:
            members.sort(key=lambda image: _lot(salt, image.id))
            moved |= {image.id for image in members[fold::folds]}
    return [replace(image, split=to) if image.id in moved else image for image in images]


def _lot(salt: str, image: str) -> bytes:
    return hashlib.sha256(f"{salt} {image}".encode()).digest()
