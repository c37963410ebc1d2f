"""Fine-tuning trains V alone; pruning follows its rule."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from settings import finetune_settings, prune_settings
from torch import Tensor
from torch.nn import functional

from pipeline.errors import ProtoMaskError
from pipeline.model.base.distances import similarity
from pipeline.training.finetune import (
    alike,
    classes_below_threshold,
    finetune,
    finetune_and_prune,
    floors,
    merge,
    prototypes_to_keep,
    shrink,
    weighted_prototypes,
)

N = 30


@pytest.fixture
def labels_N() -> Tensor:
    # Uneven classes: 15, 10, 5.
    return torch.tensor([0] * 15 + [1] * 10 + [2] * 5)


@pytest.fixture
def similarity_NP(labels_N: Tensor) -> Tensor:
    """Of distances 0 to 2 to prototypes of the own class, and 2 to 4 to the others."""
    numbers = torch.Generator().manual_seed(0)
    own = labels_N[:, None] == torch.arange(3).repeat_interleave(2)
    return similarity(torch.rand(N, 6, generator=numbers) * 2 + 2.0 * ~own, 1e-4)


def loss(network: Any, similarity_NP: Tensor, labels_N: Tensor) -> float:
    logits = network.logits(similarity_NP)
    counts = torch.bincount(labels_N).float()
    cross_entropy = functional.cross_entropy(logits, labels_N, N / (3 * counts))
    own = torch.arange(3)[:, None] == network.class_of
    return (cross_entropy + 1e-3 * network.classifier[~own].abs().sum()).item()


def test_only_the_classifier_changes(
    make_network: Callable[..., Any], similarity_NP: Tensor, labels_N: Tensor
) -> None:
    network = make_network()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    finetune(network, similarity_NP, labels_N, finetune_settings(), 0)
    after = network.state_dict()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed == {"classifier"}


def test_loss_falls(
    make_network: Callable[..., Any], similarity_NP: Tensor, labels_N: Tensor
) -> None:
    network = make_network()
    before = loss(network, similarity_NP, labels_N)
    finetune(network, similarity_NP, labels_N, finetune_settings(epochs=30, lr=1e-2), 0)
    assert loss(network, similarity_NP, labels_N) < before - 0.05


def test_first_step_by_hand(
    make_network: Callable[..., Any], similarity_NP: Tensor, labels_N: Tensor
) -> None:
    """One batch of all images: Adam's first step is the learning rate against the gradient's sign.

    Where V starts at 0 the penalty's gradient is 0 (its subgradient), elsewhere it is off-class
    only, so the step is cross-entropy's alone.
    """
    network = make_network()
    V = network.classifier.detach().clone().requires_grad_()
    logits = similarity_NP @ V.T
    weights = torch.tensor([30 / 45, 30 / 30, 30 / 15])
    (gradient,) = torch.autograd.grad(functional.cross_entropy(logits, labels_N, weights), V)
    finetune(
        network, similarity_NP, labels_N, finetune_settings(epochs=1, lr=0.01, batch_size=64), 0
    )
    clear = gradient.abs() > 1e-4
    assert clear.sum() > 9
    step = network.classifier.detach() - V.detach()
    torch.testing.assert_close(step[clear], -0.01 * gradient.sign()[clear], rtol=1e-3, atol=0)


def test_penalty_holds_other_classes_weights_and_spares_the_own(
    make_network: Callable[..., Any], similarity_NP: Tensor, labels_N: Tensor
) -> None:
    def tuned(penalty: float) -> Tensor:
        network = make_network()
        settings = finetune_settings(epochs=20, lr=1e-2, penalty=penalty)
        finetune(network, similarity_NP, labels_N, settings, 0)
        return network.classifier.detach()

    own = torch.arange(3)[:, None] == torch.arange(3).repeat_interleave(2)
    free, held = tuned(0.0), tuned(10.0)
    assert free[~own].abs().mean() > 5 * held[~own].abs().mean()
    assert (held[own] - 1).abs().max() > 0.02


def test_proximal_steps_by_hand(
    make_network: Callable[..., Any], similarity_NP: Tensor, labels_N: Tensor
) -> None:
    """Adam's first step is lr against the sign of the gradient of the cross-entropy alone; then
    weights of other classes, which start at 0, lose λ·lr, here 0.004 of 0.01."""
    network = make_network()
    V = network.classifier.detach().clone().requires_grad_()
    weights = torch.tensor([30 / 45, 30 / 30, 30 / 15])
    loss = functional.cross_entropy(similarity_NP @ V.T, labels_N, weights)
    (gradient,) = torch.autograd.grad(loss, V)
    settings = finetune_settings(epochs=1, lr=0.01, batch_size=64, sparsity="proximal", penalty=0.4)
    finetune(network, similarity_NP, labels_N, settings, 0)
    clear, own = gradient.abs() > 1e-4, network.own_CP
    step = network.classifier.detach() - V.detach()
    assert (clear & own).any() and (clear & ~own).any()
    expected = -torch.where(own, 0.01, 0.006) * gradient.sign()
    torch.testing.assert_close(step[clear], expected[clear], rtol=1e-3, atol=0)


def test_shrinking_by_hand() -> None:
    """Class 0 has the first two prototypes, class 1 the third."""
    weights = torch.tensor([[0.25, -0.5, 0.75], [-1.0, 0.25, -0.125]])
    own = torch.tensor([[True, True, False], [False, False, True]])
    shrink(weights, own, 0.5)
    assert weights.tolist() == [[0.25, 0.0, 0.25], [-0.5, 0.0, 0.0]]


def test_proximal_steps_leave_exact_zeros_and_own_weights_not_below_zero(
    make_network: Callable[..., Any], similarity_NP: Tensor, labels_N: Tensor
) -> None:
    """A λ of 1 takes back all of a step of Adam; what speaks against its own class ends at 0."""
    network, own = make_network(), torch.arange(3)[:, None] == torch.arange(6) // 2
    settings = finetune_settings(epochs=30, lr=0.05, sparsity="proximal", penalty=1.0)
    confusing = similarity_NP.clone()
    confusing[:, 0] = (labels_N != 0).float()
    finetune(network, confusing, labels_N, settings, 0)
    V = network.classifier.detach()
    assert (V[~own] == 0).all() and (V[own] >= 0).all()
    assert V[0, 0] == 0 and (V[own][1:] > 0.5).all()


def test_prototypes_without_a_weight_are_found_but_the_first_of_a_class(
    make_network: Callable[..., Any],
) -> None:
    network = make_network()
    with torch.no_grad():
        network.classifier.zero_()
        network.classifier[0, 1] = 0.5
        network.classifier[2, 3] = -0.5
    assert weighted_prototypes(network).tolist() == [1, 3, 4]


def test_prototypes_without_a_weight_are_removed_and_change_no_score(
    make_network: Callable[..., Any], similarity_NP: Tensor, labels_N: Tensor
) -> None:
    """Prototype 0 is found in the images of other classes, so its weight ends at 0."""
    network = make_network()
    similarity_NP[:, 0] = (labels_N != 0).float()
    settings = finetune_settings(epochs=30, lr=0.05, sparsity="proximal", penalty=1.0)
    found = finetune_and_prune(network, similarity_NP, labels_N, settings, prune_settings(), 0)
    assert found.kept.tolist() == [1, 2, 3, 4, 5] and found.alike.tolist() == [1] * 5
    alone = make_network()
    finetune(alone, similarity_NP, labels_N, settings, 0)
    assert (alone.classifier[:, 0] == 0).all()
    assert torch.equal(alone.classifier[:, 1:], network.classifier)


def test_alike_prototypes_by_hand() -> None:
    """Of D = 4 the squared distances of alike embeddings are at most 4 · 0.01² = 4e-4."""
    p = torch.full((7, 4), 0.5)
    p[1, 0] += 0.0199  # 3.96e-4 from prototype 0
    p[2, 0] += 0.0201  # 4.04e-4 from it, but near prototype 1
    p[3, 0] += 0.1
    p[4] = p[0]  # of another class
    p[6] = p[3]
    into = alike(p, torch.tensor([0, 0, 0, 0, 1, 0, 0]))
    assert into.tolist() == [0, 0, 0, 3, 4, 0, 3]
    assert alike(p[[0, 2]], torch.tensor([0, 0])).tolist() == [0, 1]


def test_merging_leaves_scores_as_they_were(
    make_network: Callable[..., Any], similarity_NP: Tensor
) -> None:
    """Prototypes 0 and 1 are one place, 4 and 5 another; their weights are added up."""
    network = make_network()
    with torch.no_grad():
        network.prototypes[1], network.prototypes[5] = network.prototypes[0], network.prototypes[4]
        network.classifier.copy_(torch.arange(18).view(3, 6) / 8)
    similarity_NP[:, [1, 5]] = similarity_NP[:, [0, 4]]
    before, prototypes = network.logits(similarity_NP), network.prototypes.clone()
    left, counts = merge(network)
    assert left.tolist() == [0, 2, 3, 4] and counts.tolist() == [2, 1, 1, 2]
    assert torch.equal(network.prototypes, prototypes[left])
    assert network.class_of.tolist() == [0, 1, 1, 2]
    assert network.classifier[1].tolist() == [13 / 8, 1.0, 9 / 8, 21 / 8]
    torch.testing.assert_close(network.logits(similarity_NP[:, left]), before)


def test_floors_by_hand() -> None:
    """Prototype 0 is of class 0, 1 of class 1; of four images of other classes a reach of ½ lets
    two exceed the floor, of 0.3 one, and of 0 none."""
    labels = torch.tensor([0, 0, 1, 1, 2, 2])
    own = torch.tensor([[True, False], [False, True], [False, False]])
    s = torch.tensor([[9.0, 1], [8, 2], [1, 9], [2, 8], [3, 3], [4, 4]])
    assert floors(s, labels, own, 0.5).tolist() == [2.0, 2.0]
    assert floors(s, labels, own, 0.3).tolist() == [3.0, 3.0]
    assert floors(s, labels, own, 0.0).tolist() == [4.0, 4.0]
    assert floors(s, labels, own, 1.0).tolist() == [0.0, 0.0]


def test_a_share_of_images_is_not_rounded_below_what_it_is() -> None:
    """29 of 100 images may exceed the floor; in single precision 0.29 · 100 is below 29."""
    s = torch.arange(101.0)[:, None]
    labels, own = torch.tensor([0] + [1] * 100), torch.tensor([[True], [False]])
    assert floors(s, labels, own, 0.29).tolist() == [71.0]


def test_a_finished_model_is_merged_has_floors_and_is_pruned(
    make_network: Callable[..., Any], similarity_NP: Tensor, labels_N: Tensor
) -> None:
    """Prototypes 0 and 1 are one place; 5 is nearest to images of other classes and is pruned."""
    network = make_network()
    with torch.no_grad():
        network.prototypes[1] = network.prototypes[0]
    similarity_NP[:, 1] = similarity_NP[:, 0]
    similarity_NP[:, 5] = similarity_NP[:, 2]
    settings = finetune_settings(merge=True, reach=0.1, sparsity="proximal", lr=1e-2)
    pruning = prune_settings(enabled=True)
    found = finetune_and_prune(network, similarity_NP, labels_N, settings, pruning, 0)
    assert found.kept.tolist() == [0, 2, 3, 4] and found.alike.tolist() == [2, 1, 1, 1]
    raw = similarity_NP[:, found.kept]
    expected = floors(raw, labels_N, network.own_CP, 0.1)
    assert torch.equal(network.floor, expected) and (expected > 0).all()
    logits = network.logits((raw - expected).clamp_min(0))
    assert found.accuracy == pytest.approx((logits.argmax(1) == labels_N).float().mean().item())
    assert found.accuracy > 0.9


def test_pruning_looks_at_distances_whatever_the_floors_leave(
    make_network: Callable[..., Any], similarity_NP: Tensor, labels_N: Tensor
) -> None:
    """Prototype 1, of class 0, is nearest to the images of class 1. Floors of a reach of 0 leave
    nothing of them; then the first images would be its nearest, which are of class 0."""
    network = make_network()
    similarity_NP[:, 1] = similarity_NP[:, 2]
    settings, pruning = finetune_settings(reach=0.0), prune_settings(enabled=True)
    found = finetune_and_prune(network, similarity_NP, labels_N, settings, pruning, 0)
    assert found.kept.tolist() == [0, 2, 3, 4, 5]


def test_deterministic_by_seed(
    make_network: Callable[..., Any], similarity_NP: Tensor, labels_N: Tensor
) -> None:
    def tuned(seed: int) -> Tensor:
        network = make_network()
        torch.manual_seed(seed + 100)
        finetune(network, similarity_NP, labels_N, finetune_settings(lr=1e-2), seed)
        return network.classifier.detach()

    assert torch.equal(tuned(0), tuned(0))
    assert not torch.equal(tuned(0), tuned(1))


def test_global_randomness_is_left_alone(
    make_network: Callable[..., Any], similarity_NP: Tensor, labels_N: Tensor
) -> None:
    network = make_network()
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    finetune(network, similarity_NP, labels_N, finetune_settings(), 0)
    assert torch.equal(torch.rand(1), expected)


def test_no_epochs_no_change(
    make_network: Callable[..., Any], similarity_NP: Tensor, labels_N: Tensor
) -> None:
    network = make_network()
    before = network.classifier.detach().clone()
    finetune(network, similarity_NP, labels_N, finetune_settings(epochs=0), 0)
    assert torch.equal(network.classifier, before)


def keep(
    distance: list[list[float]], labels: list[int], classes: list[int], **settings: int
) -> list[int]:
    """Takes distances prototype by prototype, as they are easier to read."""
    found = prototypes_to_keep(
        similarity(torch.tensor(distance).T, 1e-4),
        torch.tensor(labels),
        torch.tensor(classes),
        prune_settings(enabled=True, **settings),
    )
    assert found.dtype == torch.int64
    return found.tolist()


def test_pruning_by_hand() -> None:
    labels = [0, 0, 0, 1, 1, 1]
    distance = [
        [1.0, 2.0, 3.0, 4.0, 5.0, 6.0],  # nearest three are images 0, 1, 2: three of class 0
        [1.0, 6.0, 5.0, 2.0, 3.0, 4.0],  # 0, 3, 4: one of class 0
        [1.0, 6.0, 5.0, 2.0, 3.0, 4.0],  # 0, 3, 4: two of class 1
        [1.0, 2.0, 6.0, 5.0, 3.0, 4.0],  # 0, 1, 4: one of class 1
    ]
    assert keep(distance, labels, [0, 0, 1, 1], nearest=3, threshold=2) == [0, 2]


def test_published_rule_keeps_three_of_six() -> None:
    labels = [0, 0, 0, 0, 1, 1, 1, 1]
    three = [1.0, 2.0, 3.0, 9.0, 4.0, 5.0, 6.0, 8.0]
    two = [1.0, 2.0, 7.5, 9.0, 4.0, 5.0, 6.0, 7.0]
    assert keep([three, two, three[::-1]], labels, [0, 0, 1], nearest=6, threshold=3) == [0, 2]


def test_equally_near_images_count_in_their_order() -> None:
    labels = [1, 0, 0, 1]
    # Four ties: images 0 and 1 are the nearest two; one of them is of class 0.
    ties = [1.0, 1.0, 1.0, 1.0]
    clear = [9.0, 1.0, 2.0, 9.0]
    assert keep([ties, clear, ties], labels, [0, 0, 1], nearest=2, threshold=2) == [1, 2]
    assert keep([ties, clear, ties], labels, [0, 0, 1], nearest=2, threshold=1) == [0, 1, 2]


def test_class_never_loses_all_its_prototypes() -> None:
    labels = [0, 0, 1, 1]
    distance = [
        [1.0, 2.0, 3.0, 4.0],  # class 0: both nearest are its own
        [1.0, 2.0, 3.0, 4.0],  # class 1: none
        [1.0, 3.0, 2.0, 4.0],  # class 1: one, the most
        [3.0, 1.0, 2.0, 4.0],  # class 1: one as well, but later
    ]
    assert keep(distance, labels, [0, 1, 1, 1], nearest=2, threshold=2) == [0, 2]


def test_fewer_images_than_are_looked_at() -> None:
    # Only three images; a threshold of 3 of 6 leaves each class its best.
    distance = [[1.0, 2.0, 3.0], [3.0, 2.0, 1.0]]
    assert keep(distance, [0, 0, 1], [0, 1], nearest=6, threshold=3) == [0, 1]


def test_threshold_zero_keeps_all() -> None:
    distance = [[1.0, 2.0], [1.0, 2.0], [1.0, 2.0]]
    assert keep(distance, [0, 1], [0, 0, 1], nearest=1, threshold=0) == [0, 1, 2]


def test_pruned_network_can_be_tuned_again(
    make_network: Callable[..., Any], similarity_NP: Tensor, labels_N: Tensor
) -> None:
    network = make_network()
    finetune(network, similarity_NP, labels_N, finetune_settings(lr=1e-2), 0)
    kept = torch.tensor([0, 2, 3, 5])
    network.keep(kept)
    before = loss(network, similarity_NP[:, kept], labels_N)
    settings = finetune_settings(lr=1e-2, epochs=20)
    finetune(network, similarity_NP[:, kept], labels_N, settings, 0)
    assert loss(network, similarity_NP[:, kept], labels_N) < before


def test_a_model_that_is_not_finetuned_stays_as_it_is(
    make_network: Callable[..., Any], labels_N: Tensor
) -> None:
    blackbox = make_network("blackbox")
    before = {name: value.clone() for name, value in blackbox.state_dict().items()}
    logits_NC = functional.one_hot(labels_N, 3).float()
    logits_NC[:3] = logits_NC[:3].roll(1, 1)
    found = finetune_and_prune(
        blackbox, logits_NC, labels_N, finetune_settings(), prune_settings(), 0
    )
    after = blackbox.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert found.kept.tolist() == [0, 1, 2] and found.accuracy == pytest.approx(27 / 30)


def test_prototypes_of_several_classes_are_neither_pruned_nor_merged(
    make_network: Callable[..., Any], labels_N: Tensor
) -> None:
    blackbox, pruning = make_network("blackbox"), prune_settings(enabled=True)
    with pytest.raises(ProtoMaskError, match=r"Black box .*set prune\.enabled to false"):
        finetune_and_prune(
            blackbox, torch.ones(N, 3), labels_N, finetune_settings(), pruning, seed=0
        )
    with pytest.raises(ProtoMaskError, match=r"Black box .*set finetune\.merge to false"):
        settings = finetune_settings(merge=True)
        finetune_and_prune(blackbox, torch.ones(N, 3), labels_N, settings, prune_settings(), 0)


@pytest.mark.parametrize(("name", "value", "V"), [("lr", 1e30, 0.0), ("penalty", 1e38, 3.0)])
def test_divergence_names_the_parameters(
    make_network: Callable[..., Any],
    similarity_NP: Tensor,
    labels_N: Tensor,
    name: str,
    value: float,
    V: float,
) -> None:
    """Scores of 1e9 · 1e30, and a penalty of 12 · 3 · 1e38, are no float32."""
    network = make_network()
    with torch.no_grad():
        network.classifier.fill_(V)
    settings = finetune_settings(**{name: value, "epochs": 1})
    with pytest.raises(ProtoMaskError, match=rf"finetune\.{name}=1e\+3"):
        finetune(network, 1e9 * similarity_NP, labels_N, settings, 0)


def test_classes_that_no_prototype_can_be_kept_of() -> None:
    """Of three images of class 0, two of class 1 and none of class 3; class 2 has no prototype."""
    labels, class_of = torch.tensor([0, 0, 0, 1, 1, 2]), torch.tensor([0, 0, 1, 3])
    found = classes_below_threshold(labels, class_of, prune_settings(threshold=3))
    assert found == [1, 3]
