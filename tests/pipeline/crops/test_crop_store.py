"""The crop store: what was cut is read in any order, and damage or another's crops are refused."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image as Pillow
from settings import crop_settings

from pipeline.crops import writing as module
from pipeline.crops.extraction import cut_as_stored, extract_crops, whole_image
from pipeline.crops.loading import load_batches
from pipeline.crops.settings import NO_MASK
from pipeline.crops.store import CropStore
from pipeline.crops.writing import write_crops
from pipeline.datasets.image_file import read_image
from pipeline.datasets.index import ImageFiles
from pipeline.errors import ProtoMaskError
from pipeline.masks.masks import Masks
from pipeline.masks.segmenters.patches import Patches
from pipeline.masks.store import MaskStore, write_store

SETTINGS = crop_settings(side=20, per_image=3)


class NamedParts(Patches):
    @property
    def part_names(self) -> dict[int, str]:
        return {5: "wing"}


class Made:
    """A folder of photographs, their masks and their crops."""

    def __init__(self, folder: Path, image_files: ImageFiles, root: Path) -> None:
        self.root, self.image_files = root, image_files
        segmenter = NamedParts(version=1, grid=2)
        pixels = [read_image(root / path) for path in image_files.table["path"]]
        found = segmenter.segment(pixels)
        height, width = pixels[1].shape[:2]
        found[1] = Masks.of(height, width, [], 1)
        found = [replace(its, parts=np.arange(5, 5 + len(its), dtype=np.int32)) for its in found]
        write_store(folder / "masks.zarr", image_files, segmenter, found)
        self.masks = MaskStore(folder / "masks.zarr")
        self.path = folder / "crops.zarr"

    def write(self, path: Path | None = None, **options: int) -> list[str]:
        where = path or self.path
        return write_crops(where, self.image_files, self.root, self.masks, SETTINGS, **options)


@pytest.fixture(scope="module")
def made(
    tmp_path_factory: pytest.TempPathFactory,
    make_photographs: Callable[..., Path],
    image_files_in: Callable[[Path], ImageFiles],
) -> Made:
    folder = tmp_path_factory.mktemp("made")
    root = make_photographs(folder / "root", per_class=5)
    Pillow.new("RGB", (9, 33), "red").save(root / "class 1" / "tall.png")
    made = Made(folder, image_files_in(root), root)
    assert made.write() == [image_files_in(root).ids[1]]
    return made


@pytest.fixture
def copied(made: Made, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made.path, tmp_path / "crops.zarr"))


def test_the_store_holds_what_is_extracted(made: Made) -> None:
    store = CropStore(made.path)
    assert len(store) == 11
    for image in np.random.default_rng(0).permutation(11).tolist():
        photograph = read_image(made.root / made.image_files.table["path"][image])
        expected = extract_crops(photograph, made.masks.masks(image), SETTINGS)
        assert np.array_equal(store.crops([image])[0], expected.pixels)
        assert np.array_equal(store.inside(image), expected.inside)
        assert np.array_equal(store.boxes[image], expected.boxes)
        assert np.array_equal(store.masks[image], expected.masks)
        assert np.array_equal(store.parts[image], expected.parts)
        assert np.array_equal(store.valid[image], expected.valid)


def test_whole_images(made: Made) -> None:
    """Resized by Pillow, with a box over all of it and no mask, and without one that is missing."""
    store = CropStore(made.path)
    whole = store.whole()
    assert len(whole) == 11 and whole.valid.tolist() == [[True]] * 11
    assert whole.masks.tolist() == whole.parts.tolist() == [[NO_MASK]] * 11
    assert whole.cut_along.tolist() == store.masks.tolist()
    for image in (10, 1, 4):
        photograph = read_image(made.root / made.image_files.table["path"][image])
        height, width = photograph.shape[:2]
        resized = Pillow.fromarray(photograph).resize((20, 20), Pillow.Resampling.BILINEAR)
        assert np.array_equal(whole.crops([image])[0, 0], np.asarray(resized))
        assert whole.boxes[image].tolist() == [[0, 0, width, height]]
        assert whole.inside(image).shape == (1, 20, 20) and whole.inside(image).all()
    # The tall photograph, 9 pixels wide, is the last of its class.
    assert whole.boxes[10].tolist() == [[0, 0, 9, 33]]
    # The store itself is as it was.
    assert store.valid.shape == (11, 3) and store.crops([0]).shape == (1, 3, 20, 20, 3)


def test_whole_images_of_any_background_and_their_features_are_known_by_another_name(
    made: Made,
) -> None:
    store = CropStore(made.path)
    assert store.whole().settings.background == "original"
    assert store.whole().about != store.about


def test_a_photograph_is_cut_as_those_of_the_store_were(made: Made) -> None:
    store, image = CropStore(made.path), 3
    photograph = read_image(made.root / made.image_files.table["path"][image])
    masks = made.masks.masks(image)
    for seen in (store, store.whole()):
        crops = cut_as_stored(seen, photograph, masks)
        assert np.array_equal(crops.pixels, seen.crops([image])[0])
        assert np.array_equal(crops.inside, seen.inside(image))
        assert np.array_equal(crops.boxes, seen.boxes[image])
        assert np.array_equal(crops.masks, seen.masks[image])
        assert np.array_equal(crops.valid, seen.valid[image])


def test_batches_of_whole_images(made: Made) -> None:
    whole, rows = CropStore(made.path).whole(), np.array([9, 2, 4])
    first, second = load_batches(whole, rows, 2, torch.device("cpu"))
    assert first.crops_BKSS3.shape == (2, 1, 20, 20, 3) and first.valid_BK.all()
    assert np.array_equal(second.crops_BKSS3.numpy(), whole.crops([4]))


def test_an_image_without_masks(made: Made) -> None:
    store = CropStore(made.path)
    assert store.masks[1].tolist() == [NO_MASK] * 3
    assert store.valid[1].tolist() == [True, False, False]


def test_crops_know_the_parts_and_their_names(made: Made) -> None:
    store = CropStore(made.path)
    assert store.parts[0].tolist() == [5, 6, 7]
    assert store.parts[1].tolist() == [-1, -1, -1]
    assert store.part_names == {5: "wing"}


def test_images_come_in_the_order_asked_for(made: Made) -> None:
    store = CropStore(made.path)
    order = [7, 0, 7, 10, 3]
    together = store.crops(order)
    assert together.shape == (5, 3, 20, 20, 3)
    for place, image in enumerate(order):
        assert np.array_equal(together[place], store.crops([image])[0])
    assert store.crops(np.array([], np.int64)).shape == (0, 3, 20, 20, 3)


def test_batches(made: Made) -> None:
    store, rows = CropStore(made.path), np.array([9, 2, 4, 1, 0])
    batches = list(load_batches(store, rows, 2, torch.device("cpu")))
    assert [batch.rows.tolist() for batch in batches] == [[9, 2], [4, 1], [0]]
    for batch in batches:
        assert np.array_equal(batch.crops_BKSS3.numpy(), store.crops(batch.rows))
        assert np.array_equal(batch.valid_BK.numpy(), store.valid[batch.rows])
    assert list(load_batches(store, rows[:0], 2, torch.device("cpu"))) == []


@pytest.mark.parametrize("per_chunk", [4, 11, 128])
def test_chunks(
    made: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, per_chunk: int
) -> None:
    """11 images in chunks of 4, 4 and 3, in one that is just full, and in one that is not."""
    monkeypatch.setattr(module, "IMAGES_PER_CHUNK", per_chunk)
    made.write(tmp_path / "s")
    store, whole = CropStore(tmp_path / "s"), CropStore(made.path)
    for image in (3, 4, 10, 0, 7, 8):
        assert np.array_equal(store.crops([image]), whole.crops([image]))
        assert np.array_equal(store.inside(image), whole.inside(image))
    chunks = [file for file in (tmp_path / "s" / "crops" / "c").rglob("*") if file.is_file()]
    assert len(chunks) == -(-11 // per_chunk)


def test_over_the_chunk_boundary(
    tmp_path: Path,
    make_photographs: Callable[..., Path],
    image_files_in: Callable[[Path], ImageFiles],
) -> None:
    root = make_photographs(tmp_path / "root", per_class=65, width=8, height=6)  # 130 > 128
    made = Made(tmp_path, image_files_in(root), root)
    made.write()
    store = CropStore(made.path)
    for image in (127, 128, 129, 0):
        photograph = read_image(root / made.image_files.table["path"][image])
        expected = extract_crops(photograph, made.masks.masks(image), SETTINGS)
        assert np.array_equal(store.crops([image])[0], expected.pixels)
        expected = whole_image(photograph, 1, SETTINGS.side)
        assert np.array_equal(store.whole().crops([image])[0], expected.pixels)


def test_black_photographs(
    tmp_path: Path,
    make_photographs: Callable[..., Path],
    image_files_in: Callable[[Path], ImageFiles],
) -> None:
    """Zarr leaves out a chunk of zeros unless told not to."""
    root = make_photographs(tmp_path / "root", per_class=2)
    for number, path in enumerate(sorted(root.rglob("*.png"))):
        Pillow.new("RGB", (20 + number, 20)).save(path)
    made = Made(tmp_path, image_files_in(root), root)
    made.write()
    store = CropStore(made.path)
    assert not store.crops([0, 1, 2, 3]).any()
    assert not store.whole().crops([0, 1, 2, 3]).any()


def test_any_number_of_threads_writes_the_same_bytes(made: Made, tmp_path: Path) -> None:
    made.write(tmp_path / "s", threads=1)
    for file in made.path.rglob("*"):
        if file.is_file():
            assert (tmp_path / "s" / file.relative_to(made.path)).read_bytes() == file.read_bytes()


CHUNK = Path("crops", "c", "0", "0", "0", "0", "0")
WHOLE = Path("whole", "c", "0", "0", "0", "0", "0")


@pytest.mark.parametrize("chunk", [CHUNK, WHOLE])
def test_a_missing_or_cut_chunk_is_named(copied: Path, chunk: Path) -> None:
    content = (copied / chunk).read_bytes()
    for damaged in (content[:-1], b""):
        (copied / chunk).write_bytes(damaged)
        with pytest.raises(ProtoMaskError, match=rf"{chunk} is missing or cut short"):
            CropStore(copied)
    (copied / chunk).unlink()
    with pytest.raises(ProtoMaskError, match=r"missing or cut short.*dvc repro crops"):
        CropStore(copied)


def test_a_chunk_cut_while_it_is_read(copied: Path) -> None:
    store = CropStore(copied)
    with (copied / CHUNK).open("r+b") as file:
        file.truncate(100)
    with pytest.raises(ProtoMaskError, match="cut short while it was read"):
        store.crops([10])


@pytest.mark.parametrize(
    "name",
    ["zarr.json", "valid/c/0/0", "boxes/c/0/0/0", "masks/c/0/0", "parts/c/0/0", "sizes/c/0/0"],
)
def test_damage_is_refused_in_words(copied: Path, name: str) -> None:
    file = copied / name
    whole = file.read_bytes()
    for content in (b"", b"nonsense", whole[:-3], bytes([*whole[:-6], whole[-6] ^ 1, *whole[-5:]])):
        file.write_bytes(content)
        with pytest.raises(ProtoMaskError, match="no readable crop store"):
            CropStore(copied)


@pytest.mark.parametrize(
    "name",
    [
        "valid/c/0/0",
        "boxes/c/0/0/0",
        "masks/c/0/0",
        "parts/c/0/0",
        "inside/c/0/0/0/0",
        "whole/c/0/0/0/0/0",
        "sizes/c/0/0",
    ],
)
def test_a_missing_file_is_named(copied: Path, name: str) -> None:
    """Zarr would read it as zeros: as if no crop were valid."""
    (copied / name).unlink()
    with pytest.raises(ProtoMaskError, match=f"{name} is missing"):
        CropStore(copied)


def test_damaged_masks_inside_crops_are_refused_in_words(copied: Path) -> None:
    file = next(path for path in (copied / "inside" / "c").rglob("*") if path.is_file())
    whole = bytearray(file.read_bytes())
    for place in range(8, 200, 9):
        whole[place] ^= 1
    file.write_bytes(whole)
    with pytest.raises(ProtoMaskError, match="inside is damaged"):
        for image in range(11):
            CropStore(copied).inside(image)


def test_a_store_of_another_format_is_refused(copied: Path) -> None:
    """Format 1 had no whole images."""
    about = json.loads((copied / "zarr.json").read_text())
    about["attributes"]["format"] = 1
    (copied / "zarr.json").write_text(json.dumps(about))
    with pytest.raises(ProtoMaskError, match=r"format 1, not 4.*dvc repro crops"):
        CropStore(copied)


def test_no_store(tmp_path: Path) -> None:
    with pytest.raises(ProtoMaskError, match=r"no crop store at .*: run `dvc repro crops`"):
        CropStore(tmp_path / "none")
    (tmp_path / "folder").mkdir()
    with pytest.raises(ProtoMaskError, match="no readable crop store"):
        CropStore(tmp_path / "folder")


def test_a_mask_store_is_no_crop_store(made: Made) -> None:
    with pytest.raises(ProtoMaskError, match="no readable crop store"):
        CropStore(made.masks.path)


def test_other_settings_and_images_are_refused_by_name(made: Made) -> None:
    store = CropStore(made.path)
    store.refuse_unless(SETTINGS, made.image_files)
    other = crop_settings(side=24, per_image=3, background="zero")
    with pytest.raises(
        ProtoMaskError, match="side=20 instead of 24, background=original instead of zero"
    ):
        store.refuse_unless(other, made.image_files)
    fewer = ImageFiles("folder", made.image_files.table.iloc[1:])
    with pytest.raises(ProtoMaskError, match="other images"):
        store.refuse_unless(SETTINGS, fewer)


def test_masks_of_other_images_are_refused(made: Made, tmp_path: Path) -> None:
    fewer = ImageFiles("folder", made.image_files.table.iloc[1:])
    with pytest.raises(ProtoMaskError, match="are not the 10 images"):
        write_crops(tmp_path / "s", fewer, made.root, made.masks, SETTINGS)
    assert not (tmp_path / "s").exists()


def test_a_photograph_that_changed_is_named(
    tmp_path: Path,
    make_photographs: Callable[..., Path],
    image_files_in: Callable[[Path], ImageFiles],
) -> None:
    """Or crops of the new one would be kept, and shared, as those of the one that was listed."""
    root = make_photographs(tmp_path / "root")
    made = Made(tmp_path, image_files_in(root), root)
    Pillow.new("RGB", (40, 30)).save(root / "class 0" / "002.png")
    with pytest.raises(ProtoMaskError, match=r"002\.png has changed since it was listed"):
        made.write()
    (root / "class 0" / "002.png").unlink()
    with pytest.raises(ProtoMaskError, match=r"002\.png is in the index but not there"):
        made.write()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["masks.zarr", "root"]
