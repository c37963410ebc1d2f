"""Feature maps in eight bits, their cache, and the margin that is cut off."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from settings import parts

from pipeline.backbone.backbone import Backbone
from pipeline.backbone.engine import version
from pipeline.errors import ProtoMaskError
from pipeline.files import sha256
from pipeline.masks.segmenter import Machine, Source
from pipeline.masks.segmenters.parts.features import FeatureMap, FeatureMaps, Features


def test_eight_bits_by_hand() -> None:
    """Channel 0 goes from −1 to 50, in steps of 0.2; channel 1 is constant."""
    values = np.array([[[-1.0, 50.0], [0.05, 0.16]], [[7.0, 7.0], [7.0, 7.0]]], np.float32)
    found = FeatureMap.of(values)
    assert found.steps.tolist() == [[[0, 255], [5, 6]], [[0, 0], [0, 0]]]
    assert found.low.tolist() == [-1, 7]
    np.testing.assert_allclose(found.width, [0.2, 0], rtol=1e-6)
    expected = [[[-1, 50], [0, 0.2]], [[7, 7], [7, 7]]]
    np.testing.assert_allclose(found.values(), expected, atol=1e-5)
    assert found.values().dtype == np.float32


def test_no_value_is_off_by_more_than_half_a_step() -> None:
    values = np.random.default_rng(0).normal(size=(5, 9, 9)).astype(np.float32) * 100
    found = FeatureMap.of(values)
    off = np.abs(found.values() - values).max(axis=(1, 2))
    assert (off <= 0.501 * found.width).all()


def _one(features: Features, source: Source) -> FeatureMaps:
    (maps,) = features.of_sources([source])
    return maps


def test_the_cache_is_by_content(photographs: list[Source], tmp_path: Path) -> None:
    """What the cache holds is what is returned: so it was not computed again."""
    features = Features(parts(), Machine(), tmp_path)
    first = _one(features, photographs[0])
    (file,) = tmp_path.rglob("*.npz")
    assert file.stem == photographs[0].sha256
    with np.load(file) as arrays:
        held = {name: arrays[name] for name in arrays.files}
    held["arr_1"] = held["arr_1"] + 1000
    np.savez(file, **held)
    renamed = Source(Path("/nowhere"), "renamed.png", photographs[0].sha256)
    again = _one(features, renamed)
    np.testing.assert_array_equal(again[0].low, first[0].low + 1000)
    np.testing.assert_array_equal(again[1].steps, first[1].steps)
    other = _one(features, photographs[1])
    assert len(list(tmp_path.rglob("*.npz"))) == 2
    assert not np.array_equal(other[0].steps, first[0].steps)


def test_the_number_of_threads_changes_nothing() -> None:
    """Images of any number, in their order; sums of several threads would differ in last digits."""
    chance = np.random.default_rng(0)
    images = [chance.integers(0, 256, (60, 80, 3), np.uint8) for _ in range(3)]
    settings = parts(backbone="efficientnet_lite0", side=192, margin=32, stages=[-1])
    found, threads = {}, torch.get_num_threads()
    try:
        for number in (1, 2, 3):
            torch.set_num_threads(number)
            found[number] = Features(settings, Machine(), None).of_images(images)
            assert torch.get_num_threads() == number
    finally:
        torch.set_num_threads(threads)
    for one, two, three in zip(found[1], found[2], found[3], strict=True):
        for name in ("steps", "low", "width"):
            arrays = [getattr(maps[0], name) for maps in (one, two, three)]
            assert np.array_equal(arrays[0], arrays[1]) and np.array_equal(arrays[0], arrays[2])
    assert not np.array_equal(found[1][0][0].steps, found[1][1][0].steps)


def test_files_are_read_side_by_side_in_their_order(
    photographs: list[Source], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In blocks of two, of which some images are in the cache."""
    monkeypatch.setattr("pipeline.masks.segmenters.parts.features.AT_ONCE", 2)
    features = Features(parts(), Machine(), tmp_path)
    apart = [_one(Features(parts(), Machine(), None), source) for source in photographs]
    _one(features, photographs[1])
    together = list(features.of_sources(photographs))
    for one, other in zip(apart, together, strict=True):
        assert all(np.array_equal(a.steps, b.steps) for a, b in zip(one, other, strict=True))


