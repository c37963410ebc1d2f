"""Stored features: computed once, remembered, and computed again rather than trusted if damaged."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from settings import runtime

import pipeline.training.features
from pipeline.backbone.engine import version
from pipeline.errors import ProtoMaskError
from pipeline.training.fabric import Fabric, make_fabric
from pipeline.training.features import stored_embeddings, stored_features


@pytest.fixture
def index(make_index: Callable[..., Any]) -> Any:
    return make_index()


@pytest.fixture
def store(make_store: Callable[..., Any], index: Any) -> Any:
    return make_store(index)


@pytest.fixture
def network(make_network: Callable[..., Any]) -> Any:
    return make_network()


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pipeline.training.features, "IMAGES_PER_BLOCK", 4)


def blocks(cache: Path) -> list[Path]:
    return sorted(path for path in cache.rglob("*") if path.is_file())


def test_equal_to_direct_computation(network: Any, store: Any, fabric: Fabric) -> None:
    rows = np.array([20, 3, 5, 7, 0, 11])
    found = stored_features(network, store, rows, fabric)
    assert found.shape == (6, 3, network.backbone.num_features)
    assert found.dtype == torch.float32
    network.eval()
    for place, row in enumerate(rows):
        for crop in range(3):
            if store.valid[row, crop]:
                image = torch.from_numpy(store.pixels[row, crop]).permute(2, 0, 1)[None] / 255
                expected = network.backbone(image)[0]
            else:
                expected = torch.zeros(network.backbone.num_features)
            torch.testing.assert_close(found[place, crop], expected, atol=1e-5, rtol=1e-4)


def test_embeddings_are_those_of_the_features_with_and_without_a_cache(
    network: Any, store: Any, fabric: Fabric, tmp_path: Path
) -> None:
    rows, among = np.array([20, 3, 5, 7, 0, 11]), np.arange(len(store))
    features = stored_features(network, store, rows, fabric)
    with torch.inference_mode():
        expected = network.embed(features)
    torch.testing.assert_close(stored_embeddings(network, store, rows, fabric), expected)
    for _ in range(2):
        found = stored_embeddings(network, store, rows, fabric, tmp_path, among)
        torch.testing.assert_close(found, expected)
    cached = stored_features(network, store, rows, fabric, tmp_path, among)
    torch.testing.assert_close(cached, features)


def test_embeddings_of_features_that_are_no_finite_numbers_are_refused(
    network: Any, store: Any, fabric: Fabric
) -> None:
    """An infinite feature has a finite embedding, sigmoid(±∞)."""
    with torch.no_grad():
        next(iter(network.backbone.parameters())).fill_(torch.inf)
    with pytest.raises(ProtoMaskError, match="no finite numbers"):
        stored_embeddings(network, store, np.arange(3), fabric)


@pytest.fixture
def engines(monkeypatch: pytest.MonkeyPatch) -> dict[str, Fabric]:
    """A computation by each engine, for which any crop is enough."""
    if not version():
        pytest.skip("OpenVINO is not installed")
    monkeypatch.setattr(pipeline.training.features, "CONVERTED_FROM", 1)
    return {
        engine: Fabric(torch.device("cpu"), "float32", engine) for engine in ("auto", "pytorch")
    }


def test_engines_are_remembered_apart(
    network: Any, store: Any, engines: dict[str, Fabric], tmp_path: Path
) -> None:
    rows = np.array([20, 3, 5])
    openvino = stored_features(network, store, rows, engines["auto"], tmp_path)
    pytorch = stored_features(network, store, rows, engines["pytorch"], tmp_path)
    assert not torch.equal(openvino, pytorch)
    assert (openvino - pytorch).abs().max() < 1e-4 * pytorch.abs().max()
    store.read.clear()
    assert torch.equal(stored_features(network, store, rows, engines["auto"], tmp_path), openvino)
    assert store.read == []
    assert torch.equal(stored_features(network, store, rows, engines["auto"]), openvino)


def test_few_crops_are_left_to_pytorch(
    network: Any,
    store: Any,
    engines: dict[str, Fabric],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Of all images that blocks are composed of, so that every stage has the same engine."""
    rows, among = np.array([3, 5]), np.array([3, 4, 5, 20])
    crops = int(store.valid[among].sum())
    assert store.valid[rows].sum() < crops
    pytorch = stored_features(network, store, rows, engines["pytorch"])
    openvino = stored_features(network, store, rows, engines["auto"])
    monkeypatch.setattr(pipeline.training.features, "CONVERTED_FROM", crops)
    assert torch.equal(stored_features(network, store, rows, engines["auto"], tmp_path), pytorch)
    found = stored_features(network, store, rows, engines["auto"], tmp_path, among)
    assert torch.equal(found, openvino)


