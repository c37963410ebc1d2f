"""Files arrive whole and as published, or not at all, over connections that break.

The server is a real one on this machine, and so are the proxies, the full disk, the second process
and the kill.
"""

import errno
import hashlib
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from web_server import Server

from pipeline import download as download_module
from pipeline.download import CHUNK, PAUSES, download
from pipeline.errors import ProtoMaskError
from pipeline.progress import track

BYTES = random.Random(0).randbytes(10 * CHUNK + 123)
SHA256 = hashlib.sha256(BYTES).hexdigest()
OTHER = random.Random(1).randbytes(len(BYTES))
BY_HAND = "carry it here yourself"
RUN = """
import sys
from pathlib import Path
from pipeline.download import download
print("ready", flush=True)
download(sys.argv[1], sys.argv[2], Path(sys.argv[3]), "")
print(sys.argv[3], flush=True)
"""


@pytest.fixture(autouse=True)
def served(server: Server) -> None:
    server.content = BYTES


@pytest.fixture(autouse=True)
def cache(cache: Path) -> Path:
    return download_module.cache("files")


def _get(url: str) -> Path:
    path = download_module.cache("files") / "net.pt"
    download(url, SHA256, path, BY_HAND)
    return path


def _names(cache: Path) -> list[str]:
    return sorted(path.name for path in cache.glob("*") if path.suffix != ".lock")


def _part(cache: Path, content: bytes) -> Path:
    cache.mkdir(parents=True)
    part = cache / "net.pt.part"
    part.write_bytes(content)
    return part


def _refused(url: str, cache: Path) -> str:
    """Fails to get the file; the message says what to do instead."""
    with pytest.raises(ProtoMaskError) as caught:
        _get(url)
    message = str(caught.value)
    assert url in message
    assert message.endswith(BY_HAND)
    assert not (cache / "net.pt").is_file()
    return message


def test_a_download_is_kept_for_the_next_time(server: Server, cache: Path) -> None:
    url = f"{server.address}/models/net.pt?download=true"
    path = _get(url)
    assert path == cache / "net.pt"
    assert path.read_bytes() == BYTES
    assert _names(cache) == [path.name]
    assert server.ranges == [None]
    assert server.requests[0].headers["Accept-Encoding"] == "identity"
    server.shutdown()
    assert _get(url) == path
    assert len(server.ranges) == 1


def test_the_cache_is_the_users(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PROTOMASK_CACHE")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home" / "xdg"))
    path = _get(f"{server.address}/net.pt")
    assert path.is_relative_to(tmp_path / "home")
    assert path.parent.parts[-2:] == ("protomask", "files")


def test_a_bar_within_another(server: Server, cache: Path) -> None:
    """A segmenter's weights are fetched while the first images wait to be segmented."""
    for _ in track([1], "Segmenting images"):
        assert _get(f"{server.address}/net.pt").read_bytes() == BYTES


def test_a_broken_connection_is_taken_up_where_it_broke(server: Server, cache: Path) -> None:
    server.breaks = [4 * CHUNK, 3 * CHUNK, CHUNK]
    assert _get(f"{server.address}/net.pt").read_bytes() == BYTES
    assert server.ranges == [None, *(f"bytes={have * CHUNK}-" for have in (4, 7, 8))]
    assert len(_names(cache)) == 1


def test_more_breaks_than_pauses_are_no_matter_while_bytes_come(server: Server) -> None:
    server.breaks = [CHUNK] * 10
    assert len(server.breaks) > len(PAUSES) + 1
    assert _get(f"{server.address}/net.pt").read_bytes() == BYTES
    assert server.ranges[-1] == f"bytes={10 * CHUNK}-"


def test_a_break_at_any_byte(server: Server) -> None:
    """What had come of a last chunk may be asked for again, nothing else."""
    server.breaks = [3 * CHUNK + 17, 2 * CHUNK - 1]
    assert _get(f"{server.address}/net.pt").read_bytes() == BYTES
    first, second = (int(asked[6:-1]) for asked in server.ranges[1:] if asked)
    assert 3 * CHUNK <= first <= 3 * CHUNK + 17
    assert first + CHUNK <= second <= first + 2 * CHUNK - 1


def test_who_gives_up_keeps_what_came(server: Server, cache: Path) -> None:
    server.breaks = [2 * CHUNK] + [0] * 99
    url = f"{server.address}/net.pt"
    message = _refused(url, cache)
    assert f"the {2 * CHUNK} bytes that came are kept" in message
    assert server.ranges == [None, *[f"bytes={2 * CHUNK}-"] * len(PAUSES)]
    assert _names(cache) == ["net.pt.part"]
    assert (cache / _names(cache)[0]).read_bytes() == BYTES[: 2 * CHUNK]

    server.breaks, server.ranges = [], []
    assert _get(url).read_bytes() == BYTES
    assert server.ranges == [f"bytes={2 * CHUNK}-"]
    assert _names(cache) == ["net.pt"]


