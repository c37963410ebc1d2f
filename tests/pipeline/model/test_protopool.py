"""ProtoPool (Rymarczyk et al., 2022), against numbers worked out by hand."""

import copy
import math
from pathlib import Path

import pytest
import torch
from pydantic import ValidationError
from settings import crop_settings, model_settings
from torch import Tensor

from pipeline.model.base.losses import off_class_penalty
from pipeline.model.base.network import Output
from pipeline.model.base.saved import About, load_model, save_model
from pipeline.model.protopool.model import ProtoPool, _strongest

from .backbones import FourCells

ONE = torch.ones(1, 1, dtype=torch.bool)
# Each slot's probabilities: classes × slots × prototypes.
SLOTS = [
    [[1 / 2, 1 / 4, 1 / 4], [1 / 4, 1 / 4, 1 / 2]],
    [[1 / 8, 3 / 4, 1 / 8], [3 / 8, 1 / 2, 1 / 8]],
]


def make(prototypes: int = 3, classes: int = 2, **settings: int | float) -> ProtoPool:
    torch.manual_seed(0)
    values = {"embedding_dim": 2, "slots": 2, "epsilon": 0.01, **settings}
    return ProtoPool(
        model_settings("protopool", prototypes=prototypes, **values), classes, FourCells()
    )


def choosing(*chosen: tuple[int, int], prototypes: int) -> ProtoPool:
    """Returns a pool in which each class's two slots have chosen these prototypes."""
    network = make(prototypes, len(chosen))
    with torch.no_grad():
        assert network.slots is not None
        network.slots.zero_()
        for label, pair in enumerate(chosen):
            for slot, prototype in enumerate(pair):
                network.slots[label, slot, prototype] = 1
    return network


def logit(z: float) -> float:
    return math.log(z / (1 - z))


FEATURES = torch.tensor([[[logit(0.5), logit(0.75), 1.0], [logit(0.25), logit(0.25), 2.0]]])


def by_hand() -> ProtoPool:
    """Three prototypes; together with the two cells of FEATURES, their distances are

    (½, ½): 1/16 and 1/8; (¾, ¼): 1/16 + 1/4 = 5/16 and 1/4; (¼, ¼): 5/16 and 0."""
    network = make()
    with torch.no_grad():
        network.projection.weight.copy_(torch.eye(2, 3))
        network.projection.bias.zero_()
        network.prototypes.copy_(torch.tensor([[0.5, 0.5], [0.75, 0.25], [0.25, 0.25]]))
        assert network.slots is not None
        network.slots.copy_(torch.tensor(SLOTS).log())
    return network


def focal_by_hand() -> list[float]:
    """Of two cells, the largest minus the mean is half of their difference."""
    s = {d: math.log((d + 1) / (d + 0.01)) for d in (0, 1 / 16, 1 / 8, 1 / 4, 5 / 16)}
    return [(s[1 / 16] - s[1 / 8]) / 2, (s[1 / 4] - s[5 / 16]) / 2, (s[0] - s[5 / 16]) / 2]


def test_in_evaluation_a_slot_is_its_most_probable_prototype() -> None:
    network = by_hand().eval()
    assert network.distributions().tolist() == [[[1, 0, 0], [0, 0, 1]], [[0, 1, 0], [0, 1, 0]]]
    output = network(FEATURES, ONE)
    f = focal_by_hand()
    assert output.logits[0].tolist() == pytest.approx([f[0] + f[2], 2 * f[1]], rel=1e-4)
    assert output.distance[0].tolist() == pytest.approx([1 / 16, 1 / 4, 0], abs=1e-6)


def test_in_training_a_class_has_the_sum_over_its_slots() -> None:
    network = by_hand().train()
    torch.testing.assert_close(network.distributions(), torch.tensor(SLOTS))
    f = focal_by_hand()
    # ½ + ¼, ¼ + ¼, ¼ + ½; 1/8 + 3/8, ¾ + ½, 1/8 + 1/8.
    expected = [0.75 * f[0] + 0.5 * f[1] + 0.75 * f[2], 0.5 * f[0] + 1.25 * f[1] + 0.25 * f[2]]
    assert network(FEATURES, ONE).logits[0].tolist() == pytest.approx(expected, rel=1e-4)


def test_the_similarity_of_an_even_image_is_zero() -> None:
    network = by_hand()
    even = FEATURES[:, :1].expand(1, 4, 3)
    torch.testing.assert_close(network(even, ONE).logits, torch.zeros(1, 2), atol=1e-5, rtol=0)


