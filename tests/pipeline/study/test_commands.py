import shlex
from pathlib import Path
from typing import Any

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from pipeline.study.commands import overrides_of, queue_command

CONF = {
    "config": """
defaults: [{dataset: demo}, {backbone: small}, {training: frozen}, {experiment: frozen}, _self_]
seed: 0
runtime: {workers: 2}
""",
    "dataset/demo": "{name: demo, root: null, fold: 0, scanned: []}",
    "dataset/folder": "{name: folder, root: null, fold: 0, scanned: [root]}",
    "backbone/small": "# @package model\nbackbone: small",
    "backbone/large": "# @package model\nbackbone: large\ninput: 224",
    "training/frozen": "# @package _global_\nmodel: {size: 8}\ntrain: {lr: 0.0, grow: false}",
    "training/joint": "# @package _global_\nmodel: {size: 99}\ntrain: {lr: 6.0e-5, grow: true}",
    "experiment/frozen": "# @package _global_\ndefaults: [{override /training: frozen}]",
    "experiment/joint": "# @package _global_\ndefaults: [{override /training: joint}]",
}
GROUPS = {
    "dataset": ["demo", "folder"],
    "backbone": ["large", "small"],
    "training": ["frozen", "joint"],
    "experiment": ["frozen", "joint"],
}


@pytest.fixture
def conf(tmp_path: Path) -> Path:
    for name, text in CONF.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / f"{name}.yaml").write_text(text)
    return tmp_path


def composed(conf: Path, overrides: list[str]) -> Any:
    with initialize_config_dir(str(conf), version_base=None):
        return OmegaConf.to_container(compose("config", overrides), resolve=True)


@pytest.mark.parametrize(
    ("made", "written"),
    [
        ([], ""),
        (["seed=3", "dataset.fold=1"], "-S dataset.fold=1 -S seed=3"),
        (["experiment=joint"], "-S experiment=joint"),
        (["dataset=folder", "backbone=large"], "-S dataset=folder -S backbone=large"),
        (["runtime.workers=9", "+runtime.device=cuda"], ""),
        (["dataset.root='my birds, \"2011\"'"], None),
        (["dataset.root='null'", "dataset.scanned=[a,'b c',1e-7,true,null]"], None),
        (["train.lr=1e-07", "model.size=1.5", "train.grow=null"], None),
        (["+train.extra={a: 1, b: [x]}", "~model.size"], None),
    ],
)
def test_command_gives_the_same_parameters(
    conf: Path, made: list[str], written: str | None
) -> None:
    wanted = composed(conf, made)
    overrides = overrides_of(wanted, lambda overrides: composed(conf, overrides), GROUPS)
    command = queue_command(overrides)
    words = shlex.split(command)
    assert words[:5] == ["dvc", "exp", "run", "--queue", "evaluate"]
    again = composed(conf, [word for word in words[5:] if word != "-S"])
    assert again | {"runtime": None} == wanted | {"runtime": None}
    if written is not None:
        assert command == f"dvc exp run --queue evaluate {written}".strip()


def test_the_preset_is_that_of_the_models_name() -> None:
    # Of the other model's preset only the name would be changed.
    recipes = {"a": {"lr": 1, "epochs": 1}, "b": {"lr": 2, "epochs": 2}}

    def compose(overrides: list[str]) -> Any:
        name = "b" if "model=b" in overrides else "a"
        return {"model": {"name": name}, "train": recipes[name]}

    wanted = {"model": {"name": "b"}, "train": recipes["a"]}
    found = overrides_of(wanted, compose, {"model": ["a", "b"]})
    assert found == ["model=b", "train.lr=1", "train.epochs=1"]


def test_a_preset_of_several_sections_does_not_stand_for_one() -> None:
    grids = {f"grid{n}": n for n in range(5)}
    given = {"segmenter": {"name": "a"}, "train": {"lr": 1, "epochs": 1}}

    def compose(overrides: list[str]) -> Any:
        changed = dict(given)
        if "experiment=b" in overrides:
            changed = {"segmenter": {"name": "b", **grids}, "train": {"lr": 2, "epochs": 2}}
        if "segmenter=b" in overrides:
            changed["segmenter"] = {"name": "b", **grids}
        return changed

    groups = {"segmenter": ["a", "b"], "experiment": ["b"]}
    for made in (["segmenter=b"], ["experiment=b"]):
        wanted = compose(made)
        assert overrides_of(wanted, compose, groups) == made


def test_without_presets_the_file_is_compared() -> None:
    given = {"seed": 0, "train": {"lr": 0.1}}
    wanted = {"seed": 2, "train": {"lr": 0.1}}
    assert overrides_of(wanted, lambda _: given, {}) == ["seed=2"]
