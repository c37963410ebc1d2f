"""The mask store: what was written is read, in few files, and any damage is noticed."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from settings import felzenszwalb, patches

from pipeline.datasets.index import ImageFiles
from pipeline.errors import ProtoMaskError
from pipeline.masks.masks import Masks
from pipeline.masks.segmenters.patches import Patches
from pipeline.masks.store import CODEBOOK, FORMAT, MaskStore, write_store

Make = Callable[..., Masks]
Same = Callable[[Masks, Masks], bool]
COUNTS = [5, 0, 9, 1, 0, 0, 3]


def photographs_of(
    number: int, dataset: str = "made up", width: int = 40, height: int = 30
) -> ImageFiles:
    rows = [
        {
            "id": f"image {n:04d}",
            "path": f"{n}.png",
            "sha256": f"{n:064x}",
            "width": width,
            "height": height,
            "held_out": n % 3 == 0,
        }
        for n in range(number)
    ]
    return ImageFiles(dataset, pd.DataFrame(rows))


@pytest.fixture(scope="module")
def masks(make_masks: Make) -> list[Masks]:
    return [make_masks(seed, count=count) for seed, count in enumerate(COUNTS)]


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory, masks: list[Masks]) -> Path:
    path = tmp_path_factory.mktemp("written") / "masks.zarr"
    write_store(path, photographs_of(len(masks)), patches(), masks)
    return path


@pytest.fixture
def copied(written: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(written, tmp_path / "masks.zarr"))


def _files(path: Path) -> list[Path]:
    return sorted(file for file in path.rglob("*") if file.is_file())


def test_what_was_written_is_read_in_any_order(
    written: Path, masks: list[Masks], same_masks: Same
) -> None:
    store = MaskStore(written)
    assert len(store) == len(masks)
    assert store.ids[3] == "image 0003"
    for image in (6, 0, 3, 1, 2, 2, 5, 4):
        assert same_masks(store.masks(image), masks[image]), image


def test_numbers_and_areas(written: Path, masks: list[Masks]) -> None:
    store = MaskStore(written)
    assert store.num_masks().tolist() == [len(found) for found in masks]
    assert store.num_masks().tolist()[1] == 0
    areas = [int(area) for found in masks for area in found.areas]
    assert store.areas().tolist() == areas


def test_levels_and_foreground(written: Path, masks: list[Masks]) -> None:
    store = MaskStore(written)
    assert store.parts().tolist() == [part for found in masks for part in found.parts]
    assert store.levels().tolist() == [level for found in masks for level in found.levels]
    assert store.foreground().tolist() == [is_so for found in masks for is_so in found.foreground]
    assert {*store.levels().tolist()} == {0, 1, 2}
    assert {*store.foreground().tolist()} == {False, True}


class NamedParts(Patches):
    @property
    def part_names(self) -> dict[int, str]:
        return {7: "wing", 12: "crête"}


def test_parts_have_the_segmenters_names(written: Path, tmp_path: Path, masks: list[Masks]) -> None:
    assert MaskStore(written).part_names == {}
    segmenter = NamedParts(version=1, grid=2)
    write_store(tmp_path / "s", photographs_of(len(masks)), segmenter, masks)
    assert MaskStore(tmp_path / "s").part_names == {7: "wing", 12: "crête"}


def test_it_names_what_made_it(written: Path) -> None:
    about = MaskStore(written).about
    assert about["segmenter"] == {
        "name": "patches",
        "version": 1,
        "grid": 2,
    }
    assert about["dataset"] == "made up"
    assert about["images"]["sha256"][2] == f"{2:064x}"
    assert about["held_out"] == 3  # images 0, 3 and 6


def test_the_same_masks_give_the_same_bytes(
    written: Path, masks: list[Masks], tmp_path: Path
) -> None:
    write_store(tmp_path / "again", photographs_of(len(masks)), patches(), iter(masks))
    for file in _files(written):
        assert (tmp_path / "again" / file.relative_to(written)).read_bytes() == file.read_bytes()
    assert len(_files(tmp_path / "again")) == len(_files(written))


def test_a_store_replaces_the_one_that_was_there(copied: Path, make_masks: Make) -> None:
    write_store(copied, photographs_of(2), patches(grid=3), [make_masks(0), make_masks(1)])
    store = MaskStore(copied)
    assert len(store) == 2
    assert store.verify() == []


def test_no_image_has_a_mask(tmp_path: Path, make_masks: Make) -> None:
    write_store(tmp_path / "s", photographs_of(3), patches(), [make_masks(0, count=0)] * 3)
    store = MaskStore(tmp_path / "s")
    assert store.num_masks().tolist() == [0, 0, 0]
    assert store.areas().shape == (0,)
    assert len(store.masks(1)) == 0
    assert store.masks(1).scores.shape == (0, 1)
    assert store.verify() == []


def test_few_files(tmp_path: Path) -> None:
    """At most 10 for 1,000 images, so 6 for 600."""
    found = patches(grid=4).segment([np.zeros((30, 40, 3), np.uint8)])[0]
    write_store(tmp_path / "s", photographs_of(600), patches(grid=4), [found] * 600)
    assert len(_files(tmp_path / "s")) <= 6
    assert MaskStore(tmp_path / "s").num_masks().sum() == 9600


def test_an_undamaged_store_verifies(written: Path) -> None:
    assert MaskStore(written).verify() == []


FILES = ("zarr.json", "counts/zarr.json", "regions/zarr.json", "counts/c/0", "regions/c/0/0")


def test_these_are_its_files(written: Path) -> None:
    assert {file.relative_to(written).as_posix() for file in _files(written)} == set(FILES)


@pytest.mark.parametrize("name", FILES)
@given(place=st.integers(0, 10**9), flip=st.integers(1, 255))
def test_a_changed_byte_is_found_wherever_it_is(
    written: Path, masks: list[Masks], same_masks: Same, name: str, place: int, flip: int
) -> None:
    """By verify at the latest; and what is read until then is right, or refused in words."""
    file = written / name
    whole = file.read_bytes()
    damaged = bytearray(whole)
    damaged[place % len(whole)] ^= flip
    file.write_bytes(damaged)
    try:
        store = MaskStore(written)
        assert [line.split(":")[0] for line in store.verify()] == [name]
        for image in range(len(masks)):
            assert same_masks(store.masks(image), masks[image])
    except ProtoMaskError as error:
        assert "masks.zarr" in str(error)
    finally:
        file.write_bytes(whole)


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("content", [b"", b"{}", b"[]", b'{"zarr_format": 3}'])
def test_a_file_of_something_else(copied: Path, name: str, content: bytes) -> None:
    (copied / name).write_bytes(content)
    try:
        store = MaskStore(copied)
    except ProtoMaskError:
        return
    assert [line.split(":")[0] for line in store.verify()] == [name]
    with pytest.raises(ProtoMaskError, match=r"masks\.zarr"):
        for image in range(len(store)):
            store.masks(image)


@pytest.mark.parametrize("name", FILES)
def test_a_missing_file_is_named(copied: Path, name: str) -> None:
    (copied / name).unlink()
    with pytest.raises(ProtoMaskError, match="masks") as error:
        MaskStore(copied)
    assert name == "zarr.json" or name in str(error.value)


def test_a_file_that_goes_while_the_store_is_open(copied: Path) -> None:
    store = MaskStore(copied)
    (copied / "counts" / "c" / "0").unlink()
    assert store.verify() == ["counts/c/0: missing"]
    with pytest.raises(ProtoMaskError, match="lacks counts/c/0"):
        store.masks(0)


def test_a_file_too_many_is_named(copied: Path) -> None:
    (copied / "counts" / "c" / "1").write_bytes(b"?")
    assert MaskStore(copied).verify() == ["counts/c/1: not part of the store"]


def test_damage_is_named_with_its_file(copied: Path) -> None:
    file = copied / "counts" / "c" / "0"
    file.write_bytes(bytes([file.read_bytes()[0] ^ 1]) + file.read_bytes()[1:])
    assert MaskStore(copied).verify()[0].startswith("counts/c/0: damaged (SHA-256 ")
    with pytest.raises(ProtoMaskError, match=r"counts is damaged .*protomask masks verify"):
        MaskStore(copied).masks(0)


def test_a_store_of_another_format(copied: Path) -> None:
    """A later version's store is called that, not damaged."""
    root = copied / "zarr.json"
    root.write_text(root.read_text().replace(f'"format": {FORMAT}', '"format": 9'))
    assert json.loads(root.read_text())["attributes"]["format"] == 9
    with pytest.raises(ProtoMaskError, match=rf"has format 9 of the mask store; .* {FORMAT}:"):
        MaskStore(copied)


