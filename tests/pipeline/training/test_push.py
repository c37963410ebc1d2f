"""The push: nearest view of the own class over the whole training set, against a loop."""

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

import pipeline.training.push
from pipeline.errors import ProtoMaskError
from pipeline.model.base.inference import infer
from pipeline.training.push import Nearest, nearest_views, push

N, K = 13, 4


@pytest.fixture
def network(make_network: Callable[..., Any]) -> Any:
    network = make_network(prototypes_per_class=4)
    with torch.no_grad():
        # Embeddings spread over (0, 1) as trained ones do.
        network.projection.weight.mul_(5)
    return network


@pytest.fixture
def labels_N() -> Tensor:
    return torch.arange(N) % 3


@pytest.fixture
def valid_NK() -> Tensor:
    valid = torch.rand(N, K, generator=torch.Generator().manual_seed(1)) < 0.6
    valid[:, 1] = True
    return valid


@pytest.fixture
def features_NKF(network: Any) -> Tensor:
    F = network.backbone.num_features
    return torch.randn(N, K, F, generator=torch.Generator().manual_seed(2))


def by_loop(network: Any, features: Tensor, valid: Tensor, labels: Tensor) -> list[Any]:
    """Returns (distance, image, crop) of every prototype; tuples sort as ties are to be broken."""
    z = network.embed(features).detach().double()
    best = []
    for j, p in enumerate(network.prototypes.detach().double()):
        best.append(
            min(
                (float(((z[n, k] - p) ** 2).sum()), n, k)
                for n in range(N)
                for k in range(K)
                if valid[n, k] and labels[n] == network.class_of[j]
            )
        )
    return best


