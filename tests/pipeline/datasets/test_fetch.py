"""A data set is downloaded, verified and laid out once, whole or not at all."""

import hashlib
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path

import pytest
from PIL import Image as Pillow
from web_server import Server

from pipeline.datasets.dataset import DATASETS, Archive, Publication
from pipeline.datasets.fetch import fetch, root_of
from pipeline.datasets.listing import list_files
from pipeline.datasets.prepare import build_index
from pipeline.download import CHUNK
from pipeline.errors import ProtoMaskError

CUB = {
    "images.txt": "1 001.Jay/J_1.jpg\n2 001.Jay/J_2.jpg\n3 002.Wren/W_1.jpg\n4 002.Wren/W_2.jpg\n",
    "classes.txt": "1 001.Jay\n2 002.Wren\n",
    "image_class_labels.txt": "1 1\n2 1\n3 2\n4 2\n",
    "train_test_split.txt": "1 1\n2 0\n3 1\n4 0\n",
    "bounding_boxes.txt": "".join(f"{number} 1.0 2.0 9.0 9.0\n" for number in range(1, 5)),
    "parts/parts.txt": "1 beak\n",
    "parts/part_locs.txt": "".join(f"{number} 1 3.0 4.0 1\n" for number in range(1, 5)),
}
# It dies as it opens the file whose name ends as told; without one it lives.
RUN = """
import json, os, signal, sys
from pipeline.datasets.dataset import Archive, Publication
from pipeline.datasets.fetch import fetch

def die(event, arguments):
    if event == "open" and dies_at and str(arguments[0]).endswith(dies_at):
        os.kill(os.getpid(), signal.SIGKILL)

archives, dies_at = json.loads(sys.argv[1]), sys.argv[2]
sys.addaudithook(die)
print("ready", flush=True)
fetch("dogs", Publication(tuple(Archive(**archive) for archive in archives)))
"""


@pytest.fixture(autouse=True)
def cache(cache: Path) -> Path:
    return cache / "datasets"


def _pack(root: Path, *names: str, mode: str = "w") -> bytes:
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode=mode) as tar:  # type: ignore[call-overload]
        for name in names:
            tar.add(root / name, name)
    return content.getvalue()


def _publish(server: Server, path: str, content: bytes, into: str = ".") -> Archive:
    server.files[path] = content
    digest = hashlib.sha256(content).hexdigest()
    return Archive(f"{server.address}{path}", digest, len(content), into)


@pytest.fixture
def dogs(server: Server, dogs_root: Path) -> Publication:
    """The three archives of Stanford Dogs, as they are published."""
    return Publication(
        (
            _publish(server, "/images.tar", _pack(dogs_root, "Images")),
            _publish(server, "/annotation.tar", _pack(dogs_root, "Annotation")),
            _publish(server, "/lists.tar", _pack(dogs_root, "train_list.mat", "test_list.mat")),
        )
    )


def test_dogs(dogs: Publication, dogs_root: Path, server: Server, cache: Path) -> None:
    fetch("dogs", dogs)
    assert root_of("dogs", dogs) == cache / "dogs"
    assert list_files(cache / "dogs") == list_files(dogs_root)
    assert {path.name for path in cache.iterdir()} == {"dogs", "dogs.lock"}
    root = root_of("dogs", dogs)
    index, unreadable, _ = build_index("dogs", root, list_files(root))
    assert (len(index), unreadable) == (5, [])

    asked = len(server.ranges)
    fetch("dogs", dogs)
    assert len(server.ranges) == asked == 3


def test_cub_with_its_segmentations(
    server: Server, dogs_root: Path, tmp_path: Path, cache: Path
) -> None:
    """One archive holds the data set's folder, another what belongs into it."""
    root = tmp_path / "CUB_200_2011"
    pictures = sorted((dogs_root / "Images").rglob("*.jpg"))
    for name, text in CUB.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    for line, picture in zip(CUB["images.txt"].splitlines(), pictures, strict=False):
        path = root / "images" / line.split()[1]
        path.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(picture, path)
        mask = tmp_path / "segmentations" / Path(line.split()[1]).with_suffix(".png")
        mask.parent.mkdir(parents=True, exist_ok=True)
        Pillow.new("L", (40, 30), 255).save(mask)
    published = DATASETS["cub200"].publication
    assert published is not None
    packed = (
        _pack(tmp_path, "CUB_200_2011", mode="w:gz"),
        _pack(tmp_path, "segmentations", mode="w:gz"),
    )
    archives = tuple(
        _publish(server, f"/files/{archive.name}?download=1", content, archive.into)
        for archive, content in zip(published.archives, packed, strict=True)
    )
    publication = Publication(archives, published.root)
    fetch("cub200", publication)
    found = root_of("cub200", publication)
    assert found == cache / "cub200" / "CUB_200_2011"
    index, unreadable, _ = build_index("cub200", found, list_files(found))
    assert (len(index), unreadable, index.object_masks_from) == (4, [], "mask")


def test_what_is_published() -> None:
    published = [DATASETS[name].publication for name in DATASETS.own()]
    assert sum(publication is not None for publication in published) == 2
    for publication in filter(None, published):
        names = [archive.name for archive in publication.archives]
        assert len(set(names)) == len(names)
        for archive in publication.archives:
            assert len(bytes.fromhex(archive.sha256)) == 32
            assert archive.size > 0


def test_a_broken_connection(dogs: Publication, server: Server, cache: Path) -> None:
    content = os.urandom(3 * CHUNK)
    (cache.parent / "noise").mkdir(parents=True)
    (cache.parent / "noise" / "x").write_bytes(content)
    noise = _publish(server, "/noise.tar", _pack(cache.parent, "noise"))
    server.breaks = [2 * CHUNK]
    fetch("dogs", Publication((noise, *dogs.archives)))
    assert server.ranges == [None, f"bytes={2 * CHUNK}-", None, None, None]
    assert (cache / "dogs" / "noise" / "x").read_bytes() == content


