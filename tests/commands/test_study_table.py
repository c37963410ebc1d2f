"""`protomask study table` on a real, small DVC repository whose one stage takes no time."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from dvc.repo import Repo

from commands import study_table
from commands.experiments import read_runs
from pipeline.errors import ProtoMaskError

pytestmark = pytest.mark.slow

REPOSITORY = Path(__file__).parents[2]

FILES = {
    "conf/config.yaml": """
defaults:
  - dataset: demo
  - segmenter: felzenszwalb
  - model: protomask
  - _self_
seed: 0
crops: {side: 48, max_box_area: 1.0}
train: {lr: 5.0e-05}
evaluate: {top_k: 5}
explain: {only_mask: false, images: 4}
runtime: {workers: 1}
""",
    "conf/dataset/demo.yaml": "{name: demo, root: null, num_classes: null, fold: 0, scanned: []}",
    "conf/dataset/folder.yaml": """
{name: folder, root: null, num_classes: null, fold: 0, scanned: [root]}
""",
    "conf/segmenter/felzenszwalb.yaml": "{name: felzenszwalb, scales: [300, 800]}",
    "conf/segmenter/sam2.yaml": "{name: sam2, engine: batched}",
    "conf/model/protomask.yaml": "{name: protomask, embedding_dim: 8}",
    "conf/model/protopnet.yaml": "{name: protopnet, embedding_dim: 4, patches: true}",
    "dvc.yaml": """
stages:
  train:
    cmd: python train.py
    deps: [train.py]
    params: [seed, dataset, segmenter, crops, model, train]
    outs: [artifacts/train]
  evaluate:
    cmd: python evaluate.py
    deps: [artifacts/train]
    params: [seed, evaluate]
    outs: [artifacts/evaluate]
metrics: [artifacts/evaluate/metrics.json]
""",
    "train.py": """
import pathlib, sys, yaml
params = yaml.safe_load(open("params.yaml"))
if params["model"]["name"] == "protopnet" and params["seed"] == 1:
    sys.exit("diverged")
pathlib.Path("artifacts/train").mkdir(parents=True)
pathlib.Path("artifacts/train/model").write_text(
    f"{params['model']['name']} {params['seed']} {params['train']['lr']}"
)
""",
    "evaluate.py": """
import json, pathlib
import numpy as np, pandas as pd
name, seed, _ = pathlib.Path("artifacts/train/model").read_text().split()
right = np.arange(40) < (36 if name == "protomask" else 20) - 4 * int(seed)
pathlib.Path("artifacts/evaluate").mkdir(parents=True)
images = pd.DataFrame({"image": [f"i{n}" for n in range(40)], "general.accuracy": right * 1.0})
images.to_parquet("artifacts/evaluate/images.parquet")
metrics = {"general": {"accuracy": right.mean()}, "compactness": {"global_size": 10.0}}
json.dump(metrics, open("artifacts/evaluate/metrics.json", "w"))
""",
    ".gitignore": "/artifacts/\n",
    ".dvcignore": "",
}


def run(folder: Path, *command: str) -> str:
    """Runs a command and returns what it printed."""
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
        capture_output=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two models, two seeds: one run has failed, one is queued, one stopped after its training."""
    folder = tmp_path_factory.mktemp("study")
    for name, text in FILES.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    (folder / "params.yaml").write_text("seed: 0\n")
    run(folder, "git", "init", "-q", "-b", "main")
    run(folder, "dvc", "init", "-q")
    run(folder, "dvc", "config", "hydra.enabled", "true")
    run(folder, "git", "add", "-A")
    run(folder, "git", "commit", "-qm", "start")
    run(folder, "dvc", "exp", "run", "-q")
    run(folder, "git", "add", "-A")
    run(folder, "git", "commit", "-qm", "a finished run")
    sweep = ["-S", "model=protomask,protopnet", "-S", "seed=0,1"]
    run(folder, "dvc", "exp", "run", "--queue", *sweep)
    run(folder, "dvc", "exp", "run", "--run-all")
    run(folder, "dvc", "exp", "run", "--temp", "-n", "half", "-S", "seed=2", "train")
    run(folder, "dvc", "exp", "run", "--temp", "-S", "train.lr=0.1", "train")
    run(folder, "git", "commit", "-qm", "later", "--allow-empty")
    run(folder, "dvc", "exp", "run", "--temp", "-n", "third", "-S", "seed=3")
    run(
        folder,
        "dvc",
        "exp",
        "run",
        "--queue",
        "-n",
        "waiting",
        "-S",
        "model=protopnet",
        "-S",
        "seed=3",
    )
    return folder


def test_table(study: Path) -> None:
    said = run(study, "commands", "study", "table")
    rows = [line for line in said.splitlines() if line.startswith("| Proto")]
    # 36, 32 and 24 of 40 right, the committed run of seed 0 once; and 20 of 40.
    assert re.search(r"ProtoMask \(Felzenszwalb\) \| +\*\*76.7 ± 15.3\*\* ", rows[0])
    assert re.search(r"ProtoPNet +\| +50.0 \(n = 1\) ", rows[1])
    assert "4 runs, 120 test images" in said, (
        "40 for each of three seeds, which draw others" and "Missing: 2 of 6 runs" in said
    )
    failed, queued = said.split("Missing")[1].split("\n- ")[1:]
    assert re.match(r"ProtoPNet, fold 0, seed 1: failed as `([\w-]+)`; `dvc queue logs \1`", failed)
    assert "dvc exp run --queue evaluate -S model=protopnet -S seed=1\n" in failed
    assert queued.startswith("ProtoPNet, fold 0, seed 3: queued as `waiting`;")


def test_runs(study: Path) -> None:
    with Repo(str(study)) as repo:
        states = sorted((run.state, run.repeat[1]) for run in read_runs(repo))
        named = [run.repeat for run in read_runs(repo, ["third"])]
    # ProtoMask's seed 0: two commits, and two experiments that equal them; ProtoPNet's.
    finished = [("finished", seed) for seed in (0, 0, 0, 0, 0, 1, 3)]
    assert states == [("failed", 1), *finished, ("queued", 3), ("unfinished", 0), ("unfinished", 2)]
    assert named == [(0, 3)]


def test_formats(study: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(study)
    for form in ("latex", "html"):
        out = tmp_path / f"table.{form}"
        study_table.run(form, out, ["accuracy"], [])
        assert "76.7" in out.read_text(encoding="utf-8")


def test_unknown_names(study: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(study)
    with pytest.raises(ProtoMaskError, match="did you mean accuracy"):
        study_table.run("markdown", None, ["acuracy"], [])
    with pytest.raises(ProtoMaskError, match="nosuch"):
        study_table.run("markdown", None, ["accuracy"], ["nosuch"])
