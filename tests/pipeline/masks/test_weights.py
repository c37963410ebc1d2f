"""Weights arrive whole and as published, or not at all, over connections that break.

The server is a real one on this machine, and so are the proxies, the full disk, the second process
and the kill.
"""

import errno
import hashlib
import os
import random
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from pipeline.errors import ProtoMaskError
from pipeline.masks import weights
from pipeline.masks.weights import CHUNK, PAUSES, find_weights
from pipeline.progress import track

BYTES = random.Random(0).randbytes(10 * CHUNK + 123)
SHA256 = hashlib.sha256(BYTES).hexdigest()
OTHER = random.Random(1).randbytes(len(BYTES))
RUN = """
import sys
from pipeline.masks.weights import find_weights
print("ready", flush=True)
print(find_weights(sys.argv[1], sys.argv[2], None), flush=True)
"""


class Server(ThreadingHTTPServer):
    """Serves `content` under every path, and notes the Range header of each request.

    Attributes:
        status: what every request is answered with, other than 200 or 206.
        knows_ranges: answers 206 and 416; otherwise the whole file, whatever was asked.
        breaks: after how many bytes the next connections break, one number each.
        waits: an answer stops in the middle of the content until `goes_on` is set.
    """

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.content = BYTES
        self.status = 200
        self.knows_ranges = True
        self.breaks: list[int] = []
        self.waits = False
        self.goes_on = threading.Event()
        self.ranges: list[str | None] = []
        self.requests: list[BaseHTTPRequestHandler] = []

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        server, asked = self.server, self.headers["Range"]
        server.requests.append(self)
        server.ranges.append(asked)
        start = int(asked.removeprefix("bytes=").removesuffix("-")) if asked else 0
        if server.status != 200:
            self._head(server.status, b"")
        elif not server.knows_ranges or not asked:
            self._answer(200, server.content)
        elif start >= len(server.content):
            self._head(416, b"")
        else:
            self._answer(206, server.content[start:])

    def _answer(self, status: int, body: bytes) -> None:
        self._head(status, body)
        sent = body[: self.server.breaks.pop(0)] if self.server.breaks else body
        half = len(sent) // 2
        self.wfile.write(sent[:half])
        if self.server.waits:
            self.server.goes_on.wait(30)
        self.wfile.write(sent[half:])

    def _head(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.goes_on.set()
        server.shutdown()
        thread.join()


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache folder of the test's own, pauses that take no time, and no proxy."""
    monkeypatch.setenv("PROTOMASK_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(weights, "PAUSES", (0.01,) * len(PAUSES))
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    return tmp_path / "cache" / "weights"


@pytest.fixture
def closed() -> str:
    """An address where nobody listens."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{free.getsockname()[1]}"


def _names(cache: Path) -> list[str]:
    return sorted(path.name for path in cache.glob("*") if path.suffix != ".lock")


def _part(cache: Path, content: bytes) -> Path:
    cache.mkdir(parents=True)
    part = cache / f"{SHA256[:16]}-net.pt.part"
    part.write_bytes(content)
    return part


def _refused(url: str, cache: Path) -> str:
    """Fails to find the weights; the message says what to do instead."""
    with pytest.raises(ProtoMaskError) as caught:
        find_weights(url, SHA256, None)
    message = str(caught.value)
    assert f"download {url} (SHA-256 {SHA256}) on a machine with internet" in message
    assert "set runtime.weights to the file" in message
    path = cache / f"{SHA256[:16]}-net.pt"
    assert f"put it at {path}" in message
    assert not path.is_file()
    return message


def test_a_download_is_kept_for_the_next_time(server: Server, cache: Path) -> None:
    url = f"{server.address}/models/net.pt?download=true"
    path = find_weights(url, SHA256, None)
    assert path == cache / f"{SHA256[:16]}-net.pt"
    assert path.read_bytes() == BYTES
    assert _names(cache) == [path.name]
    assert server.ranges == [None]
    assert server.requests[0].headers["Accept-Encoding"] == "identity"
    server.shutdown()
    assert find_weights(url, SHA256, None) == path
    assert len(server.ranges) == 1


def test_the_cache_is_the_users(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PROTOMASK_CACHE")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home" / "xdg"))
    path = find_weights(f"{server.address}/net.pt", SHA256, None)
    assert path.is_relative_to(tmp_path / "home")
    assert path.parent.parts[-2:] == ("protomask", "weights")


def test_a_bar_within_another(server: Server, cache: Path) -> None:
    """Weights are fetched while the first images wait to be segmented."""
    for _ in track([1], "Segmenting images"):
        assert find_weights(f"{server.address}/net.pt", SHA256, None).read_bytes() == BYTES


def test_a_broken_connection_is_taken_up_where_it_broke(server: Server, cache: Path) -> None:
    server.breaks = [4 * CHUNK, 3 * CHUNK, CHUNK]
    assert find_weights(f"{server.address}/net.pt", SHA256, None).read_bytes() == BYTES
    assert server.ranges == [None, *(f"bytes={have * CHUNK}-" for have in (4, 7, 8))]
    assert len(_names(cache)) == 1


def test_more_breaks_than_pauses_are_no_matter_while_bytes_come(server: Server) -> None:
    server.breaks = [CHUNK] * 10
    assert len(server.breaks) > len(PAUSES) + 1
    assert find_weights(f"{server.address}/net.pt", SHA256, None).read_bytes() == BYTES
    assert server.ranges[-1] == f"bytes={10 * CHUNK}-"


def test_a_break_at_any_byte(server: Server) -> None:
    """What had come of a last chunk may be asked for again, nothing else."""
    server.breaks = [3 * CHUNK + 17, 2 * CHUNK - 1]
    assert find_weights(f"{server.address}/net.pt", SHA256, None).read_bytes() == BYTES
    first, second = (int(asked[6:-1]) for asked in server.ranges[1:] if asked)
    assert 3 * CHUNK <= first <= 3 * CHUNK + 17
    assert first + CHUNK <= second <= first + 2 * CHUNK - 1


def test_who_gives_up_keeps_what_came(server: Server, cache: Path) -> None:
    server.breaks = [2 * CHUNK] + [0] * 99
    url = f"{server.address}/net.pt"
    message = _refused(url, cache)
    assert f"the {2 * CHUNK} bytes that came are kept" in message
    assert server.ranges == [None, *[f"bytes={2 * CHUNK}-"] * len(PAUSES)]
    assert _names(cache) == [f"{SHA256[:16]}-net.pt.part"]
    assert (cache / _names(cache)[0]).read_bytes() == BYTES[: 2 * CHUNK]

    server.breaks, server.ranges = [], []
    assert find_weights(url, SHA256, None).read_bytes() == BYTES
    assert server.ranges == [f"bytes={2 * CHUNK}-"]
    assert _names(cache) == [f"{SHA256[:16]}-net.pt"]


def test_the_bar_counts_what_was_there(server: Server, cache: Path) -> None:
    part = _part(cache, BYTES[: 4 * CHUNK])
    shown = list(weights._fetch(f"{server.address}/net.pt", part))
    assert shown[0] == (5 * CHUNK, len(BYTES))
    assert shown[-1] == (len(BYTES), len(BYTES))


def test_a_server_that_ignores_ranges(server: Server) -> None:
    server.knows_ranges, server.breaks = False, [4 * CHUNK]
    assert find_weights(f"{server.address}/net.pt", SHA256, None).read_bytes() == BYTES
    assert server.ranges == [None, f"bytes={4 * CHUNK}-"]


def test_a_server_that_ignores_ranges_and_breaks_at_one_place(server: Server, cache: Path) -> None:
    server.knows_ranges, server.breaks = False, [4 * CHUNK] * 99
    _refused(f"{server.address}/net.pt", cache)
    assert len(server.ranges) == 1 + len(PAUSES)


@pytest.mark.parametrize("knows_ranges", [True, False])
def test_a_part_longer_than_the_file(server: Server, cache: Path, knows_ranges: bool) -> None:
    server.knows_ranges = knows_ranges
    _part(cache, BYTES + b"more")
    assert find_weights(f"{server.address}/net.pt", SHA256, None).read_bytes() == BYTES
    assert server.ranges == [f"bytes={len(BYTES) + 4}-", None][: 1 + knows_ranges]


def test_a_part_that_is_whole(closed: str, cache: Path) -> None:
    """The run that fetched it was killed before it could rename it."""
    _part(cache, BYTES)
    assert find_weights(f"{closed}/net.pt", SHA256, None).read_bytes() == BYTES
    assert _names(cache) == [f"{SHA256[:16]}-net.pt"]


def test_wrong_bytes(server: Server, cache: Path) -> None:
    server.content = OTHER
    message = _refused(f"{server.address}/net.pt", cache)
    assert "served other bytes than expected" in message
    assert hashlib.sha256(OTHER).hexdigest() in message
    assert _names(cache) == []
    server.content = BYTES
    assert find_weights(f"{server.address}/net.pt", SHA256, None).read_bytes() == BYTES


def test_a_part_of_another_file_is_fetched_anew_by_the_next_run(
    server: Server, cache: Path
) -> None:
    _part(cache, OTHER[:CHUNK])
    assert "served other bytes" in _refused(f"{server.address}/net.pt", cache)
    assert _names(cache) == []
    assert find_weights(f"{server.address}/net.pt", SHA256, None).read_bytes() == BYTES
    assert server.ranges == [f"bytes={CHUNK}-", None]


def test_a_damaged_file_is_fetched_again(server: Server, cache: Path) -> None:
    url = f"{server.address}/net.pt"
    path = find_weights(url, SHA256, None)
    path.write_bytes(BYTES[:-1] + b"?")
    assert find_weights(url, SHA256, None) == path
    assert path.read_bytes() == BYTES
    assert server.ranges == [None, None]


@pytest.mark.parametrize(
    ("status", "said"),
    [(403, "403 Client Error: Forbidden"), (404, "Not Found"), (503, "Service Unavailable")],
)
def test_a_server_that_refuses(server: Server, cache: Path, status: int, said: str) -> None:
    part = _part(cache, BYTES[:CHUNK])
    server.status = status
    assert f"HTTPError: {status} " in (message := _refused(f"{server.address}/net.pt", cache))
    assert said in message
    assert len(server.ranges) == 1
    assert part.read_bytes() == BYTES[:CHUNK]


def test_offline(closed: str, cache: Path) -> None:
    url = f"{closed}/net.pt"
    assert f"{url} could not be downloaded (ConnectionError: " in (message := _refused(url, cache))
    assert os.strerror(errno.ECONNREFUSED) in message
    assert "are kept" not in message
    assert _names(cache) == []


def test_a_server_that_never_answers_is_asked_once(server: Server, cache: Path) -> None:
    server.breaks = [0] * 99
    assert "are kept" not in _refused(f"{server.address}/net.pt", cache)
    assert server.ranges == [None]


def test_no_url(cache: Path) -> None:
    assert "MissingSchema" in _refused("net.pt", cache)


def test_a_proxy(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", server.address)
    assert find_weights("http://weights.invalid/net.pt", SHA256, None).read_bytes() == BYTES
    assert server.requests[0].path == "http://weights.invalid/net.pt"


def test_a_proxy_that_refuses(
    server: Server, closed: str, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", closed)
    assert "(ProxyError: " in _refused(f"{server.address}/net.pt", cache)
    assert server.ranges == []


def test_a_file_of_the_users_own(closed: str, tmp_path: Path) -> None:
    local = tmp_path / "mine.pt"
    local.write_bytes(BYTES)
    assert find_weights(closed, SHA256, local) == local
    assert list(tmp_path.iterdir()) == [local]


def test_another_file_of_the_users_own(server: Server, tmp_path: Path) -> None:
    local = tmp_path / "mine.pt"
    local.write_bytes(OTHER)
    found = hashlib.sha256(OTHER).hexdigest()
    with pytest.raises(ProtoMaskError) as caught:
        find_weights(f"{server.address}/net.pt", SHA256, local)
    message = str(caught.value)
    assert f"{local} has the SHA-256 {found}, not {SHA256}" in message
    assert f"download {server.address}/net.pt" in message
    assert message.endswith(f"set segmenter.weights_sha256={found}")
    assert server.ranges == []
    assert find_weights(server.address, found, local) == local


def test_no_file_of_the_users_own(server: Server, tmp_path: Path) -> None:
    for local, said in ((tmp_path / "none.pt", errno.ENOENT), (tmp_path, errno.EISDIR)):
        with pytest.raises(ProtoMaskError) as caught:
            find_weights(f"{server.address}/net.pt", SHA256, local)
        message = str(caught.value)
        assert f"runtime.weights: {local} cannot be read ({os.strerror(said)})" in message
        assert f"download {server.address}/net.pt (SHA-256 {SHA256})" in message
    assert server.ranges == []


def test_a_file_where_the_cache_belongs(server: Server, cache: Path) -> None:
    cache.parent.write_text("in the way")
    assert str(cache) in _refused(f"{server.address}/net.pt", cache)
    assert server.ranges == []


@pytest.mark.parametrize("mode", [0o555, 0o000])
def test_a_cache_that_cannot_be_written(server: Server, cache: Path, mode: int) -> None:
    cache.mkdir(parents=True)
    cache.chmod(mode)
    if os.access(cache, os.W_OK):
        pytest.skip("root may write everywhere")
    with pytest.raises(ProtoMaskError, match=r"Permission denied.*put it at"):
        find_weights(f"{server.address}/net.pt", SHA256, None)
    cache.chmod(0o755)
    path = cache / f"{SHA256[:16]}-net.pt"
    path.write_bytes(BYTES)
    cache.chmod(0o555)
    assert find_weights(f"{server.address}/net.pt", SHA256, None) == path


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a disk that is always full")
def test_a_full_disk(server: Server, cache: Path) -> None:
    cache.mkdir(parents=True)
    (cache / f"{SHA256[:16]}-net.pt.part").symlink_to("/dev/full")
    message = _refused(f"{server.address}/net.pt", cache)
    assert os.strerror(errno.ENOSPC) in message


@pytest.fixture
def start() -> Iterator[Callable[[str], subprocess.Popen[str]]]:
    """Starts processes that find weights; each says when it begins, and the path at the end."""
    processes = []

    def start(url: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-c", RUN, url, SHA256]
        root = Path(__file__).parents[3]
        pipe, nothing = subprocess.PIPE, subprocess.DEVNULL
        processes.append(
            subprocess.Popen(command, cwd=root, stdout=pipe, stderr=nothing, text=True)
        )
        return processes[-1]

    yield start
    for process in processes:
        process.kill()
        process.communicate()


def test_a_killed_run_is_taken_up_where_it_was(
    server: Server, cache: Path, start: Callable[[str], subprocess.Popen[str]]
) -> None:
    server.waits = True
    process = start(f"{server.address}/net.pt")
    part = cache / f"{SHA256[:16]}-net.pt.part"
    until = time.monotonic() + 30
    while not part.exists() or part.stat().st_size < 5 * CHUNK:
        assert time.monotonic() < until, "the download does not begin"
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    server.goes_on.set()
    assert _names(cache) == [part.name]
    assert part.read_bytes() == BYTES[: 5 * CHUNK]
    assert find_weights(f"{server.address}/net.pt", SHA256, None).read_bytes() == BYTES
    assert server.ranges == [None, f"bytes={5 * CHUNK}-"]


def test_two_at_once_download_once(
    server: Server, cache: Path, start: Callable[[str], subprocess.Popen[str]]
) -> None:
    server.waits = True
    both = [start(f"{server.address}/net.pt") for _ in range(2)]
    for process in both:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    time.sleep(0.3)
    server.goes_on.set()
    said = [process.communicate(timeout=30)[0] for process in both]
    assert said == [f"{cache / SHA256[:16]}-net.pt\n"] * 2
    assert [process.returncode for process in both] == [0, 0]
    assert server.ranges == [None]
    assert _names(cache) == [f"{SHA256[:16]}-net.pt"]
