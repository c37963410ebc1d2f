"""Parameters: what is wrong is named, with what is allowed; the presets are all valid."""

import copy
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from dvc.utils.hydra import compose_and_dump
from pydantic import BaseModel
from settings import model_settings, patches

from pipeline.crops.settings import CropSettings
from pipeline.datasets.dataset import DATASETS
from pipeline.errors import ProtoMaskError
from pipeline.masks.segmenter import SEGMENTERS
from pipeline.masks.segmenters.parts.settings import PartsSettings
from pipeline.model.base.models import MODEL_SETTINGS
from pipeline.parameters import flat
from stages.params import Params, read_params

REPOSITORY = Path(__file__).parents[2]
COMMITTED = yaml.safe_load((REPOSITORY / "params.yaml").read_text())
REMOVED = object()


def _with(changes: dict[str, Any]) -> dict[str, Any]:
    values = copy.deepcopy(COMMITTED)
    for name, value in changes.items():
        *sections, key = name.split(".")
        place = values
        for section in sections:
            place = place[section]
        if value is REMOVED:
            del place[key]
        else:
            place[key] = value
    return values


def _read(tmp_path: Path, **changes: Any) -> Params:
    path = tmp_path / "params.yaml"
    path.write_text(yaml.safe_dump(_with({k.replace("__", "."): v for k, v in changes.items()})))
    return read_params(path)


def _compose(tmp_path: Path, *overrides: str) -> dict[str, Any]:
    out = tmp_path / "composed.yaml"
    compose_and_dump(out, str(REPOSITORY / "conf"), None, "config", "", list(overrides))
    return yaml.safe_load(out.read_text())


def test_the_committed_parameters_are_valid() -> None:
    params = read_params(REPOSITORY / "params.yaml")
    assert isinstance(params.segmenter, PartsSettings)
    assert params.segmenter.model_dump(mode="json") == COMMITTED["segmenter"]
    assert params.crops == CropSettings(**COMMITTED["crops"])


def test_the_presets_compose_to_the_committed_parameters(tmp_path: Path) -> None:
    assert _compose(tmp_path) == COMMITTED
    composed = (tmp_path / "composed.yaml").read_text()
    assert composed == (REPOSITORY / "params.yaml").read_text(), "run `dvc exp run` and commit"


PRESETS = sorted(
    f"{file.parent.name}={file.stem}" for file in (REPOSITORY / "conf").glob("*/[!_]*.yaml")
)


def _set_by_hand(preset: str) -> list[str]:
    """Returns what no preset can know: where photographs lie, and hashes of files."""
    overrides = []
    if (preset.startswith("dataset=") and preset != "dataset=demo") or "cars196" in preset:
        overrides.append("dataset.root=/data/photographs")
    if preset == "segmenter=import":
        overrides.append(f"segmenter.sha256={'0' * 64}")
    if preset.endswith("slit"):
        overrides.append(f"segmenter.weights_sha256={'0' * 64}")
    return overrides


@pytest.mark.parametrize("preset", PRESETS)
def test_every_preset_is_valid(tmp_path: Path, preset: str) -> None:
    _compose(tmp_path, preset, *_set_by_hand(preset))
    read_params(tmp_path / "composed.yaml")


@pytest.mark.parametrize("model", MODEL_SETTINGS.names())
@pytest.mark.parametrize("experiment", ["frozen", "unfrozen", "joint"])
def test_every_model_can_be_trained_either_way(tmp_path: Path, model: str, experiment: str) -> None:
    _compose(tmp_path, f"model={model}", f"experiment={experiment}")
    params = read_params(tmp_path / "composed.yaml")
    assert params.model.name == model
    assert params.train.freeze_backbone == (experiment == "frozen")
    assert set(params.train.loss) - {"cross_entropy"} == set(params.model.loss_terms)


def test_there_is_a_preset_for_everything_with_a_name() -> None:
    assert {f"dataset={name}" for name in DATASETS.names()} <= set(PRESETS)
    assert {f"segmenter={name}" for name in SEGMENTERS.names()} <= set(PRESETS)
    assert {f"model={name}" for name in MODEL_SETTINGS.names()} <= set(PRESETS)


