"""The confusion matrix and the images of its most frequent confusions."""

import numpy as np

from pipeline.report.confusion import FEW, NUM_IMAGES, confused_pairs, confusion_matrix
from pipeline.report.pages import Picture

ACTUAL = np.array([0, 0, 0, 0, 1, 1, 2])
NAMED = np.array([0, 2, 2, 1, 1, 0, 2])


def test_fields_are_where_row_and_column_say() -> None:
    found = confusion_matrix(ACTUAL, NAMED, ["wren", "crow", "owl"])
    assert {(c.actual, c.named): c.images for c in found.cells} == {
        (0, 0): 1, (0, 1): 1, (0, 2): 2, (1, 0): 1, (1, 1): 1, (2, 2): 1,
    }  # fmt: skip
    middle = dict(found.names)
    names = ["wren", "crow", "owl"]
    for cell in found.cells:
        assert abs(cell.x + found.step / 2 - middle[names[cell.named]]) < 0.1
        assert abs(cell.y + found.step / 2 - middle[names[cell.actual]]) < 0.1
    shares = {(c.actual, c.named): c.share for c in found.cells}
    assert shares[2, 2] == 1 > shares[0, 2] > shares[0, 0]
    assert found.said == "Named wrong: 4 images, in 3 pairs of classes."
    assert "wren, named owl: 2 of 4" in [cell.said for cell in found.cells]


def test_many_classes_have_no_names_beside_the_matrix() -> None:
    labels = np.arange(FEW + 1)
    found = confusion_matrix(labels, labels, [f"class {label}" for label in labels])
    assert found.names == [] and len(found.cells) == FEW + 1 and found.left == 0
    assert found.said == "No image is named wrong."


def test_the_most_frequent_confusions_come_first_with_their_images() -> None:
    def draw(place: int) -> Picture:
        return Picture("", 1, 1, str(place))

    pairs = confused_pairs(ACTUAL, NAMED, draw)
    assert [(p.actual, p.named, p.images, p.of) for p in pairs] == [
        (0, 2, 2, 4),
        (0, 1, 1, 4),
        (1, 0, 1, 2),
    ]
    assert [place for place, _ in pairs[0].pictures] == [1, 2]
    many = confused_pairs(np.zeros(50, int), np.ones(50, int), draw)
    assert many[0].images == 50 and len(many[0].pictures) == NUM_IMAGES
