"""Which images stand for a data set."""

from pipeline.report.typical import spread_over_classes


def test_the_first_of_each_class_come_first() -> None:
    labels = [2, 0, 0, 1, 2, 0]
    # by class 0, 1, 2 their first images, then the second of 0 and 2, then the third of 0
    assert spread_over_classes(labels, 6) == [1, 3, 0, 2, 4, 5]
    assert spread_over_classes(labels, 4) == [1, 3, 0, 2]
    assert spread_over_classes(labels, 100) == [1, 3, 0, 2, 4, 5]


def test_with_many_classes_they_are_evenly_spaced() -> None:
    assert spread_over_classes([0, 0, 1, 2, 3, 4, 5], 3) == [0, 3, 5]
    assert spread_over_classes([], 3) == []