def test_losses_by_hand() -> None:
    """Two images of the same two cells, of either class."""
    network = by_hand().train()
    output = network(FEATURES.expand(2, -1, -1), ONE.expand(2, -1))
    terms = network.losses(output, torch.tensor([0, 1]), torch.ones(2))
    assert set(terms) == {"cross_entropy", *network.settings.loss_terms}
    # Most present in class 0: prototypes 0 and 2, ¾ each; in class 1: 1 and 0, 5/4 and ½.
    # Distances 1/16, ¼, 0. Own: min(1/16, 0) and min(1/16, ¼); others: ¼ and 0.
    assert terms["cluster"].item() == pytest.approx((0 + 1 / 16) / 2, abs=1e-6)
    assert terms["separation"].item() == pytest.approx((1 / 4 + 0) / 2, abs=1e-6)
    # Class 0: (1/8 + 1/16 + 1/8) / (3/8) = 5/6; class 1: (28/64) / √(38/64 · 26/64) = 14/√247;
    # each pair counts twice, over 4 slots.
    expected = (2 * 5 / 6 + 2 * 14 / math.sqrt(247)) / 4
    assert terms["orthogonality"].item() == pytest.approx(expected, rel=1e-5)


def test_the_choice_is_drawn_to_where_the_class_is() -> None:
    """The gradient of the cross-entropy raises the probability of the prototype that tells."""
    network = by_hand().train()
    output = network(FEATURES, ONE)
    network.losses(output, torch.tensor([0]), torch.ones(2))["cross_entropy"].backward()
    assert network.slots is not None and network.slots.grad is not None
    # Prototype 2 is much nearer to one cell than to the other: class 0 wants it, class 1 does not.
    assert (network.slots.grad[0, :, 2] < 0).all() and (network.slots.grad[1, :, 2] > 0).all()


@pytest.mark.parametrize(
    ("epoch", "sharpness"), [(0, 0), (1, 500), (2, 707.1), (4, 1000), (5, 1000), (99, 1000)]
)
def test_the_sharpness_rises_with_the_root_of_the_epoch(epoch: int, sharpness: float) -> None:
    """1000·√(e/4): √¼ = ½, √½ = 0.7071. Epochs of the warm-up count."""
    network = make(gumbel_epochs=4)
    network.begin_epoch(epoch, warmup_epochs=2)
    assert network.sharpness == pytest.approx(sharpness, rel=1e-4)


def test_gumbel_noise_follows_the_seed() -> None:
    network = make(prototypes=9, gumbel_epochs=100).train()
    network.begin_epoch(1, 0)

    def drawn(seed: int) -> Tensor:
        torch.manual_seed(seed)
        return network.distributions()

    assert torch.equal(drawn(5), drawn(5)) and not torch.equal(drawn(5), drawn(6))
    assert network.slots is not None
    torch.manual_seed(5)
    noise = -torch.empty_like(network.slots).exponential_().log()
    # 1000·√(1/100) = 100.
    expected = torch.softmax((100 * network.slots + noise) / 0.5, dim=-1)
    torch.testing.assert_close(drawn(5), expected)


def test_at_the_end_a_distribution_is_a_choice() -> None:
    network = choosing((0, 3), (3, 1), prototypes=4).train()
    network.begin_epoch(30, 0)
    chosen = network.distributions()
    network.eval()
    torch.testing.assert_close(chosen, network.distributions(), atol=1e-6, rtol=0)


def test_slots_start_as_documented() -> None:
    """Normal with a variance of 2 / (P·(C + K)), here 2 / (200·30): a deviation of 0.01826."""
    slots = make(200, classes=20, slots=10).slots
    assert slots is not None and slots.shape == (20, 10, 200)
    # 40,000 values: the deviation's own is 0.35 % of it.
    assert slots.std().item() == pytest.approx(0.01826, rel=0.02)
    assert slots.mean().item() == pytest.approx(0, abs=5e-4)


def test_more_slots_than_others_are_left_for_is_refused() -> None:
    with pytest.raises(ValidationError, match="slots is 3"):
        model_settings("protopool", prototypes=3, slots=3)


def test_finish() -> None:
    """Class 0 chooses prototypes 0 and 3; class 1 chooses 3 twice; 1 and 2 nobody."""
    network = choosing((0, 3), (3, 3), prototypes=4)
    vectors = network.prototypes.detach().clone()
    features = torch.randn(5, 4, 3)
    valid = ONE.expand(5, -1)
    before = network.eval()(features, valid).logits
    network.finish()
    assert network.slots is None and network.num_prototypes == 2
    assert torch.equal(network.prototypes, vectors[[0, 3]])
    assert network.classifier.tolist() == [[1, 1], [0, 2]]
    assert network.class_of.tolist() == [0, 1]
    assert network.own_CP.tolist() == [[True, True], [False, True]]
    assert off_class_penalty(network.classifier, network.own_CP).item() == 0
    torch.testing.assert_close(network(features, valid).logits, before)


