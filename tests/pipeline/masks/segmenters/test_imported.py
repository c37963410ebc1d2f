"""Imported masks: whose they are, that nothing is lost, and what is refused."""

import json
import shutil
import subprocess
import unicodedata
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from pydantic import ValidationError
from settings import felzenszwalb, imported, patches

from pipeline.datasets.index import ImageFiles
from pipeline.datasets.listing import list_files
from pipeline.datasets.prepare import build_index
from pipeline.errors import ProtoMaskError
from pipeline.files import sha256
from pipeline.masks.coco import write_coco
from pipeline.masks.masks import Masks, Region
from pipeline.masks.png import Reading
from pipeline.masks.segment import StoredMasks, named, segment_images
from pipeline.masks.segmenter import Machine, Segmenter, Source
from pipeline.masks.segmenters.imported import Imported, _meanings, content_hash
from pipeline.masks.store import MaskStore, write_store

HEIGHT, WIDTH = 8, 12
Same = Callable[[Masks, Masks], bool]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A data set's folder with two photographs of one name and one of another."""
    for number, name in enumerate(("crow/001.png", "wren/001.png", "wren/002.png")):
        path = tmp_path / "birds" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((HEIGHT, WIDTH, 3), number, np.uint8)).save(path)
    return tmp_path / "birds"


def _source(root: Path, name: str) -> Source:
    return Source(root, name, sha256(root / name))


def _import(masks: Path, root: Path, *names: str, png: Reading = "mask") -> list[Masks]:
    """Imports the masks of some photographs, by default of all."""
    names = names or tuple(sorted(str(path.relative_to(root)) for path in root.glob("*/*")))
    segmenter = imported(sha256=content_hash(masks), png=png)
    return segmenter.segment_sources([_source(root, name) for name in names], Machine(masks=masks))


def _coco(folder: Path, names: Sequence[str], height: int = HEIGHT, width: int = WIDTH) -> Path:
    """Writes a file in which image number n has one mask, n + 2 pixels wide and 2 high."""
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for number, name in enumerate(names):
        images.append({"id": number, "file_name": name, "height": height, "width": width})
        x1 = number + 2
        polygon = [0, 0, x1, 0, x1, 2, 0, 2]
        annotations.append({"id": number, "image_id": number, "segmentation": [polygon]})
    path = folder / "masks.json"
    path.write_text(json.dumps({"images": images, "annotations": annotations}))
    return path


def _widths(found: list[Masks]) -> list[int]:
    """Returns the width of each image's one mask, 0 where it has none."""
    return [int(masks.boxes[0, 2]) if len(masks) else 0 for masks in found]


@pytest.mark.parametrize(
    "names",
    [
        ["crow/001.png", "wren/001.png", "wren/002.png"],
        ["/data/birds/crow/001.png", "birds/wren/001.png", "002.png"],
        [r"D:\birds\crow\001.png", "./wren/001.png", "wren/002.png"],
    ],
)
def test_names_are_paths_or_their_ends(tmp_path: Path, root: Path, names: list[str]) -> None:
    assert _widths(_import(_coco(tmp_path, names), root)) == [2, 3, 4]


def test_an_image_that_is_not_mentioned_has_no_masks(tmp_path: Path, root: Path) -> None:
    found = _import(_coco(tmp_path, ["wren/001.png"]), root)
    assert _widths(found) == [0, 2, 0]
    assert [(masks.height, masks.width) for masks in found] == [(HEIGHT, WIDTH)] * 3


def test_images_that_are_not_in_the_data_set_do_no_harm(tmp_path: Path, root: Path) -> None:
    names = ["owl/001.png", "wren/002.png", "wren/003.png"]
    assert _widths(_import(_coco(tmp_path, names), root)) == [0, 0, 3]


