"""`parts` from photographs to masks: learned, pinned, stored, and applied to a new photograph."""

import hashlib
import pickle
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from settings import PARTS, parts

from pipeline.datasets.index import ImageFiles
from pipeline.errors import ProtoMaskError
from pipeline.masks.masks import Masks
from pipeline.masks.segment import StoredMasks, fit, remarks_on, segment_images
from pipeline.masks.segmenter import Machine, Segmenter, Source, with_fingerprint
from pipeline.masks.segmenters.parts.codebook import Codebook
from pipeline.masks.segmenters.parts.features import FeatureMap, FeatureMaps
from pipeline.masks.segmenters.parts.learning import learn
from pipeline.masks.segmenters.parts.segmenter import Parts
from pipeline.masks.store import CODEBOOK, MaskStore, write_store

Same = Callable[[Masks, Masks], bool]
AsSources = Callable[[Path, Sequence[NDArray[np.uint8]]], list[Source]]


def _contents(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def _kept(fitted: Parts, path: Path) -> Machine:
    """Writes the codebook to a file; returns a machine that names it."""
    content = fitted.learnt()
    assert content is not None
    path.write_bytes(content)
    return Machine(codebook=path)


def _noise(height: int, width: int) -> NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)


def test_fit_names_the_codebook(fitted: Parts) -> None:
    content = fitted.learnt()
    assert content is not None
    assert fitted.codebook == hashlib.sha256(content).hexdigest()
    assert fitted.fingerprint() == {**parts().fingerprint(), "codebook": fitted.codebook}
    assert parts().differing(fitted.fingerprint()) == []
    assert parts(side=96).differing(fitted.fingerprint()) == ["side"]
    assert parts().learnt() is None


def test_photographs_have_an_object_and_parts(fitted: Parts, photographs: list[Source]) -> None:
    for masks in fitted.segment_sources(photographs, Machine()):
        assert (masks.height, masks.width) == (30, 40)
        assert set(masks.levels.tolist()) == {0, 1, 2}
        assert all(0 <= part < 1 + 2 + 4 for part in masks.parts)
        assert masks.scores.shape == (len(masks), 1)


def test_files_and_images_give_the_same_masks(
    fitted: Parts, photographs: list[Source], tmp_path: Path, same_masks: Same
) -> None:
    """From cached features, without a cache, from a pinned codebook, and in any company."""
    pinned = with_fingerprint(fitted.fingerprint())
    machine = _kept(fitted, tmp_path / "codebook")
    images = [source.read() for source in photographs]
    learning = parts().fit(photographs, tmp_path / "cache", Machine())
    assert len(list(tmp_path.glob("cache/features/*/*/*.npz"))) == len(photographs)
    ways = [
        learning.segment_sources(photographs, Machine()),
        learning.segment_sources(photographs, Machine()),
        fitted.segment(images),
        pinned.segment(images, machine),
        pinned.segment_sources(photographs, machine),
        [fitted.segment([image])[0] for image in images],
        pickle.loads(pickle.dumps(fitted)).segment(images),
    ]
    for way in ways[1:]:
        assert all(same_masks(one, other) for one, other in zip(ways[0], way, strict=True))
    assert fitted.segment([]) == []


def test_the_codebook_is_learned_once(
    fitted: Parts, photographs: list[Source], cache: Path
) -> None:
    """In whatever order; what the cache holds is taken, and a damaged file learned anew."""
    (known,) = cache.glob("codebooks/*/*.safetensors")
    assert known.stem == fitted.codebook
    content, written = known.read_bytes(), known.stat().st_mtime_ns
    again = parts().fit(photographs[::-1], cache, Machine())
    assert again.fingerprint() == fitted.fingerprint()
    assert known.stat().st_mtime_ns == written
    known.write_bytes(content[:100])
    assert parts().fit(photographs, cache, Machine()).key() == fitted.key()
    assert known.read_bytes() == content


