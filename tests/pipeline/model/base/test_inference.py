"""Outputs in blocks are those of one direct computation."""

import math
from collections.abc import Callable

import pytest
import torch

import pipeline.model.base.inference
from pipeline.errors import ProtoMaskError
from pipeline.model.base.inference import infer
from pipeline.model.base.network import PrototypeNetwork, valid_views

from ..conftest import SMALL


@pytest.fixture
def network(make_small: Callable[[str], PrototypeNetwork]) -> PrototypeNetwork:
    return make_small("protomask")


@pytest.fixture
def valid_NK() -> torch.Tensor:
    valid = torch.rand(11, 4, generator=torch.Generator().manual_seed(1)) < 0.6
    valid[:, 2] = True
    return valid


@pytest.fixture
def features_NKF(network: PrototypeNetwork) -> torch.Tensor:
    F = network.backbone.num_features
    return torch.randn(11, 4, F, generator=torch.Generator().manual_seed(2))


def test_answers_against_a_loop(
    network: PrototypeNetwork, features_NKF: torch.Tensor, valid_NK: torch.Tensor
) -> None:
    found = infer(network, network.embed(features_NKF), valid_NK)
    for image in range(11):
        z_KD = network.embed(features_NKF[image]).double().detach()
        torch.testing.assert_close(found.embedding_NVD[image], z_KD.float())
        for j, p in enumerate(network.prototypes.detach().double()):
            d = {k: float((z_KD[k] - p).square().sum()) for k in range(4) if valid_NK[image, k]}
            nearest = min(d, key=lambda k: d[k])
            assert found.view_NP[image, j] == nearest
            similarity = math.log((d[nearest] + 1) / (d[nearest] + 1e-4))
            assert found.similarity_NP[image, j].item() == pytest.approx(similarity, rel=1e-6)
    s = found.similarity_NP
    torch.testing.assert_close(found.logits_NC, s @ network.classifier.detach().T)


def test_kinds_and_shapes(
    network: PrototypeNetwork, features_NKF: torch.Tensor, valid_NK: torch.Tensor
) -> None:
    found = infer(network, network.embed(features_NKF), valid_NK)
    shapes = [(11, 4, 8), (11, 6), (11, 6), (11, 3)]
    assert [tuple(tensor.shape) for tensor in found] == shapes
    kinds = [torch.float32, torch.int64, torch.float32, torch.float32]
    assert [tensor.dtype for tensor in found] == kinds


@pytest.mark.parametrize("size", [1, 4, 11, 100])
def test_blocks_change_nothing(
    network: PrototypeNetwork,
    features_NKF: torch.Tensor,
    valid_NK: torch.Tensor,
    size: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    whole = infer(network, network.embed(features_NKF), valid_NK)
    monkeypatch.setattr(pipeline.model.base.inference, "IMAGES_PER_BLOCK", size)
    for one, other in zip(
        whole, infer(network, network.embed(features_NKF), valid_NK), strict=True
    ):
        torch.testing.assert_close(one, other)


def test_no_images(network: PrototypeNetwork) -> None:
    D = network.settings.embedding_dim
    found = infer(network, torch.zeros(0, 4, D), torch.zeros(0, 4, dtype=torch.bool))
    assert found.logits_NC.shape == (0, 3)


def test_prototype_equal_to_an_embedding_is_as_similar_as_can_be(
    network: PrototypeNetwork, features_NKF: torch.Tensor, valid_NK: torch.Tensor
) -> None:
    with torch.no_grad():
        network.prototypes[3] = network.embed(features_NKF[5, 2])
    found = infer(network, network.embed(features_NKF), valid_NK)
    assert found.view_NP[5, 3] == 2
    # log(1 / ε) with ε = 1e-4.
    assert found.similarity_NP[5, 3].item() == pytest.approx(9.21034, abs=1e-4)


@pytest.mark.parametrize("name", SMALL)
def test_logits_are_those_of_the_model_itself(
    make_small: Callable[[str], PrototypeNetwork], name: str
) -> None:
    """Of images of 2×2 cells, or of four crops of which some are missing; where prototypes have
    floors, two images' similarities are above them."""
    network = make_small(name)
    K = 4 if network.sees == "crops" else 1
    crops = torch.randint(0, 256, (5, K, 64, 64, 3), dtype=torch.uint8)
    valid = torch.ones(5, K, dtype=torch.bool)
    valid[2, 1:] = valid[4, 2:] = False
    with torch.inference_mode():
        features = network.features(crops, valid)
        if network.finetunes:
            embedding = network.embed(features)
            plain_NP = infer(network, embedding, valid_views(valid, embedding)).similarity_NP
            network.set_floor(plain_NP.median(0).values)
        output = network(crops, valid)
    found = infer(network, network.embed(features), valid_views(valid, features))
    assert features.shape[1] == (1 if name == "blackbox" else 4)
    torch.testing.assert_close(found.logits_NC, output.logits, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(found.embedding_NVD, output.embedding)
    assert output.logits.std() > 1e-4
    if network.finetunes:
        assert ((found.similarity_NP > 1e-6).sum(0) == 2).all()


def test_scores_that_are_no_numbers(
    network: PrototypeNetwork, features_NKF: torch.Tensor, valid_NK: torch.Tensor
) -> None:
    with torch.no_grad():
        network.classifier.fill_(3e38)
    with pytest.raises(ProtoMaskError, match=r"scores are no finite numbers: .*finetune\.lr"):
        infer(network, network.embed(features_NKF), valid_NK)
