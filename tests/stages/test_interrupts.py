"""Ctrl-C at a real stage is answered at once, whatever the stage is doing."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]
BUSY = """
import signal, sys, time
from concurrent.futures import ThreadPoolExecutor
from stages import app, prepare

# Who runs the tests in the background ignores it, and children inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)

def work(workspace):
    with ThreadPoolExecutor(1) as pool:
        pool.submit(time.sleep, 60)
        print("begun", flush=True)
        {main}

prepare.run = work
app.checked = app.here
app.run(app.app)
"""


@pytest.mark.parametrize(
    "main",
    [
        "time.sleep(60)",
        # The main thread is in a library, and does not hear of the signal.
        "import ctypes; ctypes.CDLL(None).usleep(30_000_000)",
    ],
    ids=["python", "library"],
)
def test_it_says_what_is_kept_and_ends_within_two_seconds(main: str) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", BUSY.format(main=main), "prepare"],
        cwd=REPOSITORY,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "begun\n"
    asked = time.monotonic()
    os.killpg(process.pid, signal.SIGINT)
    _, said = process.communicate(timeout=30)
    assert time.monotonic() - asked < 2.5
    assert process.returncode == 130
    assert "Stopped. No output is half-written." in said
    assert "Traceback" not in said


def test_a_command_that_ends_leaves_signals_as_they_were() -> None:
    script = """
import signal, sys, threading
from stages import app
sys.argv = ["protomask", "--help"]
try:
    app.run(app.app)
except SystemExit:
    pass
assert signal.set_wakeup_fd(-1) == -1
"""
    done = subprocess.run([sys.executable, "-c", script], cwd=REPOSITORY, capture_output=True)
    assert done.returncode == 0, done.stderr
