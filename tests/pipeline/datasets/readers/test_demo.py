"""The demo: the same seed draws the same bytes, and its ground truth holds pixel by pixel."""

import itertools
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as Pillow
from scipy.ndimage import distance_transform_edt
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from pipeline.datasets.readers.demo.bird import owner_of
from pipeline.datasets.readers.demo.classes import CLASS_NAMES, CLASSES, PARTS, distinguishing_parts
from pipeline.datasets.readers.demo.data_set import (
    TEST_PER_CLASS,
    TRAIN_PER_CLASS,
    Demo,
    draw,
    draw_image,
    part_locations,
)
from pipeline.errors import ProtoMaskError

SISTERS = [
    (first, second)
    for first, second in itertools.combinations(CLASS_NAMES, 2)
    if len(distinguishing_parts(first, second)) == 1
]


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A demo of two training images and one test image per class."""
    folder = tmp_path_factory.mktemp("demo")
    draw(folder, seed=3, train_per_class=2, test_per_class=1)
    return folder


def test_a_seed_draws_the_same_bytes_again(small: Path, tmp_path: Path) -> None:
    draw(tmp_path, seed=3, train_per_class=2, test_per_class=1)
    first = {path.relative_to(small): path.read_bytes() for path in small.rglob("*.*")}
    second = {path.relative_to(tmp_path): path.read_bytes() for path in tmp_path.rglob("*.*")}
    assert first == second
    assert len(first) == 12 * 3 * 2 + 1


def test_another_seed_draws_other_images() -> None:
    first, second = draw_image(0, CLASS_NAMES[0], 1), draw_image(1, CLASS_NAMES[0], 1)
    assert first.image.shape != second.image.shape or (first.image != second.image).any()


def test_a_smaller_set_is_the_beginning_of_a_larger_one(small: Path) -> None:
    with Pillow.open(small / "parts" / "plain-topknot" / "002.png") as picture:
        labels = np.asarray(picture)
    assert (labels == draw_image(3, "plain topknot", 2).labels).all()


def test_read_lists_every_image_with_its_split(small: Path) -> None:
    images, class_names, part_names, *_ = Demo().read(small)
    assert class_names == list(CLASS_NAMES)
    assert part_names == list(PARTS)
    assert len(images) == 36
    assert [image.split for image in images[:3]] == ["train", "train", "test"]
    assert images[0].id == "crested-barwing/001"
    assert images[0].path == "images/crested-barwing/001.jpg"
    assert images[0].class_name == "crested barwing"
    for image in images:
        with Pillow.open(small / image.path) as photograph:
            assert photograph.mode == "RGB"
            assert all(180 <= side <= 220 for side in photograph.size)
            size = photograph.size
        assert image.part_mask_path == image.object_mask_path
        with Pillow.open(small / str(image.part_mask_path)) as labels:
            assert labels.size == size


def test_boxes_are_tight_and_points_lie_on_their_parts(small: Path) -> None:
    for image in Demo().read(small)[0]:
        with Pillow.open(small / str(image.part_mask_path)) as picture:
            labels = np.asarray(picture)
        assert image.object_box is not None
        x0, y0, x1, y1 = image.object_box
        inside = labels[y0:y1, x0:x1] > 0
        assert inside.sum() == (labels > 0).sum()
        assert inside[0].any() and inside[-1].any() and inside[:, 0].any() and inside[:, -1].any()
        assert image.parts is not None
        assert {owner_of(part.name) for part in image.parts} == set(np.unique(labels)) - {0}
        for part in image.parts:
            assert labels[int(part.y), int(part.x)] == owner_of(part.name)


def test_a_point_lies_on_a_part_that_is_hollow() -> None:
    labels = np.zeros((9, 9), np.uint8)
    labels[1:8, 1:8] = 2
    labels[2:7, 2:7] = 0
    (part,) = part_locations(labels, ["wing", "tail"])
    assert part.name == "tail"
    assert labels[int(part.y), int(part.x)] == 2


@pytest.mark.parametrize("class_name", CLASS_NAMES)
def test_the_parts_of_a_class_are_visible(class_name: str) -> None:
    seen = [np.unique(draw_image(0, class_name, number).labels) for number in range(1, 7)]
    often = {part for part in PARTS if sum(owner_of(part) in labels for labels in seen) >= 4}
    expected = set(PARTS) - ({"wing bar"} if CLASSES[class_name]["wing bar"] == "none" else set())
    assert often == expected


def test_every_class_has_a_sister_that_differs_in_one_part() -> None:
    assert len(SISTERS) >= 4
    assert {name for pair in SISTERS for name in pair} == set(CLASS_NAMES)
    assert distinguishing_parts("crested barwing", "smooth barwing") == ["crown"]
    assert distinguishing_parts("forktail reedling", "fantail reedling") == ["tail"]
    looks = {tuple(sorted(styles.items())) for styles in CLASSES.values()}
    assert len(looks) == len(CLASS_NAMES)


def test_classes_json_names_what_tells_each_pair_apart(small: Path) -> None:
    about = json.loads((small / "classes.json").read_text())
    assert about["classes"] == CLASSES
    for first, second in itertools.permutations(CLASS_NAMES, 2):
        named = about["distinguishing_parts"][first][second]
        assert named == [p for p in PARTS if CLASSES[first].get(p) != CLASSES[second].get(p)]
        assert named


@pytest.mark.parametrize(("first", "second"), [*SISTERS, *((b, a) for a, b in SISTERS)])
def test_another_class_s_part_changes_only_that_part(first: str, second: str) -> None:
    (part,) = distinguishing_parts(first, second)
    for number in (1, 2, 3):
        before = draw_image(0, first, number)
        after = draw_image(0, first, number, {part: second})
        number_of_part = owner_of(part)
        either = (before.labels == number_of_part) | (after.labels == number_of_part)
        changed = (before.image != after.image).any(-1)
        if either.sum() > 30:
            assert changed.any()
        assert distance_transform_edt(~either)[changed].max(initial=0) <= 3
        assert (before.labels != after.labels)[~either].sum() == 0


def test_a_part_from_another_class_is_that_class_s_style() -> None:
    taken = draw_image(
        5, "smooth barwing", 4, {"wing bar": "plain topknot", "tail": "fantail reedling"}
    )
    again = draw_image(
        5, "smooth barwing", 4, {"wing bar": "vested topknot", "tail": "fantail reedling"}
    )
    assert (taken.image == again.image).all()
    own = draw_image(5, "smooth barwing", 4, dict.fromkeys(PARTS, "smooth barwing"))
    assert (own.image == draw_image(5, "smooth barwing", 4).image).all()
    assert (own.image != taken.image).any()


def test_an_unknown_class_or_part_is_named() -> None:
    with pytest.raises(ProtoMaskError, match="barwings"):
        draw_image(0, "barwings", 1)
    with pytest.raises(ProtoMaskError, match="barwings"):
        draw_image(0, "smooth barwing", 1, {"tail": "barwings"})
    with pytest.raises(ProtoMaskError, match="antenna"):
        draw_image(0, "smooth barwing", 1, {"antenna": "plain topknot"})


def test_a_folder_without_a_demo_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ProtoMaskError, match="no demo"):
        Demo().read(tmp_path)


@pytest.mark.slow
def test_colours_do_not_tell_the_classes_apart(tmp_path: Path) -> None:
    """In half of the images of each class, which are as hard to tell apart as all of them."""
    train, test = TRAIN_PER_CLASS // 2, TEST_PER_CLASS // 2
    draw(tmp_path, seed=0, train_per_class=train, test_per_class=test)
    images = Demo().read(tmp_path)[0]
    assert len(images) == len(CLASS_NAMES) * (train + test) == 720 // 2
    histograms = np.sqrt([_histogram(tmp_path / image.path) for image in images])
    labels = np.array([CLASS_NAMES.index(image.class_name) for image in images])
    of_train = np.array([image.split == "train" for image in images])
    model = make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=1000))
    model.fit(histograms[of_train], labels[of_train])
    assert model.score(histograms[~of_train], labels[~of_train]) < 0.4


def _histogram(path: Path) -> np.ndarray:
    """Returns the shares of 8×8×8 colours in an image, (512,)."""
    with Pillow.open(path) as picture:
        bins = np.asarray(picture).astype(int) // 32
    colours = bins[..., 0] * 64 + bins[..., 1] * 8 + bins[..., 2]
    return np.bincount(colours.ravel(), minlength=512) / colours.size
