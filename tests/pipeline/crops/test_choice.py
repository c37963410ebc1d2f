"""Which masks become crops, by hand and for any masks."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from settings import crop_settings

from pipeline.crops.choice import NEAR_DUPLICATE, chosen_masks
from pipeline.masks.masks import Masks, Region

HEIGHT, WIDTH = 20, 30


def _region(width: int, level: int = 0, *, foreground: bool = True, x0: int = 0) -> Region:
    """A rectangle over all rows."""
    bitmap = np.ones((HEIGHT, width), bool)
    return Region(x0, 0, bitmap, (1.0,), level=level, foreground=foreground)


def _masks(*regions: Region) -> Masks:
    return Masks.of(HEIGHT, WIDTH, regions, 1)


def _widths(masks: Masks, per_image: int = 5, choose: str = "parts", limit: float = 1.0) -> list:
    """Returns the widths of the masks that are chosen, in their order."""
    settings = crop_settings(per_image=per_image, choose=choose, max_box_area=limit)
    chosen = chosen_masks(masks, settings)
    return (masks.boxes[chosen, 2] - masks.boxes[chosen, 0]).tolist()


MIXED = _masks(
    _region(30, foreground=False),
    _region(12),
    _region(16, 1),
    _region(4, 1, x0=20),
    _region(2, 2, x0=24),
    _region(8, 2, foreground=False),
)


def test_the_largest_whatever_they_show() -> None:
    assert _widths(MIXED, choose="largest") == [30, 16, 12, 8, 4]
    assert _widths(MIXED, 2, choose="largest") == [30, 16]


def test_objects_before_their_parts_and_larger_before_smaller_without_background() -> None:
    assert _widths(MIXED) == [12, 16, 4, 2]
    assert _widths(MIXED, 3) == [12, 16, 4]


def test_too_large_boxes_are_passed_over() -> None:
    # 16 of 30 columns are 0.533 of the image, 12 are 0.4
    assert _widths(MIXED, limit=0.53) == [12, 4, 2]
    assert _widths(MIXED, 2, "largest", limit=0.53) == [12, 8]


@pytest.mark.parametrize(("second", "widths"), [(17, [20, 17]), (18, [20]), (22, [20])])
def test_near_duplicates_are_passed_over(second: int, widths: list[int]) -> None:
    """IoUs of 17/20 = 0.85, 18/20 = 0.9 and 20/22 = 0.909…, of which 0.9 is too much."""
    assert NEAR_DUPLICATE == 0.9
    assert _widths(_masks(_region(20), _region(second, 1))) == widths


def test_of_two_that_nearly_repeat_one_that_is_passed_over_counts_no_more() -> None:
    """27 of 30 columns repeat the first; 25 repeat them, but not the first (25/30 = 0.83)."""
    masks = _masks(_region(30), _region(27, 1), _region(25, 2))
    assert _widths(masks) == [30, 25]


def test_near_duplicates_leave_room_for_others() -> None:
    masks = _masks(_region(20), _region(20, 1), _region(19, 1), _region(6, 2, x0=22))
    assert _widths(masks, 2) == [20, 6]


def test_masks_side_by_side_are_no_duplicates() -> None:
    assert _widths(_masks(_region(10), _region(10, x0=10), _region(10, x0=20))) == [10, 10, 10]


def test_background_alone_gives_nothing() -> None:
    masks = _masks(_region(30, foreground=False), _region(3, 2, foreground=False))
    assert _widths(masks) == []
    assert _widths(_masks()) == []


regions = st.builds(
    lambda x0, width, level, foreground: _region(
        min(width, WIDTH - x0), level, foreground=foreground, x0=x0
    ),
    st.integers(0, WIDTH - 2),
    st.integers(2, WIDTH),
    st.integers(0, 2),
    st.booleans(),
)


@given(st.lists(regions, max_size=8), st.integers(1, 8))
def test_any_masks(found: list[Region], most: int) -> None:
    masks = _masks(*found)
    chosen = chosen_masks(masks, crop_settings(per_image=most, choose="parts"))
    assert len(chosen) <= most
    keys = [(masks.levels[mask], -masks.areas[mask], mask) for mask in chosen]
    assert keys == sorted(keys)
    assert masks.foreground[chosen].all()
    full = [masks.full(mask) for mask in range(len(masks))]

    def repeats(mask: int, other: int) -> bool:
        both = (full[mask] & full[other]).sum() / (full[mask] | full[other]).sum()
        return bool(both >= 0.9)

    for place, mask in enumerate(chosen):
        assert not any(repeats(mask, other) for other in chosen[:place])
    if len(chosen) < most:
        left_out = set(range(len(masks))) - set(chosen)
        for mask in left_out:
            assert not masks.foreground[mask] or any(repeats(mask, other) for other in chosen)


@given(st.lists(regions, max_size=8))
def test_masks_without_levels_and_background_are_chosen_by_area(found: list[Region]) -> None:
    """As those of segmenters that know neither; but for near duplicates."""
    plain = [region._replace(level=0, foreground=True) for region in found]
    masks = _masks(*plain)
    chosen = chosen_masks(masks, crop_settings(per_image=8, choose="parts"))
    assert chosen == sorted(chosen)
    assert chosen[:1] == list(range(len(masks)))[:1]
