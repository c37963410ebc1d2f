"""Every parameter: its value, default and range, what it means, and which stages depend on it.

All of it is read where it stands anyway: meaning and range in the settings' classes, defaults in
the presets, stages in dvc.yaml.
"""

import inspect
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel
from rich.console import Console
from rich.markup import escape
from rich.padding import Padding

from pipeline.errors import ProtoMaskError
from pipeline.masks.segmenter import Segmenter
from pipeline.model.base.settings import BackboneSettings
from pipeline.parameters import Params
from pipeline.registry import Registry
from stages.overrides import composed_of
from stages.params import REGISTRIES, params_type
from stages.params import Params as AllParams
from stages.workspace import Workspace

IN_COMMON: dict[str, type[BaseModel]] = {"segmenter": Segmenter, "model": BackboneSettings}
"""What all components of a section have in common."""
ARGS = re.MULTILINE | re.DOTALL
WORDS = {
    "integer": "integer",
    "number": "number",
    "string": "text",
    "boolean": "true or false",
    "null": "null",
}
BOUNDS = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}
MEANINGS = {"seed": "Decides everything that is drawn at random."}
"""Of parameters that stand in no section."""


@dataclass(frozen=True)
class Parameter:
    """A parameter.

    Args:
        name: with its section, as in `crops.side`.
        default: what the presets give; None where a preset of its own has none.
        allowed: its type and range in words.
        meaning: what it is.
        stages: those whose outputs depend on it.
    """

    name: str
    default: Any
    allowed: str
    meaning: str
    stages: list[str]


def show(workspace: Workspace) -> None:
    """Prints the parameters of params.yaml."""
    params = workspace.read_params()
    values = params.model_dump(mode="json")
    console = Console(highlight=False)
    choices = [f"dataset={params.dataset.name}"]
    choices += [f"{section}={values[section]['name']}" for section in REGISTRIES]
    known = [choice for choice in choices if _has_preset(choice)]
    given = _leaves(values)
    for parameter in _parameters(params_type(values), composed_of(known, Path("conf"))):
        value = given[parameter.name]
        facts = ["default" if value == parameter.default else f"default {said(parameter.default)}"]
        facts += [parameter.allowed, ", ".join(parameter.stages) or "no stage"]
        console.print(f"[bold]{parameter.name} = {escape(said(value))}[/]", end="  ")
        console.print(f"[dim]{escape(' · '.join(facts))}[/]", soft_wrap=True)
        console.print(Padding(escape(parameter.meaning), (0, 0, 0, 4)))


def _has_preset(choice: str) -> bool:
    group, _, name = choice.partition("=")
    return Path("conf", group, f"{name}.yaml").is_file()


def write_markdown() -> None:
    """Prints the parameters of all segmenters and models as tables in Markdown."""
    print("\n".join(_markdown()))


def _markdown() -> Iterator[str]:
    if not Path("conf").is_dir():
        raise ProtoMaskError("there is no folder conf here: run it in a clone of ProtoMask")
    defaults = composed_of([], Path("conf"))
    common = dict(_by_section(_parameters(AllParams, defaults)))
    for section, parameters in common.items():
        yield from _table(section or "seed", parameters)
        if section in REGISTRIES:
            known = {parameter.name for parameter in parameters}
            for name in _own(REGISTRIES[section]):
                kind = params_type({section: {"name": name}})
                composed = composed_of([f"{section}={name}"], Path("conf"))
                own = dict(_by_section(_parameters(kind, composed)))[section]
                further = [parameter for parameter in own if parameter.name not in known]
                if further:
                    yield from _table(f"{section}={name}", further)


def _own(registry: Registry[Any]) -> list[str]:
    return [name for name in registry.names() if registry[name].__module__.startswith("pipeline.")]


def _table(title: str, parameters: list[Parameter]) -> Iterator[str]:
    yield f"### `{title}`\n"
    yield "| parameter | default | allowed | stage | meaning |"
    yield "|---|---|---|---|---|"
    for parameter in parameters:
        cells = [
            f"`{parameter.name}`",
            f"`{said(parameter.default)}`",
            parameter.allowed,
            ", ".join(parameter.stages) or "none",
            parameter.meaning,
        ]
        yield "| " + " | ".join(cell.replace("|", r"\|") for cell in cells) + " |"
    yield ""


