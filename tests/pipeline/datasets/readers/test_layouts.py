"""The layouts of CUB-200-2011, Oxford-IIIT Pet and one's own folder; made small, and real."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as Pillow

from pipeline.datasets.image_file import read_label_image
from pipeline.datasets.index import Index, Part
from pipeline.datasets.listing import list_files
from pipeline.datasets.prepare import build_index
from pipeline.datasets.readers import cub200, folder, pets
from pipeline.datasets.remarks import Remark
from pipeline.errors import ProtoMaskError

CUB_FILES = {
    "images.txt": "1 001.Black_footed_Albatross/A_1.jpg\n2 002.Jay/J_1.jpg\n3 002.Jay/J_2.jpg\n",
    "classes.txt": "2 002.Jay\n1 001.Black_footed_Albatross\n",
    "image_class_labels.txt": "1 1\n2 2\n3 2\n",
    "train_test_split.txt": "1 1\n2 1\n3 0\n",
    "bounding_boxes.txt": "1 2.0 1.0 5.0 4.0\n2 0.5 0.5 3.2 2.0\n3 0.0 0.0 10.0 8.0\n",
    "parts/parts.txt": "1 back\n2 left eye\n",
    "parts/part_locs.txt": "1 1 3.0 2.5 1\n1 2 0.0 0.0 0\n2 1 0.0 0.0 0\n2 2 4.0 5.0 1\n",
}
CUB_IMAGES = ["001.Black_footed_Albatross/A_1", "002.Jay/J_1", "002.Jay/J_2"]


def _picture(path: Path, width: int = 10, height: int = 8) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Pillow.new("RGB", (width, height), "gray").save(path)


@pytest.fixture
def cub(tmp_path: Path) -> Path:
    root = tmp_path / "CUB_200_2011"
    for name, text in CUB_FILES.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    for image in CUB_IMAGES:
        _picture(root / "images" / f"{image}.jpg")
    return root


def test_cub(cub: Path) -> None:
    images, classes, parts, _ = cub200.Cub200().read(cub)
    assert classes == ["Black footed Albatross", "Jay"]
    assert parts == ["back", "left eye"]
    assert [image.id for image in images] == CUB_IMAGES
    assert [image.path for image in images] == [f"images/{image}.jpg" for image in CUB_IMAGES]
    assert [image.class_name for image in images] == ["Black footed Albatross", "Jay", "Jay"]
    assert [image.split for image in images] == ["train", "train", "test"]
    # x, y, width, height to half-open: 2, 1, 2+5, 1+4; 0.5 down to 0, 0.5+3.2 up to 4, 2.5 to 3.
    assert [image.object_box for image in images] == [(2, 1, 7, 5), (0, 0, 4, 3), (0, 0, 10, 8)]
    assert images[0].parts == (Part("back", 3.0, 2.5),)
    assert images[1].parts == (Part("left eye", 4.0, 5.0),)
    assert images[2].parts == ()
    assert [image.object_mask_path for image in images] == [None] * 3


@pytest.mark.parametrize("levels", [[51, 127, 128, 255], [0, 50, 51, 102]])
def test_cub_segmentations(cub: Path, levels: list[int]) -> None:
    """The annotators' agreement: the upper half of its range is the bird."""
    agreement = np.zeros((8, 10), np.uint8)
    agreement[1:4, 2:6] = levels
    path = cub / "segmentations" / f"{CUB_IMAGES[1]}.png"
    path.parent.mkdir(parents=True)
    Pillow.fromarray(agreement).save(path)
    index, unreadable, _ = build_index("cub200", cub, list_files(cub))
    assert unreadable == []
    row = index.ids.index(CUB_IMAGES[1])
    expected = np.zeros((8, 10), bool)
    expected[1:4, 4:6] = True
    found = index.object_mask(row)
    assert found is not None
    assert np.array_equal(found, expected)
    assert list(index.table.at[row, "object_box"]) == [0, 0, 4, 3]  # CUB's own, not the mask's
    assert index.object_mask(index.ids.index(CUB_IMAGES[0])) is None
    assert index.object_masks_from == "mask"


def test_cub_without_segmentations(cub: Path) -> None:
    """The boxes stand in: x, y, width, height = 2.0, 1.0, 5.0, 4.0 of a picture of 10×8."""
    index, *_ = build_index("cub200", cub, list_files(cub))
    assert index.object_masks_from == "box"
    expected = np.zeros((8, 10), bool)
    expected[1:5, 2:7] = True
    found = index.object_mask(index.ids.index(CUB_IMAGES[0]))
    assert found is not None
    assert np.array_equal(found, expected)


