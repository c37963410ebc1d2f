"""Categories as parts: one number for one name, and none for what only groups others."""

from typing import Any

import pytest

from pipeline.masks.categories import Categories


def _category(number: int, name: str, group: Any = "") -> dict[str, Any]:
    return {"id": number, "name": name, "supercategory": group}


def test_a_name_is_one_part_in_all_files() -> None:
    one = [_category(4, "wing"), _category(2, "beak")]
    other = [_category(2, "tail"), _category(3, "wing"), _category(5, "wing")]
    categories = Categories([one, other], [[4], [2, 3]])
    assert categories.part_names == {0: "wing", 1: "beak", 2: "tail"}
    assert categories.parts(0) == {4: 0, 2: 1}
    assert categories.parts(1) == {2: 2, 3: 0, 5: 0}


@pytest.mark.parametrize(("used", "names"), [([1, 2], ["wing", "beak"]), ([0], None)])
def test_a_group_is_a_part_only_if_a_mask_has_it(used: list[int], names: list[str] | None) -> None:
    listed = [_category(0, "birds", "none"), _category(1, "wing", "birds")]
    listed.append(_category(2, "beak", "birds"))
    found = Categories([listed], [used]).part_names
    assert list(found.values()) == (names or ["birds", "wing", "beak"])


def test_a_category_that_is_its_own_group_is_a_part() -> None:
    listed = [_category(1, "bird", "bird"), _category(2, "wing", None)]
    assert Categories([listed], [[]]).part_names == {0: "bird", 1: "wing"}


@pytest.mark.parametrize(
    "listed", [None, "none", [], [3], [{"id": "1", "name": "wing"}], [{"id": 1}], [{"name": "x"}]]
)
def test_what_is_no_category_says_nothing(listed: Any) -> None:
    categories = Categories([listed], [[1]])
    assert (categories.part_names, categories.parts(0)) == ({}, {})