class Learned(Patches):
    def learnt(self) -> bytes:
        return b"all about parts"


@pytest.fixture
def learned(tmp_path: Path, masks: list[Masks]) -> Path:
    segmenter = Learned(version=1, grid=2)
    write_store(tmp_path / "learned", photographs_of(len(masks)), segmenter, masks)
    return tmp_path / "learned"


def test_what_a_segmenter_learned_is_kept_with_its_masks(written: Path, learned: Path) -> None:
    assert (learned / CODEBOOK).read_bytes() == b"all about parts"
    assert MaskStore(learned).codebook() == b"all about parts"
    assert MaskStore(learned).verify() == []
    assert MaskStore(written).codebook() is None


def test_a_store_says_which_images_were_learned_from(
    written: Path, learned: Path, tmp_path: Path, masks: list[Masks]
) -> None:
    assert MaskStore(written).learned_from() is None
    others = len(masks) - 3
    assert (
        MaskStore(learned).learned_from()
        == f"images among the {others} outside the data set's own test split"
    )
    whole = photographs_of(len(masks))
    whole.table["held_out"] = False
    write_store(tmp_path / "whole", whole, Learned(version=1, grid=2), masks)
    said = MaskStore(tmp_path / "whole").learned_from()
    assert said is not None and said.startswith("images of all splits")


