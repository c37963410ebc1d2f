"""Every kind of model is trained, killed and resumed, pushed, fine-tuned and saved alike."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from settings import crop_settings, finetune_settings, train_settings

from pipeline.model.base.inference import infer
from pipeline.model.base.network import PrototypeNetwork, valid_views
from pipeline.model.base.saved import About, save_model
from pipeline.training.fabric import Fabric
from pipeline.training.features import stored_features
from pipeline.training.finetune import finetune
from pipeline.training.push import nearest_views, push
from pipeline.training.train import Training

from .conftest import CLASSES, SMALL

LOSS = {
    "protomask": {"cluster": 0.8, "separation": 0.2, "diversity": 0.2},
    "protopnet": {"cluster": 0.8, "separation": 0.08},
    "protopool": {"cluster": 0.8, "separation": 0.08, "orthogonality": 0.1},
    "pipnet": {"cross_entropy": 2.0, "alignment": 1.0, "presence": 1.0},
    "blackbox": {},
}
FROZEN = {"epochs": 12, "freeze_backbone": True, "augment": False, "start": "crops"}
JOINT = {"epochs": 2, "warmup_epochs": 1, "freeze_backbone": False, "augment": True}


@pytest.fixture
def make_training(
    make_network: Callable[..., PrototypeNetwork],
    make_store: Callable[..., Any],
    make_index: Callable[..., Any],
    fabric: Fabric,
    tmp_path: Path,
) -> Callable[..., Training]:
    """Makes the training of a model on images of 2×2 cells."""

    def make(name: str, folder: str = "run", **settings: Any) -> Training:
        index, network = make_index(), make_network(name)
        rates = {"lr_backbone": 1e-3, "lr_projection": 1e-2, "lr_prototypes": 5e-2}
        used = {"batch_size": 4, "accumulate": 1, "step_size": 100, **rates, **settings}
        return Training(
            network,
            network.seen(make_store(index, side=64)),
            index,
            train_settings(loss=LOSS[name], **used),
            0,
            fabric,
            tmp_path / folder / "checkpoints",
            tmp_path / "cache",
        )

    return make


def saved(network: PrototypeNetwork, folder: Path) -> dict[str, bytes]:
    about = About(
        class_names=CLASSES, segmenter={}, crops=crop_settings(), images="", precision="float32"
    )
    save_model(folder, network, about)
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize("name", SMALL)
def test_learned_pushed_and_fine_tuned(
    make_training: Callable[..., Training], tmp_path: Path, name: str
) -> None:
    training = make_training(name, **FROZEN)
    network, rows = training.network, training.train_rows
    progress = training.run(tmp_path / "curves")
    assert progress.history[-1]["train/loss"] < progress.history[0]["train/loss"]
    assert progress.history[progress.best_epoch]["val/accuracy"] == 1.0

    features = stored_features(network, training.store, rows, training.fabric)
    valid, labels = valid_views(training.valid[rows], features), training.labels[rows]
    before = infer(network, network.embed(features), valid)
    assert (before.logits_NC.argmax(1) == labels).float().mean() > 0.9
    nearest = nearest_views(network, network.embed(features), valid, labels)
    assert valid[nearest.image, nearest.view].all()
    own_PN = network.own_CP[labels].T
    assert own_PN[torch.arange(network.num_prototypes), nearest.image].all()
    scores_NVP = network.head().scores(before.embedding_NVD)
    for j in range(network.num_prototypes):
        candidates = scores_NVP[:, :, j][valid & own_PN[j][:, None]]
        assert scores_NVP[nearest.image[j], nearest.view[j], j] == candidates.max()

    first = {key: value.clone() for key, value in network.state_dict().items()}
    push(network, nearest)
    moved = {
        key for key, value in network.state_dict().items() if not torch.equal(value, first[key])
    }
    assert moved == ({"prototypes"} if network.pushes else set())
    assert (nearest.distance >= 0).all() if network.pushes else nearest.distance.isnan().all()
    after = infer(network, network.embed(features), valid)
    assert network.pushes or torch.equal(after.logits_NC, before.logits_NC)
    assert network.finetunes or not network.settings.prunes
    if network.finetunes:
        V = network.last_layer().detach().clone()
        finetune(network, after.similarity_NP, labels, finetune_settings(), 0)
        assert not torch.equal(network.last_layer(), V)
    saved(network, tmp_path / "model")


@pytest.mark.parametrize("name", SMALL)
def test_killed_run_ends_in_the_same_bytes(
    make_training: Callable[..., Training],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
) -> None:
    """With a warm-up, augmentation and a trainable backbone; killed after a joint epoch."""
    undisturbed = make_training(name, "undisturbed", **JOINT)
    expected = undisturbed.run(tmp_path / "curves")
    first = make_training(name, "killed", **JOINT)
    epoch = first._epoch

    def killed(number: int) -> dict[str, float]:
        if number == 2:
            raise KeyboardInterrupt
        return epoch(number)

    monkeypatch.setattr(first, "_epoch", killed)
    with pytest.raises(KeyboardInterrupt):
        first.run(tmp_path / "curves")
    second = make_training(name, "killed", **JOINT)
    assert second.run(tmp_path / "curves") == expected
    assert len(expected.history) == 3
    networks = undisturbed.network, second.network
    one, other = (saved(network, tmp_path / f"{place}") for place, network in enumerate(networks))
    assert one == other


def test_pairs_are_two_colourings_of_every_image(
    make_training: Callable[..., Training], tmp_path: Path
) -> None:
    training = make_training("pipnet", **{**JOINT, "warmup_epochs": 0, "epochs": 1})
    seen: list[torch.Tensor] = []
    forward = training.network.forward

    def watched(inputs: torch.Tensor, valid_BK: torch.Tensor, inside: None = None) -> Any:
        if training.network.training:
            seen.append(inputs)
            assert valid_BK.shape == inputs.shape[:2]
        return forward(inputs, valid_BK)

    training.network.forward = watched  # type: ignore[method-assign]
    training.run(tmp_path / "curves")
    assert [len(inputs) for inputs in seen] == [8, 8, 8]
    for inputs in seen:
        first, second = inputs.mean((1, 2, 3)).split(4)
        assert not torch.allclose(first, second, atol=1e-3)
        # Its own colour tells an image's copy from the others' all the same.
        assert torch.equal(first.argmax(1), second.argmax(1))


@pytest.mark.parametrize("name", SMALL)
def test_a_model_sees_crops_or_whole_images(
    make_training: Callable[..., Training], name: str
) -> None:
    training = make_training(name, **FROZEN)
    K = 3 if name == "protomask" else 1
    assert training.valid.shape == (21, K)
    cells = 1 if name in ("protomask", "blackbox") else 4
    features = stored_features(training.network, training.store, np.array([2]), training.fabric)
    assert features.shape[:2] == (1, K * cells)
