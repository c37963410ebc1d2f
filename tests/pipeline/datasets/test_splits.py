"""Folds are stratified, repeatable, and indifferent to what happens to other classes."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.datasets.index import Image
from pipeline.datasets.splits import cut_test, cut_validation


def _images(counts: dict[str, int], split: str = "train") -> list[Image]:
    return [
        Image(f"{name}/{number}", f"{name}/{number}.jpg", name, split)  # type: ignore[arg-type]
        for name, count in counts.items()
        for number in range(count)
    ]


def _ids(images: list[Image], split: str) -> set[str]:
    return {image.id for image in images if image.split == split}


@given(
    st.dictionaries(st.sampled_from("abcde"), st.integers(1, 23), min_size=1),
    st.integers(2, 7),
    st.integers(0, 99),
)
def test_folds_partition_the_training_images(counts: dict[str, int], folds: int, seed: int) -> None:
    images = _images(counts)
    validation = [_ids(cut_validation(images, seed, fold, folds), "val") for fold in range(folds)]
    together = [image for fold in validation for image in fold]
    assert len(together) == len(set(together))
    single = {f"{name}/0" for name, count in counts.items() if count == 1}
    assert set(together) == {image.id for image in images} - single


def test_every_class_gives_its_share() -> None:
    """Of 10 images a fifth is 2, of 23 it is 4 or 5, of 4 it is 1 or none."""
    images = _images({"a": 10, "b": 23, "c": 4})
    for fold in range(5):
        cut = cut_validation(images, 0, fold, 5)
        taken = Counter(image.class_name for image in cut if image.split == "val")
        assert taken["a"] == 2
        assert taken["b"] in (4, 5)
        assert taken["c"] in (0, 1)
        assert [image.id for image in cut] == [image.id for image in images]


def test_seeds_and_folds_cut_otherwise() -> None:
    images = _images({"a": 40, "b": 40})
    cuts = {
        frozenset(_ids(cut_validation(images, seed, fold, 5), "val"))
        for seed in range(3)
        for fold in range(5)
    }
    assert len(cuts) == 15
    assert _ids(cut_validation(images, 0, 0, 5), "val") == _ids(
        cut_validation(list(reversed(images)), 0, 0, 5), "val"
    )


def test_a_cut_is_the_same_on_every_machine() -> None:
    """The lots are SHA-256 of "validation 0 a/N": by hand, the smallest and the sixth smallest."""
    import hashlib

    lots = sorted(range(10), key=lambda n: hashlib.sha256(f"validation 0 a/{n}".encode()).digest())
    expected = {f"a/{lots[0]}", f"a/{lots[5]}"}
    assert _ids(cut_validation(_images({"a": 10}), 0, 0, 5), "val") == expected


def test_another_class_changes_nothing() -> None:
    before = cut_validation(_images({"a": 12, "b": 9}), 3, 1, 4)
    after = cut_validation(_images({"a": 12, "b": 30, "c": 5}), 3, 1, 4)
    assert {i for i in _ids(after, "val") if i[0] == "a"} == {
        i for i in _ids(before, "val") if i[0] == "a"
    }


@pytest.mark.parametrize("cut", [lambda x: cut_test(x, 0), lambda x: cut_validation(x, 0, 0, 2)])
def test_the_only_image_of_a_class_stays_in_training(cut) -> None:  # type: ignore[no-untyped-def]
    images = cut(_images({"a": 1, "b": 10}))
    assert "a/0" in _ids(images, "train")


def test_a_data_set_keeps_its_own_splits() -> None:
    own = [*_images({"a": 9}), *_images({"b": 4}, "val"), *_images({"c": 4}, "test")]
    assert cut_validation(own, 0, 0, 5) == own
    assert cut_test(own, 0) == own


def test_a_data_set_without_a_test_split_gets_a_fifth_of_each_class() -> None:
    images = cut_test(_images({"a": 10, "b": 20, "c": 2}), 0)
    taken = Counter(image.class_name for image in images if image.split == "test")
    assert taken == {"a": 2, "b": 4, "c": 1}
    assert _ids(images, "test") != _ids(cut_test(_images({"a": 10, "b": 20, "c": 2}), 1), "test")


def test_validation_is_cut_from_training_alone() -> None:
    images = cut_validation(cut_test(_images({"a": 25, "b": 25}), 7), 7, 0, 5)
    sizes = Counter((image.class_name, image.split) for image in images)
    # 5 of 25 to test; 4 of the other 20 to validation.
    assert {sizes[name, "test"] for name in "ab"} == {5}
    assert {sizes[name, "val"] for name in "ab"} == {4}