def test_cells_of_the_whole_image(
    make_network: Callable[..., Any], make_store: Callable[..., Any], index: Any, fabric: Fabric
) -> None:
    """2×2 cells of the map of a 64×64 image, row by row."""
    network = make_network("protopnet")
    store = network.seen(make_store(index, side=64))
    found = stored_features(network, store, np.array([5, 0]), fabric)
    assert found.shape == (2, 4, network.backbone.num_features)
    network.eval()
    for place, row in enumerate([5, 0]):
        image = torch.from_numpy(store.pixels[row, 0]).permute(2, 0, 1)[None] / 255
        cells = network.backbone.feature_map(image)[0]
        assert cells.shape[1:] == (2, 2)
        for cell, (y, x) in enumerate([(0, 0), (0, 1), (1, 0), (1, 1)]):
            torch.testing.assert_close(found[place, cell], cells[:, y, x], atol=1e-5, rtol=1e-4)


def test_cells_and_their_mean_are_remembered_apart(
    make_network: Callable[..., Any],
    make_store: Callable[..., Any],
    index: Any,
    fabric: Fabric,
    tmp_path: Path,
) -> None:
    """A black box and a ProtoPNet have the same backbone and the same images, of one cell each."""
    rows, networks = np.arange(4), [make_network(name) for name in ("blackbox", "protopnet")]
    stores = [network.seen(make_store(index)) for network in networks]
    for _ in range(2):
        for network, store in zip(networks, stores, strict=True):
            stored_features(network, store, rows, fabric, tmp_path)
    assert [store.read for store in stores] == [list(rows), list(rows)]
    assert len(blocks(tmp_path)) == 2


def test_each_pooling_and_stage_is_remembered_apart(
    make_network: Callable[..., Any], store: Any, fabric: Fabric, tmp_path: Path
) -> None:
    rows = np.arange(4)
    networks = [
        make_network(pooling=pooling, stages=stages)
        for pooling in ("box", "mask")
        for stages in ((-1,), (-2,), (-2, -1))
    ]
    found = [stored_features(network, store, rows, fabric, tmp_path) for network in networks]
    assert store.read == 6 * list(rows) and len(blocks(tmp_path)) == 6
    again = [stored_features(network, store, rows, fabric, tmp_path) for network in networks]
    assert store.read == 6 * list(rows)
    assert all(torch.equal(*pair) for pair in zip(found, again, strict=True))
    assert [features.shape[-1] for features in found] == 2 * [96, 192, 288]
    for last, first, both in (found[:3], found[3:]):
        torch.testing.assert_close(torch.cat([first, last], dim=-1), both)
    # Of the masks of the first two crops half is missing, of the third's nothing.
    same = torch.isclose(found[1], found[4], rtol=1e-4, atol=1e-5).all(dim=(0, 2))
    assert same.tolist() == [False, False, True]


def test_precisions_are_remembered_apart(
    network: Any, store: Any, fabric: Fabric, tmp_path: Path
) -> None:
    rows, half = np.arange(4), make_fabric(runtime(device="cpu"), "bfloat16")
    first, coarse = (stored_features(network, store, rows, of, tmp_path) for of in (fabric, half))
    assert store.read == [*rows, *rows] and first.dtype == coarse.dtype == torch.float32
    assert not torch.equal(first, coarse)
    torch.testing.assert_close(first, coarse, atol=0.05, rtol=0.05)


