"""Names of files, folders and patterns → photographs."""

from pathlib import Path

import pytest

from commands.find_photographs import find_photographs
from pipeline.errors import ProtoMaskError


@pytest.fixture
def photos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for name in ("a/b/1.jpg", "a/2.PNG", "a/.hidden.png", "a/notes.txt", "c[1].jpg", "empty/x.md"):
        path = Path(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return tmp_path


def test_folders_at_any_depth_patterns_and_files(photos: Path) -> None:
    found = find_photographs([Path("c[1].jpg"), Path("a"), Path("a/**/*")])
    assert found.named == [Path("c[1].jpg")]
    assert found.found == [Path("a/2.PNG"), Path("a/b/1.jpg")]
    assert found.passed_over == [Path("a/notes.txt")]


def test_what_is_named_and_found_is_done_once(photos: Path) -> None:
    found = find_photographs([Path("a"), Path("a/2.PNG"), Path("a/2.PNG")])
    assert (found.named, found.found) == ([Path("a/2.PNG")], [Path("a/b/1.jpg")])


def test_a_file_that_is_not_there_is_left_to_whoever_reads_it(photos: Path) -> None:
    assert find_photographs([Path("gone.jpg")]).named == [Path("gone.jpg")]


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("empty", "empty holds no photograph, only 1 other files"),
        ("*.tif", r"\*\.tif matches no photograph"),
    ],
)
def test_nothing_found_is_an_error(photos: Path, given: str, said: str) -> None:
    with pytest.raises(ProtoMaskError, match=said):
        find_photographs([Path(given)])


def test_a_folder_in_a_pattern_may_have_brackets_in_its_name(photos: Path) -> None:
    folder = Path("plain [x]")
    folder.mkdir()
    (folder / "1.jpg").touch()
    assert find_photographs([folder / "*.jpg"]).found == [folder / "1.jpg"]
    assert find_photographs([photos / folder / "*"]).found == [photos / folder / "1.jpg"]
