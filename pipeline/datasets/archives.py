"""Safe unpacking of tar archives from untrusted sources."""

import shutil
import tarfile
import zlib
from gzip import BadGzipFile
from lzma import LZMAError
from pathlib import Path, PurePosixPath

from pipeline.errors import ProtoMaskError
from pipeline.progress import track

DAMAGED = (tarfile.TarError, EOFError, zlib.error, BadGzipFile, LZMAError)
FILE_AND_FOLDER = (FileExistsError, IsADirectoryError, NotADirectoryError)


def unpack(archive: Path, folder: Path) -> None:
    """Unpacks an archive's files and folders, compressed or not, into a folder.

    Names that lead out of the folder are refused, and so are links and devices, which no data set
    needs. Owners and permissions are ignored.

    Args:
        archive: path of the tar file; its hash must have been verified, as an archive truncated
            between two members looks complete.
        folder: the folder to unpack into, created if missing. After an error it holds the members
            unpacked before.

    Raises:
        ProtoMaskError: a member is refused, or the archive is damaged.
    """
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with tarfile.open(archive) as tar:
            for member in track(tar, f"Unpacking {archive.name}"):
                _refuse_unsafe(member, archive)
                _write(tar, member, folder / member.name)
    except (*DAMAGED, *FILE_AND_FOLDER) as error:
        raise ProtoMaskError(
            f"{archive} cannot be unpacked ({error or type(error).__name__}): it is damaged, or no "
            "tar archive"
        ) from None


def _write(tar: tarfile.TarFile, member: tarfile.TarInfo, path: Path) -> None:
    if member.isdir():
        path.mkdir(parents=True, exist_ok=True)
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    content = tar.extractfile(member)
    assert content is not None
    with content, path.open("wb") as file:
        shutil.copyfileobj(content, file)


def _refuse_unsafe(member: tarfile.TarInfo, archive: Path) -> None:
    name = PurePosixPath(member.name)
    if name.is_absolute() or ".." in name.parts:
        problem = "leads out of the folder it is unpacked into"
    elif not (member.isfile() or member.isdir()):
        problem = "is neither a file nor a folder"
    else:
        return
    raise ProtoMaskError(
        f"{archive} holds {member.name!r}, which {problem}; it was not unpacked: "
        "`tar -tvf` lists what it holds"
    )