def test_archives_are_kept_until_all_have_come(
    dogs: Publication, server: Server, cache: Path
) -> None:
    last = server.files.pop("/lists.tar")
    server.content = b"<html>moved</html>"
    with pytest.raises(ProtoMaskError, match="served other bytes"):
        fetch("dogs", dogs)
    assert not (cache / "dogs").exists()
    kept = cache / "dogs.archives"
    assert {path.name for path in kept.glob("*.tar*")} - {"lists.tar.lock"} == {
        *("images.tar", "images.tar.lock", "annotation.tar", "annotation.tar.lock"),
    }
    server.files["/lists.tar"] = last
    fetch("dogs", dogs)
    assert len(server.ranges) == 4
    assert not kept.exists()


def test_tampered_bytes(dogs: Publication, server: Server, cache: Path) -> None:
    """As long as the published ones; they are deleted, and the next run starts over."""
    good = server.files["/images.tar"]
    server.files["/images.tar"] = good[:-1] + b"?"
    for _ in range(2):
        with pytest.raises(ProtoMaskError, match=r"served other bytes .*SHA-256"):
            fetch("dogs", dogs)
        assert not list((cache / "dogs.archives").glob("images.tar*.part"))
    server.files["/images.tar"] = good
    fetch("dogs", dogs)
    assert server.ranges == [None] * 5


def test_no_connection(dogs: Publication, closed: str, cache: Path) -> None:
    """All archives, their hashes and where they go are named."""
    archives = [
        Archive(f"{closed}/{archive.name}", archive.sha256, archive.size, into)
        for archive, into in zip(dogs.archives, (".", "a", "a/b"), strict=True)
    ]
    with pytest.raises(ProtoMaskError) as caught:
        fetch("dogs", Publication(tuple(archives), "a"))
    message = str(caught.value)
    assert f"{archives[0].url} could not be downloaded (ConnectionError" in message
    for archive, folder in zip(archives, ("FOLDER", "FOLDER/a", "FOLDER/a/b"), strict=True):
        assert (
            f"download {archive.url} (SHA-256 {archive.sha256}) and unpack it into {folder}\n"
            in (message)
        )
    assert "set dataset.root=FOLDER/a" in message
    assert not (cache / "dogs").exists()


@pytest.mark.parametrize("name", ["../evil", "/evil"])
def test_an_archive_that_leads_out(
    dogs: Publication, server: Server, cache: Path, name: str
) -> None:
    """Nothing of the data set is there afterwards, not even what was harmless."""
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w") as tar:
        tar.addfile(tarfile.TarInfo(name))
    evil = _publish(server, "/evil.tar", content.getvalue())
    with pytest.raises(ProtoMaskError, match="which leads out of the folder"):
        fetch("dogs", Publication((*dogs.archives, evil)))
    assert {path.name for path in cache.iterdir()} == {"dogs.lock", "dogs.archives"}


def test_too_little_room(dogs: Publication, server: Server, cache: Path) -> None:
    archive = Archive(f"{server.address}/huge.tar", "0" * 64, 10**18)
    with pytest.raises(ProtoMaskError, match=r"has room for .* GB, but about 2000000000.0 GB are"):
        fetch("dogs", Publication((archive,)))
    assert server.ranges == []


def test_a_file_where_the_cache_belongs(dogs: Publication, server: Server, cache: Path) -> None:
    cache.parent.write_text("in the way")
    with pytest.raises(ProtoMaskError, match=r"dogs cannot be written \(.*PROTOMASK_CACHE"):
        fetch("dogs", dogs)
    assert server.ranges == []


@pytest.fixture
def start(cache: Path) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Starts processes that fetch; each says when it begins."""
    processes = []

    def start(publication: Publication, dies_at: str = "") -> subprocess.Popen[str]:
        archives = json.dumps([asdict(archive) for archive in publication.archives])
        command = [sys.executable, "-c", RUN, archives, dies_at]
        root, pipe, nothing = Path(__file__).parents[3], subprocess.PIPE, subprocess.DEVNULL
        processes.append(
            subprocess.Popen(command, cwd=root, stdout=pipe, stderr=nothing, text=True)
        )
        return processes[-1]

    yield start
    for process in processes:
        process.kill()
        process.communicate()


def test_a_run_killed_while_it_unpacks(
    dogs: Publication,
    dogs_root: Path,
    server: Server,
    cache: Path,
    start: Callable[..., subprocess.Popen[str]],
) -> None:
    process = start(dogs, "Annotation/n02085936-Maltese_dog/n02085936_8")
    assert process.wait(30) == -signal.SIGKILL
    assert not (cache / "dogs").exists()
    [left] = cache.glob(".dogs.*.part")
    assert (left / "Images").is_dir()
    assert not (left / "train_list.mat").exists()
    fetch("dogs", dogs)
    assert list_files(cache / "dogs") == list_files(dogs_root)
    assert {path.name for path in cache.iterdir()} == {"dogs", "dogs.lock"}
    assert len(server.ranges) == 3


def test_two_at_once_fetch_once(
    dogs: Publication,
    dogs_root: Path,
    server: Server,
    cache: Path,
    start: Callable[..., subprocess.Popen[str]],
) -> None:
    server.waits = True
    both = [start(dogs) for _ in range(2)]
    for process in both:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    time.sleep(0.3)
    server.goes_on.set()
    assert [process.wait(30) for process in both] == [0, 0]
    assert list_files(cache / "dogs") == list_files(dogs_root)
    assert server.ranges == [None] * 3
