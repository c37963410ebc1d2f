"""Every command in the README and in docs/ can be given as it is printed.

The shell expands the blocks itself, loops and variables as well: the programs that it finds write
down how they are called. Each call is then read by the program's own parser, each `-S` composed
with the real presets and judged as a stage judges it. So pages can name GPUs, clusters and the web.
`test_first_hour.py` runs what a newcomer types.
"""

import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple

import pytest
import typer
import yaml
from dvc.cli import parse_args
from dvc.cli.parser import DvcParserError
from dvc.utils.cli_parse import to_path_overrides
from dvc.utils.hydra import get_hydra_sweeps

from commands.app import app
from stages.overrides import composed_of, refuse_unusable
from stages.params import params_type

REPOSITORY = Path(__file__).parents[1]
PAGES = [REPOSITORY / "README.md", *sorted((REPOSITORY / "docs").glob("*.md"))]
BLOCK = re.compile(r"^```\n(.*?)^```$", re.MULTILINE | re.DOTALL)
SPAN = re.compile(r"`((?:CUDA_\S+ )?(?:dvc|protomask|python3?|make|pip|git|torchrun) [^`]+)`")
PLACEHOLDER = re.compile(r"…|\bSTAGE\b|\bFILE\b|\bHASH\b|\bPHOTO\b")
PROGRAMS = (
    "dvc",
    "protomask",
    "python",
    "python3",
    "make",
    "git",
    "pip",
    "curl",
    "torchrun",
    "dask",
)
"""What writes down how it is called, and is not run."""
NO_COMMANDS = ("masks/crow/", "from pathlib ", "from pycocotools")
"""How blocks begin that are no shell commands: layouts of folders, and Python."""
EXTENSIONS = ("segmenter=columns", "model=margin", "evaluate=certainty", "dataset=table")
"""Components that a page has its readers write: `stages/test_extending.py` runs these commands."""
TOOLS = {
    "torchrun": [sys.executable, "-m", "torch.distributed.run"],
    "pip": [sys.executable, "-m", "pip", "install"],
    "python3 -m distributed.cli.dask_worker": [sys.executable, "-m", "distributed.cli.dask_worker"],
}
"""Programs of which nothing but their options is looked up in their help."""
RECORDER = """#!/bin/sh
exec {python} -S -c 'import json, os, sys
with open(os.environ["CALLS"], "a") as file:
    file.write(json.dumps(sys.argv[1:]) + "\\n")
print("0" * 64)' {program} "$@"
"""


class Printed(NamedTuple):
    """A block of commands, or a command within a sentence, and the page that it is on."""

    page: str
    script: str


def _printed() -> Iterator[Printed]:
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        for block in BLOCK.findall(text):
            if not block.startswith(NO_COMMANDS):
                yield Printed(page.name, block)
        prose = re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL)
        for span in SPAN.findall(prose):
            script = " ".join(span.split())
            if not PLACEHOLDER.search(script):
                yield Printed(page.name, script)


PRINTED = list(dict.fromkeys(_printed()))


@pytest.fixture(scope="module")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of programs that write down their calls."""
    folder = tmp_path_factory.mktemp("programs")
    for name in PROGRAMS:
        path = folder / name
        path.write_text(RECORDER.format(python=sys.executable, program=name))
        path.chmod(0o755)
    sleep = folder / "sleep"
    sleep.write_text("#!/bin/sh\n")
    sleep.chmod(0o755)
    return folder


@pytest.mark.parametrize(
    "printed", PRINTED, ids=[f"{page}: {script[:40]}" for page, script in PRINTED]
)
def test_a_printed_command_can_be_given(
    printed: Printed, programs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for call in _calls(printed.script, programs, tmp_path):
        program, *arguments = call
        if program == "dvc":
            _read_by_dvc(arguments)
        elif program == "protomask":
            _read_by_protomask(arguments)
        elif program == "make":
            assert re.search(rf"^{arguments[0]}:", (REPOSITORY / "Makefile").read_text(), re.M)
        elif program.startswith("python") and arguments[0].startswith("benchmarks/"):
            _refuse_unknown_options(arguments, (REPOSITORY / arguments[0]).read_text())
        elif program.startswith("python") and arguments[:2] == ["-m", "stages"]:
            _read_by_protomask(arguments[2:])
        else:
            _read_by_tool(program, arguments)


def _calls(script: str, programs: Path, folder: Path) -> list[list[str]]:
    """Runs a script by the shell; returns how it called programs."""
    calls = folder / "calls"
    calls.touch()
    (folder / ".dvc").mkdir()
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script],
        cwd=folder,
        env={
            "PATH": f"{programs}:/usr/bin:/bin",
            "CALLS": str(calls),
            "HOME": "/home/somebody",
            "MODEL": "protomask",
            "SLURM_ARRAY_TASK_ID": "7",
        },
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    found = [json.loads(line) for line in calls.read_text().splitlines()]
    assert found, "no known program is called: say in PROGRAMS which one is"
    return found


def _read_by_dvc(arguments: list[str]) -> None:
    try:
        parsed = parse_args(arguments)
    except DvcParserError:
        pytest.fail(f"DVC does not know: dvc {shlex.join(arguments)}")
    stages = yaml.safe_load((REPOSITORY / "dvc.yaml").read_text())["stages"]
    if arguments[0] in ("repro", "commit") or arguments[:2] == ["exp", "run"]:
        assert set(parsed.targets or []) <= set(stages)
    if "exp" in arguments and "run" in arguments:
        _judge(list(parsed.set_param))


def _judge(overrides: list[str]) -> None:
    """Composes the overrides of a `dvc exp run`, and judges each combination as a stage does."""
    if any(override in EXTENSIONS for override in overrides):
        return
    refuse_unusable(overrides, REPOSITORY)
    for combination in get_hydra_sweeps(to_path_overrides(overrides))[::7]:
        values = composed_of(combination.get("params.yaml", []), REPOSITORY / "conf")
        params_type(values).model_validate(values)


def _read_by_protomask(arguments: list[str]) -> None:
    """Has the command line read its arguments, without the command that they are for."""
    command, name, parent, rest = typer.main.get_command(app), "protomask", None, [*arguments]
    while True:
        try:
            parent = command.make_context(name, rest, parent=parent)
        except typer.Exit:  # as after --help
            return
        rest = [*parent._protected_args, *parent.args]
        if not rest:
            return
        name, command, rest = command.resolve_command(parent, rest)


def _refuse_unknown_options(arguments: list[str], known: str) -> None:
    options = {word.partition("=")[0] for word in arguments if re.match("--[a-z]", word)}
    assert {option for option in options if option not in known} == set()


def _read_by_tool(program: str, arguments: list[str]) -> None:
    """Looks the options up in the program's help; of one that is not here, nothing can be said."""
    called = [program, *arguments[: 2 if program.startswith("python") else 0]]
    if " ".join(called) in TOOLS:
        _refuse_unknown_options(arguments, _help(" ".join(called)))
    else:
        assert program in ("git", "curl", "dask"), f"how to check {program} is not said here"


@cache
def _help(tool: str) -> str:
    done = subprocess.run([*TOOLS[tool], "--help"], capture_output=True, text=True, check=True)
    return done.stdout
