"""How processes share the cores, and pools of workers that do not outlive who started them."""

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any

SPAWN = multiprocessing.get_context("spawn")
"""How workers are started: a forked copy of a process with threads can hang."""
THREADS = "OMP_NUM_THREADS"
"""Environment variable: with how many threads libraries compute."""
SHARE = "PROTOMASK_CORES"
"""Environment variable: how many cores a process has left to those that it started."""


def cores() -> int:
    """Returns how many cores this process may use, at least 1.

    They are the machine's, less what its affinity, its container's quota, Slurm and the process
    that has started it leave. A core with two hardware threads counts as two, as everywhere there.
    """
    slurm = os.environ.get("SLURM_CPUS_PER_TASK") or os.environ.get("SLURM_CPUS_ON_NODE")
    limits = [cores_of_quota(), _number(slurm), _number(os.environ.get(SHARE))]
    return min([_scheduled(), *(limit for limit in limits if limit)])


def cores_of_quota(
    groups: Path = Path("/proc/self/cgroup"), mounted: Path = Path("/sys/fs/cgroup")
) -> int | None:
    """Returns how many cores' time the control groups of this process allow it, rounded down.

    A container's quota is that of its group or of one above it, in either version of the system.

    Args:
        groups: the file that lists the groups.
        mounted: the folder that theirs lie in.

    Returns:
        The number of cores, at least 1; None without a quota.
    """
    quotas = []
    for line in _text(groups).splitlines():
        _, controllers, path = line.split(":", 2)
        top = mounted / "cpu" if controllers else mounted
        if not controllers or "cpu" in controllers.split(","):
            group = top / path.lstrip("/")
            above = [folder for folder in group.parents if folder.is_relative_to(top)]
            quotas += [_quota(folder) for folder in [group, *above]]
    return min((quota for quota in quotas if quota), default=None)


def share_cores(workers: int = 1) -> None:
    """Sets the environment in which this process, or those that it starts, compute side by side.

    Libraries read it when they are loaded. Each of so many processes takes its share of the cores
    for threads, unless OMP_NUM_THREADS says otherwise. Threads that wait leave their core to
    others; by default they would spin for a while, and a process beside this one wait for them.

    Args:
        workers: number of processes, at least 1.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    share = max(1, cores() // workers)
    by_hand = os.environ.get(THREADS) != os.environ.get(SHARE)
    # Libraries know best how many of all cores they use: some leave out second hardware threads.
    if share < _scheduled() and not by_hand:
        os.environ[THREADS] = os.environ[SHARE] = str(share)


@contextmanager
def cores_shared(workers: int) -> Iterator[None]:
    """Lets the processes that are started meanwhile share the cores, as `share_cores` says.

    Args:
        workers: number of processes, at least 1.
    """
    before = dict(os.environ)
    share_cores(workers)
    try:
        yield
    finally:
        for name in os.environ.keys() - before.keys():
            del os.environ[name]
        os.environ.update(before)


@contextmanager
def worker_pool(
    count: int, initializer: Callable[..., object] | None = None, *arguments: Any
) -> Iterator[ProcessPoolExecutor]:
    """Opens a pool of worker processes, which share the cores.

    They exit within a second if this process is killed. The workers of a plain pool wait for
    further tasks for ever then, each with its memory and its device.

    Args:
        count: number of processes, at least 1.
        initializer: called in each process before its first task.
        arguments: arguments of `initializer`.
    """
    with (
        cores_shared(count),
        ProcessPoolExecutor(count, SPAWN, _begin, (initializer, arguments)) as pool,
    ):
        yield pool


def _begin(initializer: Callable[..., object] | None, arguments: tuple[Any, ...]) -> None:
    # Ctrl-C reaches all processes of a terminal: the parent answers it, its workers end with it.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_exit_after_parent, daemon=True).start()
    if initializer is not None:
        initializer(*arguments)


def _exit_after_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os._exit(1)


def _scheduled() -> int:
    """Returns on how many cores the system may run this process."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _quota(group: Path) -> int | None:
    """Returns how many cores' time a control group alone allows; None if it does not limit it."""
    time, _, period = _text(group / "cpu.max").partition(" ")
    if not time:
        time, period = (_text(group / f"cpu.cfs_{name}_us") for name in ("quota", "period"))
    allowed, of = _number(time), _number(period)
    return max(1, allowed // of) if allowed and of else None


def _number(text: str | None) -> int | None:
    """Returns a number above 0; None for anything else."""
    digits = (text or "").strip()
    return int(digits) or None if digits.isdecimal() else None


def _text(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""