@pytest.mark.parametrize("size", [1, 2, 5, 13, 128])
def test_nearest_of_the_whole_training_set(
    network: Any,
    features_NKF: Tensor,
    valid_NK: Tensor,
    labels_N: Tensor,
    size: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(pipeline.training.push, "IMAGES_PER_BLOCK", size)
    expected = by_loop(network, features_NKF, valid_NK, labels_N)
    found = nearest_views(network, network.embed(features_NKF), valid_NK, labels_N)
    assert found.image.tolist() == [image for _, image, _ in expected]
    assert found.view.tolist() == [crop for _, _, crop in expected]
    assert found.distance.tolist() == pytest.approx([distance for distance, _, _ in expected])
    # The nearest are neither all in the first nor all in the last block.
    assert min(found.image) < 5 and max(found.image) > 8


def test_nearest_crop_of_another_class_does_not_count(
    network: Any, features_NKF: Tensor, valid_NK: Tensor, labels_N: Tensor
) -> None:
    with torch.no_grad():
        network.prototypes[0] = network.embed(features_NKF[1, 1])
    found = nearest_views(network, network.embed(features_NKF), valid_NK, labels_N)
    assert labels_N[1] == 1 and labels_N[found.image[0]] == 0
    assert torch.equal(labels_N[found.image], network.class_of)


def test_missing_crops_are_never_chosen(
    network: Any, features_NKF: Tensor, valid_NK: Tensor, labels_N: Tensor
) -> None:
    n, k = (~valid_NK).nonzero()[0].tolist()
    own = (network.class_of == labels_N[n]).nonzero()[0].item()
    with torch.no_grad():
        network.prototypes[own] = network.embed(features_NKF[n, k])
    found = nearest_views(network, network.embed(features_NKF), valid_NK, labels_N)
    assert valid_NK[found.image, found.view].all()


@pytest.mark.parametrize("size", [1, 3, 4, 128])
def test_ties_go_to_the_first_image_and_then_the_first_crop(
    network: Any, size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same crop twice in image 2, and again in images 5 and 8, all of class 2.

    A block of another size may be rounded otherwise, so all blocks are of the same.
    """
    monkeypatch.setattr(pipeline.training.push, "IMAGES_PER_BLOCK", size)
    features = torch.full((12, K, network.backbone.num_features), 3.0)
    same = torch.randn(network.backbone.num_features, generator=torch.Generator().manual_seed(3))
    valid = torch.ones(12, K, dtype=torch.bool)
    for image, crop in [(2, 1), (2, 3), (5, 0), (8, 0)]:
        features[image, crop] = same
    with torch.no_grad():
        network.prototypes[8] = network.embed(same)
    found = nearest_views(network, network.embed(features), valid, torch.arange(12) % 3)
    assert (found.image[8], found.view[8]) == (2, 1)


def test_prototypes_become_embeddings(
    network: Any, features_NKF: Tensor, valid_NK: Tensor, labels_N: Tensor
) -> None:
    before = network.prototypes.detach().clone()
    found = nearest_views(network, network.embed(features_NKF), valid_NK, labels_N)
    assert torch.equal(network.prototypes, before)
    push(network, found)
    z = network.embed(features_NKF).detach()
    for j in range(len(before)):
        chosen = z[found.image[j], found.view[j]]
        torch.testing.assert_close(network.prototypes[j].detach(), chosen, rtol=0, atol=1e-6)
        distance = (before[j].double() - chosen.double()).square().sum()
        assert found.distance[j].item() == pytest.approx(distance.item(), rel=1e-5)
    assert network.prototypes.requires_grad


def test_pushed_prototypes_are_at_distance_zero(
    network: Any, features_NKF: Tensor, valid_NK: Tensor, labels_N: Tensor
) -> None:
    found = nearest_views(network, network.embed(features_NKF), valid_NK, labels_N)
    push(network, found)
    again = nearest_views(network, network.embed(features_NKF), valid_NK, labels_N)
    assert torch.equal(again.image, found.image) and torch.equal(again.view, found.view)
    assert again.distance.count_nonzero() == 0


def test_pushed_prototypes_have_the_largest_similarity_there_is(
    make_network: Callable[..., Any],
) -> None:
    """200 prototypes of 1280 dimensions and the smallest ε: log(1/ε) would lose 5 of its 32 to a
    distance of 3e-12. The images are more than one block, the last of which is short."""
    epsilon = 1e-14
    network = make_network(prototypes_per_class=67, embedding_dim=1280, epsilon=epsilon)
    numbers = torch.Generator().manual_seed(4)
    features = torch.randn(150, 5, network.backbone.num_features, generator=numbers)
    valid, labels = torch.ones(150, 5, dtype=torch.bool), torch.arange(150) % 3
    found = nearest_views(network, network.embed(features), valid, labels)
    assert (found.image >= 128).any() and (found.image < 128).any()
    push(network, found)
    similarity_NP = infer(network, network.embed(features), valid).similarity_NP
    largest = torch.full((201,), math.log(1 / epsilon))
    assert torch.equal(similarity_NP[found.image, torch.arange(201)], largest)


def test_pushing_changes_nothing_but_prototypes(
    network: Any, features_NKF: Tensor, valid_NK: Tensor, labels_N: Tensor
) -> None:
    before = {name: value.clone() for name, value in network.state_dict().items()}
    push(network, nearest_views(network, network.embed(features_NKF), valid_NK, labels_N))
    after = network.state_dict()
    assert {name for name in before if not torch.equal(before[name], after[name])} == {"prototypes"}


def test_pruned_network_can_be_pushed(
    network: Any, features_NKF: Tensor, valid_NK: Tensor, labels_N: Tensor
) -> None:
    whole = nearest_views(network, network.embed(features_NKF), valid_NK, labels_N)
    kept = torch.tensor([0, 5, 6, 11])
    network.keep(kept)
    found = nearest_views(network, network.embed(features_NKF), valid_NK, labels_N)
    assert torch.equal(found.image, whole.image[kept])


def test_class_without_training_images_is_refused(
    network: Any, features_NKF: Tensor, valid_NK: Tensor
) -> None:
    with pytest.raises(ProtoMaskError, match="no training image of class 2"):
        nearest_views(network, network.embed(features_NKF), valid_NK, torch.arange(N) % 2)


def test_prototypes_can_be_trained_after_a_push(network: Any) -> None:
    z = torch.rand(len(network.prototypes), network.prototypes.shape[1])
    none = torch.zeros(len(z), dtype=torch.int64)
    push(network, Nearest(none, none, none.double(), z))
    network.prototypes.sum().backward()
    assert network.prototypes.grad is not None


def test_a_diverged_model_is_said(
    network: Any, features_NKF: Tensor, valid_NK: Tensor, labels_N: Tensor
) -> None:
    with torch.no_grad():
        network.prototypes[0, 0] = math.inf
    with pytest.raises(ProtoMaskError, match=r"similarities are no finite .*train\.lr_prototypes"):
        nearest_views(network, network.embed(features_NKF), valid_NK, labels_N)