def test_can_be_trained_on(network: Any, store: Any, fabric: Fabric) -> None:
    features = stored_features(network, store, np.arange(4), fabric)
    valid = torch.from_numpy(store.valid[:4])
    network(features * 1, valid).logits.sum().backward()


def test_no_rows(network: Any, store: Any, fabric: Fabric, tmp_path: Path) -> None:
    rows = np.zeros(0, np.int64)
    found = stored_features(network, store, rows, fabric, tmp_path)
    assert found.shape == (0, 3, network.backbone.num_features)


def test_second_time_reads_no_crop(
    network: Any, store: Any, fabric: Fabric, tmp_path: Path
) -> None:
    rows = np.arange(12)
    first = stored_features(network, store, rows, fabric, tmp_path)
    assert store.read == list(rows) and len(blocks(tmp_path)) == 3
    again = stored_features(network, store, rows, fabric, tmp_path)
    assert store.read == list(rows)
    assert torch.equal(first, again)


def test_folds_share_blocks(network: Any, store: Any, fabric: Fabric, tmp_path: Path) -> None:
    """Whatever part of the images a fold asks for, nothing is read again, and the bytes are the
    same."""
    among = np.arange(1, 21, 2)
    whole = stored_features(network, store, among, fabric, tmp_path)
    store.read.clear()
    for places in ([0, 5, 6, 9], [9, 3, 3, 0], []):
        rows = among[np.array(places, np.int64)]
        found = stored_features(network, store, rows, fabric, tmp_path, among)
        assert torch.equal(found, whole[places])
    assert store.read == []


def test_only_blocks_that_are_asked_for_are_computed(
    network: Any, store: Any, fabric: Fabric, tmp_path: Path
) -> None:
    among = np.arange(20)
    found = stored_features(network, store, np.array([13, 2]), fabric, tmp_path, among)
    assert store.read == [0, 1, 2, 3, 12, 13, 14, 15]
    assert torch.equal(found, stored_features(network, store, among, fabric)[[13, 2]])


def test_without_a_memory_only_the_rows_are_read(network: Any, store: Any, fabric: Fabric) -> None:
    stored_features(network, store, np.array([13, 2]), fabric, None, np.arange(20))
    assert store.read == [13, 2]


def test_remembered_or_not_is_the_same(
    network: Any, store: Any, fabric: Fabric, tmp_path: Path
) -> None:
    rows = np.arange(12)
    remembered = stored_features(network, store, rows, fabric, tmp_path)
    assert torch.equal(remembered, stored_features(network, store, rows, fabric))