def test_a_damaged_codebook_is_named(learned: Path) -> None:
    store = MaskStore(learned)
    (learned / CODEBOOK).write_bytes(b"all about party")
    (damage,) = store.verify()
    assert damage.startswith("codebook.safetensors: damaged (SHA-256 ")
    with pytest.raises(ProtoMaskError, match=r"learned/codebook\.safetensors is damaged: run `dvc"):
        store.codebook()
    (learned / CODEBOOK).unlink()
    assert store.verify() == ["codebook.safetensors: missing"]
    for read in (store.codebook, lambda: MaskStore(learned)):
        with pytest.raises(ProtoMaskError, match=r"lacks codebook\.safetensors"):
            read()


def test_no_store(tmp_path: Path) -> None:
    with pytest.raises(ProtoMaskError, match=r"no mask store at .*: run `dvc repro masks`"):
        MaskStore(tmp_path / "none")
    (tmp_path / "file").touch()
    (tmp_path / "folder").mkdir()
    for name in ("file", "folder"):
        with pytest.raises(ProtoMaskError, match="no readable mask store"):
            MaskStore(tmp_path / name)


def test_other_segmenters_and_images_are_refused_by_name(written: Path) -> None:
    store, image_files = MaskStore(written), photographs_of(len(COUNTS))
    store.refuse_unless(patches(), image_files)
    with pytest.raises(ProtoMaskError, match="'patches' with grid=2 instead of 3: run"):
        store.refuse_unless(patches(grid=3), image_files)
    with pytest.raises(ProtoMaskError, match="name=patches instead of felzenszwalb"):
        store.refuse_unless(felzenszwalb(), image_files)
    with pytest.raises(
        ProtoMaskError, match=r"7 images of 'made up'.* not the 6 images of 'other'"
    ):
        store.refuse_unless(patches(), photographs_of(6, "other"))
    changed = image_files.table.assign(sha256=["f" * 64, *image_files.table["sha256"][1:]])
    with pytest.raises(ProtoMaskError, match="run `dvc repro masks`"):
        store.refuse_other_images(ImageFiles("made up", changed))


def test_a_larger_store_of_real_masks(tmp_path: Path, same_masks: Same) -> None:
    """Masks that cross the 64 kB chunks of `counts`."""
    random = np.random.default_rng(0)
    segmenter = felzenszwalb(scales=(100.0, 300.0), min_area=0.0005)
    found = [
        segmenter.segment([random.integers(0, 256, (90, 120, 3), dtype=np.uint8)])[0]
        for _ in range(8)
    ]
    order = random.integers(0, 8, 40)
    image_files = photographs_of(40, width=120, height=90)
    write_store(tmp_path / "s", image_files, segmenter, [found[n] for n in order])
    store = MaskStore(tmp_path / "s")
    assert sum(sum(map(len, found[n].counts)) for n in order) > 2 * 64 * 1024
    for image in random.permutation(40):
        assert same_masks(store.masks(image), found[order[image]])
