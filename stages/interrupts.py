"""Ctrl-C: it is said at once what is kept, and the command ends within two seconds."""

import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console

KEPT = (
    "Stopped. No output is half-written. A stage keeps finished masks and epochs: the same command "
    "goes on from there."
)
PATIENCE = 1.5
"""Seconds in which the command may tidy up."""


@contextmanager
def interrupts_answered() -> Iterator[None]:
    """Has SIGINT answered by a thread of its own.

    Python raises KeyboardInterrupt only when the main thread comes back from a library, and then
    waits for what other threads and processes have begun. The thread hears of the signal by a pipe
    (`signal.set_wakeup_fd`); worker processes end with this one. Processes that torch has started
    to train together leave the answer to the one that started them.
    """
    if "TORCHELASTIC_RUN_ID" in os.environ:
        yield
        return
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    before = signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    threading.Thread(target=_answer, args=(reading,), daemon=True).start()
    try:
        yield
    finally:
        signal.set_wakeup_fd(before)
        os.close(writing)


def leave_interrupts() -> None:
    """Leaves SIGINT to the program, which takes longer to tidy up and says so itself."""
    signal.set_wakeup_fd(-1)


def _answer(reading: int) -> None:
    """Waits for SIGINT, and ends the process; returns when the other end of the pipe is closed."""
    with open(reading, "rb", buffering=0) as signals:
        while number := signals.read(1):
            if number[0] == signal.SIGINT:
                print(f"\n{KEPT}", file=sys.stderr, flush=True)
                time.sleep(PATIENCE)
                Console(stderr=True).show_cursor()
                os._exit(128 + signal.SIGINT)
