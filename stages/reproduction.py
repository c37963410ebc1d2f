"""How a report's experiment is made again: the code, the command and the parameters it was."""

import shlex
import subprocess
from collections.abc import Mapping
from typing import Any

from pipeline.parameters import flat, written
from pipeline.study.commands import differences
from stages.overrides import composed_of
from stages.params import REGISTRIES, Params
from stages.provenance import MadeWith
from stages.workspace import Workspace

CODE = ("pipeline", "stages")
OF_A_MACHINE = ("dataset.root", "dataset.scanned", "dataset.source", "runtime.")


def code(workspace: Workspace) -> str:
    """Returns the last commit that changed the code, with its date; nothing without Git.

    It is the same whatever else has been committed, and at whatever time this is asked.
    """
    commit = _git(workspace, "log", "-1", "--format=%H %as", "--", *CODE)
    if not commit:
        return ""
    digest, _, date = commit.partition(" ")
    changed = _git(workspace, "status", "--porcelain", "--", *CODE)
    return f"{digest[:12]} of {date}" + ", with changes that are not committed" * bool(changed)


def command(workspace: Workspace, params: Params) -> str:
    """Returns the `dvc exp run` that composes these parameters; nothing without presets.

    Folders outside the repository, which differ from machine to machine, are FOLDER.
    """
    presets, values = workspace.root / "conf", params.model_dump(mode="json")
    if not (presets / "config.yaml").is_file():
        return ""
    named = {"dataset": params.dataset.name}
    named |= {section: values[section]["name"] for section in REGISTRIES}
    chosen = [
        f"{group}={name}"
        for group, name in named.items()
        if (presets / group / f"{name}.yaml").is_file()
    ]
    changed = differences(_everywhere(values), _everywhere(composed_of(chosen, presets)))
    words = [f"-S {shlex.quote(override)}" for override in chosen + changed]
    root = ["-S dataset.root=FOLDER"] if params.dataset.root is not None else []
    return " ".join(["dvc exp run", *words, *root])


def parameters(made_with: MadeWith, params: Params) -> dict[str, dict[str, str]]:
    """Returns what each stage was made with: stage → parameter → value as text.

    Args:
        made_with: what the metrics, and all that they were made from, say of themselves.
        params: the parameters, of which the report's own are said.
    """
    own = flat({"explain": params.explain.model_dump(mode="json")})
    return {
        stage: {name: written(_without_folder(value)) for name, value in values.items()}
        for stage, values in {**made_with, "explain": own}.items()
    }


def _everywhere(values: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the parameters that are the same on every machine."""
    return {
        name: _without_folder(value)
        for name, value in flat(values).items()
        if not name.startswith(OF_A_MACHINE)
    }


def _without_folder(value: Any) -> Any:
    """Returns a file's place with FOLDER for its folder, which says nothing to other machines."""
    if not isinstance(value, str) or (not value.startswith(("/", "~")) and "\\" not in value):
        return value
    return "FOLDER/" + value.replace("\\", "/").rsplit("/", 1)[-1]


def _git(workspace: Workspace, *words: str) -> str:
    """Returns what Git says of the workspace; nothing if it says nothing or is not there."""
    try:
        said = subprocess.run(
            ["git", "-C", str(workspace.root), *words], capture_output=True, text=True, check=False
        )
    except OSError:
        return ""
    return said.stdout.strip() if said.returncode == 0 else ""
