"""The drawn parts as masks, against the label images that were drawn with the demo."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image as Pillow

from pipeline.datasets.image_file import read_label_image
from pipeline.datasets.readers.demo.classes import PARTS
from pipeline.datasets.readers.demo.data_set import draw
from pipeline.errors import ProtoMaskError
from pipeline.files import sha256
from pipeline.masks.segmenter import Machine, Source
from pipeline.masks.segmenters.drawn import Drawn

DRAWN = Drawn(version=2)


def source(root: Path, name: str) -> Source:
    return Source(root, name, sha256(root / name))


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("demo")
    draw(folder, seed=0, train_per_class=1, test_per_class=1)
    return folder


def test_parts_and_groups_by_hand(tmp_path: Path) -> None:
    """A crown of 12 pixels, a beak of 4, a tail of 8 and a leg of 1 in an image of 10×8."""
    labels = np.zeros((8, 10), np.uint8)
    labels[0:3, 0:4] = PARTS.index("crown") + 1
    labels[0:2, 4:6] = PARTS.index("beak") + 1
    labels[4:8, 8:10] = PARTS.index("tail") + 1
    labels[7, 0] = PARTS.index("legs") + 1
    for folder in ("images", "parts"):
        (tmp_path / folder / "a").mkdir(parents=True)
    Pillow.fromarray(labels).save(tmp_path / "parts/a/001.png")
    Pillow.new("RGB", (10, 8)).save(tmp_path / "images/a/001.png")
    (masks,) = DRAWN.segment_sources([source(tmp_path, "images/a/001.png")], Machine())
    # The bird, the head, the crown, the tail, the beak; a leg of one pixel is no mask.
    assert masks.areas.tolist() == [25, 16, 12, 8, 4]
    names = [DRAWN.part_names[part] for part in masks.parts.tolist()]
    assert names == ["bird", "head", "crown", "tail", "beak"]
    assert masks.levels.tolist() == [0, 1, 2, 2, 2]
    assert masks.foreground.all()
    assert np.array_equal(masks.full(0), labels > 0)
    assert np.array_equal(masks.full(1), (labels == 1) | (labels == 2))
    assert masks.boxes[3].tolist() == [8, 4, 10, 8]


def test_every_part_of_the_drawings_is_a_mask(demo: Path) -> None:
    sources = [
        source(demo, path.relative_to(demo).as_posix()) for path in sorted(demo.rglob("*.jpg"))
    ]
    for at, masks in zip(sources, DRAWN.segment_sources(sources, Machine()), strict=True):
        labels = read_label_image(demo / at.name.replace("images", "parts").replace("jpg", "png"))
        found = {masks.full(number).tobytes() for number in range(len(masks))}
        wide = [
            part
            for part in np.unique(labels[labels > 0])
            if min(np.ptp(axis) for axis in np.nonzero(labels == part)) >= 1
        ]
        assert len(wide) >= 8
        assert all((labels == part).tobytes() in found for part in wide)
        assert (labels > 0).tobytes() in found


def test_parts_are_numbered_as_they_are_drawn() -> None:
    numbers = range(len(PARTS))
    assert tuple(DRAWN.part_names[number] for number in numbers) == PARTS
    assert [DRAWN.part_names[number] for number in (12, 13, 14)] == ["head", "body", "bird"]
    assert len(DRAWN.part_names) == 15


def test_other_images_are_refused(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    Pillow.new("RGB", (4, 4)).save(tmp_path / "images/a.png")
    with pytest.raises(ProtoMaskError, match=r"images/a.png has no drawn parts: .*dataset=demo"):
        DRAWN.segment_sources([source(tmp_path, "images/a.png")], Machine())
    with pytest.raises(ProtoMaskError, match="dataset=demo"):
        DRAWN.segment([np.zeros((4, 4, 3), np.uint8)])
