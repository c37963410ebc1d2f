"""What the stage `scan` finds in a data set's folder, and fetches where there is none."""

import hashlib
import json
import os
import shutil
import tarfile
import threading
from collections.abc import Callable, Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import yaml
from PIL import Image as Pillow

from pipeline.datasets.dataset import DATASETS, Archive, Publication
from pipeline.datasets.index import Index
from pipeline.errors import ProtoMaskError
from stages import prepare, scan
from stages.workspace import Workspace

workspace = Workspace()

REPOSITORY = Path(__file__).parents[2]
DIGITS = range(1, 7)
CUB = {
    "images.txt": "".join(f"{i} {i % 2}.Bird/{i}.png\n" for i in DIGITS),
    "classes.txt": "0 0.Jay\n1 1.Wren\n",
    "image_class_labels.txt": "".join(f"{i} {i % 2}\n" for i in DIGITS),
    "train_test_split.txt": "".join(f"{i} {int(i < 5)}\n" for i in DIGITS),
    "bounding_boxes.txt": "".join(f"{i} 1.0 2.0 9.0 9.0\n" for i in DIGITS),
    "parts/parts.txt": "1 beak\n",
    "parts/part_locs.txt": "",
}


class Handler(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        pass


def _draw_birds(root: Path) -> Path:
    for name, text in CUB.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    for i in DIGITS:
        path = root / "images" / f"{i % 2}.Bird" / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Pillow.new("RGB", (12, 12), (i, 99, 0)).save(path)
    return root


@pytest.fixture
def web(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The folder of a server that a small CUB is published on; it holds the archive."""
    folder = tmp_path / "web"
    folder.mkdir()
    archive = folder / "CUB_200_2011.tgz"
    with tarfile.open(archive, "w:gz") as tar:
        tar.add(_draw_birds(tmp_path / "birds"), "CUB_200_2011")
    content = archive.read_bytes()
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=str(folder))) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        url = f"http://127.0.0.1:{server.server_address[1]}/{archive.name}"
        published = Archive(url, hashlib.sha256(content).hexdigest(), len(content))
        publication = Publication((published,), "CUB_200_2011")
        monkeypatch.setattr(type(DATASETS["cub200"]), "publication", publication)
        yield folder
        server.shutdown()
        thread.join()


@pytest.fixture(autouse=True)
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with the preset `cub200`, beside a cache of the test's own."""
    folder = tmp_path / "workplace"
    folder.mkdir()
    monkeypatch.chdir(folder)
    monkeypatch.setenv("PROTOMASK_CACHE", str(tmp_path / "cache"))
    for name in ("http_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    _set_dataset("cub200", None)
    return folder


def _set_dataset(name: str, root: str | None, **others: float) -> None:
    params = yaml.safe_load((REPOSITORY / "params.yaml").read_text())
    for preset in ("_base", name):
        text = (REPOSITORY / "conf" / "dataset" / f"{preset}.yaml").read_text()
        params["dataset"] |= yaml.safe_load(text)
    del params["dataset"]["defaults"]
    params["dataset"] |= {"root": root, **others}
    Path("params.yaml").write_text(yaml.safe_dump(params))


def _listed() -> dict[str, str | None]:
    return json.loads(workspace.listing.read_text())


def test_without_a_root_the_data_set_is_fetched_once(
    web: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    scan.run(workspace)
    found = tmp_path / "cache" / "datasets" / "cub200" / "CUB_200_2011"
    assert f"13 files in {found}" in capsys.readouterr().out
    assert "images/1.Bird/1.png" in _listed()

    prepare.run(workspace)
    index = Index.read(workspace.index)
    assert index.class_names == ["Jay", "Wren"]
    assert [len(index.rows(split)) for split in ("train", "val", "test")] == [2, 2, 2]

    (web / "CUB_200_2011.tgz").unlink()
    listed = _listed()
    scan.run(workspace)
    assert _listed() == listed


def test_a_fetched_data_set_and_ones_own_copy_are_the_same(web: Path, tmp_path: Path) -> None:
    """The index and the masks after it are one for both."""
    indices = []
    for root in (None, str(tmp_path / "birds")):
        _set_dataset("cub200", root)
        scan.run(workspace)
        prepare.run(workspace)
        indices.append(workspace.index.read_bytes())
    assert indices[0] == indices[1]


def test_with_a_root_nothing_is_fetched(web: Path, tmp_path: Path) -> None:
    _set_dataset("cub200", str(tmp_path / "nowhere"))
    with pytest.raises(ProtoMaskError, match=r"dataset\.root: .*nowhere does not exist"):
        scan.run(workspace)
    _set_dataset("cub200", str(tmp_path / "birds"))
    scan.run(workspace)
    assert len(_listed()) == 13
    assert not (tmp_path / "cache").exists()


def test_who_cannot_fetch_reads_how_to_do_it_by_hand(web: Path, tmp_path: Path) -> None:
    published = DATASETS["cub200"].publication
    assert published is not None
    [archive] = published.archives
    (web / archive.name).unlink()
    with pytest.raises(ProtoMaskError) as caught:
        scan.run(workspace)
    message = str(caught.value)
    assert "404" in message
    assert f"download {archive.url} (SHA-256 {archive.sha256})" in message
    assert "set dataset.root=FOLDER/CUB_200_2011" in message
    assert not workspace.listing.exists()


@pytest.fixture
def messy(tmp_path: Path, make_photographs: Callable[..., Path]) -> Path:
    """A folder as people have it, with two classes of six photographs."""
    root = make_photographs(tmp_path / "messy", per_class=6)
    (root / "class 0" / "@eaDir").mkdir()
    shutil.copy(root / "class 0" / "000.png", root / "class 0" / "@eaDir" / "thumb.png")
    (root / "class 0" / ".DS_Store").touch()
    (root / "class 0" / "notes.txt").write_text("a crow\n")
    (root / "class 1" / "gone.png").symlink_to("../.git/annex/objects/x")
    shutil.copy(root / "class 0" / "001.png", root / "class 1" / "copy.png")
    _set_dataset("folder", str(root), max_bad_fraction=0.1)
    return root


def test_what_is_not_used_is_said_and_written_down(
    messy: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    scan.run(workspace)
    assert capsys.readouterr().out.splitlines() == [
        f"14 files in {messy}",
        "hidden, and passed over: class 0/.DS_Store",
        "a folder that file servers and systems make, and passed over: class 0/@eaDir",
        "links to what is not there: class 1/gone.png",
    ]
    assert _listed()["class 1/gone.png"] is None
    prepare.run(workspace)
    said = capsys.readouterr().out.splitlines()
    assert said[0].startswith("13 images of 2 classes: ")
    assert said[1].startswith("left out: class 1/gone.png: a link to a file that is not there")
    assert said[2] == "no photograph by its content, and passed over: class 0/notes.txt"
    assert said[-1] == "the same picture under two classes: class 0/001.png = class 1/copy.png"
    assert (workspace.index_folder / "remarks.csv").read_text().splitlines() == [
        "path,remark",
        'class 0/notes.txt,"no photograph by its content, and passed over"',
    ]


def test_a_photograph_changed_in_place_with_its_time_kept_is_listed_anew(messy: Path) -> None:
    """As `exiftool -P -overwrite_original_in_place` leaves it."""
    scan.run(workspace)
    first, photograph = _listed(), messy / "class 0" / "000.png"
    before = photograph.stat()
    content = bytearray(photograph.read_bytes())
    while photograph.stat().st_ctime_ns == before.st_ctime_ns:  # the file system's clock ticks
        with photograph.open("r+b") as file:
            file.write(content[:-1] + b"!")
        os.utime(photograph, ns=(before.st_atime_ns, before.st_mtime_ns))
    after = photograph.stat()
    assert (after.st_size, after.st_mtime_ns, after.st_ino) == (
        before.st_size,
        before.st_mtime_ns,
        before.st_ino,
    )
    scan.run(workspace)
    changed = {path for path, digest in _listed().items() if digest != first[path]}
    assert changed == {"class 0/000.png"}