def test_finished_model_can_be_copied_after_training() -> None:
    network = by_hand().train()
    output = network(FEATURES, ONE)
    network.losses(output, torch.tensor([0]), torch.ones(2))["cross_entropy"].backward()
    network.finish()
    assert torch.equal(copy.deepcopy(network).classifier, network.classifier)


def test_saved_and_loaded_after_finishing(tmp_path: Path) -> None:
    torch.manual_seed(0)
    settings = model_settings(
        "protopool",
        backbone="test_resnet",
        pretrained="none",
        embedding_dim=4,
        prototypes=30,
        slots=2,
    )
    network = ProtoPool(settings, 3)
    network.finish()
    assert 1 < network.num_prototypes <= 6
    about = About(
        class_names=["a", "b", "c"],
        segmenter={},
        crops=crop_settings(),
        images="",
        precision="float32",
    )
    save_model(tmp_path, network, about)
    loaded, _ = load_model(tmp_path)
    assert isinstance(loaded, ProtoPool) and loaded.slots is None
    assert torch.equal(loaded.own_CP, network.own_CP)
    assert torch.equal(loaded.class_of, network.class_of)
    features = torch.randn(5, 4, network.backbone.num_features)
    valid = ONE.expand(5, -1)
    output: Output = loaded(features, valid)
    assert torch.equal(output.logits, network(features, valid).logits)


# Views around A, A, B, B in the first class, and around A, A, C, C in the second.
VIEWS = torch.tensor(
    [[0, 0, 0], [0, 0, 0.1], [4, 0, 0], [4, 0, 0.1], [0, 0, 0], [0, 0, 0.1], [0, 4, 0], [0, 4, 0.1]]
)
CLASSES = torch.tensor([0, 0, 0, 0, 1, 1, 1, 1])


def test_starts_from_the_centres_of_each_class() -> None:
    """Five prototypes are two for each class, and one that stays as it was."""
    network = make(prototypes=5, slots=1)
    last = network.prototypes[4].clone()
    network.start_from(VIEWS, CLASSES, views=1, seed=0)
    z = network.embed(VIEWS).view(2, 2, 2, 2).mean(2)
    for label, centres in enumerate(z):
        own = network.prototypes[2 * label : 2 * label + 2]
        distance = torch.cdist(own, centres)
        torch.testing.assert_close(distance.amin(1), torch.zeros(2), atol=1e-5, rtol=0)
        assert distance.argmin(1).unique().numel() == 2
    assert torch.equal(network.prototypes[4], last)


def test_a_slot_leans_to_what_its_class_has_and_others_have_not() -> None:
    """A is in both classes. So the first class's slot leans to B, and the second one's to C."""
    network = make(prototypes=5, slots=1)
    assert network.slots is not None
    before = network.slots.detach().clone()
    network.start_from(VIEWS, CLASSES, views=1, seed=0)
    B, C = (network.embed(view) for view in VIEWS[[2, 6]])
    chosen = [torch.cdist(z[None], network.prototypes).argmin().item() for z in (B, C)]
    expected = torch.zeros(2, 1, 5)
    expected[0, 0, chosen[0]] = expected[1, 0, chosen[1]] = 10 * before.std()
    torch.testing.assert_close(network.slots - before, expected, atol=1e-6, rtol=0)


def test_a_class_is_like_a_prototype_as_its_most_similar_twentieth_of_views_is() -> None:
    # A twentieth of 40 views is two: of 1 to 40, 39 and 40. The 41st view is another class's.
    scores_XP = torch.stack([torch.arange(1.0, 42), torch.arange(41.0, 0, -1)], 1)
    own_X = torch.arange(41) < 40
    assert _strongest(scores_XP, own_X).tolist() == [39.5, 40.5]
    assert _strongest(scores_XP, own_X & ~own_X).tolist() == [0, 0]


def test_fewer_prototypes_than_classes_stay_as_they_were() -> None:
    network = make(prototypes=2, classes=3, slots=1)
    before = network.prototypes.clone()
    network.start_from(VIEWS, torch.arange(8) % 3, views=1, seed=0)
    assert torch.equal(network.prototypes, before)
