"""A server to download from, a cache folder of the test's own, and a few dogs."""

import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as Pillow
from scipy.io import savemat
from web_server import Server

from pipeline import download

ANNOTATION = """<annotation><folder>02085620</folder><filename>%s</filename>
<size><width>40</width><height>30</height><depth>3</depth></size>{}</annotation>
"""
OBJECT = """<object><name>dog</name><bndbox>
<xmin>{}</xmin><ymin>{}</ymin><xmax>{}</xmax><ymax>{}</ymax></bndbox></object>
"""
DOGS = {
    "n02085936-Maltese_dog/n02085936_7": [(0, 0, 20, 10)],
    "n02085936-Maltese_dog/n02085936_8": [(5, 6, 41, 33)],
    "n02085620-Chihuahua/n02085620_1": [(4, 3, 12, 20)],
    "n02085620-Chihuahua/n02085620_2": [(10, 2, 20, 12), (16, 8, 30, 28)],
    "n02085620-Chihuahua/n02085620_3": [],
}
IN_TEST = {"n02085936-Maltese_dog/n02085936_8", "n02085620-Chihuahua/n02085620_1"}


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.goes_on.set()
        server.shutdown()
        thread.join()


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache folder of the test's own, pauses that take no time, and no proxy."""
    monkeypatch.setenv("PROTOMASK_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(download, "PAUSES", (0.01,) * len(download.PAUSES))
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    return tmp_path / "cache"


@pytest.fixture
def closed() -> str:
    """An address where nobody listens."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{free.getsockname()[1]}"


@pytest.fixture
def dogs_root(tmp_path: Path) -> Path:
    """Stanford Dogs with five images of 40×30 pixels, as its three archives are unpacked."""
    root = tmp_path / "dogs"
    for number, (name, boxes) in enumerate(DOGS.items()):
        for folder in ("Images", "Annotation"):
            (root / folder / name).parent.mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(number).integers(0, 256, (30, 40, 3), np.uint8)
        Pillow.fromarray(pixels).save(root / "Images" / f"{name}.jpg")
        objects = "".join(OBJECT.format(*box) for box in boxes)
        (root / "Annotation" / name).write_text(ANNOTATION.format(objects))
    _save_list(root / "train_list.mat", [name for name in DOGS if name not in IN_TEST])
    _save_list(root / "test_list.mat", sorted(IN_TEST))
    return root


def _save_list(path: Path, names: list[str]) -> None:
    files = np.empty((len(names), 1), object)
    files[:, 0] = [f"{name}.jpg" for name in names]
    savemat(path, {"file_list": files, "labels": np.ones((len(names), 1))})