COMPONENTS: list[type[BaseModel]] = [
    *(SEGMENTERS[name] for name in SEGMENTERS.names()),
    *(MODEL_SETTINGS[name] for name in MODEL_SETTINGS.names()),
]
SECTIONS = [field.annotation for name, field in Params.model_fields.items() if name != "seed"]


@pytest.mark.parametrize("kind", [Params, *SECTIONS, *COMPONENTS])
def test_the_presets_have_the_only_value_of_each_parameter(kind: Any) -> None:
    """But for a component's `name`, by which it is found: it is refused if it is missing."""
    given = {name for name, field in kind.model_fields.items() if not field.is_required()}
    assert given == ({"name"} if kind in COMPONENTS else set())


NAMES = ("segmenter.name", "model.name")


@pytest.mark.parametrize(
    "name", [name for name in flat(COMMITTED) if name not in NAMES and "train.loss." not in name]
)
def test_a_missing_parameter_is_named(tmp_path: Path, name: str) -> None:
    with pytest.raises(ProtoMaskError, match=rf"params\.yaml:\n  {re.escape(name)}: is missing$"):
        _read(tmp_path, **{name: REMOVED})


@pytest.mark.parametrize("name", ["folder", "cars196", "pets"])
def test_a_folders_preset_asks_for_its_root(tmp_path: Path, name: str) -> None:
    _compose(tmp_path, f"dataset={name}")
    with pytest.raises(ProtoMaskError, match=f"-S dataset={name} -S dataset.root=FOLDER") as error:
        read_params(tmp_path / "composed.yaml")
    assert ("pytorch/vision/issues/7545" in str(error.value)) == (name == "cars196")


@pytest.mark.parametrize("name", ["cub200", "dogs"])
def test_a_data_set_that_can_be_fetched_needs_no_root(tmp_path: Path, name: str) -> None:
    _compose(tmp_path, f"dataset={name}")
    assert read_params(tmp_path / "composed.yaml").dataset.root is None