def test_it_learns_from_the_smallest_hashes(photographs: list[Source], tmp_path: Path) -> None:
    """Three of the six: the others change nothing. Features are kept until there are masks."""
    three = sorted(photographs, key=lambda source: source.sha256)[:3]
    one = parts(sample=3).fit(photographs, tmp_path / "a", Machine())
    other = parts(sample=3).fit(three, tmp_path / "b", Machine())
    assert one.fingerprint() == other.fingerprint()
    assert len(list(tmp_path.glob("a/features/*/*/*.npz"))) == 3
    one.segment_sources(photographs, Machine())
    assert not list(tmp_path.glob("a/features/*/*/*.npz"))


def test_a_pinned_codebook(fitted: Parts, photographs: list[Source], tmp_path: Path) -> None:
    """From runtime.codebook: nothing is learned, and nothing is said."""
    machine = _kept(fitted, tmp_path / "codebook")
    pinned = parts(codebook=fitted.codebook)
    again = pinned.fit(photographs[:1], tmp_path / "cache", machine)
    assert again.learnt() == fitted.learnt()
    assert again.key() == fitted.key()
    assert again.remarks(photographs, machine) == []
    assert not (tmp_path / "cache").exists()


def test_a_pinned_codebook_that_was_learned_here(
    fitted: Parts, photographs: list[Source], cache: Path
) -> None:
    pinned = parts(codebook=fitted.codebook)
    assert pinned.fit(photographs, cache, Machine()).learnt() == fitted.learnt()


def test_a_codebook_is_read_once_for_all_photographs(
    fitted: Parts, photographs: list[Source], tmp_path: Path, same_masks: Same
) -> None:
    machine = _kept(fitted, tmp_path / "codebook")
    ready = with_fingerprint(fitted.fingerprint()).with_learnt(machine)
    (tmp_path / "codebook").unlink()
    (expected,) = fitted.segment_sources(photographs[:1], Machine())
    for _ in range(2):
        assert same_masks(expected, ready.segment([photographs[0].read()], machine)[0])
    with pytest.raises(ProtoMaskError, match=r"runtime\.codebook: .* cannot be read"):
        with_fingerprint(fitted.fingerprint()).with_learnt(machine)


def test_pinned_codebooks_that_do_not_fit(
    fitted: Parts, photographs: list[Source], tmp_path: Path, cache: Path
) -> None:
    pinned = parts(codebook=fitted.codebook)
    with pytest.raises(ProtoMaskError, match=rf"{fitted.codebook}: set runtime\.codebook"):
        pinned.fit(photographs, tmp_path, Machine())
    with pytest.raises(ProtoMaskError, match=r"set runtime\.codebook"):
        pinned.segment([_noise(9, 9)])
    with pytest.raises(ProtoMaskError, match="no parts before it has seen a data set"):
        parts().segment([_noise(9, 9)])
    other = parts(codebook=fitted.codebook, side=96)
    with pytest.raises(ProtoMaskError, match="learned with side 64, not 96"):
        other.fit(photographs, cache, Machine())
    other = parts(codebook=fitted.codebook, backbone="test_vit", side=160, stages=(0, 1, -1))
    with pytest.raises(ProtoMaskError, match="backbone test_resnet, not test_vit"):
        other.segment([_noise(9, 9)], _kept(fitted, tmp_path / "codebook"))
    with pytest.raises(ProtoMaskError, match="has the SHA-256"):
        parts(codebook="0" * 64).fit(photographs, cache, _kept(fitted, tmp_path / "codebook"))


def test_two_fitted_segmenters_can_be_compared(
    fitted: Parts, photographs: list[Source], tmp_path: Path
) -> None:
    other = parts().fit(photographs[:1], tmp_path, Machine())
    assert fitted == fitted.model_copy()
    assert fitted != other


def test_what_it_says(fitted: Parts, photographs: list[Source]) -> None:
    (said,) = fitted.remarks(photographs, Machine())
    assert "from 6 images, without labels" in said and str(fitted.codebook)[:12] in said
    assert "`protomask masks codebook FILE`" in said


@pytest.fixture
def image_files(
    photograph_folder: Path, image_files_in: Callable[[Path], ImageFiles]
) -> ImageFiles:
    return image_files_in(photograph_folder)


