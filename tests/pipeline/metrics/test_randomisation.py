"""Controls: models that have learned nothing, made from one that has."""

import numpy as np
import pytest
import torch
from settings import model_settings, runtime

from pipeline.metrics.randomisation import with_random_prototypes, with_random_weights
from pipeline.model.base.distance_network import DistanceNetwork
from pipeline.model.base.models import build
from pipeline.model.blackbox.model import BlackBox
from pipeline.saliency.relevance import PrototypeRelevance
from pipeline.training.fabric import make_fabric

C, M = 3, 2
SMALL = {"backbone": "test_resnet", "pretrained": "none"}
SETTINGS = {
    "protomask": model_settings("protomask", **SMALL, embedding_dim=8, prototypes_per_class=M),
    "protopnet": model_settings("protopnet", **SMALL, embedding_dim=8, prototypes_per_class=M),
    "protopool": model_settings("protopool", **SMALL, embedding_dim=8, prototypes=C * M, slots=M),
    "pipnet": model_settings("pipnet", **SMALL, prototypes=C * M),
    "blackbox": model_settings("blackbox", **SMALL),
}


@pytest.fixture(scope="module")
def fabric():
    return make_fabric(runtime(device="cpu", workers=1), "float32")


def finished(model):
    torch.manual_seed(0)
    network = build(SETTINGS[model], C)
    network.finish()
    if isinstance(network, BlackBox):  # at first all of it is 0
        torch.nn.init.normal_(network.classifier.weight)
    return network.eval()


@pytest.fixture(params=["protomask", "protopnet", "protopool"])
def network(request):
    return finished(request.param)


class Larger:
    """A store's crops, four times as large, so that there are 3×3 cells in them."""

    def __init__(self, store):
        self.store, self.valid = store, store.valid

    def crops(self, images):
        return self.store.crops(images).repeat(4, axis=2).repeat(4, axis=3)

    def inside(self, image):
        return self.store.inside(image).repeat(4, axis=1).repeat(4, axis=2)


def store_of(tiny, network):
    return Larger(network.seen(tiny.crops))


def sources_of(tiny, network):
    P, seen = network.num_prototypes, store_of(tiny, network)
    crop_P = tiny.prototypes.crop_P if network.sees == "crops" else [0] * P
    places = zip(tiny.prototypes.rows_P[:P], crop_P[:P], strict=True)
    return torch.from_numpy(np.stack([seen.crops([row])[:, crop] for row, crop in places]))


@pytest.fixture
def sources(tiny, network):
    return sources_of(tiny, network)


def everywhere(sources):
    return torch.ones(sources.shape[:-1], dtype=torch.bool)


def cells_of(network, seed=0):
    """A cell of each prototype's crop."""
    rows, columns = network.grid(96)
    assert rows * columns == (9 if network.in_cells else 1)
    chance = torch.Generator().manual_seed(seed)
    return torch.randint(rows * columns, (network.num_prototypes,), generator=chance)


def blind(tiny, network, sources, fabric, seed=1):
    """The control with random weights whose prototypes are cells of these crops."""
    seen = store_of(tiny, network), tiny.index.rows("train")
    return with_random_weights(
        network, sources, everywhere(sources), cells_of(network), *seen, fabric, seed
    )


def state(network):
    return {name: tensor.clone() for name, tensor in network.state_dict().items()}


def assert_same(first, second):
    assert first.keys() == second.keys()
    assert all(first[name].equal(second[name]) for name in first)


def embedding(network, crops_n1SS3):
    """Returns the embeddings of crops' views, n×V×D."""
    valid = torch.ones(len(crops_n1SS3), 1, dtype=torch.bool)
    with torch.inference_mode():
        return network.embed(network.features(crops_n1SS3, valid))


