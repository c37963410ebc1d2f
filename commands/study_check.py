"""`protomask study check`: whether runs are what DVC records of them."""

from collections.abc import Sequence
from typing import Any

from dvc.api import DVCFileSystem
from dvc.exceptions import DvcException
from dvc.repo import Repo
from dvc.utils.serialize import load_yaml

from commands.experiments import UNREACHABLE, contradicted, params_of, said_by_dvc, states
from pipeline.errors import ProtoMaskError

OLD_COMMAND = "protomask "
"""How stages were run by the version whose code was imported from where it was installed."""
WAITING = ("queued", "running")


def run(revs: Sequence[str]) -> None:
    """Says of every run whether its outputs contradict its parameters.

    Raises:
        ProtoMaskError: some do.
    """
    try:
        with Repo() as repo:
            said = [
                (state.name or state.rev[:7], _judge(repo, state, kind))
                for state, kind in states(repo, revs)
                if kind not in WAITING
            ]
    except DvcException as error:
        why = said_by_dvc(error)
        raise ProtoMaskError(f"DVC cannot say which experiments there are: {why}") from None
    for name, verdict in said:  # experiments of several commits may have one name
        print(f"{name}: {verdict}")
    wrong = [name for name, verdict in said if verdict.startswith("made with")]
    if wrong:
        raise ProtoMaskError(
            f"{len(wrong)} of {len(said)} runs are not what their parameters say: "
            f"{', '.join(wrong)}; remove them (`dvc exp remove NAME`) and run them again"
        )


def _judge(repo: Repo, state: Any, kind: str) -> str:
    params = params_of(state)
    if params is None:
        return "no parameters: no run"
    if kind == "failed":
        return kind
    files = DVCFileSystem(repo.root_dir, rev=state.rev)
    try:
        wrong = contradicted(files, params)
    except UNREACHABLE:
        return "cannot be told: its outputs are neither in DVC's cache nor in a remote"
    if wrong is None:
        return "has made nothing to check"
    if wrong:
        return "made with " + ", ".join(map(str, wrong))
    return "agrees with its parameters" + _doubt(files)


def _doubt(files: DVCFileSystem) -> str:
    """Says that the code which ran may be other than that which DVC has recorded."""
    try:
        stages = load_yaml("dvc.lock", fs=files)["stages"]
    except FileNotFoundError:
        return ""
    old = [name for name, stage in stages.items() if str(stage.get("cmd")).startswith(OLD_COMMAND)]
    return f"; the code that ran {', '.join(old)} may be other than DVC recorded" if old else ""
