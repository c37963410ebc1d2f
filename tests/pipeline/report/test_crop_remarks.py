"""What is said of crops that are hardly parts."""

import numpy as np

from pipeline.crops.settings import NO_MASK
from pipeline.masks.masks import Masks, Region
from pipeline.report.crop_remarks import crop_remarks

MASKS = Masks.of(
    10,
    10,
    [
        Region(0, 0, np.ones((9, 10), bool), (1.0,)),
        Region(0, 0, np.ones((2, 4), bool), (1.0,)),
        Region(4, 4, np.ones((2, 2), bool), (1.0,)),
    ],
    1,
)
CROPS = np.array([0, 1, 2, NO_MASK])


def test_a_crop_of_most_of_the_image_is_said_to_be() -> None:
    assert crop_remarks(MASKS, CROPS) == {0: "its crop is 90 % of the image"}


def test_a_crop_of_mostly_background_is_said_to_be_where_the_object_is_known() -> None:
    object_mask = np.zeros((10, 10), bool)
    object_mask[:, 3:] = True
    assert crop_remarks(MASKS, CROPS, object_mask) == {
        0: "its crop is 90 % of the image",
        1: "75 % of it is background",
    }
    object_mask[:, 3:6] = False
    assert crop_remarks(MASKS, CROPS[:1], object_mask)[0].endswith("; 60 % of it is background")
