"""The crop store: what was cut is read in any order, and damage or another's crops are refused."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import zarr
from PIL import Image as Pillow
from settings import crop_settings

from pipeline.crops import writing as module
from pipeline.crops.extraction import cut_as_stored, extract_crops
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

SETTINGS = crop_settings(side=20, per_image=3, storage="lossless")


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

    def kept(self, folder: Path, storage: str) -> CropStore:
        """The same crops, kept in another way in files of 4 images."""
        settings = SETTINGS.model_copy(update={"storage": storage})
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(module, "IMAGES_PER_SHARD", 4)
            write_crops(folder / "kept", self.image_files, self.root, self.masks, settings)
        return CropStore(folder / "kept")

    def photograph(self, image: int) -> np.ndarray:
        return read_image(self.root / self.image_files.table["path"][image])


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
        photograph = made.photograph(image)
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
        photograph = made.photograph(image)
        height, width = photograph.shape[:2]
        resized = Pillow.fromarray(photograph).resize((20, 20), Pillow.Resampling.BILINEAR)
        assert np.array_equal(whole.crops([image])[0, 0], np.asarray(resized))
        assert whole.boxes[image].tolist() == [[0, 0, width, height]]
        assert whole.inside(image).shape == (1, 20, 20) and whole.inside(image).all()
    # The tall photograph, 9 pixels wide, is the last of its class.
    assert whole.boxes[10].tolist() == [[0, 0, 9, 33]]
    # The store itself is as it was.
    assert store.valid.shape == (11, 3) and store.crops([0]).shape == (1, 3, 20, 20, 3)


@pytest.mark.parametrize("storage", ["jpeg", "lossless"])
def test_zarr_reads_the_same(made: Made, tmp_path: Path, storage: str) -> None:
    """The files are those of an ordinary sharded array, over the boundary of a file, too."""
    store = made.kept(tmp_path, storage)
    group = zarr.open_group(store.path, mode="r")
    assert np.array_equal(store.crops(range(11)), group["crops"][:])
    assert np.array_equal(store.whole().crops(range(11)), group["whole"][:])
    for image in range(11):
        packed = np.packbits(store.inside(image), axis=-1)
        assert np.array_equal(packed, group["inside"][image])


def test_jpeg_is_near_what_is_extracted(made: Made, tmp_path: Path) -> None:
    """All but the pixels is exact, and missing crops are black to the bit."""
    jpeg, exact = made.kept(tmp_path, "jpeg"), CropStore(made.path)
    for kept, cut in ((jpeg, exact), (jpeg.whole(), exact.whole())):
        found, expected = kept.crops(range(11)), cut.crops(range(11))
        error = (found.astype(float) - expected)[cut.valid]
        assert 0 < np.sqrt((error**2).mean()) < 3
        assert not found[~cut.valid].any()
        for name in ("valid", "boxes", "masks", "sizes"):
            assert np.array_equal(getattr(kept, name), getattr(cut, name))
        assert all(np.array_equal(kept.inside(image), cut.inside(image)) for image in range(11))


def test_whole_images_of_any_background_and_their_features_are_known_by_another_name(
    made: Made,
) -> None:
    store = CropStore(made.path)
    assert store.whole().settings.background == "original"
    assert store.whole().pixels_from != store.pixels_from


def test_features_of_whole_images_are_the_same_by_any_masks(made: Made, tmp_path: Path) -> None:
    """So models that see whole images embed them once for all segmenters and ways to cut."""
    settings = SETTINGS.model_copy(update={"per_image": 2, "background": "zero"})
    write_crops(tmp_path / "other", made.image_files, made.root, made.masks, settings)
    stores = CropStore(made.path), CropStore(tmp_path / "other")
    assert stores[0].pixels_from != stores[1].pixels_from
    one, two = (store.whole() for store in stores)
    assert one.pixels_from == two.pixels_from
    assert np.array_equal(one.crops(range(len(one))), two.crops(range(len(two))))
    assert made.kept(tmp_path, "jpeg").whole().pixels_from != one.pixels_from


@pytest.mark.parametrize("storage", ["jpeg", "lossless"])
def test_a_photograph_is_cut_as_those_of_the_store_were(
    made: Made, tmp_path: Path, storage: str
) -> None:
    store, image = made.kept(tmp_path, storage), 3
    photograph = made.photograph(image)
    for seen, masks in ((store, made.masks.masks(image)), (store.whole(), None)):
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


@pytest.mark.parametrize("per_file", [4, 11, 128])
def test_files(made: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, per_file: int) -> None:
    """11 images in files of 4, 4 and 3, in one that is just full, and in one that is not."""
    monkeypatch.setattr(module, "IMAGES_PER_SHARD", per_file)
    made.write(tmp_path / "s")
    store, whole = CropStore(tmp_path / "s"), CropStore(made.path)
    for image in (3, 4, 10, 0, 7, 8):
        assert np.array_equal(store.crops([image]), whole.crops([image]))
        assert np.array_equal(store.inside(image), whole.inside(image))
    files = [file for file in (tmp_path / "s" / "crops" / "c").rglob("*") if file.is_file()]
    assert len(files) == -(-11 // per_file)


def test_black_photographs(
    tmp_path: Path,
    make_photographs: Callable[..., Path],
    image_files_in: Callable[[Path], ImageFiles],
) -> None:
    """Zarr leaves out a file of zeros unless told not to."""
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


CROPS = Path("crops", "c", "0", "0", "0", "0", "0")
INSIDE = Path("inside", "c", "0", "0", "0", "0")
WHOLE = Path("whole", "c", "0", "0", "0", "0", "0")


@pytest.mark.parametrize("file", [CROPS, INSIDE, WHOLE])
def test_a_missing_or_cut_file_is_named(copied: Path, file: Path) -> None:
    content = (copied / file).read_bytes()
    for damaged in (content[:-1], content[:100], b""):
        (copied / file).write_bytes(damaged)
        with pytest.raises(ProtoMaskError, match=rf"{file} is cut short or damaged"):
            CropStore(copied)
    (copied / file).unlink()
    with pytest.raises(ProtoMaskError, match=rf"{file} is missing.*dvc repro crops"):
        CropStore(copied)


def test_a_file_cut_while_it_is_read(copied: Path) -> None:
    store = CropStore(copied)
    with (copied / CROPS).open("r+b") as file:
        file.truncate(100)
    with pytest.raises(ProtoMaskError, match=rf"{CROPS} is damaged.*dvc repro crops"):
        store.crops([10])


@pytest.mark.parametrize("file", [CROPS, INSIDE, WHOLE])
def test_no_flipped_bit_is_overlooked(copied: Path, file: Path) -> None:
    """Every 97th byte of a file, in an image's chunks, their CRCs and the index."""
    content = bytearray((copied / file).read_bytes())
    for place in range(0, len(content), 97):
        content[place] ^= 1
        (copied / file).write_bytes(content)
        with pytest.raises(ProtoMaskError, match=rf"{file} is (cut short or )?damaged"):
            _read_all(CropStore(copied))
        content[place] ^= 1
    (copied / file).write_bytes(content)
    _read_all(CropStore(copied))


def _read_all(store: CropStore) -> None:
    store.crops(range(len(store)))
    store.whole().crops(range(len(store)))
    for image in range(len(store)):
        store.inside(image)


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


def test_a_store_of_another_format_is_refused(copied: Path) -> None:
    """Format 1 had no whole images."""
    about = json.loads((copied / "zarr.json").read_text())
    about["attributes"]["format"] = 1
    (copied / "zarr.json").write_text(json.dumps(about))
    with pytest.raises(ProtoMaskError, match=r"format 1, not 5.*dvc repro crops"):
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
