"""The same results and no crash in any locale, with names that its encoding lacks."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from stages.workspace import Workspace

workspace = Workspace()


REPOSITORY = Path(__file__).parents[2]
UTF_8 = {"LC_ALL": "C.UTF-8"}
ASCII = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}


def _run(*words: str, locale: dict[str, str], cwd: Path = Path()) -> str:
    """Runs a command of the checkout's code; returns what it printed, with replacements."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    done = subprocess.run(
        [sys.executable, "-m", *words],
        cwd=cwd,
        env={**kept, "PYTHONPATH": str(REPOSITORY), **locale},
        capture_output=True,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.decode(errors="replace")


@pytest.fixture
def other_locale(tmp_path: Path) -> dict[str, str]:
    """Latin-1, in which every byte is some letter; where it cannot be made, ASCII."""
    made = tmp_path / "locales" / "de_DE.ISO-8859-1"
    made.parent.mkdir()
    if shutil.which("localedef") is not None:
        subprocess.run(["localedef", "-i", "de_DE", "-f", "ISO-8859-1", str(made)], check=False)
    return {"LC_ALL": made.name, "LOCPATH": str(made.parent)} if made.exists() else ASCII


@pytest.fixture
def birds(tmp_path: Path, make_photographs: Callable[..., Path]) -> Path:
    """A folder to run stages in, with umlauts in names and parameters for two workers."""
    folder = tmp_path / "birds"
    root = make_photographs(folder / "Vögel", per_class=2)
    (root / "class 0").rename(root / "Zaunkönig")
    (root / "class 1" / "000.png").rename(root / "class 1" / "Übersicht é.png")
    params = yaml.safe_load((REPOSITORY / "params.yaml").read_text())
    params["dataset"].update(name="folder", root="Vögel", scanned=["Vögel"])
    params["dataset"]["source"] = "artifacts/listing.json"
    params["segmenter"] = {"name": "patches", "version": 1, "grid": 2}
    (folder / "params.yaml").write_text(yaml.safe_dump(params, allow_unicode=True))
    return folder


def test_every_locale_gives_the_same_bytes(birds: Path, other_locale: dict[str, str]) -> None:
    made: list[list[bytes]] = []
    for locale in (UTF_8, other_locale):
        for stage in ("scan", "prepare"):
            _run("stages", stage, locale=locale, cwd=birds)
        outputs = (workspace.listing, workspace.index)
        made.append([(birds / path).read_bytes() for path in outputs])
        shutil.rmtree(birds / "artifacts")
        shutil.rmtree(birds / ".protomask")
    assert "Zaunkönig/000.png".encode() in made[0][0]
    assert made[0] == made[1]


def test_names_that_the_output_cannot_print(run_folder: Path) -> None:
    names = ["Ж 1.png", "Ж 2.png"]
    for name in names:
        shutil.copy("photographs/class 0/000.png", name)
    asked = ["predict", *names, "--out", "explanations"]
    said = _run("commands", *asked, locale={**UTF_8, "PYTHONIOENCODING": "cp1252"})
    first, _, second, _ = said.splitlines()
    assert first.startswith(r"\u0416 1.png: class 0 ") and second.startswith(
        r"\u0416 2.png: class 0 "
    )
    assert {path.name for path in Path("explanations").iterdir()} == set(names)
