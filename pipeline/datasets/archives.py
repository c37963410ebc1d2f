"""Unpacking a tar archive that a stranger made."""

import tarfile
import zlib
from gzip import BadGzipFile
from lzma import LZMAError
from pathlib import Path, PurePosixPath

from pipeline.errors import ProtoMaskError
from pipeline.progress import track

DAMAGED = (tarfile.TarError, EOFError, zlib.error, BadGzipFile, LZMAError)


def unpack(archive: Path, folder: Path) -> None:
    """Unpacks an archive's files and folders, compressed or not, into a folder.

    Python's own `data` filter takes away owners and dangerous permissions, and refuses what would
    lie outside the folder. A link could still lead a later member out, and a data set needs none:
    links are refused, wherever they lead, as are devices and absolute names.

    Args:
        archive: a tar file; its hash has been verified, as one that was cut off between two members
            looks whole.
        folder: where its members go; made if need be. After an error it holds what came before.

    Raises:
        ProtoMaskError: a member is refused, or the archive is damaged.
    """
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with tarfile.open(archive) as tar:
            for member in track(tar, f"Unpacking {archive.name}"):
                _refuse_unsafe(member, archive)
                tar.extract(member, folder, filter="data")
    except DAMAGED as error:
        raise ProtoMaskError(
            f"{archive} cannot be unpacked ({error or type(error).__name__}): it is damaged, or no "
            "tar archive"
        ) from None


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
