"""Segmenting a data set: only what is missing, with any number of workers, through any kill."""

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image as Pillow
from settings import felzenszwalb, patches

from pipeline.datasets.index import ImageFiles
from pipeline.errors import ProtoMaskError
from pipeline.masks.masks import Masks
from pipeline.masks.segment import StoredMasks, remarks_on, segment_images
from pipeline.masks.segmenter import Machine, Segmenter, Source
from pipeline.masks.segmenters.patches import Patches
from pipeline.masks.store import MaskStore, write_store

ReadImageFiles = Callable[[Path], ImageFiles]
Make = Callable[..., Path]


def _contents(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def _store(image_files: ImageFiles, segmenter: Segmenter, cache: Path, path: Path) -> Path:
    write_store(path, image_files, segmenter, StoredMasks(image_files, segmenter, cache))
    return path


@pytest.fixture
def segmented(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The sizes of the batches that patches segmented."""
    sizes: list[int] = []
    original = Patches.segment

    def noted(
        self: Patches, images: list[NDArray[np.uint8]], machine: Machine = Machine()
    ) -> list[Masks]:
        sizes.append(len(images))
        return original(self, images, machine)

    monkeypatch.setattr(Patches, "segment", noted)
    return sizes


def test_every_image_once(
    photograph_folder: Path, image_files_in: ReadImageFiles, tmp_path: Path, segmented: list[int]
) -> None:
    image_files = image_files_in(photograph_folder)
    cache = tmp_path / "cache"
    assert segment_images(image_files, photograph_folder, patches(), cache, 1) == 10
    assert segment_images(image_files, photograph_folder, patches(), cache, 1) == 0
    assert sum(segmented) == 10


def test_the_store_holds_what_the_segmenter_finds(
    photograph_folder: Path,
    image_files_in: ReadImageFiles,
    tmp_path: Path,
    same_masks: Callable[[Masks, Masks], bool],
) -> None:
    image_files = image_files_in(photograph_folder)
    segment_images(image_files, photograph_folder, felzenszwalb(), tmp_path / "cache", 1)
    store = MaskStore(_store(image_files, felzenszwalb(), tmp_path / "cache", tmp_path / "store"))
    for number, path in enumerate(image_files.table["path"]):
        pixels = np.asarray(Pillow.open(photograph_folder / path))
        assert same_masks(store.masks(number), felzenszwalb().segment([pixels])[0])


def test_an_added_image_costs_only_itself(
    photograph_folder: Path, image_files_in: ReadImageFiles, tmp_path: Path, segmented: list[int]
) -> None:
    cache = tmp_path / "cache"
    segment_images(image_files_in(photograph_folder), photograph_folder, patches(), cache, 1)
    segmented.clear()
    Pillow.new("RGB", (20, 20), "red").save(photograph_folder / "class 0" / "000a.png")
    assert (
        segment_images(image_files_in(photograph_folder), photograph_folder, patches(), cache, 1)
        == 1
    )
    assert segmented == [1]


def test_a_removed_or_renamed_image_costs_nothing(
    photograph_folder: Path, image_files_in: ReadImageFiles, tmp_path: Path
) -> None:
    cache = tmp_path / "cache"
    segment_images(image_files_in(photograph_folder), photograph_folder, patches(), cache, 1)
    (photograph_folder / "class 0" / "000.png").unlink()
    (photograph_folder / "class 0" / "001.png").rename(photograph_folder / "class 1" / "zz.png")
    image_files = image_files_in(photograph_folder)
    assert segment_images(image_files, photograph_folder, patches(), cache, 1) == 0
    assert len(list(StoredMasks(image_files, patches(), cache))) == 9


def test_two_copies_of_an_image_are_segmented_once(
    photograph_folder: Path, image_files_in: ReadImageFiles, tmp_path: Path
) -> None:
    cache = tmp_path / "cache"
    one = photograph_folder / "class 0" / "000.png"
    (photograph_folder / "class 1" / "copy.png").write_bytes(one.read_bytes())
    image_files = image_files_in(photograph_folder)
    assert segment_images(image_files, photograph_folder, patches(), cache, 1) == 10
    assert len(list(StoredMasks(image_files, patches(), cache))) == 11


def test_an_earlier_segmenter_is_remembered(
    photograph_folder: Path, image_files_in: ReadImageFiles, tmp_path: Path
) -> None:
    image_files, cache = image_files_in(photograph_folder), tmp_path / "cache"
    counts = [
        segment_images(image_files, photograph_folder, patches(grid=grid), cache, 1)
        for grid in (2, 3, 2, 3)
    ]
    assert counts == [10, 10, 0, 0]
    assert [len(masks) for masks in StoredMasks(image_files, patches(grid=3), cache)] == [9] * 10


def test_a_damaged_file_is_made_again(
    tmp_path: Path, make_photographs: Make, image_files_in: ReadImageFiles
) -> None:
    root = make_photographs(tmp_path / "root", per_class=20)  # 40 images: batches of 16, 16, 8
    image_files, cache = image_files_in(root), tmp_path / "cache"
    segment_images(image_files, root, patches(), cache, 1)
    whole = _contents(_store(image_files, patches(), cache, tmp_path / "1"))
    file = sorted(cache.rglob("*.parquet"))[0]
    file.write_bytes(file.read_bytes()[:-9])
    assert segment_images(image_files, root, patches(), cache, 1) in (8, 16)
    assert _contents(_store(image_files, patches(), cache, tmp_path / "2")) == whole


@pytest.mark.parametrize("workers", [1, 2])
def test_a_changed_image_is_named(
    tmp_path: Path, make_photographs: Make, image_files_in: ReadImageFiles, workers: int
) -> None:
    root = make_photographs(tmp_path / "root", per_class=10)
    image_files = image_files_in(root)
    Pillow.new("RGB", (40, 30)).save(root / "class 1" / "003.png")
    with pytest.raises(ProtoMaskError, match=r"class 1/003\.png has changed since it was listed"):
        segment_images(image_files, root, patches(), tmp_path / "cache", workers)
    (root / "class 1" / "003.png").unlink()
    with pytest.raises(ProtoMaskError, match=r"003\.png is in the index but not there"):
        segment_images(image_files, root, patches(), tmp_path / "cache", workers)


def test_what_was_finished_before_an_error_is_kept(
    tmp_path: Path, make_photographs: Make, image_files_in: ReadImageFiles
) -> None:
    root = make_photographs(tmp_path / "root", per_class=20)
    image_files, cache = image_files_in(root), tmp_path / "cache"
    last = root / "class 1" / "019.png"
    content = last.read_bytes()
    last.write_bytes(b"changed")
    with pytest.raises(ProtoMaskError):
        segment_images(image_files, root, patches(), cache, 1)
    last.write_bytes(content)
    assert segment_images(image_files, root, patches(), cache, 1) == 8


def test_any_number_of_workers_writes_the_same_store(
    tmp_path: Path, make_photographs: Make, image_files_in: ReadImageFiles
) -> None:
    root = make_photographs(tmp_path / "root", per_class=20)
    image_files = image_files_in(root)
    stores = []
    for workers in (1, 2):
        cache = tmp_path / f"cache {workers}"
        assert segment_images(image_files, root, felzenszwalb(), cache, workers) == 40
        path = _store(image_files, felzenszwalb(), cache, tmp_path / f"store {workers}")
        stores.append(_contents(path))
    assert stores[0] == stores[1]


def test_how_images_fell_into_batches_does_not_show(
    tmp_path: Path,
    make_photographs: Make,
    image_files_in: ReadImageFiles,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    root = make_photographs(tmp_path / "root", per_class=10)
    image_files = image_files_in(root)
    stores = []
    for size in (1, 3, 100):
        monkeypatch.setattr(Patches, "images_per_batch", size)
        cache = tmp_path / f"cache {size}"
        segment_images(image_files, root, patches(), cache, 1)
        stores.append(_contents(_store(image_files, patches(), cache, tmp_path / f"s{size}")))
    assert stores[0] == stores[1] == stores[2]


RUN = """
import sys
from pathlib import Path
from pipeline.datasets.index import ImageFiles
from pipeline.masks.segmenters.felzenszwalb import Felzenszwalb
from pipeline.masks.segment import StoredMasks, segment_images
from pipeline.masks.store import write_store

if __name__ == "__main__":
    root, cache, store, workers, parameters = sys.argv[1:]
    Felzenszwalb.images_per_batch = 2
    segmenter = Felzenszwalb.model_validate_json(parameters)
    image_files = ImageFiles.read(Path(root).parent / "photographs.parquet")
    print("started", flush=True)
    segment_images(image_files, Path(root), segmenter, Path(cache), int(workers))
    masks = StoredMasks(image_files, segmenter, Path(cache))
    write_store(Path(store), image_files, segmenter, masks)
"""


def _num_files(cache: Path) -> int:
    return len(list(cache.rglob("*.parquet")))


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 2])
def test_a_run_killed_again_and_again_ends_with_the_same_bytes(
    tmp_path: Path, make_photographs: Make, image_files_in: ReadImageFiles, workers: int
) -> None:
    root = make_photographs(tmp_path / "root", per_class=60, width=120, height=90)
    image_files_in(root).write(tmp_path / "photographs.parquet")
    (tmp_path / "run.py").write_text(RUN)

    def start(cache: str, store: str) -> subprocess.Popen[bytes]:
        command = [sys.executable, "run.py", str(root), cache, store, str(workers)]
        command.append(felzenszwalb().model_dump_json())
        return subprocess.Popen(
            command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
            start_new_session=True,
        )  # fmt: skip

    whole = start("cache 1", "store 1")
    assert whole.wait(120) == 0
    lots, finished = random.Random(workers), 0
    for kill in range(1, 11):
        process = start("cache 2", "store 2")
        while _num_files(tmp_path / "cache 2") < 5 * kill and process.poll() is None:
            time.sleep(0.01)
        time.sleep(lots.uniform(0, 0.05))
        assert process.poll() is None, "finished before it could be killed"
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        assert _num_files(tmp_path / "cache 2") >= max(finished, 5 * kill)
        finished = _num_files(tmp_path / "cache 2")
    assert finished < 60
    assert not (tmp_path / "store 2").exists()
    last = start("cache 2", "store 2")
    assert last.wait(120) == 0
    assert _contents(tmp_path / "store 2") == _contents(tmp_path / "store 1")


def test_an_interrupted_write_leaves_no_part(
    photograph_folder: Path,
    image_files_in: ReadImageFiles,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail(self: Path, target: Path) -> Path:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", fail)
        with pytest.raises(OSError, match="No space"):
            segment_images(
                image_files_in(photograph_folder), photograph_folder, patches(), tmp_path / "m", 1
            )
    assert [path for path in (tmp_path / "m").rglob("*") if path.is_file()] == []


class ByName(Patches):
    """Stands for a segmenter that looks masks up by the image's path."""

    def identity(self, source: Source) -> str:
        return f"{source.sha256} {source.name}"


def test_copies_are_two_images_to_a_segmenter_that_goes_by_names(
    photograph_folder: Path, image_files_in: ReadImageFiles, tmp_path: Path
) -> None:
    cache = tmp_path / "cache"
    one = photograph_folder / "class 0" / "000.png"
    (photograph_folder / "class 1" / "copy.png").write_bytes(one.read_bytes())
    image_files = image_files_in(photograph_folder)
    by_name = ByName(version=1, grid=2)
    assert segment_images(image_files, photograph_folder, by_name, cache, 1) == 11
    assert len(list(StoredMasks(image_files, by_name, cache))) == 11
    one.rename(one.with_name("renamed.png"))
    image_files = image_files_in(photograph_folder)
    assert segment_images(image_files, photograph_folder, by_name, cache, 1) == 1


def test_what_has_no_mask_is_said(
    tmp_path: Path, make_photographs: Make, image_files_in: ReadImageFiles
) -> None:
    root = make_photographs(tmp_path / "root")
    for number in range(4):  # too small for boxes of 2 pixels
        Pillow.new("RGB", (2, 2), (number, 0, 0)).save(root / "class 1" / f"00{number}.png")
    image_files = image_files_in(root)
    segment_images(image_files, root, patches(), tmp_path / "cache", 1)
    masks = list(StoredMasks(image_files, patches(), tmp_path / "cache"))
    assert remarks_on(masks, image_files, root, patches(), Machine()) == [
        "16 regions of 4 images are empty or less than 2 pixels wide or high, and give no mask: "
        "'class 1/000.png', 'class 1/001.png', 'class 1/002.png' and 1 more",
        "4 of 10 images have no mask: 'class 1/000.png', 'class 1/001.png', 'class 1/002.png' "
        "and 1 more",
    ]
    first = ImageFiles("folder", image_files.table[:5])
    assert remarks_on(masks[:5], first, root, patches(), Machine()) == []
    small = ImageFiles("folder", image_files.table[5:7])
    with pytest.raises(ProtoMaskError, match="'patches' gives none of the 2 images a mask; 8 regi"):
        remarks_on(masks[5:7], small, root, patches(), Machine())
