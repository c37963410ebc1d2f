"""Pools of worker processes, none of which outlives the process that started it."""

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing.connection import wait
from typing import Any

SPAWN = multiprocessing.get_context("spawn")
"""How workers are started: a forked copy of a process with threads can hang."""


def worker_pool(
    count: int, initializer: Callable[..., object] | None = None, *arguments: Any
) -> ProcessPoolExecutor:
    """Returns a pool of worker processes that exit within a second if this process is killed.

    The workers of a plain pool wait for further tasks for ever then, each with its memory and its
    device.

    Args:
        count: number of processes, at least 1.
        initializer: called in each process before its first task.
        arguments: arguments of `initializer`.
    """
    return ProcessPoolExecutor(count, SPAWN, _begin, (initializer, arguments))


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
