"""`protomask study compare`, `table` and `check` in a real DVC repository with two small
experiments of two models, and one whose outputs were made with other parameters than it has."""

import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from commands import study_check, study_compare, study_table
from pipeline.errors import ProtoMaskError
from pipeline.study.comparison_page import compare
from stages import evaluate, finetune, push, train
from stages.params import read_params
from stages.workspace import Workspace

pytestmark = pytest.mark.slow

REPOSITORY = Path(__file__).parents[2]
EVALUATED = {
    "cmd": "python3 -m stages evaluate",
    "params": ["evaluate"],
    "deps": ["artifacts/finetune"],
    "outs": ["artifacts/evaluate"],
}
METRICS = ["artifacts/evaluate/metrics.json"]
STAGES = {
    "crops": {
        "cmd": "protomask crops",
        "params": ["dataset", "segmenter", "crops"],
        "outs": ["artifacts/index", "artifacts/masks.zarr", "artifacts/crops.zarr"],
    },
    "train": {
        "cmd": "python3 -m stages train",
        "params": ["seed", "model", "train"],
        "deps": ["artifacts/crops.zarr"],
        "outs": ["artifacts/finetune"],
    },
    "evaluate": EVALUATED,
}
BLACK_BOX = {
    "name": "blackbox",
    "code": "pipeline/model/blackbox",
    "backbone": "test_resnet",
    "pretrained": "none",
    "standardise": True,
}


def run(folder: Path, *command: str, ok: bool = True) -> str:
    """Runs a command and returns what it printed on both channels."""
    who = {
        f"GIT_{role}_{of}": "t@t.org"
        for role in ("AUTHOR", "COMMITTER")
        for of in ("NAME", "EMAIL")
    }
    done = subprocess.run(
        [sys.executable, "-m", *command] if command[0] != "git" else command,
        cwd=folder,
        env={**os.environ, **who, "PYTHONPATH": str(REPOSITORY)},
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=600,
    )
    assert (done.returncode == 0) == ok, done.stdout
    return done.stdout


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory, finished_run: Path) -> Path:
    """The experiments `crops` and `whole` of a ProtoMask and a black box, of which the second also
    lies in the workspace; `half`, a training without evaluation; and `lying`, whose parameters
    say crops of 48 pixels and whose outputs are those of `crops`, of 32."""
    folder = tmp_path_factory.mktemp("compare") / "repository"
    shutil.copytree(finished_run, folder)
    (folder / "dvc.yaml").write_text(yaml.safe_dump({"stages": STAGES, "metrics": METRICS}))
    (folder / ".gitignore").write_text("/artifacts/\n/photographs/\n/.protomask/\n")
    run(folder, "git", "init", "-q", "-b", "main")
    run(folder, "dvc", "init", "-q")
    run(folder, "git", "add", "-A")
    run(folder, "git", "commit", "-qm", "start")
    save(folder, "crops")
    text = (folder / "params.yaml").read_text()
    params = yaml.safe_load(text)
    params["crops"]["side"] = 48
    (folder / "params.yaml").write_text(yaml.safe_dump(params))
    save(folder, "lying")
    params = yaml.safe_load(text)
    params["model"] = BLACK_BOX
    params["train"]["loss"] = {}
    (folder / "params.yaml").write_text(yaml.safe_dump(params))
    workspace = Workspace(folder)
    for stage in (train, push, finetune):
        stage.run(workspace)
    save(folder, "half")
    evaluate.run(workspace)
    save(folder, "whole")
    return folder


def save(folder: Path, name: str) -> None:
    """Makes what lies in the workspace an experiment."""
    run(folder, "dvc", "commit", "-q", "-f")
    run(folder, "dvc", "exp", "save", "-q", "-n", name)


@pytest.fixture(scope="module")
def said(repository: Path) -> str:
    """What the command said when it wrote page.html."""
    command = ["study", "compare", "crops", "whole", "--out", "page.html"]
    return run(repository, "commands", *command)


def groups(page: str) -> dict[str, int]:
    """Returns the headings of cards, and how many cards are below each."""
    found = {}
    for group in page.split('<section class="who"')[1:]:
        heading, _, cards = group.partition("</h3>")
        title = re.sub("<[^>]*>", "", heading.split(">", 2)[2])
        found[" ".join(title.split())] = cards.count('<article class="card"')
    return found


def copies(repository: Path) -> list[Path]:
    return list((repository / ".dvc" / "tmp" / "exps").glob("compare-*"))