def said(value: Any) -> str:
    """Writes a value as in params.yaml, in one line."""
    line = yaml.safe_dump(value, default_flow_style=True, width=10_000)
    return line.strip().removesuffix("\n...").strip()


def _parameters(kind: type[AllParams], defaults: Params) -> list[Parameter]:
    """Returns all parameters of a type, in the order of params.yaml."""
    schema = kind.model_json_schema()
    values, stages = _leaves(defaults), yaml.safe_load(Path("dvc.yaml").read_text(encoding="utf-8"))
    found = []
    for section, field in kind.model_fields.items():
        of = field.annotation
        if not (inspect.isclass(of) and issubclass(of, BaseModel)):
            fields, meanings, prefix = {section: schema["properties"][section]}, MEANINGS, ""
        else:
            fields = schema["$defs"][of.__name__]["properties"]
            meanings, prefix = _meanings(of), f"{section}."
        found += [
            Parameter(
                prefix + name,
                values.get(prefix + name),
                _allowed(about),
                _meaning(meanings, name, of),
                _stages_of(prefix + name, stages["stages"]),
            )
            for name, about in fields.items()
        ]
    return found


def _leaves(params: Params) -> dict[str, Any]:
    """Returns the parameters by their dotted names; one that is a mapping itself stays whole."""
    return {
        f"{section}.{name}" if isinstance(of, Mapping) else section: value
        for section, of in params.items()
        for name, value in (of.items() if isinstance(of, Mapping) else [(section, of)])
    }


def _by_section(parameters: list[Parameter]) -> Iterator[tuple[str, list[Parameter]]]:
    for section, of in groupby(parameters, lambda parameter: parameter.name.rpartition(".")[0]):
        yield section, list(of)


def _meaning(meanings: Mapping[str, str], name: str, kind: Any) -> str:
    if name not in meanings:
        raise ProtoMaskError(
            f"{inspect.getfile(kind)}: the docstring of {kind.__name__} does not say under "
            f"`Args:` what {name} means"
        )
    return meanings[name]


def _meanings(kind: type[BaseModel]) -> dict[str, str]:
    """Reads what a class's fields mean from the `Args:` of its docstring and its parents'."""
    found: dict[str, str] = {}
    for of in reversed(kind.__mro__):
        listed = re.search(r"^Args:\n(.*?)(?=^\S|\Z)", inspect.cleandoc(of.__doc__ or ""), ARGS)
        for entry in re.split(r"^    (?=\S)", listed[1] if listed else "", flags=re.MULTILINE)[1:]:
            names, _, meaning = entry.partition(":")
            found |= dict.fromkeys(names.split(", "), " ".join(meaning.split()))
    return found


def _allowed(schema: Mapping[str, Any]) -> str:
    """Says in words what a JSON schema allows."""
    if "anyOf" in schema:
        return " or ".join(map(_allowed, schema["anyOf"]))
    if "const" in schema:
        return f"`{said(schema['const'])}`"
    if "enum" in schema:
        *most, last = (f"`{said(value)}`" for value in schema["enum"])
        return f"{', '.join(most)} or {last}"
    kind = str(schema.get("type"))
    if kind == "array":
        return f"list: {_allowed(schema['items'])}"
    if kind == "object":
        return f"by name: {_allowed(schema['additionalProperties'])}"
    if "pattern" in schema:
        return "SHA-256"
    bounds = [f"{sign} {schema[name]:.10g}" for name, sign in BOUNDS.items() if name in schema]
    return " ".join([WORDS.get(kind, "any value"), " and ".join(bounds)]).strip()


def _stages_of(name: str, stages: Mapping[str, Any]) -> list[str]:
    """Returns the stages of dvc.yaml that depend on a parameter."""
    return [stage for stage, of in stages.items() if _depends(of, name)]


def _depends(stage: Mapping[str, Any], name: str) -> bool:
    tracked = [given for given in stage.get("params", []) if isinstance(given, str)]
    named = f"${{{name}}}"
    return named in (stage.get("foreach"), *stage.get("deps", [])) or any(
        name == given or name.startswith(f"{given}.") for given in tracked
    )