def test_cub_cut_to_its_boxes(cub: Path) -> None:
    """Boxes that are all the whole picture, here 10×8, tell nothing from the object."""
    boxes = "1 0.0 0.0 10.0 8.0\n2 -0.5 0.0 11.2 8.0\n3 0.0 0.0 10.0 8.0\n"
    (cub / "bounding_boxes.txt").write_text(boxes)
    index, *_ = build_index("cub200", cub, list_files(cub))
    assert index.object_masks_from is None


@pytest.mark.parametrize("name", CUB_FILES)
def test_cub_without_one_of_its_files(cub: Path, name: str) -> None:
    (cub / name).unlink()
    with pytest.raises(ProtoMaskError, match=f"{Path(name).name} is missing.*CUB-200-2011"):
        build_index("cub200", cub, list_files(cub))


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("images.txt", "1 001.Black_footed_Albatross/A_1.jpg\n2\n"),
        ("image_class_labels.txt", "1 1\n2 2\n"),
        ("image_class_labels.txt", "1 1\n2 2\n3 9\n"),
        ("train_test_split.txt", "1 1\n"),
        ("bounding_boxes.txt", "1 2.0 1.0 5.0 4.0\n2 0.5 0.5 3.2 x\n3 0 0 1 1\n"),
        ("bounding_boxes.txt", "1 2.0 1.0 5.0\n"),
        ("parts/part_locs.txt", "1 7 3.0 2.5 1\n"),
        ("classes.txt", "one 001.Black_footed_Albatross\n2 002.Jay\n"),
    ],
)
def test_cub_with_a_damaged_file(cub: Path, name: str, text: str) -> None:
    (cub / name).write_text(text)
    with pytest.raises(ProtoMaskError, match=r"columns expected|contradict each other"):
        build_index("cub200", cub, list_files(cub))


def test_cub_with_a_file_that_is_no_text(cub: Path) -> None:
    (cub / "images.txt").write_bytes(b"\xff\xfe\x00\x01")
    with pytest.raises(ProtoMaskError, match=r"images\.txt is no text file"):
        build_index("cub200", cub, list_files(cub))


def test_cub_without_an_image(cub: Path) -> None:
    (cub / "images" / f"{CUB_IMAGES[2]}.jpg").unlink()
    index, unreadable, _ = build_index("cub200", cub, list_files(cub), max_bad_fraction=0.5)
    assert [(image.path, image.reason) for image in unreadable] == [
        (f"images/{CUB_IMAGES[2]}.jpg", "no such file")
    ]
    assert len(index) == 2


def test_photographs_that_the_annotations_do_not_name(cub: Path) -> None:
    _picture(cub / "images" / "002.Jay" / "J_9.jpg")
    index, unreadable, remarks = build_index("cub200", cub, list_files(cub))
    assert (len(index), unreadable) == (3, [])
    assert remarks == [
        Remark(
            "images/002.Jay/J_9.jpg",
            "a photograph by its name, but not in the annotations, and passed over",
        )
    ]


def test_names_with_spaces_in_an_annotation_file(cub: Path) -> None:
    text = CUB_FILES["images.txt"].replace("J_2.jpg", "J 2  é.jpg")
    (cub / "images.txt").write_text(text, encoding="utf-8")
    assert cub200.Cub200().read(cub).images[2].path == "images/002.Jay/J 2  é.jpg"


@pytest.fixture
def pet(tmp_path: Path) -> Path:
    root = tmp_path / "pets"
    (root / "annotations" / "trimaps").mkdir(parents=True)
    (root / "annotations" / "trainval.txt").write_text(
        "# Image CLASS-ID SPECIES BREED ID\nBengal_2 2 1 2\nshiba_inu_1 1 2 1\nshiba_inu_3 1 2 1\n"
    )
    (root / "annotations" / "test.txt").write_text("Bengal_1 2 1 2\nshiba_inu_2 1 2 1\n")
    for name in ("Bengal_1", "Bengal_2", "shiba_inu_1", "shiba_inu_2", "shiba_inu_3", "extra"):
        _picture(root / "images" / f"{name}.jpg")
    trimap = np.full((8, 10), 2, np.uint8)
    trimap[2:6, 3:8] = 3
    trimap[3:5, 4:7] = 1
    Pillow.fromarray(trimap).save(root / "annotations" / "trimaps" / "Bengal_1.png")
    return root


