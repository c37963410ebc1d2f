"""The presets of the published study, composed as `dvc exp run` composes them."""

import shutil
from pathlib import Path

import pytest
from dvc.utils.hydra import compose_and_dump

from stages.params import Params, read_params

CONF = Path(__file__).parents[2] / "conf"
MODELS = ["protopnet", "protopool", "pipnet", "blackbox"]

# Meinert et al. (2025), "Published settings": K, lr backbone, lr prototypes, step size.
PUBLISHED = {
    "cub200-sam2": (11, 6e-5, 3e-3, 35),
    "cub200-slit": (8, 9.4e-5, 2.7e-3, 35),
    "dogs-sam2": (13, 1e-5, 3e-3, 30),
    "dogs-slit": (10, 2.9e-5, 3e-3, 30),
    "cars196-sam2": (16, 6e-5, 2e-3, 35),
    "cars196-slit": (11, 7.3e-5, 3.5e-3, 35),
}


@pytest.fixture
def compose(tmp_path):
    def compose(*overrides: str, conf: Path = CONF) -> Params:
        path = tmp_path / "params.yaml"
        given = [*overrides]
        if any(override.endswith("-slit") for override in overrides):
            given.append("segmenter.weights_sha256=" + "0" * 64)
        if any("cars196" in override for override in overrides):
            given.append("dataset.root=/cars")
        compose_and_dump(path, str(conf), None, "config", "", given)
        return read_params(path)

    return compose


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_settings_are_the_papers(compose, name):
    params = compose(f"experiment={name}")
    dataset, segmenter = name.split("-")
    K, lr_backbone, lr_prototypes, step_size = PUBLISHED[name]
    assert (params.dataset.name, params.segmenter.name) == (dataset, segmenter)
    assert (params.crops.per_image, params.crops.side) == (K, 224)
    assert params.crops.choose == "largest"
    assert (params.model.name, params.model.backbone) == ("protomask", "resnet50")
    assert (params.model.embedding_dim, params.model.prototypes_per_class) == (1280, 10)
    assert not params.model.standardise
    train = params.train
    assert (train.lr_backbone, train.lr_prototypes) == (lr_backbone, lr_prototypes)
    assert (train.step_size, train.epochs, train.warmup_epochs) == (step_size, 100, 0)
    assert (train.batch_size, train.accumulate) == (16, 4)
    assert train.loss == {"cluster": 0.8, "separation": 0.2, "diversity": 0.2}
    finetune = params.finetune
    assert (finetune.epochs, finetune.lr, finetune.penalty) == (10, 3e-4, 1e-3)
    assert (finetune.merge, finetune.reach, finetune.sparsity) == (False, 1.0, "penalty")


@pytest.mark.parametrize("model", MODELS)
def test_models_of_a_study_share_masks_and_crops(compose, model):
    params = compose("experiment=cub200-sam2", f"model={model}")
    protomask = compose("experiment=cub200-sam2")
    assert (params.dataset, params.segmenter) == (protomask.dataset, protomask.segmenter)
    assert (params.crops, params.seed) == (protomask.crops, protomask.seed)


def test_a_baseline_keeps_its_own_learning_rates_in_a_published_experiment(compose):
    protopnet = compose("experiment=dogs-sam2", "model=protopnet").train
    assert (protopnet.lr_backbone, protopnet.warmup_epochs) == (1e-4, 5)
    assert compose("experiment=dogs-sam2", "model=blackbox").train.lr_backbone == 6e-5


def test_an_experiment_may_choose_what_is_measured(compose, tmp_path):
    conf = tmp_path / "conf"
    shutil.copytree(CONF, conf)
    preset = ["# @package _global_", "defaults:", "  - override /evaluate: full", ""]
    (conf / "experiment" / "thorough.yaml").write_text("\n".join(preset))
    chosen = ["experiment=thorough"]
    assert compose(*chosen, conf=conf).evaluate.explanations == ["mask", "prp"]
    assert compose(*chosen, "evaluate=quick", conf=conf).evaluate.explanations == ["mask"]


def test_what_is_said_on_the_command_line_wins(compose):
    params = compose("experiment=cub200-sam2", "dataset=demo", "train.lr_backbone=0.5")
    assert (params.dataset.name, params.train.lr_backbone) == ("demo", 0.5)
