"""From a folder to an index: what is refused, and what is left out with a word."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from PIL import Image as Pillow

from pipeline.datasets.dataset import Annotations
from pipeline.datasets.index import Index, Part
from pipeline.datasets.listing import list_files
from pipeline.datasets.prepare import Unreadable, build_index, write_unreadable
from pipeline.datasets.readers.folder import Folder
from pipeline.datasets.remarks import Remark
from pipeline.errors import ProtoMaskError


def _build(root: Path, **options: object) -> tuple[Index, list[Unreadable], list[Remark]]:
    return build_index("folder", root, list_files(root), **options)  # type: ignore[arg-type]


def test_every_image_is_measured_and_hashed(photograph_folder: Path) -> None:
    index, unreadable, _ = _build(photograph_folder)
    assert unreadable == []
    assert index.class_names == ["class 0", "class 1"]
    assert index.table["sha256"].tolist() == list(list_files(photograph_folder).values())
    assert set(index.table["width"]) == {40}
    assert set(index.table["height"]) == {30}
    # Of 5 images a class one is test, and of the other 4 one is validation.
    assert [len(index.rows(split)) for split in ("train", "val", "test")] == [6, 2, 2]


def test_test_images_that_a_seed_has_drawn_are_not_held_out(
    photograph_folder: Path, tmp_path: Path
) -> None:
    """So that neither a seed nor a fold changes what segmentation may learn from."""
    written, tests = [], set()
    for number, cut in enumerate(({}, {"seed": 1}, {"fold": 1, "folds": 2})):
        index, *_ = _build(photograph_folder, **cut)
        assert not index.table["held_out"].any()
        tests.add(tuple(index.rows("test")))
        index.image_files.write(tmp_path / f"{number}.parquet")
        written.append((tmp_path / f"{number}.parquet").read_bytes())
    assert written[0] == written[1] == written[2]
    assert len(tests) > 1


def test_sizes_are_those_of_the_upright_image(photograph_folder: Path) -> None:
    exif = Pillow.Exif()
    exif[0x0112] = 6
    Pillow.new("RGB", (40, 30)).save(photograph_folder / "class 0" / "turned.jpg", exif=exif)
    index, *_ = _build(photograph_folder)
    turned = index.table.iloc[index.ids.index("class 0/turned.jpg")]
    assert (turned["width"], turned["height"]) == (30, 40)


def test_the_index_holds_no_path_of_the_machine(
    tmp_path: Path, make_photographs: Callable[..., Path]
) -> None:
    written = []
    for place in ("here", "there"):
        index, *_ = _build(make_photographs(tmp_path / place / "root"), threads=len(written) + 1)
        index.write(tmp_path / place / "x.parquet")
        index.image_files.write(tmp_path / place / "y.parquet")
        written.append(
            [(tmp_path / place / name).read_bytes() for name in ("x.parquet", "y.parquet")]
        )
    assert written[0] == written[1]
    assert "here" not in str(index.table.to_dict("records"))


def _spoil(root: Path, count: int) -> None:
    for path in sorted(root.rglob("*.png"))[:count]:
        path.write_bytes(path.read_bytes()[:60])


def test_unreadable_images_are_left_out_up_to_a_share(photograph_folder: Path) -> None:
    """Two of ten: 0.2 allows them, 0.19 does not."""
    _spoil(photograph_folder, 2)
    index, unreadable, _ = _build(photograph_folder, max_bad_fraction=0.2)
    assert len(index) == 8
    assert [image.path for image in unreadable] == ["class 0/000.png", "class 0/001.png"]
    with pytest.raises(ProtoMaskError, match="2 of 10 images cannot be read") as error:
        _build(photograph_folder, max_bad_fraction=0.19)
    message = str(error.value)
    assert "dataset.max_bad_fraction=0.19" in message
    assert "class 0/001.png: " in message


def test_a_photograph_of_a_kind_that_cannot_be_read_is_not_passed_over(
    photograph_folder: Path,
) -> None:
    (photograph_folder / "class 0" / "IMG_1.HEIC").write_bytes(b"\0\0\0\x18ftypheic")
    _, [left_out], _ = _build(photograph_folder, max_bad_fraction=0.2)
    assert left_out.path == "class 0/IMG_1.HEIC" and "save it as JPEG or PNG" in left_out.reason


def test_what_is_remarked_of_a_photograph_that_is_used(photograph_folder: Path) -> None:
    path = photograph_folder / "class 1" / "000.png"
    with Pillow.open(path) as image:
        image.save(path, exif=b"Exif\0\0this is no TIFF")
    index, unreadable, remarks = _build(photograph_folder)
    assert (len(index), unreadable) == (10, [])
    assert remarks == [
        Remark(
            "class 1/000.png", "its EXIF data cannot be parsed: read as it is stored, not turned"
        )
    ]


def test_no_unreadable_image_is_no_excuse_for_a_share_of_zero(photograph_folder: Path) -> None:
    assert len(_build(photograph_folder, max_bad_fraction=0.0)[0]) == 10
    _spoil(photograph_folder, 1)
    with pytest.raises(ProtoMaskError, match="1 of 10"):
        _build(photograph_folder, max_bad_fraction=0.0)


def test_a_long_list_of_unreadable_images_is_cut(
    tmp_path: Path, make_photographs: Callable[..., Path]
) -> None:
    root = make_photographs(tmp_path / "root", per_class=10)
    _spoil(root, 13)
    with pytest.raises(ProtoMaskError, match="… and 3 more"):
        _build(root)


def test_unreadable_images_are_written_down(tmp_path: Path) -> None:
    write_unreadable([], tmp_path / "none.csv")
    assert (tmp_path / "none.csv").read_text() == "path,reason\n"
    write_unreadable([Unreadable("a,b.jpg", 'is "odd"')], tmp_path / "some.csv")
    assert pd.read_csv(tmp_path / "some.csv").values.tolist() == [["a,b.jpg", 'is "odd"']]


def test_the_first_classes(tmp_path: Path, make_photographs: Callable[..., Path]) -> None:
    root = make_photographs(tmp_path / "root", classes=4)
    index, *_ = _build(root, num_classes=3)
    assert index.class_names == ["class 0", "class 1", "class 2"]
    assert len(index) == 15
    assert len(_build(root, num_classes=9)[0]) == 20


def test_images_of_other_classes_are_not_opened(
    tmp_path: Path, make_photographs: Callable[..., Path]
) -> None:
    root = make_photographs(tmp_path / "root", classes=3)
    for path in (root / "class 2").iterdir():
        path.write_bytes(b"")
    assert _build(root, num_classes=2, max_bad_fraction=0.0)[1] == []


def test_one_class(tmp_path: Path, make_photographs: Callable[..., Path]) -> None:
    root = make_photographs(tmp_path / "root", classes=1)
    with pytest.raises(ProtoMaskError, match=r"1 class\(es\).*\(class 0\).*at least two"):
        _build(root)


def test_a_class_without_a_readable_image_goes(
    tmp_path: Path, make_photographs: Callable[..., Path]
) -> None:
    root = make_photographs(tmp_path / "root", classes=3, per_class=2)
    _spoil(root, 2)
    index, _, remarks = _build(root, max_bad_fraction=0.5)
    assert index.class_names == ["class 1", "class 2"]
    assert remarks == [Remark("class 0", "class of which no image can be read, and left out")]
    assert set(index.labels) == {0, 1}


def test_a_class_with_one_image_trains_on_it(photograph_folder: Path) -> None:
    for path in sorted((photograph_folder / "class 1").iterdir())[1:]:
        path.unlink()
    index, *_ = _build(photograph_folder)
    assert index.table.at[index.ids.index("class 1/000.png"), "split"] == "train"


def test_a_class_without_a_training_image(photograph_folder: Path) -> None:
    root = photograph_folder
    for split in ("train", "test"):
        (root / split).mkdir()
    (root / "class 0").rename(root / "train" / "a")
    (root / "class 1").rename(root / "test" / "b")
    with pytest.raises(ProtoMaskError, match="no training image of b"):
        _build(root)


def test_an_empty_folder(tmp_path: Path) -> None:
    with pytest.raises(ProtoMaskError, match="holds no files"):
        build_index("folder", tmp_path, {})


def test_an_image_that_came_after_the_listing(photograph_folder: Path) -> None:
    listing = list_files(photograph_folder)
    Pillow.new("RGB", (5, 5)).save(photograph_folder / "class 0" / "late.png")
    with pytest.raises(ProtoMaskError, match=r"late\.png was not there when .* listed"):
        build_index("folder", photograph_folder, listing)


def test_the_same_id_twice(photograph_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read = Folder.read

    def doubled(self: Folder, root: Path) -> Annotations:
        images, *rest = read(self, root)
        return Annotations([*images, replace(images[3])], *rest)

    monkeypatch.setattr(Folder, "read", doubled)
    with pytest.raises(ProtoMaskError, match=r"1 images more than once, such as class 0/003"):
        _build(photograph_folder)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"split": "training"}, "the split 'training', and knows test, train, val"),
        ({"class_name": "crow"}, "the class 'crow', and knows class 0, "),
        ({"parts": (Part("beak", 1.0, 1.0),)}, "the part 'beak', and knows none"),
    ],
)
def test_a_reader_s_slip_is_named(
    photograph_folder: Path, monkeypatch: pytest.MonkeyPatch, change: dict[str, Any], said: str
) -> None:
    read = Folder.read

    def slipped(self: Folder, root: Path) -> Annotations:
        images, *rest = read(self, root)
        return Annotations([replace(images[0], **change), *images[1:]], *rest)

    monkeypatch.setattr(Folder, "read", slipped)
    with pytest.raises(ProtoMaskError, match=f"the reader of folder gives image .* {said}"):
        _build(photograph_folder)


def test_the_demo(tmp_path: Path) -> None:
    from pipeline.datasets.readers.demo import data_set as demo

    demo.draw(tmp_path, seed=0, train_per_class=2, test_per_class=1)
    index, unreadable, _ = build_index("demo", tmp_path, list_files(tmp_path))
    assert unreadable == []
    assert len(index.class_names) == 12
    assert len(index) == 36
    assert index.table["object_mask"].notna().all()