def test_pets(pet: Path) -> None:
    images, classes, parts, _ = pets.Pets().read(pet)
    assert classes == ["shiba inu", "Bengal"]  # by number
    assert parts == []
    assert [(image.id, image.split, image.class_name) for image in images] == [
        ("Bengal_2", "train", "Bengal"),
        ("shiba_inu_1", "train", "shiba inu"),
        ("shiba_inu_3", "train", "shiba inu"),
        ("Bengal_1", "test", "Bengal"),
        ("shiba_inu_2", "test", "shiba inu"),
    ]
    assert [image.parts for image in images] == [None] * 5


def test_trimaps_are_object_masks(pet: Path) -> None:
    """1 and 3 are the animal, 2 is not; without a box of its own the mask's box counts."""
    index, *_ = build_index("pets", pet, list_files(pet))
    expected = np.zeros((8, 10), bool)
    expected[2:6, 3:8] = True
    row = index.ids.index("Bengal_1")
    found = index.object_mask(row)
    assert found is not None
    assert np.array_equal(found, expected)
    assert list(index.table.at[row, "object_box"]) == [3, 2, 8, 6]
    assert index.table.at[index.ids.index("Bengal_2"), "object_box"] is None


def test_the_test_images_of_an_official_split_are_held_out(cub: Path, pet: Path) -> None:
    held_out = {"cub200": {"002.Jay/J_2"}, "pets": {"Bengal_1", "shiba_inu_2"}}
    for name, root in (("cub200", cub), ("pets", pet)):
        index, *_ = build_index(name, root, list_files(root))
        for table in (index.table, index.image_files.table):
            assert set(table["id"][table["held_out"].astype(bool)]) == held_out[name]
        assert {index.ids[row] for row in index.rows("test")} == held_out[name]


def test_pets_without_lists(pet: Path) -> None:
    (pet / "annotations" / "test.txt").unlink()
    with pytest.raises(ProtoMaskError, match=r"test\.txt is missing.*Oxford-IIIT Pet"):
        build_index("pets", pet, list_files(pet))


@pytest.mark.parametrize("line", ["Bengal_1 2 1 2", "Bengal_9", "Bengal_9 two 1 2"])
def test_pets_with_a_damaged_list(pet: Path, line: str) -> None:
    with (pet / "annotations" / "trainval.txt").open("a") as file:
        file.write(f"{line}\n")
    with pytest.raises(ProtoMaskError, match=r"more than once|columns expected|contradict"):
        build_index("pets", pet, list_files(pet))


def test_a_trimap_of_another_size_leaves_its_image_out(pet: Path) -> None:
    Pillow.new("L", (3, 3)).save(pet / "annotations" / "trimaps" / "Bengal_1.png")
    _, unreadable, _ = build_index("pets", pet, list_files(pet), max_bad_fraction=0.2)
    assert [(image.path, image.reason) for image in unreadable] == [
        (
            "images/Bengal_1.jpg",
            "annotations/trimaps/Bengal_1.png: its size 3×3 is not the image's 10×8",
        )
    ]


@pytest.mark.parametrize("content", [b"", b"nonsense"])
def test_what_is_said_of_an_unreadable_image_names_no_machine(pet: Path, content: bytes) -> None:
    """unreadable.csv is part of a stage's output, which must be the same on every machine."""
    (pet / "annotations" / "trimaps" / "Bengal_1.png").write_bytes(content)
    (pet / "images" / "shiba_inu_2.jpg").write_bytes(content)
    _, unreadable, _ = build_index("pets", pet, list_files(pet), max_bad_fraction=0.4)
    assert len(unreadable) == 2
    for image in unreadable:
        assert str(pet) not in f"{image.path} {image.reason}"


def test_a_folder_a_class(tmp_path: Path) -> None:
    _picture(tmp_path / "Blue tit" / "1.jpg")
    _picture(tmp_path / "Blue tit" / "2023" / "spring" / "2.PNG")
    _picture(tmp_path / "Amsel" / "3.jpeg")
    _picture(tmp_path / "beside.jpg")
    (tmp_path / "Amsel" / "notes.txt").touch()
    (tmp_path / ".hidden").mkdir()
    _picture(tmp_path / ".hidden" / "x.jpg")
    images, classes, *_ = folder.Folder().read(tmp_path)
    assert classes == ["Amsel", "Blue tit"]
    assert [(image.id, image.class_name, image.split) for image in images] == [
        ("Amsel/3.jpeg", "Amsel", "train"),
        ("Blue tit/1.jpg", "Blue tit", "train"),
        ("Blue tit/2023/spring/2.PNG", "Blue tit", "train"),
    ]