def test_the_bar_counts_what_was_there(server: Server, cache: Path) -> None:
    part = _part(cache, BYTES[: 4 * CHUNK])
    shown = list(download_module._fetch(f"{server.address}/net.pt", part))
    assert shown[0] == (5 * CHUNK, len(BYTES))
    assert shown[-1] == (len(BYTES), len(BYTES))


def test_a_server_that_ignores_ranges(server: Server) -> None:
    server.knows_ranges, server.breaks = False, [4 * CHUNK]
    assert _get(f"{server.address}/net.pt").read_bytes() == BYTES
    assert server.ranges == [None, f"bytes={4 * CHUNK}-"]


def test_a_server_that_ignores_ranges_and_breaks_at_one_place(server: Server, cache: Path) -> None:
    server.knows_ranges, server.breaks = False, [4 * CHUNK] * 99
    _refused(f"{server.address}/net.pt", cache)
    assert len(server.ranges) == 1 + len(PAUSES)


@pytest.mark.parametrize("knows_ranges", [True, False])
def test_a_part_longer_than_the_file(server: Server, cache: Path, knows_ranges: bool) -> None:
    server.knows_ranges = knows_ranges
    _part(cache, BYTES + b"more")
    assert _get(f"{server.address}/net.pt").read_bytes() == BYTES
    assert server.ranges == [f"bytes={len(BYTES) + 4}-", None][: 1 + knows_ranges]


def test_a_part_that_is_whole(closed: str, cache: Path) -> None:
    """The run that fetched it was killed before it could rename it."""
    _part(cache, BYTES)
    assert _get(f"{closed}/net.pt").read_bytes() == BYTES
    assert _names(cache) == ["net.pt"]


def test_wrong_bytes(server: Server, cache: Path) -> None:
    server.content = OTHER
    message = _refused(f"{server.address}/net.pt", cache)
    assert "served other bytes than expected" in message
    assert hashlib.sha256(OTHER).hexdigest() in message
    assert _names(cache) == []
    server.content = BYTES
    assert _get(f"{server.address}/net.pt").read_bytes() == BYTES


def test_a_part_of_another_file_is_fetched_anew_by_the_next_run(
    server: Server, cache: Path
) -> None:
    _part(cache, OTHER[:CHUNK])
    assert "served other bytes" in _refused(f"{server.address}/net.pt", cache)
    assert _names(cache) == []
    assert _get(f"{server.address}/net.pt").read_bytes() == BYTES
    assert server.ranges == [f"bytes={CHUNK}-", None]


def test_a_damaged_file_is_fetched_again(server: Server, cache: Path) -> None:
    url = f"{server.address}/net.pt"
    path = _get(url)
    path.write_bytes(BYTES[:-1] + b"?")
    assert _get(url) == path
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
    assert _get("http://files.invalid/net.pt").read_bytes() == BYTES
    assert server.requests[0].path == "http://files.invalid/net.pt"


def test_a_proxy_that_refuses(
    server: Server, closed: str, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", closed)
    assert "(ProxyError: " in _refused(f"{server.address}/net.pt", cache)
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
    with pytest.raises(ProtoMaskError, match=f"Permission denied.*{BY_HAND}"):
        _get(f"{server.address}/net.pt")
    cache.chmod(0o755)
    path = cache / "net.pt"
    path.write_bytes(BYTES)
    cache.chmod(0o555)
    assert _get(f"{server.address}/net.pt") == path


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a disk that is always full")
def test_a_full_disk(server: Server, cache: Path) -> None:
    cache.mkdir(parents=True)
    (cache / "net.pt.part").symlink_to("/dev/full")
    message = _refused(f"{server.address}/net.pt", cache)
    assert os.strerror(errno.ENOSPC) in message


@pytest.fixture
def start(cache: Path) -> Iterator[Callable[[str], subprocess.Popen[str]]]:
    """Starts processes that download; each says when it begins, and the path at the end."""
    processes = []

    def start(url: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-c", RUN, url, SHA256, str(cache / "net.pt")]
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
    part = cache / "net.pt.part"
    until = time.monotonic() + 30
    while not part.exists() or part.stat().st_size < 5 * CHUNK:
        assert time.monotonic() < until, "the download does not begin"
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    server.goes_on.set()
    assert _names(cache) == [part.name]
    assert part.read_bytes() == BYTES[: 5 * CHUNK]
    assert _get(f"{server.address}/net.pt").read_bytes() == BYTES
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
    assert said == [f"{cache / 'net.pt'}\n"] * 2
    assert [process.returncode for process in both] == [0, 0]
    assert server.ranges == [None]
    assert _names(cache) == ["net.pt"]