def test_a_batch_without_a_match_is_fine_if_another_image_has_one(
    tmp_path: Path, root: Path
) -> None:
    masks = _coco(tmp_path, ["wren/002.png"])
    assert _widths(_import(masks, root, "crow/001.png", "wren/001.png")) == [0, 0]


def test_masks_of_another_data_set_are_refused(tmp_path: Path, root: Path) -> None:
    masks = _coco(tmp_path, ["images/001.png", "images/002.png"])
    with pytest.raises(ProtoMaskError) as error:
        _import(masks, root)
    for said in (str(masks), "'images/001.png'", str(root), "'crow/001.png'"):
        assert said in str(error.value)


def test_a_name_that_two_photographs_have_is_refused(tmp_path: Path, root: Path) -> None:
    masks = _coco(tmp_path, ["001.png", "002.png"])
    assert _widths(_import(masks, root, "wren/002.png")) == [3]
    for name in ("crow/001.png", "wren/001.png"):
        with pytest.raises(ProtoMaskError) as error:
            _import(masks, root, name)
        assert "'001.png' may mean 'crow/001.png' and 'wren/001.png' in" in str(error.value)


def test_two_names_that_a_photograph_may_have_are_refused(tmp_path: Path, root: Path) -> None:
    masks = _coco(tmp_path, ["002.png", "birds/wren/002.png"])
    with pytest.raises(ProtoMaskError, match=r"'002\.png' and 'birds/wren/002\.png' may mean"):
        _import(masks, root, "wren/002.png")


def test_a_whole_path_is_never_ambiguous(tmp_path: Path, root: Path) -> None:
    """Even where one photograph's path is the end of another's."""
    (root / "crow" / "wren").mkdir()
    shutil.copy(root / "crow" / "001.png", root / "crow" / "wren" / "002.png")
    masks = _coco(tmp_path, ["wren/002.png", "crow/wren/002.png", "001.png"])
    assert _widths(_import(masks, root, "wren/002.png", "crow/wren/002.png")) == [2, 3]


def test_a_backslash_may_be_part_of_a_name(tmp_path: Path, root: Path) -> None:
    shutil.copy(root / "wren" / "002.png", root / "wren" / r"0\3.png")
    masks = _coco(tmp_path, [r"wren/0\3.png"])
    assert _widths(_import(masks, root, r"wren/0\3.png")) == [2]


def test_another_size_is_refused(tmp_path: Path, root: Path) -> None:
    masks = _coco(tmp_path, ["wren/002.png"], HEIGHT + 1, WIDTH)
    with pytest.raises(ProtoMaskError, match=r"wren/002\.png has 12×9 pixels there, .* 12×8"):
        _import(masks, root)


