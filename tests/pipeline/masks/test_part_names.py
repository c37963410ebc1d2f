"""The names that people give to parts: whose they are, and what is no file of them."""

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.errors import ProtoMaskError
from pipeline.masks.part_names import codebook_of, names_file, read_part_names, rename_part

HASH = "3fa2" * 16
FITTED = {"name": "parts", "version": 1, "codebook": HASH}
DRAWN = {"name": "drawn", "version": 2}
OWN = {7: "part of a bird", 8: "wing"}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "parts.yaml"


def test_names_take_precedence_over_the_segmenters_own(path: Path) -> None:
    path.write_text(
        f"# what they are\ncodebook: {HASH}\n7: tail\n012: no\n8:\n9: 1e3\n3: ' a  b '\n"
    )
    found = read_part_names(path, FITTED, OWN)
    assert found.given == {7: "tail", 12: "no", 9: "1e3", 3: "a b"}
    assert found.names == {7: "tail", 8: "wing", 12: "no", 9: "1e3", 3: "a b"}
    assert found.remark == ""


@pytest.mark.parametrize("text", ["", "# a comment\n", f"codebook: {HASH}\n", "7:\n8:\n"])
def test_without_names_parts_are_called_as_the_segmenter_calls_them(path: Path, text: str) -> None:
    assert read_part_names(path, FITTED, OWN).names == OWN  # there is no file yet
    path.write_text(text)
    found = read_part_names(path, FITTED, OWN)
    assert (found.names, found.given, found.remark) == (OWN, {}, "")


def test_names_of_another_codebook_are_not_used_and_that_is_said(path: Path) -> None:
    path.write_text("codebook: 00aa\n7: tail\n")
    found = read_part_names(path, FITTED, OWN)
    assert found.names == OWN
    assert found.remark == (
        "the names in parts.yaml are of the codebook 00aa, and the parts of 3fa23fa23fa23fa2…: "
        "they are not used"
    )
    path.write_text("codebook: drawn\n7: tail\n")
    assert read_part_names(path, FITTED, OWN).remark
    assert read_part_names(path, DRAWN, OWN).names == {7: "tail", 8: "wing"}


def test_names_of_nobody_knows_which_codebook_are_refused(path: Path) -> None:
    path.write_text("7: tail\n")
    for segmenter, codebook in ((FITTED, HASH), (DRAWN, "drawn")):
        with pytest.raises(ProtoMaskError, match=f"add the line `codebook: {codebook}`"):
            read_part_names(path, segmenter, OWN)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("codebook: drawn\n7: [wing\n", "cannot be read: .*line"),
        ("- wing\n", "has to have a line for each part"),
        ("wing\n", "has to have a line for each part"),
        ("codebook: drawn\n\nwing: 7\n", "line 3: 'wing' is not the number of a part"),
        ("codebook: drawn\n-1: wing\n", "line 2: '-1' is not the number of a part"),
        ("codebook: drawn\n7: {left: wing}\n", "line 2: this is no name"),
        ("7: wing\n? [8, 9]\n: tail\n", "line 2: this is no name"),
        ("codebook: drawn\n7: wing\n07: tail\n", "line 3: 07 stands there twice"),
        ("codebook: drawn\n7: wing\ncodebook: parts\n", "line 3: codebook stands there twice"),
        (b"codebook: drawn\n7: Fl\xfcgel\n", "cannot be read: .*utf-8"),
    ],
)
def test_what_is_no_such_file_is_refused(path: Path, text: str | bytes, said: str) -> None:
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(ProtoMaskError, match=rf"parts\.yaml.* {said}"):
        read_part_names(path, DRAWN, OWN)


def test_a_folder_is_no_such_file(path: Path) -> None:
    path.mkdir()
    with pytest.raises(ProtoMaskError, match="cannot be read"):
        read_part_names(path, DRAWN, OWN)


def test_names_of_parts_that_do_not_occur_are_told(path: Path) -> None:
    lines = "".join(f"{number}: name {number}\n" for number in range(1, 8))
    path.write_text(f"codebook: drawn\n{lines}")
    found = read_part_names(path, DRAWN, OWN)
    assert found.unknown(range(1, 8)) == ""
    assert found.unknown([-1, 7, 7]) == (
        "names were given to parts that no mask shows: 1 (name 1), 2 (name 2), 3 (name 3), "
        "4 (name 4), 5 (name 5), …"
    )
    assert found.unknown([1, 2, 3, 4, 5, 7]).endswith(": 6 (name 6)")


def test_the_file_to_fill_in_is_read_as_it_was_meant(path: Path) -> None:
    names = {3: "Flügel: der linke", 10: "yes", 4: "#4", 5: "12"}
    digits = {"name": "parts", "codebook": "0" * 64}
    path.write_text(names_file(digits, [3, 4, 5, 7, 10], names), encoding="utf-8")
    assert read_part_names(path, digits, {}).names == names
    assert names_file(FITTED, [3, 7], {7: "wing"}) == f"codebook: {HASH}\n3:\n7: wing\n"


NAMED = """\
# what they are
codebook: drawn  # as of May

99: of no mask
7: tail   # of a bird
012: no
8:   # ?
  # the end
"""


