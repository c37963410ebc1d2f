"""Saving and loading a model, and everything that can be wrong with a saved one."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from settings import crop_settings, model_settings

from pipeline.errors import ProtoMaskError
from pipeline.files import sha256
from pipeline.model.base.distance_network import DistanceNetwork
from pipeline.model.base.network import PrototypeNetwork
from pipeline.model.base.saved import ABOUT, BACKBONE, WEIGHTS, About, load_model, save_model
from pipeline.model.protomask.model import ProtoMask

from ..conftest import SMALL

ABOUT_IT = About(
    class_names=["wren", "Žluva", "jay"],
    segmenter={"name": "patches", "grid": 2},
    crops=crop_settings(side=32, per_image=4),
    images="0" * 64,
    precision="bfloat16",
)


def make_network(seed: int = 0) -> ProtoMask:
    torch.manual_seed(seed)
    network = ProtoMask(SMALL["protomask"], 3)
    network.standardise(torch.rand(20, network.backbone.num_features))
    with torch.no_grad():
        network.classifier.add_(0.1 * torch.randn_like(network.classifier))
    return network


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    save_model(tmp_path / "model", make_network(), ABOUT_IT)
    return tmp_path / "model"


def test_round_trip(saved: Path) -> None:
    network, about = load_model(saved)
    assert about == ABOUT_IT and type(about) is About
    assert not network.training and network.settings == make_network().settings
    for (name, one), (other_name, other) in zip(
        sorted(make_network().state_dict().items()),
        sorted(network.state_dict().items()),
        strict=True,
    ):
        assert name == other_name and one.dtype == other.dtype and torch.equal(one, other)


def test_loaded_model_answers_the_same(saved: Path) -> None:
    crops = torch.randint(0, 256, (2, 3, 32, 32, 3), dtype=torch.uint8)
    valid = torch.tensor([[True, True, True], [True, False, False]])
    with torch.inference_mode():
        expected = make_network().eval()(crops, valid)
        found = load_model(saved)[0](crops, valid)
    assert torch.equal(expected.logits, found.logits)


def test_same_model_same_bytes(saved: Path, tmp_path: Path) -> None:
    save_model(tmp_path / "again", make_network(), ABOUT_IT)
    for name in (BACKBONE, WEIGHTS, ABOUT):
        assert (tmp_path / "again" / name).read_bytes() == (saved / name).read_bytes()


def test_loaded_and_saved_again_same_bytes(saved: Path, tmp_path: Path) -> None:
    save_model(tmp_path / "again", *load_model(saved))
    for name in (BACKBONE, WEIGHTS, ABOUT):
        assert (tmp_path / "again" / name).read_bytes() == (saved / name).read_bytes()


def settings_of(name: str, **changes: Any) -> dict[str, Any]:
    return model_settings(name, **changes).model_dump(mode="json")


@pytest.mark.parametrize("name", SMALL)
def test_every_kind_of_model_comes_back(
    tmp_path: Path, make_small: Callable[[str], PrototypeNetwork], name: str
) -> None:
    network = make_small(name)
    save_model(tmp_path / "one", network, ABOUT_IT)
    loaded, about = load_model(tmp_path / "one")
    assert type(loaded) is type(network) and loaded.settings == network.settings
    assert torch.equal(loaded.class_of, network.class_of)
    assert torch.equal(loaded.own_CP, network.own_CP)
    crops = torch.randint(0, 256, (4, 1, 64, 64, 3), dtype=torch.uint8)
    valid = torch.ones(4, 1, dtype=torch.bool)
    with torch.inference_mode():
        found, expected = (model(crops, valid) for model in (loaded, network))
    assert torch.equal(found.logits, expected.logits)
    assert torch.equal(found.embedding, expected.embedding)
    save_model(tmp_path / "two", loaded, about)
    for file in (BACKBONE, WEIGHTS, ABOUT):
        assert (tmp_path / "two" / file).read_bytes() == (tmp_path / "one" / file).read_bytes()


@pytest.mark.parametrize("name", ["protomask", "protopnet", "protopool"])
def test_every_kind_of_model_with_fewer_prototypes_comes_back(
    tmp_path: Path, make_small: Callable[[str], DistanceNetwork], name: str
) -> None:
    network = make_small(name)
    network.keep(torch.tensor([0, 2]))
    save_model(tmp_path, network, ABOUT_IT)
    loaded, _ = load_model(tmp_path)
    assert loaded.num_prototypes == 2
    for key, value in network.state_dict().items():
        assert torch.equal(loaded.state_dict()[key], value), key


def test_pruned_model(tmp_path: Path) -> None:
    network = make_network()
    network.keep(torch.tensor([0, 3, 4, 5]))
    save_model(tmp_path, network, ABOUT_IT)
    loaded, _ = load_model(tmp_path)
    assert loaded.class_of.tolist() == [0, 1, 2, 2]
    assert torch.equal(loaded.prototypes, network.prototypes)
    assert torch.equal(loaded.classifier, network.classifier)


def test_no_random_weights_are_needed_to_load(saved: Path) -> None:
    """Loading asks for no weights of a file or of the network that training started from."""
    described = json.loads((saved / ABOUT).read_text())
    described["settings"]["pretrained"] = "/gone/weights.pth"
    (saved / ABOUT).write_text(json.dumps(described))
    assert load_model(saved)[0].settings.pretrained == "/gone/weights.pth"


@pytest.mark.parametrize("name", [BACKBONE, WEIGHTS, ABOUT])
def test_missing_file(saved: Path, name: str) -> None:
    (saved / name).unlink()
    with pytest.raises(ProtoMaskError, match=f"no model in .*{name} is missing: run `dvc repro "):
        load_model(saved)


def test_no_folder(tmp_path: Path) -> None:
    with pytest.raises(ProtoMaskError, match="no model in"):
        load_model(tmp_path / "nowhere")


@pytest.mark.parametrize("place", [0, 100, -1])
@pytest.mark.parametrize("name", [BACKBONE, WEIGHTS])
def test_damaged_weights(saved: Path, name: str, place: int) -> None:
    content = bytearray((saved / name).read_bytes())
    content[place] ^= 1
    (saved / name).write_bytes(content)
    with pytest.raises(ProtoMaskError, match=r"is not the file that model\.json describes"):
        load_model(saved)


def test_truncated_weights(saved: Path) -> None:
    content = (saved / WEIGHTS).read_bytes()
    (saved / WEIGHTS).write_bytes(content[: len(content) // 2])
    with pytest.raises(ProtoMaskError, match=r"is not the file that model\.json describes"):
        load_model(saved)


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b"7", b'"text"', b"null", b"\xff\xfe", b'{"format": 6}']
)
def test_damaged_description(saved: Path, content: bytes) -> None:
    (saved / ABOUT).write_bytes(content)
    with pytest.raises(ProtoMaskError, match="holds no readable model"):
        load_model(saved)


def test_another_format(saved: Path) -> None:
    text = (saved / ABOUT).read_text()
    (saved / ABOUT).write_text(text.replace('"format": 6', '"format": 5'))
    with pytest.raises(ProtoMaskError, match="another version"):
        load_model(saved)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("settings", 5),
        ("settings", {**settings_of("protomask"), "name": "prototree"}),
        ("settings", {**settings_of("protomask"), "name": None}),
        ("settings", {**settings_of("protomask"), "embedding_dim": 0}),
        ("settings", {**settings_of("protopnet"), "slots": 2}),
        ("num_prototypes", -1),
        ("num_prototypes", "many"),
        ("class_names", None),
        ("crops", {**crop_settings().model_dump(), "side": 1}),
        ("surprise", 1),
    ],
)
def test_impossible_description(saved: Path, key: str, value: object) -> None:
    described = json.loads((saved / ABOUT).read_text())
    (saved / ABOUT).write_text(json.dumps({**described, key: value}))
    with pytest.raises(ProtoMaskError, match="holds no readable model"):
        load_model(saved)


@pytest.mark.parametrize(
    "change",
    [
        {"num_prototypes": 5},
        {"class_names": ["wren", "jay"]},
        {"settings": settings_of("protomask", backbone="test_convnext", embedding_dim=8)},
        {"settings": settings_of("blackbox", backbone="test_resnet")},
        {"settings": settings_of("protopool", backbone="test_resnet", embedding_dim=8)},
    ],
)
def test_description_of_another_model(saved: Path, change: dict[str, object]) -> None:
    described = json.loads((saved / ABOUT).read_text())
    (saved / ABOUT).write_text(json.dumps({**described, **change}))
    with pytest.raises(ProtoMaskError, match="another model's"):
        load_model(saved)


def describe_weights(folder: Path) -> None:
    described = json.loads((folder / ABOUT).read_text())
    described["weights_sha256"][WEIGHTS] = sha256(folder / WEIGHTS)
    (folder / ABOUT).write_text(json.dumps(described))


def drop_a_tensor(folder: Path) -> None:
    state = load_file(folder / WEIGHTS)
    del state["prototypes"]
    save_file(state, folder / WEIGHTS)


def write_no_safetensors(folder: Path) -> None:
    (folder / WEIGHTS).write_bytes(b"no safetensors")


@pytest.mark.parametrize("damage", [drop_a_tensor, write_no_safetensors])
def test_weights_that_are_none_in_spite_of_their_hash(
    saved: Path, damage: Callable[[Path], None]
) -> None:
    damage(saved)
    describe_weights(saved)
    with pytest.raises(ProtoMaskError):
        load_model(saved)


def test_backbone_that_this_timm_lacks(saved: Path) -> None:
    text = (saved / ABOUT).read_text()
    (saved / ABOUT).write_text(text.replace("test_resnet", "test_resnet_9000"))
    with pytest.raises(ProtoMaskError, match="no model 'test_resnet_9000'"):
        load_model(saved)