def test_a_folder_with_splits(tmp_path: Path) -> None:
    for split in ("train", "val", "test"):
        _picture(tmp_path / split / "a" / "1.jpg")
    _picture(tmp_path / "train" / "b" / "1.jpg")
    images, classes, *_ = folder.Folder().read(tmp_path)
    assert classes == ["a", "b"]
    assert Counter((image.split, image.class_name) for image in images) == {
        ("train", "a"): 1,
        ("val", "a"): 1,
        ("test", "a"): 1,
        ("train", "b"): 1,
    }


def test_split_folders_beside_class_folders(tmp_path: Path) -> None:
    _picture(tmp_path / "train" / "a" / "1.jpg")
    _picture(tmp_path / "wren" / "1.jpg")
    with pytest.raises(ProtoMaskError, match=r"splits \(train\) beside others \(wren\)"):
        folder.Folder().read(tmp_path)


@pytest.mark.parametrize("name", ["Train", "validation", "valid", "training", "TEST"])
def test_splits_under_another_name(tmp_path: Path, name: str) -> None:
    """Taken for classes they would make a model that tells training from test images."""
    _picture(tmp_path / name / "a" / "1.jpg")
    _picture(tmp_path / "test" / "a" / "2.jpg")
    with pytest.raises(ProtoMaskError, match="look like splits"):
        folder.Folder().read(tmp_path)
    (tmp_path / "test").rename(tmp_path / "Testing")
    with pytest.raises(ProtoMaskError, match="look like splits"):
        folder.Folder().read(tmp_path)


@pytest.mark.parametrize("files", [["1.jpg"], ["a/notes.txt"], ["train/1.jpg"]])
def test_a_folder_without_classes(tmp_path: Path, files: list[str]) -> None:
    for name in files:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    with pytest.raises(ProtoMaskError, match="no photographs found"):
        folder.Folder().read(tmp_path)


def test_real_birds(shared_data: Path) -> None:
    images, classes, parts, _ = cub200.Cub200().read(shared_data / "CUB_200_2011")
    assert len(images) == 5902
    assert Counter(image.split for image in images) == {"train": 2999, "test": 2903}
    assert (len(classes), len(parts)) == (100, 15)
    assert classes[0] == "Black footed Albatross"
    per_class = Counter(image.class_name for image in images)
    assert (min(per_class.values()), max(per_class.values())) == (45, 60)
    for image in images:
        assert image.object_box is not None
        x0, y0, x1, y1 = image.object_box
        assert 0 <= x0 < x1 <= 227
        assert 0 <= y0 < y1 <= 227
        for part in image.parts or ():
            assert 0 <= part.x <= 227
            assert 0 <= part.y <= 227


def test_real_pets(shared_data: Path) -> None:
    root = shared_data / "oxford-iiit-pet"
    images, classes, *_ = pets.Pets().read(root)
    lists = [
        line.split()[0]
        for name in ("trainval", "test")
        for line in (root / "annotations" / f"{name}.txt").read_text().splitlines()
        if line and line[0] != "#"
    ]
    assert [image.id for image in images] == lists
    assert len(images) == 598
    assert len(classes) == 3
    # A GIF by content, and in no list.
    assert Pillow.open(root / "images" / "Abyssinian_34.jpg").format == "GIF"
    assert not {"Abyssinian_34", "Abyssinian_82"} & {image.id for image in images}


@pytest.mark.slow
def test_the_index_of_the_real_pets(shared_data: Path, tmp_path: Path) -> None:
    root = shared_data / "oxford-iiit-pet"
    index, unreadable, _ = build_index("pets", root, list_files(root), threads=2)
    assert unreadable == []
    assert len(index) == 598
    for row in range(0, 598, 50):
        image = index.table.iloc[row]
        labels = read_label_image(root / image["object_mask_path"])
        mask = index.object_mask(row)
        assert mask is not None
        assert np.array_equal(mask, (labels == 1) | (labels == 3))
        y, x = np.nonzero(mask)
        assert list(image["object_box"]) == [x.min(), y.min(), x.max() + 1, y.max() + 1]
    index.write(tmp_path / "x.parquet")
    assert len(Index.read(tmp_path / "x.parquet")) == 598


@pytest.mark.slow
def test_the_index_of_the_real_birds(shared_data: Path) -> None:
    root = shared_data / "CUB_200_2011"
    index, unreadable, _ = build_index("cub200", root, list_files(root), threads=2)
    assert unreadable == []
    assert len(index) == 5902
    assert len(index.rows("test")) == 2903
    assert len(index.rows("train")) + len(index.rows("val")) == 2999
    assert set(index.table["width"]) == set(index.table["height"]) == {227}