def _stored(
    image_files: ImageFiles, root: Path, folder: Path, workers: int
) -> tuple[MaskStore, Segmenter]:
    cache = folder / f"cache {workers}"
    fitted = fit(image_files, root, parts(), cache, Machine())
    segment_images(image_files, root, fitted, cache, workers)
    path = folder / f"store {workers}"
    write_store(path, image_files, fitted, StoredMasks(image_files, fitted, cache))
    return MaskStore(path), fitted


def test_the_store_keeps_the_codebook_for_new_photographs(
    image_files: ImageFiles, photograph_folder: Path, tmp_path: Path, same_masks: Same
) -> None:
    store, fitted = _stored(image_files, photograph_folder, tmp_path, 1)
    assert store.codebook() == fitted.learnt()
    assert store.verify() == []
    store.refuse_unless(parts(), image_files)
    segmenter, machine = (
        with_fingerprint(store.about["segmenter"]),
        Machine(codebook=store.path / CODEBOOK),
    )
    for number, name in enumerate(image_files.table["path"][:3]):
        source = Source(photograph_folder, name, image_files.table["sha256"][number])
        (masks,) = segmenter.segment([source.read()], machine)
        assert same_masks(masks, store.masks(number))
        assert len(masks)
    (store.path / CODEBOOK).write_bytes(b"damaged")
    with pytest.raises(ProtoMaskError, match="damaged"):
        store.codebook()


@pytest.mark.slow
def test_two_workers_store_the_same_bytes(
    make_photographs: Callable[..., Path],
    image_files_in: Callable[[Path], ImageFiles],
    tmp_path: Path,
) -> None:
    """Two batches, of 16 images and of 4, in two processes of their own, against one process."""
    root = make_photographs(tmp_path / "photographs", per_class=10)
    one, two = (_stored(image_files_in(root), root, tmp_path, workers)[0] for workers in (1, 2))
    assert _contents(one.path) == _contents(two.path)
    assert (one.num_masks() > 0).all()


def test_held_out_images_teach_nothing(
    image_files: ImageFiles, photograph_folder: Path, tmp_path: Path
) -> None:
    held = image_files.table.assign(held_out=[number > 2 for number in range(10)])
    fitted = fit(replace(image_files, table=held), photograph_folder, parts(), tmp_path, Machine())
    assert isinstance(fitted, Parts) and fitted._codebook is not None
    assert fitted._codebook.about["images"] == 3
    everything = replace(image_files, table=held.assign(held_out=True))
    with pytest.raises(ProtoMaskError, match=r"no image to learn parts from: .* test split"):
        fit(everything, photograph_folder, parts(), tmp_path, Machine())


def test_one_photograph_is_a_data_set(photographs: list[Source], tmp_path: Path) -> None:
    fitted = parts().fit(photographs[:1], tmp_path, Machine())
    (masks,) = fitted.segment_sources(photographs[:1], Machine())
    assert len(masks)
    assert "from 1 images" in fitted.remarks(photographs[:1], Machine())[0]


@pytest.mark.filterwarnings("error::RuntimeWarning")
@pytest.mark.parametrize("size", [(1, 1), (1, 2), (2, 1), (2, 2), (3, 400), (400, 3), (1, 400)])
def test_tiny_images(fitted: Parts, size: tuple[int, int]) -> None:
    (masks,) = fitted.segment([_noise(*size)])
    assert (masks.height, masks.width) == size
    for number in range(len(masks)):
        assert masks.full(number).sum() == masks.areas[number] > 0


@pytest.mark.parametrize("margin", [0, 32])
def test_an_image_of_one_colour_has_no_mask(
    photographs: list[Source], tmp_path: Path, as_sources: AsSources, margin: int
) -> None:
    plain = as_sources(tmp_path, [np.full((30, 40, 3), 77, np.uint8)])
    fitted = parts(margin=margin).fit([*photographs, *plain], tmp_path, Machine())
    assert [len(masks) for masks in fitted.segment_sources(plain, Machine())] == [0]
    assert all(len(masks) for masks in fitted.segment_sources(photographs, Machine()))


