"""Weights: a file of the user's own, or one that is downloaded and kept."""

import errno
import hashlib
import os
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from pipeline.errors import ProtoMaskError
from pipeline.masks.weights import find_weights

BYTES = b"weights"
SHA256 = hashlib.sha256(BYTES).hexdigest()
OTHER = b"other weights"
URL = "http://weights.invalid/net.pt"


class Handler(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A server that has the weights as models/net.pt."""
    folder = tmp_path_factory.mktemp("web")
    (folder / "models").mkdir()
    (folder / "models" / "net.pt").write_bytes(BYTES)
    handler = partial(Handler, directory=str(folder))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()
        thread.join()


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache folder of the test's own, and no proxy."""
    monkeypatch.setenv("PROTOMASK_CACHE", str(tmp_path / "cache"))
    for name in ("http_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    return tmp_path / "cache" / "weights"


def test_a_download_is_kept_under_its_hash_and_name(address: str, cache: Path) -> None:
    url = f"{address}/models/net.pt?download=true"
    path = find_weights(url, SHA256, None)
    assert path == cache / f"{SHA256[:16]}-net.pt"
    assert path.read_bytes() == BYTES


def test_a_kept_file_needs_no_server(cache: Path) -> None:
    cache.mkdir(parents=True)
    (cache / f"{SHA256[:16]}-net.pt").write_bytes(BYTES)
    assert find_weights(URL, SHA256, None).read_bytes() == BYTES


def test_what_to_do_without_a_download(address: str, cache: Path) -> None:
    url = f"{address}/gone/net.pt"
    with pytest.raises(ProtoMaskError, match="404") as caught:
        find_weights(url, SHA256, None)
    message = str(caught.value)
    assert f"download {url} (SHA-256 {SHA256}) on a machine with internet" in message
    assert "set runtime.weights to the file" in message
    assert f"put it at {cache / SHA256[:16]}-net.pt" in message


def test_a_file_of_the_users_own(tmp_path: Path) -> None:
    local = tmp_path / "mine.pt"
    local.write_bytes(BYTES)
    assert find_weights(URL, SHA256, local) == local
    assert list(tmp_path.iterdir()) == [local]


def test_another_file_of_the_users_own(tmp_path: Path) -> None:
    local = tmp_path / "mine.pt"
    local.write_bytes(OTHER)
    found = hashlib.sha256(OTHER).hexdigest()
    with pytest.raises(ProtoMaskError) as caught:
        find_weights(URL, SHA256, local)
    message = str(caught.value)
    assert f"{local} has the SHA-256 {found}, not {SHA256}" in message
    assert f"download {URL}" in message
    assert message.endswith(f"set segmenter.weights_sha256={found}")
    assert find_weights(URL, found, local) == local


def test_no_file_of_the_users_own(tmp_path: Path) -> None:
    for local, said in ((tmp_path / "none.pt", errno.ENOENT), (tmp_path, errno.EISDIR)):
        with pytest.raises(ProtoMaskError) as caught:
            find_weights(URL, SHA256, local)
        message = str(caught.value)
        assert f"runtime.weights: {local} cannot be read ({os.strerror(said)})" in message
        assert f"download {URL} (SHA-256 {SHA256})" in message