@pytest.mark.parametrize(
    "damage",
    [
        lambda held: {**held, "arr_0": held["arr_0"].astype(np.float32)},
        lambda held: {**held, "arr_1": held["arr_1"][:-1]},
        lambda held: {name: held[name] for name in list(held)[:-1]},
        lambda held: {**held, "arr_2": np.array([None])},
    ],
    ids=["another type", "a channel less", "an array less", "an object"],
)
def test_what_cannot_be_feature_maps_is_computed_again(
    photographs: list[Source], tmp_path: Path, damage: Callable[[dict[str, Any]], dict[str, Any]]
) -> None:
    features = Features(parts(), Machine(), tmp_path)
    first = _one(features, photographs[0])
    (file,) = tmp_path.rglob("*.npz")
    with np.load(file) as arrays:
        held = {name: arrays[name] for name in arrays.files}
    np.savez(file, **damage(held))
    again = _one(features, photographs[0])
    assert all(np.array_equal(a.steps, b.steps) for a, b in zip(first, again, strict=True))


def test_any_flipped_bit_is_found_or_harmless(photographs: list[Source], tmp_path: Path) -> None:
    features = Features(parts(), Machine(), tmp_path)
    first = _one(features, photographs[0])
    (file,) = tmp_path.rglob("*.npz")
    content = file.read_bytes()
    for place in np.random.default_rng(0).integers(0, 8 * len(content), 300).tolist():
        damaged = bytearray(content)
        damaged[place // 8] ^= 1 << place % 8
        file.write_bytes(bytes(damaged))
        taken = features.taken(photographs[0])
        assert taken is None or len(taken) == len(first)


def test_what_is_taken_is_gone(photographs: list[Source], tmp_path: Path) -> None:
    features = Features(parts(), Machine(), tmp_path)
    assert features.taken(photographs[0]) is None
    first = _one(features, photographs[0])
    taken = features.taken(photographs[0])
    assert taken is not None
    np.testing.assert_array_equal(taken[0].steps, first[0].steps)
    assert not list(tmp_path.rglob("*.npz"))


@pytest.mark.slow
@pytest.mark.skipif(not version(), reason="OpenVINO is not installed")
def test_engines_have_caches_of_their_own(photographs: list[Source], tmp_path: Path) -> None:
    """Without a folder to keep the conversion in, and unless it is asked for, PyTorch computes."""
    settings, machine = parts(), Machine(engine="openvino")
    assert Features(settings, Machine(engine="auto"), tmp_path).computed_by == ""
    pytorch = _one(Features(settings, Machine(), tmp_path), photographs[0])
    features = Features(settings, machine, tmp_path)
    openvino = _one(features, photographs[0])
    assert features.computed_by == f"OpenVINO {version()}"
    assert len(list(tmp_path.rglob(f"{photographs[0].sha256}.npz"))) == 2
    assert any((a.low != b.low).any() for a, b in zip(pytorch, openvino, strict=True))
    for one, other in zip(pytorch, openvino, strict=True):
        off = np.abs(one.values() - other.values()).max(axis=(1, 2))
        assert (off <= 1.01 * one.width + 1e-5).all()
    (alone,) = Features(settings, machine, None).of_images([photographs[0].read()])
    np.testing.assert_array_equal(alone[0].low, pytorch[0].low)


@pytest.mark.parametrize("keep", [0, 20, 1000])
def test_a_damaged_file_is_computed_again(
    photographs: list[Source], tmp_path: Path, keep: int
) -> None:
    features = Features(parts(), Machine(), tmp_path)
    first = _one(features, photographs[0])
    (file,) = tmp_path.rglob("*.npz")
    content = file.read_bytes()
    file.write_bytes(content[:keep])
    again = _one(features, photographs[0])
    for one, other in zip(first, again, strict=True):
        np.testing.assert_array_equal(one.steps, other.steps)
    assert file.read_bytes() == content


def test_a_bit_that_has_turned_is_noticed(photographs: list[Source], tmp_path: Path) -> None:
    features = Features(parts(), Machine(), tmp_path)
    first = _one(features, photographs[0])
    (file,) = tmp_path.rglob("*.npz")
    content = bytearray(file.read_bytes())
    content[len(content) // 4] ^= 1
    file.write_bytes(content)
    again = _one(features, photographs[0])
    np.testing.assert_array_equal(again[0].steps, first[0].steps)


def test_other_parameters_have_another_cache(photographs: list[Source], tmp_path: Path) -> None:
    for changes in ({}, {"side": 96}, {"margin": 0}, {"stages": (1, 2)}):
        _one(Features(parts(**changes), Machine(), tmp_path), photographs[0])
    _one(Features(parts(levels=(3,)), Machine(), tmp_path), photographs[0])
    assert len(list((tmp_path / "features").iterdir())) == 4


@pytest.mark.parametrize("margin", [0, 30, 32, 64])
def test_the_margin_is_cut_off(photographs: list[Source], margin: int) -> None:
    """Strides 4, 8 and 16 of 64 pixels; 30 of the margin are two of 16, nearly."""
    image = photographs[0].read()
    (maps,) = Features(parts(margin=margin), Machine(), None).of_images([image])
    assert [each.steps.shape[1:] for each in maps][1:] == [(8, 8), (4, 4)]


def test_what_is_left_is_the_middle(photographs: list[Source]) -> None:
    features = Features(parts(), Machine(), None)
    cells = np.arange(16 * 16, dtype=np.float32).reshape(1, 16, 16)
    np.testing.assert_array_equal(features._inner(cells), cells[:, 4:12, 4:12])  # 32 of 128


def test_random_weights_are_the_same_in_every_process() -> None:
    """A worker must see the features that the codebook was learned from."""
    from pipeline.masks.segmenters.parts import features

    found = set()
    for seed in (1, 2):
        torch.manual_seed(seed)
        features._load.cache_clear()
        found.add(features._load("test_resnet", "none", "cpu").fingerprint())
        assert torch.initial_seed() == seed
    assert len(found) == 1


def test_weights_are_told_by_their_hash(tmp_path: Path) -> None:
    file = tmp_path / "weights.pth"
    torch.save(Backbone("test_resnet").network.state_dict(), file)
    digest = sha256(file)
    Features(parts(pretrained=digest), Machine(weights=file), None)
    with pytest.raises(ProtoMaskError, match=rf"has the SHA-256 {digest}, not {'0' * 64}"):
        Features(parts(pretrained="0" * 64), Machine(weights=file), None)
    with pytest.raises(ProtoMaskError, match=r"set runtime\.weights"):
        Features(parts(pretrained=digest), Machine(), None)
    with pytest.raises(ProtoMaskError, match="cannot be read"):
        Features(parts(pretrained=digest), Machine(weights=tmp_path / "none"), None)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"backbone": "mixer_s32_224", "stages": (-1,)}, "not in a feature map"),
        ({"stages": (1, 9)}, "no feature map 9: there are 0 to 4"),
        ({"backbone": "test_resnett"}, "no model 'test_resnett'"),
    ],
)
def test_backbones_that_cannot_be_used(changes: dict, message: str) -> None:
    with pytest.raises(ProtoMaskError, match=rf"segmenter\.backbone: .*{message}"):
        Features(parts(**changes), Machine(), None)