def test_sizes_are_of_upright_photographs(tmp_path: Path, root: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90°
    Image.new("RGB", (WIDTH, HEIGHT)).save(root / "wren" / "003.jpg", exif=exif)
    upright = _coco(tmp_path, ["003.jpg"], height=WIDTH, width=HEIGHT)
    assert _widths(_import(upright, root, "wren/003.jpg")) == [2]
    with pytest.raises(ProtoMaskError, match=r"003\.jpg has 12×8 pixels there, .* 8×12"):
        _import(_coco(tmp_path, ["003.jpg"]), root, "wren/003.jpg")


def test_a_changed_photograph_is_refused(tmp_path: Path, root: Path) -> None:
    source = _source(root, "wren/002.png")
    Image.new("RGB", (WIDTH, HEIGHT), "red").save(root / "wren" / "002.png")
    masks = _coco(tmp_path, ["wren/002.png"])
    with pytest.raises(ProtoMaskError, match="has changed since it was listed"):
        imported(sha256=content_hash(masks)).segment_sources([source], Machine(masks=masks))


def _png(path: Path, pixels: NDArray[Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, "PNG")


def _block(y0: int, x0: int, y1: int, x1: int) -> NDArray[np.bool_]:
    pixels = np.zeros((HEIGHT, WIDTH), bool)
    pixels[y0:y1, x0:x1] = True
    return pixels


@pytest.mark.parametrize("named", ["wren/002.png", "wren/002"])
def test_a_folder_of_pngs(tmp_path: Path, root: Path, named: str) -> None:
    folder = tmp_path / "masks" / named
    _png(folder / "0.png", _block(1, 2, 4, 6))
    _png(folder / "1.PNG", _block(0, 0, 8, 12))
    _png(folder / "2.png", _block(4, 2, 7, 6))
    (folder / "metadata.csv").write_text("id,area\n")
    assert _remarks(tmp_path / "masks", root, "wren/002.png")[1:] == [
        f"1 files in {tmp_path / 'masks'} are no PNG files: '{named}/metadata.csv'"
    ]
    none, also_none, masks = _import(tmp_path / "masks", root)
    assert len(none) == len(also_none) == 0
    assert masks.boxes.tolist() == [[0, 0, 12, 8], [2, 1, 6, 4], [2, 4, 6, 7]]
    assert masks.areas.tolist() == [96, 12, 12]
    assert masks.scores.tolist() == [[1.0]] * 3
    assert np.array_equal(masks.full(1), _block(1, 2, 4, 6))


def test_an_empty_png_is_no_mask(tmp_path: Path, root: Path) -> None:
    _png(tmp_path / "masks" / "wren" / "002" / "0.png", _block(0, 0, 0, 0))
    (masks,) = _import(tmp_path / "masks", root, "wren/002.png")
    assert (len(masks), masks.dropped) == (0, 1)


def test_one_file_an_image(tmp_path: Path, root: Path) -> None:
    pixels = _block(1, 2, 4, 6).astype(np.uint8)
    pixels[5:8, 2:4] = 2
    for name in ("crow/001.png", "wren/001.png.PNG", "wren/002.PNG"):
        _png(tmp_path / "masks" / name, pixels)
    assert [masks.areas.tolist() for masks in _import(tmp_path / "masks", root)] == [[18]] * 3
    found = _import(tmp_path / "masks", root, png="labels")
    assert [masks.areas.tolist() for masks in found] == [[12, 6]] * 3


def test_a_file_and_a_folder_for_one_image_are_refused(tmp_path: Path, root: Path) -> None:
    shutil.copy(root / "wren" / "002.png", root / "wren" / "003.jpg")
    _png(tmp_path / "masks" / "wren" / "003.png", _block(1, 2, 4, 6))
    _png(tmp_path / "masks" / "wren" / "003" / "0.png", _block(1, 2, 4, 6))
    with pytest.raises(ProtoMaskError, match=r"'wren/003' and 'wren/003\.png' may mean"):
        _import(tmp_path / "masks", root, "wren/003.jpg")


@pytest.mark.parametrize("form", ["NFC", "NFD"])
def test_names_in_other_spellings(tmp_path: Path, root: Path, form: Literal["NFC", "NFD"]) -> None:
    """A Mac writes NFD, an address has %C3%A9 for é, a camera writes .JPG."""
    names = [unicodedata.normalize(form, f"wren/é{number}.jpg") for number in range(3)]
    for name in names:
        shutil.copy(root / "wren" / "001.png", root / name)
    other = unicodedata.normalize("NFD" if form == "NFC" else "NFC", names[0])
    masks = _coco(tmp_path, [other, "%C3%A91.jpg", names[2].replace("jpg", "JPG")])
    assert _widths(_import(masks, root, *names)) == [2, 3, 4]
    for name in (other, "wren/%C3%A91.jpg", names[2].upper()):
        _png(tmp_path / "masks" / name / "0.png", _block(0, 0, 2, 2))
    found = _import(tmp_path / "masks", root, *names)
    assert [masks.areas.tolist() for masks in found] == [[4]] * 3


def test_photographs_that_differ_in_case_are_told_apart(tmp_path: Path, root: Path) -> None:
    shutil.copy(root / "wren" / "002.png", root / "wren" / "002.PNG")
    names = ["wren/002.png", "wren/002.PNG"]
    assert _widths(_import(_coco(tmp_path, names), root, *names)) == [2, 3]
    assert _widths(_import(_coco(tmp_path, ["002.PNG"]), root, *names)) == [0, 2]
    with pytest.raises(
        ProtoMaskError, match=r"'002\.Png' may mean 'wren/002\.PNG' and 'wren/002\.p"
    ):
        _import(_coco(tmp_path, ["002.Png"]), root, *names)


def _remarks(masks: Path, root: Path, *names: str) -> list[str]:
    """Returns what is said where the index has some photographs."""
    sources = [_source(root, name) for name in names]
    segmenter = imported(sha256=content_hash(masks))
    return segmenter.remarks(sources, Machine(masks=masks))


def test_where_everything_is_used_only_the_layout_is_said(tmp_path: Path, root: Path) -> None:
    masks = _coco(tmp_path, ["crow/001.png"])
    (said,) = _remarks(masks, root, "crow/001.png", "wren/001.png")
    assert said == f"{masks} is read as COCO JSON: 1 images"
    _png(tmp_path / "masks" / "crow" / "001" / "0.png", _block(0, 0, 2, 2))
    (said,) = _remarks(tmp_path / "masks", root, "crow/001.png")
    assert said == f"{tmp_path}/masks is read as PNG files named after photographs: 1 PNG files"


def test_names_without_an_image_are_said(tmp_path: Path, root: Path) -> None:
    names = ["wren/002.png", "002.PNG", "crow/001.png", "owl/1.png", "owl/2.png", "3.png", "4.png"]
    masks = _coco(tmp_path, names)
    assert _remarks(masks, root, "wren/001.png", "wren/002.png")[1:] == [
        f"1 of 7 images in {masks} are of photographs for which others there are named more "
        "exactly: '002.PNG'",
        f"1 of 7 images in {masks} are of photographs that the index leaves out: 'crow/001.png'",
        f"4 of 7 images in {masks} are of no photograph in {root}: 'owl/1.png', 'owl/2.png', "
        "'3.png' and 1 more",
    ]


def test_files_without_an_image_are_said(tmp_path: Path, root: Path) -> None:
    masks = tmp_path / "masks"
    for name in ("wren/002/0.png", "wren/002/1.png", "crow/001.png", "owl/1/0.png", "owl/1/1.png"):
        _png(masks / name, _block(0, 0, 2, 2))
    assert _remarks(masks, root, "wren/001.png", "wren/002.png")[1:] == [
        f"1 of 5 PNG files in {masks} are of photographs that the index leaves out: 'crow/001.png'",
        f"2 of 5 PNG files in {masks} are of no photograph in {root}: 'owl/1/0.png', 'owl/1/1.png'",
    ]


def test_annotations_without_a_mask_are_said(tmp_path: Path, root: Path) -> None:
    masks = _coco(tmp_path, ["wren/002.png"])
    content = json.loads(masks.read_text())
    content["annotations"].append({"id": 9, "image_id": 0, "segmentation": []})
    masks.write_text(json.dumps(content))
    assert _widths(_import(masks, root, "wren/002.png")) == [2]
    _, said = _remarks(masks, root, "wren/002.png")
    assert said.startswith(f"1 annotations in {masks} have no mask")


def test_of_masks_on_another_machine_nothing_is_said(tmp_path: Path, root: Path) -> None:
    sources = [_source(root, "wren/002.png")]
    for place in (None, tmp_path / "gone.json"):
        assert imported(sha256="0" * 64).remarks(sources, Machine(masks=place)) == []


def test_a_folder_that_two_photographs_may_mean_is_refused(tmp_path: Path, root: Path) -> None:
    shutil.copy(root / "crow" / "001.png", root / "wren" / "002.jpg")
    (root / "wren" / "001.txt").touch()
    for name in ("001", "002"):
        _png(tmp_path / "masks" / "wren" / name / "0.png", _block(0, 0, 2, 2))
    assert len(_import(tmp_path / "masks", root, "wren/001.png")[0]) == 1
    for name in ("wren/002.png", "wren/002.jpg"):
        with pytest.raises(ProtoMaskError, match=r"'wren/002' may mean .*2\.jpg' and .*2\.png'"):
            _import(tmp_path / "masks", root, name)
    _png(tmp_path / "masks" / "wren" / "002.png" / "0.png", _block(0, 0, 3, 3))
    (masks,) = _import(tmp_path / "masks", root, "wren/002.png")
    assert masks.areas.tolist() == [9]


def test_a_png_that_two_photographs_may_mean_is_refused(tmp_path: Path, root: Path) -> None:
    _png(tmp_path / "masks" / "001.png", _block(0, 0, 2, 2))
    with pytest.raises(ProtoMaskError, match=r"'001\.png' may mean 'crow/001\.png' and 'wren/001"):
        _import(tmp_path / "masks", root)


@pytest.mark.parametrize("file", ["owl/001/0.png", "owl/001.png"])
def test_a_folder_for_another_data_set_is_refused(tmp_path: Path, root: Path, file: str) -> None:
    _png(tmp_path / "masks" / file, _block(0, 0, 2, 2))
    with pytest.raises(ProtoMaskError, match=f"masks of no photograph in .* names {file!r}"):
        _import(tmp_path / "masks", root)


def test_a_png_of_another_size_is_refused(tmp_path: Path, root: Path) -> None:
    _png(tmp_path / "masks" / "wren" / "002" / "0.png", np.ones((WIDTH, HEIGHT), bool))
    with pytest.raises(ProtoMaskError, match=r"wren/002/0\.png has 8×12 pixels, .* 12×8"):
        _import(tmp_path / "masks", root)


@pytest.mark.parametrize("damage", ["empty", "truncated", "JPEG"])
def test_a_damaged_png_is_refused(tmp_path: Path, root: Path, damage: str) -> None:
    file = tmp_path / "masks" / "wren" / "002" / "0.png"
    _png(file, _block(1, 2, 4, 6))
    if damage == "JPEG":
        Image.new("L", (WIDTH, HEIGHT)).save(file, "JPEG")
    else:
        content = file.read_bytes()
        file.write_bytes(content[: len(content) // 2] if damage == "truncated" else b"")
    with pytest.raises(ProtoMaskError, match=r"002/0\.png is no PNG file, or is damaged"):
        _import(tmp_path / "masks", root)


def test_a_folders_hash_is_that_of_what_sha256sum_prints(tmp_path: Path) -> None:
    folder = tmp_path / "masks"
    for name in ("b/x/0.png", "a/y/1.PNG", "a/y/0.png"):
        _png(folder / name, np.full((2, len(name)), 255, np.uint8))
    before = content_hash(folder)
    command = "sha256sum a/y/0.png a/y/1.PNG b/x/0.png | sha256sum"
    said = subprocess.run(command, shell=True, cwd=folder, capture_output=True, check=True).stdout
    assert before == said.decode().split()[0]
    for name in ("notes.txt", ".hidden.png", "a/y/metadata.csv"):
        (folder / name).write_text("no mask")
    assert content_hash(folder) == before
    (folder / "a" / "y").rename(folder / "a" / "z")
    assert content_hash(folder) != before


def test_a_files_hash_is_that_of_its_bytes(tmp_path: Path) -> None:
    (tmp_path / "masks.json").write_bytes(b"abc")
    # FIPS 180-2, appendix B.1.
    expected = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert content_hash(tmp_path / "masks.json") == expected


def test_nothing_to_import(tmp_path: Path) -> None:
    with pytest.raises(ProtoMaskError, match=r"no masks at .*nothing\.json: name a COCO JSON"):
        content_hash(tmp_path / "nothing.json")
    with pytest.raises(ProtoMaskError, match=r"holds no masks: .* The PNG masks of class/photo"):
        content_hash(tmp_path)


def test_masks_of_another_hash_are_refused(tmp_path: Path, root: Path) -> None:
    masks = _coco(tmp_path, ["wren/002.png"])
    segmenter = imported(sha256=content_hash(masks))
    sources = [_source(root, "wren/002.png")]
    segmenter.segment_sources(sources, Machine(masks=masks))
    other = _coco(root, ["wren/002.png", "wren/001.png"])
    with pytest.raises(ProtoMaskError) as error:
        segmenter.segment_sources(sources, Machine(masks=other))
    command = f"-S segmenter.sha256=$(protomask masks hash {other})"
    for said in (str(other), segmenter.sha256[:12], content_hash(other)[:12], command):
        assert said in str(error.value)


def test_the_place_of_the_masks_must_be_named(root: Path) -> None:
    with pytest.raises(
        ProtoMaskError, match=r"runtime\.masks is not set; .*-S runtime\.masks=PATH"
    ):
        imported(sha256="0" * 64).segment_sources([_source(root, "wren/002.png")], Machine())


def test_other_photographs_have_no_masks() -> None:
    with pytest.raises(ProtoMaskError, match="no masks for other photographs than those of"):
        imported(sha256="0" * 64).segment([np.zeros((4, 4, 3), np.uint8)])


@pytest.mark.parametrize("value", [None, "", "abc", "0" * 63, "A" * 64, 12, "0" * 64 + "\n"])
def test_what_is_no_hash_is_refused_with_the_command_to_use(value: object) -> None:
    with pytest.raises(ValidationError) as error:
        imported(value)
    (problem,) = error.value.errors()
    assert problem["loc"] == ("sha256",)
    assert f"is {value!r}, but has to be the hash" in problem["msg"]
    assert "-S segmenter.sha256=$(protomask masks hash PATH)" in problem["msg"]


def test_other_masks_are_another_key() -> None:
    one, other = imported(sha256="0" * 64), imported(sha256="1" * 64)
    assert one.key() != other.key()
    assert Imported(**one.fingerprint()) == one


def _store(
    path: Path, image_files: ImageFiles, root: Path, segmenter: Segmenter, machine: Machine
) -> MaskStore:
    cache = path.with_suffix(".cache")
    segment_images(image_files, root, segmenter, cache, 1, machine)
    write_store(path, image_files, segmenter, StoredMasks(image_files, segmenter, cache))
    return MaskStore(path)


def _there_and_back(store: MaskStore, image_files: ImageFiles, root: Path) -> MaskStore:
    exported = store.path.with_suffix(".json")
    write_coco(exported, store, image_files.table["path"].tolist())
    segmenter = imported(sha256=content_hash(exported))
    path = store.path.with_suffix(".imported")
    return _store(path, image_files, root, segmenter, Machine(masks=exported))


def _assert_same(one: MaskStore, other: MaskStore, same_masks: Same) -> None:
    assert one.ids == other.ids
    assert all(same_masks(one.masks(row), other.masks(row)) for row in range(len(one)))
    for part in ("counts", "regions"):
        files = [sorted((store.path / part / "c").rglob("*")) for store in (one, other)]
        contents = [[file.read_bytes() for file in found if file.is_file()] for found in files]
        assert contents[0] == contents[1] != []


@pytest.mark.parametrize("segmenter", [patches(grid=5), felzenszwalb(min_area=0.0)])
def test_a_store_there_and_back(
    photograph_folder: Path,
    image_files_in: Callable[[Path], ImageFiles],
    tmp_path: Path,
    same_masks: Same,
    segmenter: Segmenter,
) -> None:
    image_files = image_files_in(photograph_folder)
    store = _store(tmp_path / "store", image_files, photograph_folder, segmenter, Machine())
    assert store.num_masks().min() > 0
    _assert_same(store, _there_and_back(store, image_files, photograph_folder), same_masks)


@pytest.mark.parametrize("seed", range(6))
def test_random_masks_there_and_back(
    tmp_path: Path,
    make_photographs: Callable[..., Path],
    image_files_in: Callable[[Path], ImageFiles],
    same_masks: Same,
    seed: int,
) -> None:
    """Any shape, with ties, holes and edges, any score that a float32 can be; also no masks."""
    random = np.random.default_rng(seed)
    height, width = random.integers(2, 70, 2).tolist()
    root = make_photographs(tmp_path / "photographs", height=height + 4, width=width + 4)
    image_files = image_files_in(root)
    masks = [_random_masks(random, height + 4, width + 4) for _ in range(len(image_files))]
    write_store(tmp_path / "store", image_files, patches(), masks)
    store = MaskStore(tmp_path / "store")
    assert store.num_masks().sum() > 0
    _assert_same(store, _there_and_back(store, image_files, root), same_masks)


def _random_masks(random: np.random.Generator, height: int, width: int) -> Masks:
    regions = []
    for _ in range(random.integers(0, 30)):
        y0, x0 = random.integers(0, [height, width])
        rows, columns = random.integers(1, [height - y0 + 1, width - x0 + 1])
        if random.random() < 0.3:  # all rows, so that run lengths reach from column to column
            y0, rows = 0, height
        bitmap = random.random((rows, columns)) < random.choice([0.05, 0.5, 0.95, 1.0])
        score = random.integers(0, 0x7F800000, dtype=np.uint32).view(np.float32)
        scores = (float(score) * random.choice([-1, 1]),)
        part, level = random.integers([-1, 0], 1000).tolist()
        foreground = bool(random.random() < 0.5)
        regions.append(Region(int(x0), int(y0), bitmap, scores, part, level, foreground))
    return Masks.of(height, width, regions, 1)


def test_another_photograph_takes_a_name_away_and_gives_it_back(
    tmp_path: Path, make_photographs: Callable[..., Path]
) -> None:
    """`000.png` in the masks means the photograph of that whole path, and else one that ends so.

    What is cached of the other one may not outlive that.
    """
    root = make_photographs(tmp_path / "photographs", classes=2, per_class=1)
    (root / "class 1" / "000.png").rename(root / "class 1" / "001.png")
    stray = root / "000.png"
    masks = _coco(tmp_path, ["000.png"], 30, 40)
    files = build_index("folder", root, list_files(root), threads=1)[0].image_files
    machine, cache = Machine(masks=masks), tmp_path / "cache"

    def widths() -> list[int]:
        _meanings.cache_clear()  # each process reads a folder once
        segmenter = imported(sha256=content_hash(masks))
        segmenter = named(files, root, segmenter, cache, machine)
        segment_images(files, root, segmenter, cache, 1, machine)
        return _widths(list(StoredMasks(files, segmenter, cache)))

    assert widths() == [2, 0]
    shutil.copy(root / "class 1" / "001.png", stray)
    assert widths() == [0, 0]
    stray.unlink()
    assert widths() == [2, 0]


def test_workers_read_the_masks_each_for_itself(
    photograph_folder: Path,
    image_files_in: Callable[[Path], ImageFiles],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(Imported, "images_per_batch", 5)
    image_files = image_files_in(photograph_folder)
    masks = _coco(tmp_path, image_files.table["path"].tolist(), 30, 40)
    segmenter, cache = imported(sha256=content_hash(masks)), tmp_path / "cache"
    machine = Machine(masks=masks)
    assert segment_images(image_files, photograph_folder, segmenter, cache, 2, machine) == 10
    assert _widths(list(StoredMasks(image_files, segmenter, cache))) == list(range(2, 12))
    masks.unlink()
    assert segment_images(image_files, photograph_folder, segmenter, cache, 2, machine) == 0
