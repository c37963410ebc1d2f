"""Controls: models that have learned nothing, made from one that has."""

import pytest
import torch

from pipeline.explain.controls import with_random_prototypes, with_random_weights
from pipeline.model.network import PrototypeNetwork
from pipeline.model.settings import ModelSettings
from pipeline.training.devices import make_fabric
from pipeline.training.settings import Runtime

C, M = 3, 2


@pytest.fixture(scope="module")
def fabric():
    return make_fabric(Runtime(device="cpu", workers=1))


@pytest.fixture
def network():
    torch.manual_seed(0)
    settings = ModelSettings(
        backbone="test_resnet", pretrained="none", embedding_dim=8, prototypes_per_class=M
    )
    return PrototypeNetwork(settings, C).eval()


@pytest.fixture
def sources(tiny):
    return tiny.prototypes.pixels(tiny.crops)


def state(network):
    return {name: tensor.clone() for name, tensor in network.state_dict().items()}


def assert_same(first, second):
    assert first.keys() == second.keys()
    assert all(first[name].equal(second[name]) for name in first)


def embedding(network, crops_n1SS3):
    valid = torch.ones(len(crops_n1SS3), 1, dtype=torch.bool)
    with torch.inference_mode():
        return network.embed(network.features(crops_n1SS3, valid))[:, 0]


def test_random_weights_keep_what_the_prototypes_are_and_nothing_else(network, sources, fabric):
    before = state(network)
    control = with_random_weights(network, sources, fabric, 1)
    assert_same(state(network), before)
    torch.testing.assert_close(control.prototypes.detach(), embedding(control, sources))
    assert control.classifier.equal(network.classifier)
    assert control.class_of.equal(network.class_of)
    weights = [name for name, tensor in before.items() if name.endswith("weight")]
    changed = [name for name in weights if not state(control)[name].equal(before[name])]
    assert "projection.weight" in changed and len(changed) > 5
    # The embeddings still tell crops apart: the control is blind, not dead.
    assert control.prototypes[2:].std(dim=0).mean() > 1e-3


def test_random_prototypes_are_crops_and_the_weights_stay(tiny, network, fabric):
    before = state(network)
    rows = tiny.index.rows("train")
    control = with_random_prototypes(network, tiny.crops, rows, fabric, 1)
    assert_same(state(network), before)
    after = state(control)
    assert not after.pop("prototypes").equal(before.pop("prototypes"))
    assert_same(after, before)
    crops = torch.from_numpy(tiny.crops.crops(rows)).flatten(0, 1)[:, None]
    apart = control.prototypes.detach()[:, None] - embedding(control, crops)
    assert apart.abs().amax(dim=-1).amin(dim=1).max() < 1e-5


@pytest.mark.parametrize("make", ["weights", "prototypes"])
def test_the_same_seed_gives_the_same_control(tiny, network, sources, fabric, make):
    rows = tiny.index.rows("train")

    def control(seed):
        if make == "weights":
            return state(with_random_weights(network, sources, fabric, seed))
        return state(with_random_prototypes(network, tiny.crops, rows, fabric, seed))

    assert_same(control(1), control(1))
    assert not control(1)["prototypes"].equal(control(2)["prototypes"])


def test_chance_elsewhere_is_left_alone(network, sources, fabric):
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    with_random_weights(network, sources, fabric, 1)
    assert torch.rand(3).equal(expected)
