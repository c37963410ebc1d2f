"""The experiment's parameters: params.yaml, checked as a whole before any stage starts."""

import difflib
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    SerializeAsAny,
    ValidationError,
    create_model,
    model_validator,
)

from pipeline.crops.settings import CropSettings
from pipeline.datasets.dataset import DATASETS
from pipeline.errors import ProtoMaskError
from pipeline.masks.segmenter import SEGMENTERS, Segmenter
from pipeline.metrics.group import METRIC_GROUPS
from pipeline.model.base.models import MODEL_SETTINGS
from pipeline.model.base.settings import BackboneSettings
from pipeline.registry import Registry
from pipeline.training.settings import FinetuneSettings, PruneSettings, Runtime, TrainSettings

REGISTRIES: dict[str, Registry[Any]] = {"segmenter": SEGMENTERS, "model": MODEL_SETTINGS}
"""The sections that have other parameters for each `name`."""


def _accepted_by(check: Callable[[Any], object]) -> AfterValidator:
    """Returns a check of a component's name by a method of its registry."""

    def checked(name: Any) -> Any:
        try:
            check(name)
        except ProtoMaskError as error:
            raise ValueError(str(error)) from None
        return name

    return AfterValidator(checked)


class DatasetParams(BaseModel):
    """Which photographs.

    Args:
        name: the data set, which says how its folder is laid out.
        code: the file or folder of the code that reads them, relative to the repository: what DVC
            watches; set by the preset.
        root: the folder, which `scan` looks through; null for a data set that is drawn or is to be
            downloaded.
        num_classes: number of classes, of which the first are kept; null keeps all.
        fold, folds: the validation split is number `fold`, from 0, of `folds` parts of the training
            images.
        max_bad_fraction: the share of unreadable images that is put up with.
        source: what DVC watches for changes; set by the preset `conf/dataset/NAME.yaml`.
        scanned: set by the preset: [root] for a folder, which every `dvc repro` looks through for
            changes, [] for a data set that is drawn.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: Annotated[str, _accepted_by(DATASETS.__getitem__)]
    code: str
    root: Annotated[str, Field(min_length=1)] | None
    num_classes: Annotated[int, Field(ge=2)] | None
    fold: Annotated[int, Field(ge=0)]
    folds: Annotated[int, Field(ge=2)]
    max_bad_fraction: Annotated[float, Field(ge=0, le=1)]
    source: str
    scanned: list[str]

    @model_validator(mode="after")
    def _consistent(self) -> "DatasetParams":
        if self.fold >= self.folds:
            raise ValueError(f"fold counts from 0 and must be below folds, which is {self.folds}")
        data_set = DATASETS[self.name]
        if data_set.drawn == bool(self.scanned):
            raise ValueError(
                f"name is {self.name} but scanned is {self.scanned}; choose the data set with "
                f"`dvc exp run -S dataset={self.name}`, which sets both"
            )
        if data_set.drawn and self.root is not None:
            raise ValueError(f"root must be null for {self.name}, which is drawn, not read")
        if self.root is None and not data_set.drawn and data_set.publication is None:
            copies = f" ({data_set.copies})" if data_set.copies else ""
            raise ValueError(
                f"root is not set; name the folder: "
                f"`dvc exp run -S dataset={self.name} -S dataset.root=FOLDER`{copies}"
            )
        return self


class EvaluateParams(BaseModel):
    """What is measured.

    Args:
        top_k: k, how many prototypes explain an image.
        groups: the groups of metrics.
        explanations: what draws the saliency maps that are measured: the segmenter's `mask` itself,
            or the relevance of its crop's pixels by `prp` or `grad`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    top_k: Annotated[int, Field(ge=1)]
    groups: list[Annotated[str, _accepted_by(METRIC_GROUPS.refuse_unknown)]]
    explanations: Annotated[list[Literal["mask", "prp", "grad"]], Field(min_length=1)]