def test_another_segmenter(tmp_path: Path) -> None:
    params = _read(tmp_path, segmenter={"name": "patches", "version": 1, "grid": 4})
    assert params.segmenter == patches(grid=4)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        # Misspelt: named, the closest one suggested, all of them listed.
        (
            {"crops.sied": 3},
            r"crops\.sied: no such parameter; did you mean side\? "
            r"\(there are: background, choose, max_box_area, min_box_area, per_image, side, "
            r"storage, version\)",
        ),
        (
            {"segmenter.stage": 3},
            r"segmenter\.stage: no such parameter; did you mean stages\? \(there are: backbone, "
            r"codebook, levels, margin, min_area, name, objectness, pretrained, sample, side, "
            r"stages, superpixel, version\)",
        ),
        ({"dataset.path": "x"}, r"dataset\.path: no such parameter.*\(there are: .*root, "),
        ({"tain": {}}, r"tain: no such parameter; did you mean train\?"),
        # Out of range.
        ({"crops.choose": "all"}, r"crops\.choose: .*'largest' or 'parts', but is 'all'"),
        ({"crops.side": 8}, r"crops\.side: input should be greater than or equal to 16, but is 8"),
        ({"crops.min_box_area": float("nan")}, r"crops\.min_box_area: .*but is nan"),
        ({"segmenter.superpixel": float("inf")}, r"superpixel: .*finite number, but is inf"),
        ({"segmenter.levels": []}, r"segmenter\.levels: .*at least 1 item"),
        ({"segmenter.levels": [6, 1]}, r"segmenter\.levels\.1: .*equal to 2, but is 1"),
        ({"segmenter.levels": [20, 6]}, r"segmenter\.levels: levels must be ascending"),
        ({"train.lr_prototypes": 1e31}, r"train\.lr_prototypes: .*at most 1e\+30, but is 1e\+31"),
        ({"finetune.lr": 1e38}, r"finetune\.lr: .*at most 1e\+30, but is 1e\+38"),
        ({"prune.threshold": 7}, r"prune: threshold is 7, but of the 6 nearest images no more"),
        ({"seed": -1}, r"seed: input should be greater than or equal to 0, but is -1"),
        ({"runtime.workers": 0}, r"runtime\.workers: .*but is 0"),
        ({"dataset.num_classes": 1}, r"dataset\.num_classes: .*equal to 2, but is 1"),
        ({"dataset.max_bad_fraction": 2}, r"dataset\.max_bad_fraction: .*equal to 1, but is 2"),
        ({"dataset.fold": 5}, r"dataset: fold counts from 0 and must be below folds, which is 5"),
        # Of the wrong type.
        ({"crops.side": "big"}, r"crops\.side: .*valid integer.*but is 'big'"),
        ({"seed": 1.5}, r"seed: .*valid integer.*but is 1\.5"),
        ({"train.augment": "maybe"}, r"train\.augment: .*valid boolean.*but is 'maybe'"),
        ({"crops": 3}, r"crops: input should be a section of parameters, but is 3"),
        ({"segmenter": "patches"}, r"segmenter: input should be a section .*but is 'patches'"),
        # No such name: the allowed ones.
        (
            {"segmenter.name": "sam3"},
            r"segmenter\.name: there is no segmenter 'sam3'; did you mean sam2\? "
            rf"\(there are: {', '.join(SEGMENTERS.names())}\)",
        ),
        (
            {"segmenter.name": REMOVED},
            rf"segmenter\.name: .* None .*\(there are: {', '.join(SEGMENTERS.names())}",
        ),
        ({"model.name": REMOVED}, r"model\.name: .* None .*\(there are: .*blackbox, "),
        ({"segmenter.name": ["sam2"]}, r"segmenter\.name: there is no segmenter \['sam2'\]"),
        (
            {"dataset.name": "imagenet"},
            r"dataset\.name: there is no data set 'imagenet' .*\(there are: .*cars196, .*, pets",
        ),
        ({"dataset.name": 3}, r"dataset\.name: input should be a valid string, but is 3"),
        ({"crops.background": "blur"}, r"'original', 'mean' or 'zero', but is 'blur'"),
        (
            {"evaluate.groups": ["general", "thruth"]},
            r"groups\.1: there is no metric group 'thruth'; did you mean truth\? "
            r"\(there are: compactness, .*, general, .*, truth\)",
        ),
        # Of another version than this code's.
        ({"segmenter.version": 99}, r"segmenter\.version: input should be \d+, but is 99"),
        # Missing.
        ({"crops": REMOVED}, r"crops: is missing"),
        ({"dataset.fold": REMOVED}, r"dataset\.fold: is missing"),
        # Models that do not go with the rest.
        (
            {"model.name": "protonet"},
            r"model\.name: there is no model 'protonet'; did you mean proto.*there are: blackbox, ",
        ),
        ({"model.slots": 3}, r"model\.slots: no such parameter"),
        (
            {"model": model_settings("pipnet").model_dump()},
            r"weights of cluster, diversity, separation, but the loss of pipnet has cross_entropy, "
            r"alignment, presence; .*-S model=pipnet`, which sets both",
        ),
        ({"train.loss": {"cluster": 0.8, "separation": 0.2}}, r"train\.loss .*has .*diversity"),
        ({"train.loss.cluster": -1}, r"train\.loss\.cluster: .*equal to 0, but is -1"),
        (
            {
                "model": model_settings("blackbox").model_dump(),
                "train.loss": {},
                "prune.enabled": True,
            },
            r"prune\.enabled is for .*blackbox is none: set it to false",
        ),
        (
            {"model": {**model_settings("protopool").model_dump(), "slots": 5, "prototypes": 5}},
            r"model: slots is 5 and must be below prototypes, which is 5",
        ),
        # Data sets that do not go with the rest.
        ({"dataset.root": "x"}, r"root must be null for demo"),
        ({"dataset.root": ""}, r"dataset\.root: .*at least 1 character, but is ''"),
        ({"dataset.name": "pets"}, r"-S dataset=pets`, which sets both"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_what_is_wrong_is_said(tmp_path: Path, change: dict[str, Any], said: str) -> None:
    path = tmp_path / "params.yaml"
    path.write_text(yaml.safe_dump(_with(change)))
    with pytest.raises(ProtoMaskError, match=said) as error:
        read_params(path)
    assert str(error.value).startswith(f"{path}:\n  ")


def test_everything_wrong_is_said_at_once(tmp_path: Path) -> None:
    with pytest.raises(ProtoMaskError) as error:
        _read(tmp_path, seed="x", crops__side=1, runtime__device="tpu")
    assert [line.split(":")[0].strip() for line in str(error.value).splitlines()[1:]] == [
        "seed",
        "crops.side",
        "runtime.device",
    ]


@pytest.mark.parametrize(
    "content",
    [b"a: [1\nb: }", b"a:\n\t- 1", b"a: 1\n---\nb: 2", b"a: \x00", b"\xff\xfe", b"a: !!python/x y"],
)
def test_not_yaml(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "params.yaml"
    path.write_bytes(content)
    with pytest.raises(ProtoMaskError, match=r"params\.yaml is (not YAML|no text file)"):
        read_params(path)


@pytest.mark.parametrize("content", ["", "- 1\n", "hello\n"])
def test_yaml_of_something_else(tmp_path: Path, content: str) -> None:
    (tmp_path / "params.yaml").write_text(content)
    with pytest.raises(ProtoMaskError, match="the file: input should be a section of parameters"):
        read_params(tmp_path / "params.yaml")


def test_no_file(tmp_path: Path) -> None:
    with pytest.raises(
        ProtoMaskError, match=r"no .*params\.yaml: run protomask where dvc\.yaml is"
    ):
        read_params(tmp_path / "params.yaml")
    (tmp_path / "params.yaml").mkdir()
    with pytest.raises(ProtoMaskError, match="no text file"):
        read_params(tmp_path / "params.yaml")


def test_numbers_with_an_exponent(tmp_path: Path) -> None:
    """YAML 1.1 takes 1e-3 for text; DVC, Hydra and people write it all the same."""
    text = yaml.safe_dump(_with({"train.lr_projection": "PLACE"}))
    (tmp_path / "params.yaml").write_text(text.replace("PLACE", "1e-3"))
    assert read_params(tmp_path / "params.yaml").train.lr_projection == 0.001


@pytest.mark.parametrize("scheduler", [None, "local:3", "tcp://gpu-1:8786", "tls://10.0.0.1:8786"])
def test_schedulers(tmp_path: Path, scheduler: str | None) -> None:
    assert _read(tmp_path, runtime__scheduler=scheduler).runtime.scheduler == scheduler


@pytest.mark.parametrize(
    "scheduler", ["local", "local:0", "gpu-1:8786", "tcp://gpu-1", "http://x:1"]
)
def test_what_is_no_scheduler_is_said(tmp_path: Path, scheduler: str) -> None:
    with pytest.raises(ProtoMaskError, match=r"runtime.scheduler: .*tcp://HOST:8786"):
        _read(tmp_path, runtime__scheduler=scheduler)


def test_a_folder_below_that_of_dvc_yaml(tmp_path: Path) -> None:
    """Where `dvc exp run -S …` leaves a params.yaml."""
    (tmp_path / "dvc.yaml").touch()
    place = tmp_path / "docs" / "images"
    place.mkdir(parents=True)
    for content in (None, yaml.safe_dump(COMMITTED)):
        if content is not None:
            (place / "params.yaml").write_text(content)
        with pytest.raises(ProtoMaskError, match=f"run it where dvc.yaml is, in {tmp_path}$"):
            read_params(place / "params.yaml")
    (place / "dvc.yaml").touch()
    assert read_params(place / "params.yaml").seed == 0