def test_killed_run_goes_on_where_it_was(
    network: Any, store: Any, fabric: Fabric, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = np.arange(12)
    backbone, calls = network.backbone.feature_maps, []

    def killed(images: torch.Tensor, stages: tuple[int, ...]) -> list[torch.Tensor]:
        calls.append(len(images))
        if len(calls) == 3:
            raise KeyboardInterrupt
        return backbone(images, stages)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(network.backbone, "feature_maps", killed)
        stored_features(network, store, rows, fabric, tmp_path)
    assert len(blocks(tmp_path)) == 2
    store.read.clear()
    found = stored_features(network, store, rows, fabric, tmp_path)
    assert store.read == [8, 9, 10, 11]
    assert torch.equal(found, stored_features(network, store, rows, fabric))


def truncate(content: bytes) -> bytes:
    return content[: len(content) // 2]


def empty(content: bytes) -> bytes:
    return b""


def garbage(content: bytes) -> bytes:
    return b"garbage" * 100


def flip(content: bytes) -> bytes:
    changed = bytearray(content)
    changed[len(content) // 2] ^= 0x40
    return bytes(changed)


@pytest.mark.parametrize("damage", [truncate, empty, garbage, flip])
@pytest.mark.parametrize("which", [0, 1, 2])
def test_damaged_block_is_computed_again(
    network: Any,
    store: Any,
    fabric: Fabric,
    tmp_path: Path,
    damage: Callable[[bytes], bytes],
    which: int,
) -> None:
    rows = np.arange(12)
    first = stored_features(network, store, rows, fabric, tmp_path)
    damaged = blocks(tmp_path)[which]
    whole = damaged.read_bytes()
    damaged.write_bytes(damage(whole))
    store.read.clear()
    assert torch.equal(stored_features(network, store, rows, fabric, tmp_path), first)
    assert store.read in ([0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10, 11])
    store.read.clear()
    assert torch.equal(stored_features(network, store, rows, fabric, tmp_path), first)
    assert store.read == []


def test_block_of_another_shape_is_computed_again(
    network: Any, store: Any, fabric: Fabric, tmp_path: Path
) -> None:
    first = stored_features(network, store, np.arange(4), fabric, tmp_path)
    (block,) = blocks(tmp_path)
    with block.open("wb") as file:
        np.savez(file, features=np.zeros((4, 3, 5), np.float32))
    assert torch.equal(stored_features(network, store, np.arange(4), fabric, tmp_path), first)


def test_other_weights_are_computed(
    network: Any,
    store: Any,
    fabric: Fabric,
    tmp_path: Path,
    make_network: Callable[..., Any],
) -> None:
    rows = np.arange(4)
    first = stored_features(network, store, rows, fabric, tmp_path)
    other = stored_features(make_network(seed=1), store, rows, fabric, tmp_path)
    assert store.read == [*rows, *rows]
    assert not torch.allclose(first, other)


def test_batch_norm_statistics_are_weights_too(
    network: Any, store: Any, fabric: Fabric, tmp_path: Path
) -> None:
    rows = np.arange(4)
    first = stored_features(network, store, rows, fabric, tmp_path)
    for name, buffer in network.backbone.named_buffers():
        if name.endswith("running_var"):
            buffer.mul_(2)
    assert not torch.allclose(first, stored_features(network, store, rows, fabric, tmp_path))


def test_other_crops_are_computed(
    network: Any,
    store: Any,
    fabric: Fabric,
    tmp_path: Path,
    make_store: Callable[..., Any],
    index: Any,
) -> None:
    rows = np.arange(4)
    stored_features(network, store, rows, fabric, tmp_path)
    other = make_store(index, seed=1)
    found = stored_features(network, other, rows, fabric, tmp_path)
    assert other.read == list(rows)
    assert torch.equal(found, stored_features(network, other, rows, fabric))


def test_projection_and_prototypes_do_not_matter(
    network: Any,
    store: Any,
    fabric: Fabric,
    tmp_path: Path,
) -> None:
    """The push and the metrics find what training computed."""
    rows = np.arange(4)
    stored_features(network, store, rows, fabric, tmp_path)
    with torch.no_grad():
        network.projection.weight.add_(1)
        network.prototypes.add_(1)
    stored_features(network, store, rows, fabric, tmp_path)
    assert store.read == list(rows)


def test_what_another_process_is_writing_is_left_alone(
    network: Any, store: Any, fabric: Fabric, tmp_path: Path
) -> None:
    stored_features(network, store, np.arange(4), fabric, tmp_path)
    (block,) = blocks(tmp_path)
    writing = block.with_name(".other.npz.x.part")
    writing.write_bytes(b"half")
    stored_features(network, store, np.arange(8), fabric, tmp_path)
    assert writing.exists()


def test_backbone_in_training_mode_is_not_used_so(network: Any, store: Any, fabric: Fabric) -> None:
    before = {name: value.clone() for name, value in network.state_dict().items()}
    network.train()
    first = stored_features(network, store, np.arange(6), fabric)
    assert torch.equal(first, stored_features(network, store, np.arange(6), fabric))
    for name, value in network.state_dict().items():
        assert torch.equal(value, before[name]), name


def test_features_that_are_no_numbers(network: Any, store: Any, fabric: Fabric) -> None:
    with torch.no_grad():
        next(network.backbone.parameters()).fill_(torch.nan)
    with pytest.raises(
        ProtoMaskError, match=r"model\.backbone: the features of test_resnet are no"
    ):
        stored_features(network, store, np.array([0, 1]), fabric)