class ExplainParams(BaseModel):
    """What the report's pages show.

    Args:
        only_mask: relevance on the crops' masks only, even where the network sees the photograph
            outside them (`crops.background: original`).
        images: how many test images are drawn on their pages, mistakes and images that nobody
            picked; of the others the pages say the same in numbers.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    only_mask: bool
    images: Annotated[int, Field(ge=0)]


class Params(BaseModel):
    """All of params.yaml."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    seed: Annotated[int, Field(ge=0, lt=2**32)]
    dataset: DatasetParams
    segmenter: SerializeAsAny[Segmenter]
    crops: CropSettings
    model: SerializeAsAny[BackboneSettings]
    train: TrainSettings
    finetune: FinetuneSettings
    prune: PruneSettings
    evaluate: EvaluateParams
    explain: ExplainParams
    runtime: Runtime

    @model_validator(mode="after")
    def _consistent(self) -> "Params":
        known = ["cross_entropy", *self.model.loss_terms]
        unknown = [name for name in self.train.loss if name not in known]
        missing = [name for name in self.model.loss_terms if name not in self.train.loss]
        if unknown or missing:
            raise ValueError(
                f"train.loss has the weights of {', '.join(self.train.loss) or 'nothing'}, but the "
                f"loss of {self.model.name} has {', '.join(known)}; choose the model with "
                f"`dvc exp run -S model={self.model.name}`, which sets both"
            )
        if self.prune.enabled and not self.model.prunes:
            raise ValueError(
                f"prune.enabled is for models whose prototypes belong to one class each, and "
                f"{self.model.name} is none: set it to false"
            )
        if self.runtime.devices > self.train.accumulate:
            raise ValueError(
                f"runtime.devices is {self.runtime.devices}, but processes share the batches of a "
                f"step, of which train.accumulate={self.train.accumulate} makes no more: lower it "
                "or raise train.accumulate"
            )
        return self


def read_params(path: Path) -> Params:
    """Reads and checks params.yaml.

    Raises:
        ProtoMaskError: the file lies in a sub-folder of that of dvc.yaml; or every parameter that
            is missing, misspelt or out of range, one a line, with what is allowed.
    """
    refuse_subfolder(path.parent)
    kind = Params
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
        kind = params_type(values)
        return kind.model_validate(values)
    except FileNotFoundError:
        raise ProtoMaskError(f"no {path}: run protomask where dvc.yaml is") from None
    except (IsADirectoryError, UnicodeDecodeError):
        raise ProtoMaskError(f"{path} is no text file in UTF-8") from None
    except yaml.YAMLError as error:
        raise ProtoMaskError(f"{path} is not YAML: {error}") from None
    except ValidationError as error:
        lines = [_explain(problem, kind) for problem in error.errors()]
        raise ProtoMaskError("\n".join([f"{path}:", *lines])) from None


def refuse_subfolder(folder: Path) -> None:
    """Checks that a folder is not below that of dvc.yaml, in which `dvc exp run` leaves a
    params.yaml when it fails there.

    Raises:
        ProtoMaskError: it is; the message names the folder of dvc.yaml.
    """
    here, *above = [folder.resolve(), *folder.resolve().parents]
    found = [other for other in above if (other / "dvc.yaml").is_file()]
    if found and not (here / "dvc.yaml").is_file():
        raise ProtoMaskError(f"{here} has no dvc.yaml: run it where dvc.yaml is, in {found[0]}")


def params_type(values: Any) -> type[Params]:
    """Returns `Params` with the parameters of the segmenter and the model that the values name.

    Args:
        values: what params.yaml holds, checked or not.
    """
    kinds: dict[str, Any] = {}
    for section, registry in REGISTRIES.items():
        given = values.get(section) if isinstance(values, dict) else None
        if isinstance(given, dict):
            kinds[section] = (_parameters_of(given.get("name"), registry), ...)
    return create_model("Params", __base__=Params, **kinds)


def _parameters_of(name: Any, registry: Registry[Any]) -> type[BaseModel]:
    if name not in registry:
        return _refused_by(registry)
    parameters: type[BaseModel] = registry[name]
    return parameters


def _refused_by(registry: Registry[Any]) -> type[BaseModel]:
    """Returns the type of a section whose component is not registered: any value is refused."""
    name = Annotated[Any, _accepted_by(registry.__getitem__)]
    return create_model(
        "Unknown",
        __config__=ConfigDict(extra="allow"),
        name=(name, Field(None, validate_default=True)),
    )


def _explain(problem: Any, kind: type[Params]) -> str:
    place = [str(key) for key in problem["loc"]]
    name = ".".join(place) or "the file"
    if problem["type"] == "extra_forbidden":
        allowed = _allowed_keys(place[:-1], kind)
        near = difflib.get_close_matches(place[-1], allowed, n=1)
        meant = f"; did you mean {near[0]}?" if near else ""
        return f"  {name}: no such parameter{meant} (there are: {', '.join(allowed)})"
    if problem["type"] in ("model_type", "model_attributes_type"):
        return f"  {name}: input should be a section of parameters, but is {problem['input']!r}"
    if problem["type"] == "missing":
        return f"  {name}: is missing"
    message = problem["msg"].removeprefix("Value error, ")
    if problem["type"] == "value_error":
        return f"  {name}: {message}"
    return f"  {name}: {message[0].lower()}{message[1:]}, but is {problem['input']!r}"


def _allowed_keys(place: list[str], kind: type[Params]) -> list[str]:
    section: Any = kind
    for key in place:
        section = section.model_fields[key].annotation
    return sorted(section.model_fields)
