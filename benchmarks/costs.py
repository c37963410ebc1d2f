"""What something costs: a command's seconds, CPU seconds and peak of memory, a folder's bytes.

Run as a program it starts the command that its arguments are, and prints what that has cost. For
the kernel counts to a process's peak what its parent held when it was started; this one, which
imports next to nothing, holds little.
"""

import json
import os
import shlex
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

LAST_LINES = 30
KIBIBYTES = 1 if sys.platform == "darwin" else 1024


class Cost(NamedTuple):
    """What a command has cost, with the processes that it has started.

    Args:
        seconds: from its start to its end.
        cpu: seconds that cores were busy for it.
        peak: bytes, the most that one of its processes held.
    """

    seconds: float
    cpu: float
    peak: int


def measured(command: Sequence[str], folder: Path, **environment: str) -> Cost:
    """Runs a command in a folder, with one thread; its failure ends the program."""
    variables = {**os.environ, "OMP_NUM_THREADS": "1", **environment}
    words = [sys.executable, __file__, *command]
    done = subprocess.run(words, cwd=folder, env=variables, capture_output=True, text=True)
    refuse_failure(done.returncode, command, done.stderr)
    return Cost(*json.loads(done.stdout))


def refuse_failure(code: int, command: Sequence[str], said: str) -> None:
    """Ends the program with the last lines that a command has printed, if it has failed."""
    if code != 0:
        last = "\n".join(said.splitlines()[-LAST_LINES:])
        sys.exit(f"{last}\nfailed with exit status {code}: {shlex.join(command)}")


def together(costs: Sequence[Cost]) -> Cost:
    """Returns what commands cost that run one after the other."""
    seconds, cpu, peak = zip(*costs, strict=True)
    return Cost(sum(seconds), sum(cpu), max(peak))


def cpu_seconds(work: Callable[[], object]) -> float:
    """Returns how long this process's threads were busy for it."""
    began = time.process_time()
    work()
    return time.process_time() - began


def folder_bytes(*folders: Path) -> int:
    """Returns the size of all files in folders; of one that is not there, 0."""
    files = (file for folder in folders for file in folder.rglob("*") if file.is_file())
    return sum(file.stat().st_size for file in files)


def _main(command: list[str]) -> int:
    began = time.perf_counter()
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=sys.stderr)
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    seconds = time.perf_counter() - began
    print(json.dumps([seconds, used.ru_utime + used.ru_stime, used.ru_maxrss * KIBIBYTES]))
    return abs(process.returncode)


if __name__ == "__main__":
    sys.exit(_main(sys.argv[1:]))
