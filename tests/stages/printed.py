"""The commands that README and the pages in docs/ print, as a shell understands them."""

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from pages import BLOCK, PAGES, REPOSITORY, without_blocks

INLINE = re.compile(r"(?<!`)`([^`]+)`(?!`)")
PROGRAMS = (
    "apt-get chmod curl dask docker dvc git hf lint-imports make mkdocs pip protomask pytest "
    "python python3 rm ruff sbatch sha256sum sleep torchrun"
).split()
OPTIONS = "-S"
"""What begins the part of a command that a text tells to add."""
RECORDING = """#!/bin/bash
printf '%s\\0' "${0##*/}" "$@" >> "$RECORD"
printf '\\1' >> "$RECORD"
printf '0%.0s' {1..64}
"""
"""A program that writes down how it is called, and prints what may be a hash."""
SURROUNDINGS = {"HOME": "/home/ada", "MODEL": "protomask", "SLURM_ARRAY_TASK_ID": "7"}
FOLDERS = (".dvc", ".venv/bin", "birds")


class Printed(NamedTuple):
    """A text that a page prints as commands.

    Args:
        place: page:line.
        text: a block of lines, or a piece of code within a sentence.
    """

    place: str
    text: str


class Command(NamedTuple):
    """A program and its arguments, as a shell calls it.

    Args:
        place: page:line.
        words: the program's name, and its arguments without quotes.
    """

    place: str
    words: tuple[str, ...]


def printed() -> Iterator[Printed]:
    """Finds the blocks without a language, and commands within sentences."""
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        for block in BLOCK.finditer(text):
            if not block[1]:
                yield Printed(_place(page, text, block), block[2])
        outside = without_blocks(text)
        for code in INLINE.finditer(outside):
            if _is_command(code[1]):
                yield Printed(_place(page, outside, code), " ".join(code[1].split()))


def called(texts: Iterator[Printed], folder: Path) -> Iterator[Command]:
    """Lets a shell, which has no other programs than recording ones, run texts.

    Raises:
        AssertionError: a text is not in the shell's grammar, or calls a program that is not listed.
    """
    programs, record = folder / "programs", folder / "record"
    programs.mkdir()
    for name in PROGRAMS:
        (programs / name).write_text(RECORDING)
        (programs / name).chmod(0o755)
    for name in FOLDERS:
        (folder / name).mkdir(parents=True)
    (folder / ".venv/bin/activate").touch()
    for place, text in texts:
        record.write_bytes(b"")
        done = subprocess.run(
            ["/bin/bash", "-euc", text],
            cwd=folder,
            env={**SURROUNDINGS, "PATH": str(programs), "RECORD": str(record)},
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, (place, text, done.stderr)
        for call in record.read_bytes().decode().split("\1")[:-1]:
            yield Command(place, tuple(call.split("\0")[:-1]))


def added_options() -> list[Printed]:
    """Finds the parameters that a text tells to add to a command."""
    return [
        Printed(_place(page, text, code), " ".join(code[1].split()))
        for page in PAGES
        for text in [page.read_text(encoding="utf-8")]
        for code in INLINE.finditer(text)
        if re.match(rf"{OPTIONS}\s+\S+=[^\s`…]", code[1])
    ]


def _is_command(code: str) -> bool:
    words = [word for word in code.split() if not re.match(r"\w+=", word) and word != "time"]
    whole = "…" not in words and words[-1:] != [OPTIONS]
    return whole and len(words) > 1 and words[0] in (*PROGRAMS, "source", "export")


def _place(page: Path, text: str, found: re.Match[str]) -> str:
    line = text.count("\n", 0, found.start()) + 1
    return f"{page.relative_to(REPOSITORY)}:{line}"
