import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import balanced_accuracy_score, f1_score, top_k_accuracy_score
from torch import Tensor

from pipeline.metrics.groups import general

# Four images of class 0, one of class 1, one of class 2; predictions 0 0 0 1, 1, 0.
LABELS = torch.tensor([0, 0, 0, 0, 1, 2])
PREDICTED = torch.tensor([0, 0, 0, 1, 1, 0])
LOGITS = torch.nn.functional.one_hot(PREDICTED, 4).float()


def random_outputs(seed: int, images: int = 60, classes: int = 5) -> tuple[Tensor, Tensor]:
    numbers = torch.Generator().manual_seed(seed)
    labels_N = (torch.rand(images, generator=numbers) ** 2 * classes).long()
    return torch.randn(images, classes, generator=numbers), labels_N


def test_accuracy_of_each_image_and_class_balanced_mean():
    right_N = general.top_accuracy(LOGITS, LABELS, 1)
    assert right_N.tolist() == [1, 1, 1, 0, 1, 0]
    # recalls: class 0 3/4, class 1 1/1, class 2 0/1; their mean is 1.75/3
    assert general.balanced_mean(right_N, LABELS) == pytest.approx(1.75 / 3)


def test_balanced_weights_are_one_over_the_class_frequency():
    # class 0: 6/4, classes 1 and 2: 6/1
    assert general.balanced_weights(LABELS).tolist() == [1.5, 1.5, 1.5, 1.5, 6, 6]


def test_f1_macro_by_hand():
    # class 0: precision 3/4, recall 3/4, F1 3/4; class 1: 1/2 and 1, F1 2/3; class 2: F1 0
    assert general.f1_macro(LOGITS, LABELS) == pytest.approx((3 / 4 + 2 / 3) / 3)


def test_balanced_f1_macro_by_hand():
    # weights 1.5 and 6. class 0: tp 4.5, fp 6 (the class-2 image), fn 1.5: F1 = 9/(9+6+1.5);
    # class 1: tp 6, fp 1.5, fn 0: F1 = 12/(12+1.5); class 2: F1 0
    value = general.f1_macro(LOGITS, LABELS, general.balanced_weights(LABELS))
    assert value == pytest.approx((9 / 16.5 + 12 / 13.5) / 3)


def test_class_predicted_but_absent_has_f1_0():
    labels_N = torch.tensor([0, 0, 1, 1])
    logits_NC = torch.nn.functional.one_hot(torch.tensor([0, 2, 1, 1]), 3).float()
    # class 0: precision 1, recall 1/2, F1 2/3; class 1: F1 1; class 2, without an image: F1 0
    assert general.f1_macro(logits_NC, labels_N) == pytest.approx((2 / 3 + 1 + 0) / 3)


def test_top3_by_hand():
    logits_NC = torch.tensor([[4.0, 3, 2, 1], [4.0, 3, 2, 1], [1.0, 1, 1, 1]])
    # ties rank by class number, so class 2 is third and class 3 is not among the top 3
    assert general.top_accuracy(logits_NC, torch.tensor([2, 3, 2]), 3).tolist() == [1, 0, 1]


def test_top3_with_two_classes_uses_both():
    logits_NC = torch.tensor([[0.0, 1.0], [1.0, 0.0]])
    assert general.top_accuracy(logits_NC, torch.tensor([0, 0]), 3).tolist() == [1, 1]


def test_one_class_and_one_image(make_evidence):
    values = general.General().measure(make_evidence(images=1, classes=1))
    assert [float(value) for value in values.values()] == [1.0] * 6


def test_measure_by_hand(make_evidence):
    # rank of the true class: 1, 3, 4 (class 0), 3 (class 1)
    logits_NC = torch.tensor([[4.0, 3, 2, 1], [2.0, 4, 3, 1], [1.0, 4, 3, 2], [3.0, 2, 4, 1]])
    labels_N = torch.tensor([0, 0, 0, 1])
    values = general.General().measure(
        make_evidence(images=4, logits_NC=logits_NC, labels_N=labels_N)
    )
    assert values["accuracy"].tolist() == [1, 0, 0, 0]
    assert values["balanced_accuracy"] == pytest.approx((1 / 3 + 0) / 2)
    assert values["top3_accuracy"].tolist() == [1, 1, 0, 1]
    assert values["balanced_top3_accuracy"] == pytest.approx((2 / 3 + 1) / 2)
    # class 0: precision 1/1, recall 1/3, F1 1/2; class 1, and class 2, which is predicted and has
    # no image: 0. Weights 4/3 and 4: tp 4/3, fn 8/3, F1 of class 0 again 1/2
    assert values["f1_macro"] == pytest.approx(1 / 6)
    assert values["balanced_f1_macro"] == pytest.approx(1 / 6)


