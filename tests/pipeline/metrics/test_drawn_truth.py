"""The demo drawn again: what was not replaced stays as it is stored, to the byte."""

import json
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch
from scipy.ndimage import distance_transform_edt
from settings import crop_settings, patches

from pipeline.crops.store import CropStore
from pipeline.crops.writing import write_crops
from pipeline.datasets.image_file import read_image, read_label_image
from pipeline.datasets.index import Index
from pipeline.datasets.listing import list_files
from pipeline.datasets.prepare import build_index
from pipeline.datasets.readers.demo import data_set as demo
from pipeline.datasets.readers.demo.classes import CLASS_NAMES, PARTS, distinguishing_parts
from pipeline.errors import ProtoMaskError
from pipeline.masks.store import MaskStore, write_store
from pipeline.metrics.drawn_truth import DrawnTruth, sister

S, K = 32, 5
# JPEG keeps colour in blocks of 16×16 pixels and smooths it over their borders.
BLOCK = 16


class Made(NamedTuple):
    """A demo of two images a class, its stores, and the truth of its test images."""

    folder: Path
    index: Index
    masks: MaskStore
    crops: CropStore

    @property
    def rows(self) -> np.ndarray:
        return self.index.rows("test")

    @property
    def truth(self) -> DrawnTruth:
        return DrawnTruth(self.folder, self.index, self.rows, self.masks, self.crops)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    folder = tmp_path_factory.mktemp("drawn")
    demo.draw(folder / "index", seed=3, train_per_class=2, test_per_class=1)
    index, *_ = build_index("demo", folder / "index", list_files(folder / "index"), threads=1)
    image_files, segmenter = index.image_files, patches()
    pixels = [read_image(folder / "index" / path) for path in image_files.table["path"]]
    write_store(folder / "masks", image_files, segmenter, segmenter.segment(pixels))
    masks = MaskStore(folder / "masks")
    settings = crop_settings(side=S, per_image=K)
    write_crops(folder / "crops", image_files, folder / "index", masks, settings)
    return Made(folder / "index", index, masks, CropStore(folder / "crops"))


def everything(made: Made) -> torch.Tensor:
    return torch.arange(len(made.rows))


def test_drawing_an_image_again_gives_the_stored_crops(made: Made) -> None:
    truth = made.truth
    assert len(made.rows) == 12
    for image, row in enumerate(made.rows):
        own = dict.fromkeys(PARTS, made.index.table["class_name"][row])
        for parts_from in (None, own):
            drawing = truth.drawn(image, parts_from)
            stored = read_image(made.folder / made.index.table["path"][row])
            assert np.array_equal(drawing.image, stored)
            assert np.array_equal(truth.crops(image, drawing), made.crops.crops([row])[0])
        labels = read_label_image(made.folder / made.index.table["part_mask_path"][row])
        assert np.array_equal(drawing.labels, labels)


def test_only_the_replaced_part_changes(made: Made) -> None:
    truth = made.truth
    changed_somewhere = 0
    for image in range(len(made.rows)):
        part, donor = sister(made.index.table["class_name"][made.rows[image]])
        before, after = truth.drawn(image), truth.drawn(image, {part: donor})
        label = PARTS.index(part) + 1
        either = (before.labels == label) | (after.labels == label)
        changed = (before.image != after.image).any(axis=-1)
        changed_somewhere += changed.any()
        far = distance_transform_edt(~either) > 2**0.5 * BLOCK + 4 if either.any() else ~either
        assert not changed[far].any()
        assert np.array_equal(before.labels[~either], after.labels[~either])
    assert changed_somewhere >= 10


def test_redrawn_crops_differ_where_the_part_is(made: Made) -> None:
    truth = made.truth
    crops_BKSS3, part_B, labels_BSS = truth.redrawn(everything(made))
    assert crops_BKSS3.shape == (12, K, S, S, 3) and crops_BKSS3.dtype == torch.uint8
    assert labels_BSS.shape == (12, S, S) and labels_BSS.dtype == torch.uint8
    assert part_B.shape == (12,) and part_B.dtype == torch.int64
    stored = torch.from_numpy(made.crops.crops(made.rows))
    before_BSS = truth.labels(everything(made))
    boxes = made.crops.boxes[made.rows]
    for image, part in enumerate(part_B.tolist()):
        either = (before_BSS[image] == part + 1) | (labels_BSS[image] == part + 1)
        y, x = either.nonzero(as_tuple=True)
        size = made.index.table[["width", "height"]].iloc[made.rows[image]].to_numpy(int)
        margin = BLOCK + 10
        low = torch.stack([x.min(), y.min()]).numpy() * size / S - margin
        high = torch.stack([x.max(), y.max()]).numpy() * size / S + margin
        for crop in range(4):
            x0, y0, x1, y1 = boxes[image, crop]
            if x1 <= low[0] or y1 <= low[1] or x0 >= high[0] or y0 >= high[1]:
                assert torch.equal(crops_BKSS3[image, crop], stored[image, crop])
        assert not crops_BKSS3[image, 4].any(), "the missing crop stays black"
        assert torch.equal(before_BSS[image][~either], labels_BSS[image][~either])
    assert (crops_BKSS3 != stored).flatten(1).any(dim=1).sum() >= 10


