"""An archive of files and folders is unpacked; one that holds anything else is refused."""

import io
import tarfile
from pathlib import Path

import pytest

from pipeline.datasets.archives import unpack
from pipeline.errors import ProtoMaskError


def _member(name: str, kind: bytes = tarfile.REGTYPE, **fields: object) -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.type = kind
    for key, value in fields.items():
        setattr(member, key, value)
    return member


def _archive(path: Path, *members: tarfile.TarInfo, mode: str = "w") -> Path:
    """Writes an archive; every file in it holds its own name."""
    with tarfile.open(path, mode) as tar:  # type: ignore[call-overload]
        for member in members:
            content = member.name.encode() if member.isreg() else b""
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return path


def _all(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*")}


@pytest.mark.parametrize("mode", ["w", "w:gz", "w:xz"])
def test_files_and_folders(tmp_path: Path, mode: str) -> None:
    members = (
        _member("a", tarfile.DIRTYPE, mode=0o755),
        _member("a/b.txt"),
        _member("c/d/" + "e" * 150 + ".txt"),
        _member("./f with ü.txt"),
    )
    unpack(_archive(tmp_path / "x.tar", *members, mode=mode), tmp_path / "new" / "out")
    out = tmp_path / "new" / "out"
    assert _all(out) == {
        *("a", "a/b.txt", "c", "c/d", f"c/d/{'e' * 150}.txt", "f with ü.txt"),
    }
    assert (out / "a" / "b.txt").read_text() == "a/b.txt"


def test_permissions_are_those_of_new_files(tmp_path: Path) -> None:
    """Whoever may read other new files reads these; nobody becomes another user."""
    members = (
        _member("suid", mode=0o6755, uid=0, gid=0),
        _member("for all", mode=0o777),
        _member("for none", mode=0),
    )
    unpack(_archive(tmp_path / "x.tar", *members), tmp_path / "out")
    (tmp_path / "out" / "new").touch()
    assert len({path.stat().st_mode for path in (tmp_path / "out").iterdir()}) == 1


@pytest.mark.parametrize(
    "members",
    [
        (_member("a"), _member("a/b")),
        (_member("a"), _member("a", tarfile.DIRTYPE)),
        (_member("a", tarfile.DIRTYPE), _member("a")),
    ],
    ids=["file with a file in it", "file as a folder", "folder as a file"],
)
def test_a_file_that_is_a_folder_as_well(
    tmp_path: Path, members: tuple[tarfile.TarInfo, ...]
) -> None:
    with pytest.raises(ProtoMaskError, match=r"(?s)x\.tar cannot be unpacked .*: it is damaged"):
        unpack(_archive(tmp_path / "x.tar", *members), tmp_path / "out")


@pytest.mark.parametrize("name", ["../evil", "a/../../evil", "a/..", "/evil", "//evil"])
def test_a_name_that_leads_out(tmp_path: Path, name: str) -> None:
    absolute = name.replace("/evil", f"{tmp_path}/evil") if name.startswith("/") else name
    archive = _archive(tmp_path / "x.tar", _member("good"), _member(absolute))
    with pytest.raises(ProtoMaskError) as caught:
        unpack(archive, tmp_path / "deep" / "out")
    message = str(caught.value)
    assert f"{archive} holds {absolute!r}, which leads out of the folder" in message
    assert "`tar -tvf` lists what it holds" in message
    assert _all(tmp_path) == {"x.tar", "deep", "deep/out", "deep/out/good"}


@pytest.mark.parametrize(
    "member",
    [
        _member("link", tarfile.SYMTYPE, linkname="../../target"),
        _member("link", tarfile.SYMTYPE, linkname="/etc"),
        _member("link", tarfile.SYMTYPE, linkname="good"),
        _member("link", tarfile.LNKTYPE, linkname="../../target"),
        _member("link", tarfile.LNKTYPE, linkname="good"),
        _member("pipe", tarfile.FIFOTYPE),
        _member("disk", tarfile.BLKTYPE, devmajor=8),
        _member("null", tarfile.CHRTYPE, devmajor=1, devminor=3),
    ],
    ids=lambda member: f"{member.name} {member.linkname}".strip(),
)
def test_what_is_neither_file_nor_folder(tmp_path: Path, member: tarfile.TarInfo) -> None:
    (tmp_path / "target").write_text("precious")
    through = _member(f"{member.name}/evil")
    archive = _archive(tmp_path / "x.tar", _member("good"), member, through)
    with pytest.raises(ProtoMaskError, match=f"{member.name}', which is neither a file nor"):
        unpack(archive, tmp_path / "deep" / "out")
    assert _all(tmp_path) == {"x.tar", "target", "deep", "deep/out", "deep/out/good"}
    assert (tmp_path / "target").read_text() == "precious"
    assert (tmp_path / "target").stat().st_nlink == 1


@pytest.mark.parametrize("mode", ["w", "w:gz", "w:xz"])
def test_a_damaged_archive(tmp_path: Path, mode: str) -> None:
    archive = _archive(tmp_path / "x.tar", *map(_member, "abcdef"), mode=mode)
    content = archive.read_bytes()
    archive.write_bytes(content[: 3 * 1024 + 512] if mode == "w" else content[: len(content) // 3])
    with pytest.raises(ProtoMaskError, match=r"(?s)x\.tar cannot be unpacked .*: it is damaged"):
        unpack(archive, tmp_path / "out")


@pytest.mark.parametrize("content", [b"", b"<html>a proxy's page</html>" * 99])
def test_no_archive(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x.tar").write_bytes(content)
    with pytest.raises(ProtoMaskError, match="or no tar archive"):
        unpack(tmp_path / "x.tar", tmp_path / "out")