@pytest.mark.parametrize(
    ("part", "name", "before", "after"),
    [
        (7, "wing: left", "7: tail   # of", "7: 'wing: left'   # of"),
        (7, "", "7: tail   # of", "7:   # of"),
        (12, "yes", "012: no\n", "012: 'yes'\n"),
        (8, "Flügel 🐦", "8:   # ?\n", "8: Flügel 🐦   # ?\n"),
        (3, "#1", "8:   # ?\n", "8:   # ?\n3: '#1'\n"),
        (8, "", "", ""),
        (3, "", "", ""),
    ],
)
def test_a_new_name_leaves_all_else_in_the_file(
    path: Path, part: int, name: str, before: str, after: str
) -> None:
    path.write_text(NAMED, encoding="utf-8")
    rename_part(path, DRAWN, [7, 8], part, name)
    assert path.read_text(encoding="utf-8") == NAMED.replace(before, after, 1)
    given = {99: "of no mask", 7: "tail", 12: "no", part: name}
    assert read_part_names(path, DRAWN, {}).given == {of: to for of, to in given.items() if to}


@pytest.mark.parametrize(
    ("text", "after"),
    [
        ("", "codebook: drawn\n7: wing\n8:\n"),
        ("# nothing yet", "# nothing yet\ncodebook: drawn\n7: wing\n8:\n"),
        ("8:\n7:\n", "8:\n7: wing\ncodebook: drawn\n"),
        ("codebook:\n8:", "codebook: drawn\n8:\n7: wing\n"),
        ("codebook: 'drawn'\r\n7: 'tail'\r\n8: leg\r\n", None),
        ("codebook: drawn\r\n8: leg", "codebook: drawn\r\n8: leg\r\n7: wing\r\n"),
        ('\ufeffcodebook: drawn\n7: "tail"\n', None),
        ("--- !!map\n  codebook: drawn\n  8: leg\n...\n", "  8: leg\n  7: wing\n...\n"),
        ("codebook: drawn\n8: |\n  leg\n  or arm\n\n# end\n", "\n\n7: wing\n# end\n"),
        ("codebook: drawn\n? 7\n: tail\n8: leg\n", None),
        ("codebook: drawn\n7:\n    tail\n8: leg\n", None),
        ("codebook: drawn\n7:\n    !!str 'tail'  # !\n", "\n7:\n    wing  # !\n"),
        ("{codebook: drawn, 7: tail, 8: leg}", None),
        ('{"codebook":"drawn","7":"tail"}', None),
    ],
)
def test_unusual_files_stay_as_they_are_written(path: Path, text: str, after: str | None) -> None:
    path.write_bytes(text.encode())
    rename_part(path, DRAWN, [7, 8], 7, "wing")
    written = path.read_bytes().decode()
    for tail in ("'tail'", '"tail"', "tail"):
        text = text.replace(tail, "wing")
    assert written.endswith(after) if after else written == text
    assert read_part_names(path, DRAWN, {}).given[7] == "wing"


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("codebook: drawn\n7: |  # two lines\n  tail\n", 2),
        ("codebook: drawn\n7: left\n  tail\n", 2),
        ("codebook: drawn\n8: &a tail\n7: *a\n", 3),
        ("codebook: drawn\n7: &a tail\n8: *a\n", 2),
        ("{codebook: drawn,\n8: leg}\n", 3),
        ("codebook: drawn\n? 7\n", 2),
    ],
)
def test_a_line_that_cannot_be_changed_alone_is_refused(path: Path, text: str, number: int) -> None:
    path.write_text(text)
    with pytest.raises(ProtoMaskError, match=rf"parts\.yaml, line {number}: .* write `7: wing`"):
        rename_part(path, DRAWN, [7, 8], 7, "wing")
    assert path.read_text() == text


def test_names_of_another_codebook_are_not_written_over(path: Path) -> None:
    path.write_text("codebook: 00aa\n7: tail\n")
    with pytest.raises(ProtoMaskError, match=r"they are not used\. Move .*parts\.yaml away first"):
        rename_part(path, FITTED, [7, 8], 7, "wing")
    assert path.read_text() == "codebook: 00aa\n7: tail\n"


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, 12), st.text()), max_size=5))
def test_whatever_name_is_given_is_read_and_no_other_is_lost(
    tmp_path_factory: pytest.TempPathFactory, names: list[tuple[int, str]]
) -> None:
    path, said = tmp_path_factory.mktemp("names") / "parts.yaml", {}
    path.write_text(NAMED, encoding="utf-8")
    for part, text in names:
        said[part] = " ".join(text.split())
        rename_part(path, DRAWN, [7, 8], part, said[part])
    given = {99: "of no mask", 7: "tail", 12: "no"} | said
    assert read_part_names(path, DRAWN, {}).given == {of: to for of, to in given.items() if to}


def test_a_segmenter_without_a_codebook_stands_for_its_own() -> None:
    assert codebook_of(FITTED) == HASH
    assert codebook_of({**FITTED, "codebook": None}) == "parts"
    assert codebook_of(DRAWN) == "drawn"


def test_the_file_in_the_repository_names_nothing() -> None:
    file = Path(__file__).parents[3] / "parts.yaml"
    assert file.is_file() and read_part_names(file, FITTED, {}).names == {}