def test_one_of_two_f1_is_balanced(make_evidence):
    # as above: 3/4, 2/3 and 0, and with weights 9/16.5, 12/13.5 and 0
    values = general.General().measure(make_evidence(images=6, logits_NC=LOGITS, labels_N=LABELS))
    assert values["f1_macro"] == pytest.approx((3 / 4 + 2 / 3) / 3)
    assert values["balanced_f1_macro"] == pytest.approx((9 / 16.5 + 12 / 13.5) / 3)


def test_keys(make_evidence):
    assert list(general.General().measure(make_evidence())) == [
        "accuracy",
        "balanced_accuracy",
        "top3_accuracy",
        "balanced_top3_accuracy",
        "f1_macro",
        "balanced_f1_macro",
        "unknown_auroc",
    ]


@given(seed=st.integers(0, 1000))
def test_agrees_with_scikit_learn(seed):
    logits_NC, labels_N = random_outputs(seed)
    predicted_N = logits_NC.argmax(1)
    weights_N = general.balanced_weights(labels_N)
    right_N = general.top_accuracy(logits_NC, labels_N, 1)
    third_N = general.top_accuracy(logits_NC, labels_N, 3)

    assert general.balanced_mean(right_N, labels_N) == pytest.approx(
        balanced_accuracy_score(labels_N, predicted_N)
    )
    assert float(third_N.mean()) == pytest.approx(
        top_k_accuracy_score(labels_N, logits_NC, k=3, labels=range(5))
    )
    assert general.balanced_mean(third_N, labels_N) == pytest.approx(
        top_k_accuracy_score(labels_N, logits_NC, k=3, labels=range(5), sample_weight=weights_N)
    )
    assert general.f1_macro(logits_NC, labels_N, weights_N) == pytest.approx(
        f1_score(labels_N, predicted_N, average="macro", sample_weight=weights_N)
    )


@given(seed=st.integers(0, 1000))
def test_top3_is_at_least_accuracy_and_order_of_images_is_free(seed):
    logits_NC, labels_N = random_outputs(seed)
    assert (
        general.top_accuracy(logits_NC, labels_N, 3) >= general.top_accuracy(logits_NC, labels_N, 1)
    ).all()
    order = torch.randperm(len(labels_N), generator=torch.Generator().manual_seed(seed))
    assert general.f1_macro(logits_NC[order], labels_N[order]) == pytest.approx(
        general.f1_macro(logits_NC, labels_N)
    )


def test_unknown_classes_by_hand() -> None:
    # largest scores 3, 5, 4; without their class 2, 1, 3.5: of nine pairs one is the wrong way
    logits_NC = torch.tensor([[3.0, 2.0, 0.0], [1.0, 5.0, 0.0], [4.0, 0.0, 3.5]])
    assert general.unknown_auroc(logits_NC, torch.tensor([0, 1, 0])) == pytest.approx(8 / 9)


def test_an_image_named_wrong_is_no_better_known_with_its_class_than_without() -> None:
    # largest scores 3 and 2; without their class 1, and 2 again: of four pairs, one tie counts half
    logits_NC = torch.tensor([[3.0, 1.0], [1.0, 2.0]])
    assert general.unknown_auroc(logits_NC, torch.tensor([0, 0])) == pytest.approx(3.5 / 4)


def test_unknown_classes_of_a_model_that_guesses_are_not_told() -> None:
    logits_NC, labels_N = random_outputs(0, images=4000, classes=40)
    assert general.unknown_auroc(logits_NC, labels_N) == pytest.approx(0.5, abs=0.03)
