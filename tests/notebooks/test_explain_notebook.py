"""The notebook runs as it stands, beside a finished experiment."""

import shutil
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

REPOSITORY = Path(__file__).parents[2]


@pytest.mark.slow
def test_explain(run_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    photograph = run_folder / "artifacts" / "index" / "images" / "bibbed-wagtail" / "001.jpg"
    photograph.parent.mkdir(parents=True)
    shutil.copy(run_folder / "photographs" / "class 1" / "003.png", photograph)
    (run_folder / "notebooks").mkdir()
    monkeypatch.setenv("PYTHONPATH", str(REPOSITORY))
    notebook = nbformat.read(REPOSITORY / "notebooks" / "explain.ipynb", as_version=4)
    assert not any(cell.get("outputs") for cell in notebook.cells)
    where = {"metadata": {"path": str(run_folder / "notebooks")}}
    NotebookClient(notebook, timeout=300, kernel_name="python3", resources=where).execute()
    shown = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    pictures = [output for output in shown if "image/png" in output.get("data", {})]
    tables = [output for output in shown if "<table" in output.get("data", {}).get("text/html", "")]
    assert len(pictures) == 2 and len(tables) == 2
