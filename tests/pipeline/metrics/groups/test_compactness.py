import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pipeline.metrics.groups import compactness

# Above 1e-3: 1, 0.002, 2 (prototypes 0, 0, 3); below −1e-3: −0.5, −0.002; the other 3 are within.
WEIGHTS = torch.tensor([[1.0, 1e-3, -0.5, 0.0], [0.002, -1e-3, -0.002, 2.0]])


def test_global_size_counts_a_prototype_once():
    assert compactness.global_size(WEIGHTS) == 2


def test_sparsity_includes_weights_of_exactly_the_threshold():
    # 3 of 8
    assert compactness.sparsity(WEIGHTS) == 37.5


def test_npr_by_hand():
    # 2 negative, 3 positive
    assert compactness.npr(WEIGHTS) == pytest.approx(2 / 3)


def test_npr_without_positive_weights():
    assert compactness.npr(torch.tensor([[-1.0, 0.0]])) == math.inf
    assert compactness.npr(torch.zeros(2, 3)) == 0


def test_local_size_by_hand():
    # thresholds 0.5 and 0.1: 0.5 is not above itself
    similarity_NP = torch.tensor([[5.0, 0.5, 0.6, 0.1], [0.5, 1.0, 0.2, 0.11]])
    assert compactness.local_size(similarity_NP).tolist() == [2, 4]


def test_local_size_without_similarity_is_zero():
    assert compactness.local_size(torch.zeros(1, 4)).tolist() == [0]


def test_keys_and_kinds(make_evidence):
    values = compactness.Compactness().measure(make_evidence(images=7))
    assert list(values) == ["global_size", "sparsity", "npr", "local_size"]
    assert values["local_size"].shape == (7,)


@given(seed=st.integers(0, 1000), scale=st.floats(0.01, 100))
def test_local_size_ignores_scale_and_order_of_prototypes(seed, scale):
    numbers = torch.Generator().manual_seed(seed)
    similarity_NP = torch.rand(4, 9, generator=numbers) ** 4
    size_N = compactness.local_size(similarity_NP)
    order_P = torch.randperm(9, generator=numbers)
    assert (size_N >= 1).all() and (size_N <= 9).all()
    assert torch.equal(size_N, compactness.local_size(similarity_NP[:, order_P]))
    assert torch.equal(size_N, compactness.local_size((similarity_NP.double() * scale).float()))


@given(seed=st.integers(0, 1000))
def test_positive_negative_and_small_weights_are_all_the_weights(seed):
    weights_CP = (torch.rand(3, 5, generator=torch.Generator().manual_seed(seed)) - 0.5) * 0.006
    weights_CP[0, 0] = 1  # so that the ratio has a denominator
    small = compactness.sparsity(weights_CP) * weights_CP.numel() / 100
    positive = (weights_CP > 1e-3).sum()
    assert compactness.npr(weights_CP) * positive + positive + small == pytest.approx(15)
