"""What is in a folder: every file's hash, and no file read twice without need."""

import hashlib
import os
from pathlib import Path

import pandas as pd
import pytest

from pipeline.datasets import listing
from pipeline.datasets.listing import list_files, look_through, refuse_changed, visible_files
from pipeline.datasets.remarks import Remark
from pipeline.errors import ProtoMaskError
from pipeline.files import sha256


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "root"
    (root / "b").mkdir(parents=True)
    (root / "b" / "2.txt").write_bytes(b"two")
    (root / "a b").mkdir()
    (root / "a b" / "é.txt").write_bytes(b"")
    (root / "1.txt").write_bytes(b"one")
    return root


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the files whose content was read since the list was last cleared."""
    names: list[str] = []

    def noted(path: Path) -> str:
        names.append(path.name)
        return sha256(path)

    monkeypatch.setattr(listing, "sha256", noted)
    return names


def test_every_file_with_its_hash_in_order(root: Path) -> None:
    found = list_files(root)
    assert list(found) == ["1.txt", "a b/é.txt", "b/2.txt"]
    assert found["b/2.txt"] == hashlib.sha256(b"two").hexdigest()
    # The well-known SHA-256 of nothing.
    assert found["a b/é.txt"].startswith("e3b0c44298fc1c14")


def test_the_listing_does_not_depend_on_where_and_when(root: Path, tmp_path: Path) -> None:
    copy = tmp_path / "elsewhere"
    for path in reversed(visible_files(root)):
        (copy / path).parent.mkdir(parents=True, exist_ok=True)
        (copy / path).write_bytes((root / path).read_bytes())
        os.utime(copy / path, (0, 0))
    assert list(list_files(copy).items()) == list(list_files(root).items())


def test_remembered_files_are_not_read_again(root: Path, tmp_path: Path, read: list[str]) -> None:
    cache = tmp_path / "cache" / "x.parquet"
    first = list_files(root, cache)
    assert sorted(read) == ["1.txt", "2.txt", "é.txt"]
    read.clear()
    assert list_files(root, cache) == first
    assert read == []


def test_without_memory_every_file_is_read(root: Path, read: list[str]) -> None:
    list_files(root)
    list_files(root)
    assert len(read) == 6


def test_only_what_changed_is_read(root: Path, tmp_path: Path, read: list[str]) -> None:
    cache = tmp_path / "x.parquet"
    before = list_files(root, cache)
    read.clear()
    (root / "new.txt").write_bytes(b"new")
    (root / "1.txt").write_bytes(b"eno")  # the same size
    (root / "a b" / "é.txt").unlink()
    after = list_files(root, cache)
    assert sorted(read) == ["1.txt", "new.txt"]
    assert list(after) == ["1.txt", "b/2.txt", "new.txt"]
    assert after["1.txt"] == hashlib.sha256(b"eno").hexdigest() != before["1.txt"]
    assert after["b/2.txt"] == before["b/2.txt"]
    read.clear()
    assert list_files(root, cache) == after
    assert read == []


def test_a_file_replaced_by_another_of_its_size_and_time(
    root: Path, tmp_path: Path, read: list[str]
) -> None:
    """As `rsync -t` and `tar -x` do it: the new file has another inode."""
    cache = tmp_path / "x.parquet"
    list_files(root, cache)
    read.clear()
    status = (root / "1.txt").stat()
    (root / "other").write_bytes(b"eno")
    os.utime(root / "other", ns=(status.st_atime_ns, status.st_mtime_ns))
    (root / "other").replace(root / "1.txt")
    assert list_files(root, cache)["1.txt"] == hashlib.sha256(b"eno").hexdigest()
    assert read == ["1.txt"]


def _change_in_place(path: Path, content: bytes) -> None:
    """Writes as `exiftool -P -overwrite_original_in_place`: size, time and inode stay."""
    before = path.stat()
    while path.stat().st_ctime_ns == before.st_ctime_ns:  # the clock of the file system ticks
        with path.open("r+b") as file:
            file.write(content)
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    after = path.stat()
    for name in ("st_size", "st_mtime_ns", "st_ino"):
        assert getattr(after, name) == getattr(before, name)


def test_a_file_that_was_changed_in_place_with_its_time_kept(
    root: Path, tmp_path: Path, read: list[str]
) -> None:
    cache = tmp_path / "x.parquet"
    list_files(root, cache)
    read.clear()
    _change_in_place(root / "1.txt", b"eno")
    assert list_files(root, cache)["1.txt"] == hashlib.sha256(b"eno").hexdigest()
    assert read == ["1.txt"]


def test_a_memory_without_change_times_is_made_anew(
    root: Path, tmp_path: Path, read: list[str]
) -> None:
    cache = tmp_path / "x.parquet"
    list_files(root, cache)
    pd.read_parquet(cache).drop(columns="ctime").to_parquet(cache)
    read.clear()
    list_files(root, cache)
    assert len(read) == 3


def test_a_file_that_was_swapped_with_another(root: Path, tmp_path: Path) -> None:
    cache = tmp_path / "x.parquet"
    before = list_files(root, cache)
    (root / "1.txt").rename(root / "t")
    (root / "b" / "2.txt").rename(root / "1.txt")
    (root / "t").rename(root / "b" / "2.txt")
    after = list_files(root, cache)
    assert (after["1.txt"], after["b/2.txt"]) == (before["b/2.txt"], before["1.txt"])


def test_hidden_files_and_folders_are_passed_over(root: Path) -> None:
    (root / ".DS_Store").touch()
    (root / ".git").mkdir()
    (root / ".git" / "config").touch()
    assert visible_files(root) == ["1.txt", "a b/é.txt", "b/2.txt"]
    said = look_through(root).passed_over
    assert said == [Remark(name, "hidden, and passed over") for name in (".DS_Store", ".git")]


def test_folders_that_systems_make_are_passed_over(root: Path) -> None:
    before = list_files(root)
    for name in ("@eaDir", "b/@eaDir", "#recycle", "System Volume Information"):
        (root / name / "b").mkdir(parents=True)
        (root / name / "b" / "2.txt").touch()
    assert list_files(root) == before
    (root / "b" / "lost+found").touch()  # a file of that name is no such folder
    contents = look_through(root)
    assert "b/lost+found" in contents.files
    assert contents.passed_over == [
        Remark(name, "a folder that file servers and systems make, and passed over")
        for name in ("#recycle", "@eaDir", "System Volume Information", "b/@eaDir")
    ]


def test_links_to_what_is_not_there_have_no_hash(root: Path) -> None:
    (root / "b" / "gone.png").symlink_to("nowhere")
    (root / "self").symlink_to("self")
    found = list_files(root)
    assert list(found) == ["1.txt", "a b/é.txt", "b/2.txt", "b/gone.png", "self"]
    assert (found["b/gone.png"], found["self"]) == (None, None)
    (root / "nowhere").touch()  # of no use: the link is to a file beside it
    (root / "b" / "nowhere").write_bytes(b"two")
    assert list_files(root)["b/gone.png"] == found["b/2.txt"]


def test_link_loops_end(root: Path) -> None:
    (root / "b" / "up").symlink_to(root)
    (root / "self").symlink_to("self")
    (root / "gone").symlink_to(root / "nowhere")
    (root / "a b" / "across").symlink_to(root / "b")
    (root / "b" / "back").symlink_to(root / "a b")
    found = visible_files(root)
    assert {"1.txt", "a b/é.txt", "b/2.txt", "a b/across/2.txt", "b/back/é.txt"} == set(found)


def test_a_link_does_not_hide_the_folder_it_points_to(root: Path) -> None:
    """Annotations name the folder by its own path, whatever links to it there are."""
    (root / "0-link").symlink_to(root / "b")
    (root / "zz-link").symlink_to(root / "b")
    found = visible_files(root)
    assert {"b/2.txt", "0-link/2.txt", "zz-link/2.txt"} < set(found)


def test_links_out_of_the_folder_are_followed(root: Path, tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "disk" / "3.txt").write_bytes(b"three")
    (root / "link").symlink_to(tmp_path / "disk")
    (root / "file-link.txt").symlink_to(tmp_path / "disk" / "3.txt")
    found = list_files(root)
    assert found["link/3.txt"] == found["file-link.txt"] == hashlib.sha256(b"three").hexdigest()


def test_the_root_may_be_a_link_or_hidden(root: Path, tmp_path: Path) -> None:
    (tmp_path / ".hidden").symlink_to(root)
    assert list_files(tmp_path / ".hidden") == list_files(root)


def test_no_folder(root: Path, tmp_path: Path) -> None:
    with pytest.raises(ProtoMaskError, match=r"dataset\.root: .*/none does not exist"):
        list_files(tmp_path / "none")
    with pytest.raises(ProtoMaskError, match=r"1\.txt is a file"):
        list_files(root / "1.txt")
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / ".hidden").touch()
    with pytest.raises(ProtoMaskError, match="empty holds no files"):
        list_files(tmp_path / "empty")


def test_a_name_that_is_not_utf8_is_named(root: Path) -> None:
    """Such names come out of old archives; neither JSON nor Parquet can hold them."""
    try:
        (root / os.fsdecode(b"gr\xfcn.jpg")).touch()
    except OSError:
        pytest.skip("this file system takes only names in UTF-8")
    with pytest.raises(ProtoMaskError, match=r"'gr\\udcfcn.jpg' is not UTF-8"):
        list_files(root)


@pytest.mark.parametrize("damage", [b"", b"PAR1 nonsense PAR1", b"\0" * 999])
def test_a_damaged_memory_is_made_anew(root: Path, tmp_path: Path, damage: bytes) -> None:
    cache = tmp_path / "x.parquet"
    first = list_files(root, cache)
    whole = cache.read_bytes()
    cache.write_bytes(damage)
    assert list_files(root, cache) == first
    assert cache.read_bytes() == whole


def test_a_memory_of_something_else_is_made_anew(root: Path, tmp_path: Path) -> None:
    cache = tmp_path / "x.parquet"
    pd.DataFrame({"path": [1.5], "mtime": ["yesterday"]}).to_parquet(cache)
    assert list_files(root, cache) == list_files(root)


def test_a_memory_that_cannot_be_written_says_so(root: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ProtoMaskError, match="file cannot be made: a file lies where a folder"):
        list_files(root, tmp_path / "file" / "x.parquet")


def test_a_changed_or_missing_file_is_refused(root: Path) -> None:
    digest = sha256(root / "1.txt")
    refuse_changed(root / "1.txt", digest)
    (root / "1.txt").write_bytes(b"ONE")
    with pytest.raises(ProtoMaskError, match=r"1\.txt has changed since it was listed"):
        refuse_changed(root / "1.txt", digest)
    (root / "1.txt").unlink()
    with pytest.raises(ProtoMaskError, match=r"1\.txt is in the index but not there"):
        refuse_changed(root / "1.txt", digest)


def test_a_name_with_a_line_break_is_named(root: Path) -> None:
    """As folders have that a script with line ends of Windows has made."""
    (root / "bird\r").mkdir()
    (root / "bird\r" / "1.jpg").touch()
    with pytest.raises(ProtoMaskError, match=r"'bird\\r/1.jpg' has a control character"):
        list_files(root)
