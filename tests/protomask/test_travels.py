"""An exported model on a machine without the data set, the repository or DVC."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from protomask import load
from protomask.export import export_model
from stages.workspace import Workspace

pytestmark = pytest.mark.slow

REPOSITORY = Path(__file__).parents[2]
SCRIPT = """
import json, sys
import protomask
assert protomask.__file__.startswith(sys.argv[1]), protomask.__file__
answer = protomask.load("birds").predict("photo.png")
answer.figure().save("why.png")
answer.write_page("why.html")
print(json.dumps(answer.to_dict()))
"""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """ProtoMask as it is installed, and no DVC beside it."""
    folder = tmp_path_factory.mktemp("installed")
    tracked = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard"],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.splitlines()
    for name in tracked:
        if (REPOSITORY / name).is_file():
            (folder / "source" / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(REPOSITORY / name, folder / "source" / name)
    install = ["install", "-q", "--no-deps", "--no-build-isolation", "--no-index"]
    site = folder / "site"
    subprocess.run(
        [sys.executable, "-m", "pip", *install, "--target", site, folder / "source"], check=True
    )
    shutil.rmtree(folder / "source")
    (site / "dvc.py").write_text("raise ImportError('there is no DVC here')\n")
    return site


def test_an_exported_model_needs_nothing_but_its_folder(
    site: Path, run_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    export_model(Workspace(run_folder), empty / "birds")
    shutil.copy(run_folder / "photographs" / "class 1" / "003.png", empty / "photo.png")
    expected = load(run_folder).predict(empty / "photo.png").to_dict()
    shutil.rmtree(run_folder)
    environment = {**os.environ, "PYTHONPATH": str(site), "PYTHONSAFEPATH": "1"}

    def run(*words: str | Path) -> str:
        ended = subprocess.run([*words], cwd=empty, env=environment, capture_output=True, text=True)
        assert ended.returncode == 0, ended.stderr
        return ended.stdout

    assert json.loads(run(sys.executable, "-c", SCRIPT, site)) == expected
    command = [sys.executable, "-m", "commands", "predict", "photo.png"]
    (said,) = json.loads(run(*command, "--model", "birds", "--json", "-"))
    assert said == expected
    assert {path.name for path in empty.iterdir()} == {
        "birds",
        "photo.png",
        "why.html",
        "why.png",
    }
