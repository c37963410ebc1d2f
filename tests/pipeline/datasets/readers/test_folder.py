"""People's own folders: what is a class, a split, a photograph, and what is said of the rest."""

import unicodedata
from pathlib import Path

import pytest
from PIL import Image as Pillow

from pipeline.datasets.listing import list_files
from pipeline.datasets.prepare import build_index
from pipeline.datasets.readers import folder
from pipeline.datasets.remarks import Remark
from pipeline.errors import ProtoMaskError

NFC, NFD = (unicodedata.normalize(form, "Zaunkönig") for form in ("NFC", "NFD"))


def _picture(path: Path, kind: str = "PNG", colour: str = "gray") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Pillow.new("RGB", (10, 8), colour).save(path, kind)


def _pictures(root: Path, *names: str) -> Path:
    for name in names:
        _picture(root / name)
    return root


@pytest.mark.parametrize(
    ("train", "test"),
    [
        ("training_set", "test_set"),
        ("cars_train", "cars_test"),
        ("train2017", "val2017"),
        ("TrainingSet", "ValidationSet"),
        ("dev", "eval"),
        ("my dev-data", "birds"),
    ],
)
def test_names_that_hold_the_word_of_a_split(tmp_path: Path, train: str, test: str) -> None:
    """Taken for classes they would make a model that tells training from test images."""
    root = _pictures(
        tmp_path, *(f"{split}/{name}/1.png" for split in (train, test) for name in "ab")
    )
    with pytest.raises(ProtoMaskError, match=f"look like splits .*{train}") as error:
        folder.Folder().read(root)
    assert "name them train, val and test" in str(error.value)
    assert f"put all class folders into one folder, {root}/train" in str(error.value)


@pytest.mark.parametrize(
    "name", ["trainer", "latest", "invalid", "devon rex", "Intestine", "valley"]
)
def test_words_that_only_contain_the_name_of_a_split(tmp_path: Path, name: str) -> None:
    root = _pictures(tmp_path, f"{name}/1.png", "jay/1.png")
    assert set(folder.Folder().read(root).class_names) == {name, "jay"}


def test_classes_that_are_named_as_splits_have_a_way_out(tmp_path: Path) -> None:
    root = _pictures(tmp_path, "bus/1.png", "train/1.png", "test tube/1.png")
    with pytest.raises(ProtoMaskError, match="look like splits"):
        folder.Folder().read(root)
    (root / "inside").mkdir()
    for name in ("bus", "train", "test tube"):
        (root / name).rename(root / "inside" / name)
    (root / "inside").rename(root / "train")
    assert folder.Folder().read(root).class_names == ["bus", "test tube", "train"]


def test_folders_that_share_their_sub_folders(tmp_path: Path) -> None:
    """As `part1/{cats,dogs}` and `part2/{cats,dogs}`, or images beside masks."""
    shared = [f"{part}/{name}/1.png" for part in ("part1", "part2") for name in ("cats", "dogs")]
    root = _pictures(tmp_path, *shared, "part1/birds/1.png")
    with pytest.raises(ProtoMaskError, match=r"part1, part2.* share the sub-folders cats, dogs"):
        folder.Folder().read(root)


def test_one_sub_folder_in_all_classes(tmp_path: Path) -> None:
    root = _pictures(tmp_path, "crow/images/1.png", "jay/images/1.png")
    assert folder.Folder().read(root).class_names == ["crow", "jay"]


def test_an_unlabelled_test_split_is_named(tmp_path: Path) -> None:
    root = _pictures(
        tmp_path, "train/a/1.png", "train/b/1.png", "test/1.png", "test/2.png", "3.png"
    )
    images, classes, _, remarks = folder.Folder().read(root)
    assert (len(images), classes) == (2, ["a", "b"])
    unlabelled = "in test/, but in no class folder: unlabelled, and passed over"
    assert remarks == [
        Remark("3.png", "beside the class folders: of no class, and passed over"),
        Remark("test/1.png", unlabelled),
        Remark("test/2.png", unlabelled),
    ]


def test_most_photographs_beside_the_class_folders(tmp_path: Path) -> None:
    """Two of four are put up with, three of five are not."""
    root = _pictures(tmp_path, "a/1.png", "b/1.png", "1.png", "2.png")
    assert len(folder.Folder().read(root).images) == 2
    _picture(root / "3.png")
    with pytest.raises(ProtoMaskError, match=r"most photographs .*1\.png, 2\.png, 3\.png.* only 2"):
        folder.Folder().read(root)


def test_one_word_in_two_unicode_forms_is_one_class(tmp_path: Path) -> None:
    (tmp_path / "train" / NFC).mkdir(parents=True)
    if (tmp_path / "train" / NFD).exists():
        pytest.skip("this file system does not tell the forms apart")
    root = _pictures(tmp_path, f"train/{NFC}/1.png", f"train/{NFD}/2.png", f"test/{NFD}/3.png")
    _pictures(root, "train/jay/1.png", "train/Jay /1.png")
    images, classes, _, remarks = folder.Folder().read(root)
    assert classes == ["Jay ", NFC, "jay"]
    assert [image.path for image in images if image.class_name == NFC] == [
        f"test/{NFD}/3.png",
        f"train/{NFD}/2.png",
        f"train/{NFC}/1.png",
    ]
    said = {remark.path: remark.remark for remark in remarks}
    assert said.keys() == {f"train/{NFC}", "train/jay"}
    assert "read as one class" in said[f"train/{NFC}"]
    assert "but for capitals and spaces" in said["train/jay"]