def test_page(repository: Path, said: str) -> None:
    page = (repository / "page.html").read_text(encoding="utf-8")
    counts = re.search(
        r"of 6 images (\d) right in both runs, (\d) in crops only, (\d) in whole", said
    )
    assert counts
    both, only_a, only_b = map(int, counts.groups())
    cards = {"Only A": only_a, "Only B": only_b, "Both": 6 - both - only_a - only_b}
    found = {title.split(" is")[0].split(" are")[0]: n for title, n in groups(page).items()}
    assert found == {title: count for title, count in cards.items() if count}
    assert all(f": {count} image" in title for title, count in groups(page).items())
    assert "ProtoMask (patches) and Black box on folder" in page
    assert page.count("What adds to the logit of") == page.count('<ul class="lines">') == 6 - both
    assert re.search(r"<code>model.name</code></th><td[^>]*>protomask</td><td[^>]*>blackbox<", page)
    classes = set(re.findall(r'<article class="card" data-class="(\d+)"', page))
    assert classes == set(re.findall(r'<option value="(\d+)"', page))
    # The photographs, of which the path is relative, were found from DVC's copy.
    assert page.count('alt="Test photograph') == 6 - both
    assert "http" not in page.replace("http-equiv", "")
    assert not copies(repository)


def test_workspace_is_the_last_experiment(
    repository: Path, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(repository)
    study_compare.run(("crops", "workspace"), tmp_path / "page.html")
    first, second = (folder / "page.html" for folder in (repository, tmp_path))
    named = first.read_text(encoding="utf-8").replace(
        "<code>whole</code>", "<code>workspace</code>"
    )
    assert named == second.read_text(encoding="utf-8")


def test_photographs_elsewhere(
    repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(repository, copy)
    (copy / "photographs").rename(tmp_path / "photographs")
    monkeypatch.chdir(copy)
    study_compare.run(("crops", "whole"), Path("new/page.html"))
    page = (copy / "new" / "page.html").read_text(encoding="utf-8")
    cards = sum(groups(page).values())
    assert cards and page.count("the photograph was not") == cards
    assert 'alt="Test photograph' not in page and page.count('alt="Test image') == cards


@pytest.mark.parametrize(
    ("runs", "out", "message"),
    [
        (("crops", "nosuch"), "page.html", "there is no run 'nosuch'"),
        (("main", "crops"), "page.html", "main was not evaluated with its parameters"),
        (("crops", "half"), "page.html", "half: the answers .* are not those of the finished"),
        (("crops", "whole"), "artifacts", "artifacts is a folder"),
        (("crops", "lying"), "page.html", "lying: .* was made with crops.side=32 instead of 48"),
    ],
)
def test_refused(
    repository: Path,
    monkeypatch: pytest.MonkeyPatch,
    runs: tuple[str, str],
    out: str,
    message: str,
) -> None:
    monkeypatch.chdir(repository)
    with pytest.raises(ProtoMaskError, match=message):
        study_compare.run(runs, Path(out))
    assert not copies(repository)


@pytest.fixture
def without_outputs(repository: Path, tmp_path: Path) -> Path:
    """A copy of the repository in whose cache of DVC's no outputs are left."""
    copy = tmp_path / "copy"
    shutil.copytree(repository, copy)
    shutil.rmtree(copy / ".dvc" / "cache" / "files")
    return copy


def test_missing_in_the_cache(without_outputs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    copy = without_outputs
    monkeypatch.chdir(copy)
    missing = r"artifacts/crops.zarr, .* of crops are not in DVC's cache: .*`dvc pull`"
    with pytest.raises(ProtoMaskError, match=missing):
        study_compare.run(("crops", "whole"), Path("other.html"))
    assert not copies(copy) and not (copy / "other.html").exists()


def test_other_data_sets(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(repository)
    params = read_params(Path("params.yaml"))
    tested = study_compare._tested("workspace", Workspace(), params.runtime)
    index = tested.index
    renamed = replace(tested, index=replace(index, dataset="birds"))
    with pytest.raises(ProtoMaskError, match=r"data sets: 'folder' with 3 .* 'birds' with 3"):
        compare(tested, renamed)
    changed = index.table.assign(sha256=index.table["sha256"].where(index.table.index != 5, "0"))
    with pytest.raises(ProtoMaskError, match=f"'folder': '{index.ids[5]}' has another file"):
        compare(tested, replace(tested, index=replace(index, table=changed)))
    assert compare(tested, tested).outcome.p == 1


def test_the_table_leaves_out_what_contradicts_itself(
    repository: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(repository)
    study_table.run("markdown", None, ["accuracy"], [])
    table, said = capsys.readouterr()
    assert "lying is left out: its outputs were made with crops.side=32 instead of 48" in said
    assert table.count("| ProtoMask") == table.count("| Black box") == 1 and "48" not in table


def test_check(
    repository: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    said = run(repository, "commands", "study", "check", ok=False)
    assert "lying: made with crops.side=32 instead of 48\n" in said
    # The fixture committed the first model's metrics as if they were this one's.
    assert "half: made with model.name=protomask instead of blackbox" in said
    assert "2 of 5 runs are not what their parameters say: half, lying; remove them" in said
    monkeypatch.chdir(repository)
    study_check.run(["crops"])
    agreeing = capsys.readouterr().out
    assert agreeing.startswith("crops: agrees with its parameters; the code that ran crops may be ")


def test_check_of_what_has_no_outputs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A commit without dvc.lock, and an experiment that has failed."""
    (tmp_path / "dvc.yaml").write_text("stages: {fails: {cmd: 'false', params: [seed]}}\n")
    (tmp_path / "params.yaml").write_text("seed: 0\n")
    run(tmp_path, "git", "init", "-q", "-b", "main")
    run(tmp_path, "dvc", "init", "-q")
    run(tmp_path, "git", "add", "-A")
    run(tmp_path, "git", "commit", "-qm", "start")
    run(tmp_path, "dvc", "exp", "run", "-q", "--queue", "-n", "broken")
    run(tmp_path, "dvc", "exp", "run", "-q", "--run-all")
    monkeypatch.chdir(tmp_path)
    study_check.run([])
    said = capsys.readouterr().out.splitlines()
    assert said == ["main: has made nothing to check", "broken: failed"]


@pytest.fixture
def copy(repository: Path, tmp_path: Path) -> Path:
    """A copy of the repository, to be changed."""
    return shutil.copytree(repository, tmp_path / "copy")


def test_check_of_models_of_an_older_version(
    copy: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Older models name the settings that they are built from and the crops that they see."""
    (copy / "artifacts" / "evaluate" / "made_with.json").unlink()
    about = copy / "artifacts" / "finetune" / "model.json"
    described = json.loads(about.read_text())
    del described["made_with"]
    described["crops"]["size"] = described["crops"].pop("side")
    about.unlink()
    about.write_text(json.dumps(described))
    shutil.rmtree(copy / "artifacts" / "crops.zarr")
    params = yaml.safe_load((copy / "params.yaml").read_text())
    params["crops"]["size"] = params["crops"].pop("side") + 64
    (copy / "params.yaml").write_text(yaml.safe_dump(params))
    stages = {"train": {**STAGES["train"], "deps": ["params.yaml"]}, "evaluate": EVALUATED}
    (copy / "dvc.yaml").write_text(yaml.safe_dump({"stages": stages, "metrics": METRICS}))
    (copy / "dvc.lock").unlink()
    save(copy, "old")
    monkeypatch.chdir(copy)
    with pytest.raises(ProtoMaskError, match="1 of 1 runs"):
        study_check.run(["old"])
    assert "made with crops.size=32 instead of 96" in capsys.readouterr().out


def test_check_without_outputs(
    without_outputs: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(without_outputs)
    study_check.run(["crops"])
    said = capsys.readouterr().out
    assert "cannot be told: its outputs are neither in DVC's cache nor in a remote" in said


def test_check_of_experiments_of_one_name(
    copy: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Those of two commits may have the same name, and one of them be wrong."""
    found = run(copy, "git", "for-each-ref", "--format=%(refname) %(objectname)", "refs/exps")
    commits = {line.split()[0].split("/")[-1]: line.split()[1] for line in found.splitlines()}
    run(copy, "git", "commit", "-q", "--allow-empty", "-m", "later")
    later = run(copy, "git", "rev-parse", "HEAD").strip()
    run(copy, "git", "update-ref", f"refs/exps/{later[:2]}/{later[2:]}/lying", commits["crops"])
    monkeypatch.chdir(copy)
    with pytest.raises(ProtoMaskError, match="lying"):
        study_check.run([])
    verdicts = re.findall(r"^lying: (made with|agrees)", capsys.readouterr().out, re.MULTILINE)
    assert sorted(verdicts) == ["agrees", "made with"]
