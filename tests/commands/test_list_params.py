"""Every parameter is listed with what there is to know of it; the page in docs/ is that list."""

import re
from pathlib import Path

import pytest
import yaml
from dvc.utils.hydra import compose_and_dump
from pydantic import BaseModel

from commands import list_params
from pipeline.errors import ProtoMaskError
from pipeline.parameters import flat
from stages.workspace import Workspace

REPOSITORY = Path(__file__).parents[2]
COMMITTED = yaml.safe_load((REPOSITORY / "params.yaml").read_text())


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the repository's presets, stages and parameters; the current one."""
    for name in ("conf", "dvc.yaml"):
        (tmp_path / name).symlink_to(REPOSITORY / name)
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(COMMITTED))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "100")
    return tmp_path


def _shown(capsys: pytest.CaptureFixture[str]) -> dict[str, tuple[str, str, str]]:
    """Returns name → value, facts, meaning."""
    list_params.show(Workspace())
    lines = re.split(r"^(?=\S)", capsys.readouterr().out, flags=re.MULTILINE)[1:]
    found = {}
    for entry in lines:
        first, _, meaning = entry.partition("\n")
        name, value, facts = re.fullmatch(r"(\S+) = (.*?)  (default.*)", first).groups()
        found[name] = (value, facts, " ".join(meaning.split()))
    return found


def test_every_parameter_is_shown_with_all_that_is_known(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shown = _shown(capsys)
    assert {name.split(".loss.")[0] for name in flat(COMMITTED)} - {"train"} == {
        name if name != "train.loss" else "train" for name in shown
    } - {"train"}
    assert all(meaning for _, _, meaning in shown.values())
    assert all(facts.startswith("default · ") for _, facts, _ in shown.values())
    assert shown["crops.side"] == (
        "96",
        "default · integer ≥ 16 and ≤ 1024 · crops",
        "S, pixels a side of a crop.",
    )
    assert shown["runtime.workers"][1] == "default · integer ≥ 1 · no stage"
    assert shown["dataset.scanned"][1].endswith("· scan")
    assert shown["model.code"][1].endswith("· train, push, finetune, evaluate, explain")
    assert shown["segmenter.levels"][:2] == (
        "[6, 20, 48]",
        "default · list: integer ≥ 2 · masks",
    )


def test_a_default_is_what_the_chosen_presets_give(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    chosen = ["segmenter=patches", "segmenter.grid=5", "model=protopool", "crops.side=64"]
    compose_and_dump(folder / "params.yaml", str(folder / "conf"), None, "config", "", chosen)
    shown = _shown(capsys)
    assert shown["segmenter.grid"][:2] == ("5", "default 2 · integer ≥ 1 and ≤ 32 · masks")
    assert shown["crops.side"][1].startswith("default 96 · ")
    assert shown["model.slots"][1].startswith("default · ")


def test_the_page_of_parameters_is_made_from_the_code(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    list_params.write_markdown()
    made = capsys.readouterr().out.strip()
    page = (REPOSITORY / "docs" / "parameters.md").read_text()
    _, _, written = page.partition("\n### ")
    assert f"### {written}".strip() == made, (
        "replace docs/parameters.md from the first `###` on by `protomask params --markdown`"
    )


def test_a_parameter_that_its_docstring_does_not_explain_is_named(folder: Path) -> None:
    class Silent(BaseModel):
        """Says nothing."""

        seed: int

    class All(BaseModel):
        crops: Silent

    with pytest.raises(ProtoMaskError, match=r"test_list_params\.py: the docstring of Silent"):
        list_params._parameters(All, {"crops": {"seed": 1}})  # type: ignore[arg-type]