def test_random_weights_keep_what_the_prototypes_are_and_nothing_else(
    tiny, network, sources, fabric
):
    before = state(network)
    cells = cells_of(network)
    control = blind(tiny, network, sources, fabric)
    assert_same(state(network), before)
    pushed = embedding(control, sources)[torch.arange(len(cells)), cells]
    torch.testing.assert_close(control.prototypes.detach(), pushed)
    assert control.classifier.equal(network.classifier)
    assert control.class_of.equal(network.class_of)
    weights = [name for name, tensor in before.items() if name.endswith("weight")]
    changed = [name for name in weights if not state(control)[name].equal(before[name])]
    assert "projection.weight" in changed and len(changed) > 5
    # The embeddings still tell crops apart: the control is blind, not dead.
    assert embedding(control, sources).flatten(0, 1).std(dim=0).mean() > 1e-3


def test_random_weights_are_standardised_by_training_crops(tiny, network, sources, fabric):
    control = blind(tiny, network, sources, fabric)
    rows, store = tiny.index.rows("train"), store_of(tiny, network)
    crops = torch.from_numpy(store.crops(rows)[store.valid[rows]])[:, None]
    with torch.inference_mode():
        features = control.features(crops, torch.ones(len(crops), 1, dtype=torch.bool))
    standard = control.standard(features.flatten(0, 1))
    # 512 crops drawn from these few: their mean and deviation, nearly.
    assert standard.mean(0).abs().max() < 0.3
    assert standard.std(0).median() == pytest.approx(1, abs=0.1)


def test_random_prototypes_are_crops_and_the_weights_stay(tiny, network, fabric):
    before = state(network)
    rows = tiny.index.rows("train")
    store = store_of(tiny, network)
    control = with_random_prototypes(network, store, rows, fabric, 1)
    assert_same(state(network), before)
    after = state(control)
    assert not after.pop("prototypes").equal(before.pop("prototypes"))
    assert_same(after, before)
    crops = torch.from_numpy(store.crops(rows)).flatten(0, 1)[:, None]
    views = embedding(control, crops).flatten(0, 1)
    apart = control.prototypes.detach()[:, None] - views
    assert apart.abs().amax(dim=-1).amin(dim=1).max() < 1e-5


@pytest.mark.parametrize("rule", ["grad", "prp"])
def test_controls_are_explained_by_relevance(tiny, network, sources, fabric, rule):
    rows, store = tiny.index.rows("train"), store_of(tiny, network)
    made = (
        blind(tiny, network, sources, fabric),
        with_random_prototypes(network, store, rows, fabric, 1),
    )
    for control in made:
        maps = PrototypeRelevance(control, rule)(sources[:2, 0], torch.tensor([0, 1]))
        assert maps.shape == sources[:2, 0].shape[:3] and maps.isfinite().all()


@pytest.mark.parametrize("make", ["weights", "prototypes"])
def test_the_same_seed_gives_the_same_control(tiny, network, sources, fabric, make):
    rows = tiny.index.rows("train")

    def control(seed):
        if make == "weights":
            return state(blind(tiny, network, sources, fabric, seed))
        return state(with_random_prototypes(network, store_of(tiny, network), rows, fabric, seed))

    assert_same(control(1), control(1))
    assert not control(1)["prototypes"].equal(control(2)["prototypes"])


def test_chance_elsewhere_is_left_alone(tiny, network, sources, fabric):
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    blind(tiny, network, sources, fabric)
    assert torch.rand(3).equal(expected)


@pytest.mark.parametrize("model", ["pipnet", "blackbox"])
def test_random_weights_without_prototypes_in_the_embedding(tiny, model, fabric):
    network = finished(model)
    assert not isinstance(network, DistanceNetwork)
    before, sources = state(network), sources_of(tiny, network)
    control = blind(tiny, network, sources, fabric)
    assert_same(state(network), before)
    after = state(control)
    kept = {"classifier", "classifier.weight", "classifier.bias", "class_of"} & before.keys()
    assert len(kept) >= 2 and all(after[name].equal(before[name]) for name in kept)
    changed = [name for name in before if name.endswith("weight") and name not in kept]
    assert any(not after[name].equal(before[name]) for name in changed)
    assert not embedding(control, sources).equal(embedding(network, sources))
    again = blind(tiny, network, sources, fabric)
    assert_same(state(again), after)
