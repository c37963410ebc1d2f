"""Whether a printed command calls what there is: programs, sub-commands, options, parameters."""

import importlib.util
import re
import sys
import tomllib
from collections.abc import Callable, Sequence
from functools import cache
from itertools import pairwise, zip_longest
from pathlib import Path
from typing import Any
from unittest.mock import patch

import typer
import yaml
from distributed.cli import dask_scheduler, dask_worker
from dvc.cli.parser import get_main_parser
from dvc.utils.hydra import get_hydra_sweeps
from huggingface_hub.cli import hf
from hydra.core.global_hydra import GlobalHydra
from pages import REPOSITORY
from torch.distributed.run import get_args_parser

from commands.app import app
from stages.app import app as stages_app
from stages.overrides import composed_of
from stages.params import params_type

STAGES = yaml.safe_load((REPOSITORY / "dvc.yaml").read_text(encoding="utf-8"))["stages"]
PROJECT = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))["project"]
PLACEHOLDER = re.compile(r"[A-Z]+")


def check_call(words: Sequence[str]) -> None:
    """Holds a command against the program that it calls.

    Raises:
        Exception: there is no such sub-command, option, target, file or extra.
    """
    CHECKS[words[0]](list(words[1:]))


def overrides_of(words: Sequence[str]) -> tuple[str, ...]:
    """Returns the parameters that a command sets with `-S`."""
    given = [value for option, value in pairwise(words) if option == "-S"]
    return tuple(value.replace("=HASH", f"={'0' * 64}") for value in given)


def check_overrides(overrides: Sequence[str]) -> None:
    """Composes parameters as `dvc exp run -S` does, each value of a list once, and judges them.

    Raises:
        Exception: there is no such preset or parameter, or a stage would refuse the value.
    """
    each = [
        [sweep["params.yaml"][0] for sweep in get_hydra_sweeps({"params.yaml": [given]})]
        for given in overrides
    ]
    GlobalHydra.instance().clear()  # sam2 sets it when it is imported
    for chosen in zip_longest(*each):
        pairs = zip(chosen, each, strict=True)
        values = composed_of([one or values[-1] for one, values in pairs], REPOSITORY / "conf")
        params_type(values).model_validate(values)


def _dvc(words: list[str]) -> None:
    targets = getattr(get_main_parser().parse_args(words), "targets", None) or []
    for target in targets:
        known = target in STAGES or target.startswith("artifacts/")
        assert known or PLACEHOLDER.fullmatch(target), f"{target} is no stage of dvc.yaml"


def _group(group: Any) -> Callable[[list[str]], None]:
    def check(words: list[str]) -> None:
        command, rest = group, words
        while rest and hasattr(command, "resolve_command") and not rest[0].startswith("-"):
            _, command, rest = command.resolve_command(command.context_class(command), rest)
        _parse(command, rest)

    return check


def _typer(program: typer.Typer) -> Callable[[list[str]], None]:
    return _group(typer.main.get_command(program))


def _parse(command: Any, words: list[str]) -> None:
    """Has a command of click or Typer parse its arguments, if there are any; calls nothing."""
    context = command.context_class(command)
    switches = {name for option in command.get_params(context) for name in option.opts}
    if words and not {*words} <= switches:
        command.make_context(command.name, [*words])


def _python(words: list[str]) -> None:
    if words[0] == "-m":
        MODULES[words[1]](words[2:])
    elif words[0] != "slurm.py":  # which the page tells to write
        _benchmark(Path(words[0]))(words[1:])


@cache
def _benchmark(path: Path) -> Callable[[list[str]], None]:
    about = importlib.util.spec_from_file_location(path.stem, REPOSITORY / path)
    assert about is not None and about.loader is not None
    module = importlib.util.module_from_spec(about)
    with patch.object(sys, "path", [*sys.path, str((REPOSITORY / path).parent)]):
        about.loader.exec_module(module)
    program = typer.Typer()
    program.command()(module.main)
    return _typer(program)


def _make(words: list[str]) -> None:
    rules = (REPOSITORY / "Makefile").read_text(encoding="utf-8")
    for word in words:
        pattern = rf"^{word.partition('=')[0]} \?=" if "=" in word else rf"^{word}:"
        assert re.search(pattern, rules, re.MULTILINE), f"no {word} in the Makefile"


def _pip(words: list[str]) -> None:
    for extra in re.findall(r"\.\[(\w+)\]", " ".join(words)):
        assert extra in PROJECT["optional-dependencies"], f"no extra {extra}"


def _files(words: list[str]) -> None:
    for word in words:
        assert word.startswith("-") or (REPOSITORY / word).exists(), f"no {word}"


def _dask(words: list[str]) -> None:
    assert words[0] == "scheduler"
    _parse(dask_scheduler.main, words[1:])


def _torchrun(words: list[str]) -> None:
    get_args_parser().parse_args(words)


def _of_the_system(words: list[str]) -> None:
    """Git, the system's programs, and Slurm's."""


MODULES: dict[str, Callable[[list[str]], None]] = {
    "stages": _typer(stages_app),
    "distributed.cli.dask_worker": lambda words: _parse(dask_worker.main, words),
}
CHECKS: dict[str, Callable[[list[str]], None]] = {
    "dask": _dask,
    "dvc": _dvc,
    "hf": _group(hf.app),
    "make": _make,
    "pip": _pip,
    "protomask": _typer(app),
    "pytest": _files,
    "python": _python,
    "python3": _python,
    "torchrun": _torchrun,
    **dict.fromkeys(
        "apt-get chmod curl docker git rm sbatch sha256sum sleep".split(), _of_the_system
    ),
}