@pytest.mark.filterwarnings("error")
def test_images_of_one_colour_alone(
    tmp_path: Path, as_sources: AsSources, image_files_in: Callable[[Path], ImageFiles]
) -> None:
    root = tmp_path / "images"
    for name in ("a", "b"):
        (root / name).mkdir(parents=True)
    plain = [
        *as_sources(root / "a", [np.full((30, 40, 3), 9, np.uint8)]),
        *as_sources(root / "b", [np.full((30, 40, 3), 99, np.uint8)]),
    ]
    fitted = parts().fit(plain, tmp_path / "cache", Machine())
    masks = fitted.segment_sources(plain, Machine())
    with pytest.raises(ProtoMaskError, match="'parts' gives none of the 2 images a mask"):
        remarks_on(masks, image_files_in(root), root, fitted, Machine())


def test_it_works_with_a_vision_transformer(photographs: list[Source], tmp_path: Path) -> None:
    vit = parts(backbone="test_vit", side=160, margin=0, stages=(0, 2, -1), objectness="contrast")
    fitted = vit.fit(photographs, tmp_path, Machine())
    assert all(len(masks) for masks in fitted.segment_sources(photographs, Machine()))


@pytest.mark.parametrize("levels", [(), (1,), (4, 2), (3, 3)])
def test_levels_that_are_none(levels: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="levels"):
        parts(levels=levels)


OTHER = {
    "backbone": "test_vit",
    "pretrained": "imagenet",
    "side": 96,
    "margin": 0,
    "stages": (2, 3),
    "objectness": "contrast",
    "levels": (3,),
    "sample": 12,
    "min_area": 0.2,
    "superpixel": 9.0,
    "codebook": "0" * 64,
}


def test_another_parameter_is_another_key() -> None:
    assert set(OTHER) == set(PARTS) - {"version"} == set(Parts.model_fields) - {"name", "version"}
    keys = {parts(**{name: value}).key() for name, value in OTHER.items()} | {parts().key()}
    assert len(keys) == len(OTHER) + 1


def _picture(turned: int) -> NDArray[np.uint8]:
    """A disc of two colours before a slope, by arithmetic alone."""
    y, x = np.mgrid[:48, :64]
    picture = np.stack([x + 60, y * 2, 100 + (x + y) // 2], axis=-1)
    disc = (y - 22 - turned) ** 2 + (x - 30 - 2 * turned) ** 2 < 180
    picture[disc] = 250, 220, 20
    picture[disc & (x < 30 + turned)] = 230, 30, 40
    return picture.astype(np.uint8)


def _colours(image: NDArray[np.uint8]) -> FeatureMaps:
    """Colours as feature maps of 24, 12 and 6 cells, without a network, whose last digits differ
    from processor to processor."""
    channels = np.moveaxis(image[::2, 8:56:2].astype(np.float32), -1, 0)
    channels = np.concatenate(
        [channels, channels[:1] - channels[1:2], channels[1:2] - channels[2:]]
    )
    return [FeatureMap.of(channels[:, ::step, ::step]) for step in (1, 2, 4)]


def _hash(masks: Masks) -> str:
    digest = hashlib.sha256(f"{masks.height} {masks.width}".encode())
    for counts in masks.counts:
        digest.update(counts + b";")
    digest.update(masks.boxes.tobytes() + masks.parts.tobytes() + masks.levels.tobytes())
    return digest.hexdigest()[:16]


def test_the_masks_are_those_of_this_version() -> None:
    images = [_picture(turned) for turned in range(-3, 4)]
    maps = [_colours(image) for image in images]
    codebook: Codebook = learn(parts(levels=(2, 3)), "0" * 64, maps)
    all_masks = [
        parts()._masks(image, its, codebook) for image, its in zip(images, maps, strict=True)
    ]
    assert all({0, 1, 2} == set(masks.levels.tolist()) for masks in all_masks)
    found = hashlib.sha256("".join(map(_hash, all_masks)).encode()).hexdigest()[:16]
    assert found == "124f877fd794336b", (
        "parts finds other masks than before: raise its `version` (in its class and in "
        "conf/segmenter/parts.yaml), or every cache serves masks of the old kind as new ones; "
        f"then store {found} here"
    )
