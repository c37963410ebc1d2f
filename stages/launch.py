"""Which code runs, and by which interpreter: those of the repository that `dvc.yaml` lies in.

DVC records the hashes of the code in the folder where it runs a stage, which may be a worktree,
another clone, or a copy that `dvc exp run --temp` or `--queue` has made. An installed package would
be imported from the folder that it was installed from, so the code is started as `python3 -m
stages` from that folder. This module runs before anything else, by whatever `python3` is found, and
imports the standard library alone.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

CODE = Path(__file__).resolve().parent
NEEDED = ("dvc", "torch", "typer", "zarr")
"""Packages by which an interpreter that ProtoMask is installed for is known."""


def run_code_of_this_folder() -> None:
    """Starts the command again with the code beside the current folder's dvc.yaml, if this is
    another: what the installed command `protomask` does first."""
    folder = Path.cwd()
    if _has_own_code(folder) and folder.resolve() / "stages" != CODE:
        _exec(sys.executable, "commands")


def run_interpreter_of_dvc() -> None:
    """Starts the command again by the interpreter that runs DVC, if DVC runs it by another."""
    found = _interpreter_of_dvc() if "DVC_STAGE" in os.environ else None
    # The programs of different environments may be links to the same file: their folders differ.
    other = found and Path(found).parent.resolve() != Path(sys.executable).parent.resolve()
    if found and other and _has_packages(found):
        _exec(found, "stages")


def refuse_other_code() -> None:
    """Ends the program if it runs other code than that beside the current folder's dvc.yaml, as
    with `PYTHONSAFEPATH` set."""
    folder = Path.cwd()
    if _has_own_code(folder) and folder.resolve() / "stages" != CODE:
        sys.exit(
            f"Error: this is the code in {CODE.parent}, but the folder of dvc.yaml is {folder}, "
            "which has code of its own: what DVC records would not be what has run. Unset "
            "PYTHONSAFEPATH and PYTHONPATH, and run the same command again"
        )


def refuse_missing_packages() -> None:
    """Ends the program if this interpreter lacks the packages that ProtoMask stands on."""
    from importlib.util import find_spec

    missing = [name for name in NEEDED if find_spec(name) is None]
    if missing:
        sys.exit(
            f"Error: {sys.executable} lacks the packages {', '.join(missing)}: activate the "
            "environment in which ProtoMask is installed (`source .venv/bin/activate` after "
            "`make demo`) and run the same command again"
        )


def settle_surroundings() -> None:
    """Makes the program run alike for whatever user, in whatever locale and beside whatever other
    programs: what every entry point does before it imports anything that computes."""
    refuse_windows()
    name_user()
    run_in_utf8()
    from pipeline.workers import share_cores

    share_cores()


def refuse_windows() -> None:
    """Ends the program on Windows, where stages cannot be run; see docs/supported.md."""
    if sys.platform == "win32":
        sys.exit(
            "Error: ProtoMask's commands run on Linux and macOS: on Windows, install it in the "
            "Windows Subsystem for Linux and run the same command there"
        )


def name_user() -> None:
    """Sets `USER` and `HOME` if they are missing and the system does not know the user either, as
    in a container that was started with `--user`: DVC and torch ask for both."""
    import pwd  # there is none on Windows, which is refused

    user = os.getuid()
    try:
        pwd.getpwuid(user)
    except KeyError:
        os.environ.setdefault("USER", str(user))
        os.environ.setdefault("HOME", str(Path(tempfile.gettempdir()) / f"home-of-{user}"))


def run_in_utf8() -> None:
    """Starts the command again in Python's UTF-8 mode, if the locale has another encoding.

    In that, the names of files would be other text than in UTF-8, and the index of the same
    photographs another one. What is printed keeps the encoding of the locale.
    """
    if sys.getfilesystemencoding() != "utf-8" and os.environ.get("PYTHONUTF8") != "1":
        os.environ["PYTHONUTF8"] = "1"
        os.environ.setdefault("PYTHONIOENCODING", sys.stdout.encoding)
        _flush_and_exec([sys.executable, *sys.orig_argv[1:]])


def _has_own_code(folder: Path) -> bool:
    return (folder / "dvc.yaml").is_file() and (folder / "stages" / "__main__.py").is_file()


def _exec(python: str, package: str) -> None:
    _flush_and_exec([python, "-m", package, *sys.argv[1:]])


def _flush_and_exec(words: "list[str]") -> None:
    sys.stdout.flush()
    os.execv(words[0], words)


def _has_packages(python: str) -> bool:
    look = "import sys; from importlib.util import find_spec as f; sys.exit(not all(map(f, {})))"
    return subprocess.call([python, "-c", look.format(NEEDED)]) == 0


def _interpreter_of_dvc() -> "str | None":
    """Returns the program of the nearest process above this one that runs DVC; None if there is
    none, or its path is not to be known."""
    process = os.getppid()
    for _ in range(8):
        parent, words = _process(process)
        if any(word.endswith(("dvc/__main__.py", "/dvc")) or word == "dvc" for word in words[1:6]):
            python = shutil.which(words[0])
            return python if python and Path(python).is_absolute() else None
        if parent <= 1:
            return None
        process = parent
    return None


def _process(number: int) -> "tuple[int, list[str]]":
    """Returns a process's parent and its command line; (0, []) if it is not to be known."""
    try:
        folder = Path("/proc") / str(number)
        words = (folder / "cmdline").read_bytes().decode(errors="replace").split("\0")
        # The name in the second field may hold blanks; it ends with the last parenthesis.
        state = (folder / "stat").read_text(errors="replace").rpartition(")")[2].split()
        return int(state[1]), words
    except OSError:
        return _process_by_ps(number)


def _process_by_ps(number: int) -> "tuple[int, list[str]]":
    command = ["ps", "-o", "ppid=,args=", "-p", str(number)]
    try:
        words = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
        return int(words[0]), words[1:]
    except (OSError, subprocess.SubprocessError, ValueError, IndexError):
        return 0, []