def test_the_part_is_the_one_that_tells_a_class_from_its_sister(made: Made) -> None:
    truth = made.truth
    part_B = truth.redrawn(everything(made))[1].tolist()
    labels = made.index.labels[made.rows]
    names = made.index.class_names
    for label, part in zip(labels, part_B, strict=True):
        sisters = [d for d in truth.distinguishing_CCQ[label] if d.sum() == 1]
        assert len(sisters) == 1 and sisters[0][part]
    assert truth.distinguishing_CCQ.shape == (12, 12, len(PARTS))
    assert truth.distinguishing_CCQ.dtype == torch.bool
    assert torch.equal(truth.distinguishing_CCQ, truth.distinguishing_CCQ.transpose(0, 1))
    first, second = names.index("bibbed wagtail"), names.index("plain topknot")
    found = [PARTS[q] for q in truth.distinguishing_CCQ[first, second].nonzero()]
    # a bib, a needle, spangles and a streamer, against a plume and a bar
    assert found == ["crown", "beak", "throat", "wing", "wing bar", "tail"]


def test_every_class_has_one_sister_and_is_hers() -> None:
    for class_name in CLASS_NAMES:
        part, other = sister(class_name)
        assert distinguishing_parts(class_name, other) == [part]
        assert sister(other) == (part, class_name)
    assert sister("forktail reedling") == ("tail", "fantail reedling")


def test_labels_are_the_nearest_pixels_of_the_part_masks(made: Made) -> None:
    labels_BSS = made.truth.labels(torch.tensor([7, 2]))
    for labels_SS, image in zip(labels_BSS.numpy(), (7, 2), strict=True):
        path = made.folder / made.index.table["part_mask_path"][made.rows[image]]
        labels = read_label_image(path)
        height, width = labels.shape
        y = ((np.arange(S) + 0.5) * height / S).astype(int)
        x = ((np.arange(S) + 0.5) * width / S).astype(int)
        assert np.array_equal(labels_SS, labels[np.ix_(y, x)])
        assert len(np.unique(labels_SS)) > 5


def test_a_wing_bar_that_a_class_lacks_is_where_the_other_class_has_it(made: Made) -> None:
    truth, names, bar = made.truth, made.index.class_names, PARTS.index("wing bar") + 1
    own = [names[label] for label in made.index.labels[made.rows]]
    plain, barred = own.index("plainwing seedfinch"), own.index("mirrored seedfinch")
    first, second = (torch.tensor([names.index(own[image])] * 2) for image in (plain, barred))
    images_B = torch.tensor([plain, barred])
    before_BSS = truth.labels(images_B)
    assert not (before_BSS[0] == bar).any() and (before_BSS[1] == bar).any()
    for pair in ((first, second), (second, first)):
        between_BSS = truth.labels_between(images_B, *pair)
        assert torch.equal(between_BSS[1], before_BSS[1]), "nothing that this bird lacks"
        there = between_BSS[0] == bar
        assert torch.equal(there, truth.redrawn(images_B)[2][0] == bar) and there.any()
        assert torch.equal(between_BSS[0][~there], before_BSS[0][~there])
    # Classes of which neither has a bar do not ask for one.
    wagtail = torch.tensor([names.index("bibbed wagtail")])
    assert torch.equal(truth.labels_between(images_B[:1], first[:1], wagtail), before_BSS[:1])


def test_images_come_in_the_order_asked_for(made: Made) -> None:
    truth = made.truth
    together = truth.redrawn(torch.tensor([5, 0]))
    for place, image in enumerate((5, 0)):
        single = truth.redrawn(torch.tensor([image]))
        assert all(torch.equal(a[place], b[0]) for a, b in zip(together, single, strict=True))


def test_fewer_classes_keep_their_numbers(made: Made) -> None:
    names = ["plain topknot", "crested barwing"]
    fewer = Index("demo", names, made.index.part_names, made.index.table)
    truth = DrawnTruth(made.folder, fewer, made.rows, made.masks, made.crops)
    whole = made.truth.distinguishing_CCQ
    numbers = [made.index.class_names.index(name) for name in names]
    assert torch.equal(truth.distinguishing_CCQ, whole[numbers][:, numbers])


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (None, "No such file"),
        ("{", "Expecting"),
        ('{"seed": 1}', "classes"),
        (json.dumps({"seed": 1, "classes": {"sparrow": {}}}), "not those that this version draws"),
    ],
)
def test_a_folder_without_this_demo_is_refused(
    made: Made, tmp_path: Path, content: str | None, reason: str
) -> None:
    if content is not None:
        (tmp_path / "classes.json").write_text(content)
    with pytest.raises(ProtoMaskError, match=rf"(?s)demo.*{reason}.*dvc repro prepare"):
        DrawnTruth(tmp_path, made.index, made.rows, made.masks, made.crops)