def test_numbered_classes_sort_by_number(tmp_path: Path) -> None:
    root = _pictures(tmp_path, *(f"{number}/{at}.png" for number in range(11) for at in range(2)))
    index, *_ = build_index("folder", root, list_files(root), num_classes=3)
    assert index.class_names == ["0", "1", "2"]
    (root / "10").rename(root / "class 10")
    (root / "9").rename(root / "class 9")
    assert folder.Folder().read(root).class_names == [*"012345678", "class 9", "class 10"]


def test_what_a_photograph_is_its_content_decides(tmp_path: Path) -> None:
    """A class without a suffix, as downloads leave it, does not vanish."""
    root = _pictures(tmp_path, "crow/1.png")
    for name, kind in {"1": "JPEG", "2.image": "GIF", "3.jpg_large": "JPEG"}.items():
        _picture(root / "jay" / name, kind)
    for name, content in {
        "notes.txt": b"P9 these are notes",
        "Thumbs.db": b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + b"\0" * 600,
        "features.h5": b"\x89HDF\r\n\x1a\n" + b"\0" * 600,
        "drawing.eps": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n",
        "empty": b"",
        "clip.mov": b"\0\0\0\x14ftypqt  \0\0\0\0qt  ",
    }.items():
        (root / "jay" / name).write_bytes(content)
    images, classes, _, remarks = folder.Folder().read(root)
    assert classes == ["crow", "jay"]
    jays = ["jay/1", "jay/2.image", "jay/3.jpg_large"]
    assert [image.path for image in images] == ["crow/1.png", *jays]
    passed_over = ["Thumbs.db", "clip.mov", "drawing.eps", "empty", "features.h5", "notes.txt"]
    assert [remark.path for remark in remarks] == [f"jay/{name}" for name in passed_over]
    assert {remark.remark for remark in remarks} == {
        "no photograph by its content, and passed over"
    }


def test_a_folder_without_photographs_is_no_class_and_named(tmp_path: Path) -> None:
    root = _pictures(tmp_path, "train/a/1.png", "train/b/1.png")
    (root / "train" / "clips").mkdir()
    (root / "train" / "clips" / "1.mov").write_bytes(b"\0\0\0\x14ftypqt  \0\0\0\0qt  ")
    _, classes, _, remarks = folder.Folder().read(root)
    assert classes == ["a", "b"]
    assert remarks[1:] == [Remark("train/clips", "a folder without a photograph: no class")]


def test_a_cameras_raw_files_are_not_read_as_their_thumbnails(tmp_path: Path) -> None:
    """They are TIFF files whose first picture is a small preview."""
    root = _pictures(tmp_path, "a/1.png", "b/1.png")
    _picture(root / "a" / "DSC_1.NEF", "TIFF")
    _, [left_out], _ = build_index("folder", root, list_files(root), max_bad_fraction=0.4)
    assert left_out.path == "a/DSC_1.NEF"
    assert left_out.reason.startswith("a camera's raw file: develop it")


def test_links_to_what_is_not_there_are_unreadable(tmp_path: Path) -> None:
    """As a git annex leaves them whose content has not been fetched."""
    root = _pictures(tmp_path / "root", "a/1.png", "b/1.png")
    for name in ("2.png", "3"):
        (root / "a" / name).symlink_to("../../.git/annex/objects/x")
    listing = list_files(root)
    assert (listing["a/2.png"], listing["a/3"]) == (None, None)
    with pytest.raises(ProtoMaskError, match=r"2 of 4 images cannot be read.*\n.*a/2\.png: a link"):
        build_index("folder", root, listing)
    index, unreadable, _ = build_index("folder", root, listing, max_bad_fraction=0.5)
    assert index.ids == ["a/1.png", "b/1.png"]
    assert [image.path for image in unreadable] == ["a/2.png", "a/3"]
    assert all("`git annex get`" in image.reason for image in unreadable)


def test_a_link_to_a_class_that_is_not_there(tmp_path: Path) -> None:
    root = _pictures(tmp_path, "train/a/1.png", "train/b/1.png")
    (root / "README.md").symlink_to("nowhere")
    assert folder.Folder().read(root).class_names == ["a", "b"]
    for link in (root / "train" / "c", root / "train" / "001.Crested_Auklet", root / "test"):
        link.symlink_to(tmp_path / "unmounted")
        name = link.relative_to(root)
        with pytest.raises(ProtoMaskError, match=rf"links to what is not there \({name}\)"):
            folder.Folder().read(root)
        link.unlink()


def test_system_folders_are_no_classes(tmp_path: Path) -> None:
    root = _pictures(tmp_path, "a/1.png", "a/@eaDir/1.png/THUMB.png", "b/1.png")
    _pictures(root, "@eaDir/1.png", "#recycle/2.png", "__MACOSX/a/1.png", "$RECYCLE.BIN/1.png")
    images, classes, *_ = folder.Folder().read(root)
    assert classes == ["a", "b"]
    assert len(images) == 2
