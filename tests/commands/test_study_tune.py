"""A search over real DVC experiments, in a small repository whose `train` announces a made-up
curve."""

import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import optuna
import psutil
import pytest
from dvc.utils.hydra import compose_and_dump
from optuna.trial import TrialState

from commands import study_tune
from pipeline.errors import ProtoMaskError

pytestmark = pytest.mark.slow

REPOSITORY = Path(__file__).parents[2]
DVC_YAML = """
stages:
  train:
    cmd: python train.py
    deps: [train.py]
    params: [seed, train]
    outs: [artifacts/train]
  push:
    cmd: touch pushed
    deps: [artifacts/train]
    outs: [pushed]
"""
# The accuracy is highest where lr_prototypes is 0.005. Only trials far from there are slow, so that
# there is time to give them up. Files in .protomask ask for a training that fails or hangs.
TRAIN = """
import math, os, sys, time
from pathlib import Path
import yaml
from pipeline.training.curve import VARIABLE, announce

train = yaml.safe_load(Path("params.yaml").read_text())["train"]
peak = 1 - abs(math.log10(train["lr_prototypes"] / 0.005)) / 2
memory = Path(os.environ["DVC_ROOT"]) / ".protomask"
(memory / "trained").open("a").write("x")
if (memory / "fails").exists():
    sys.exit("the training loss is no longer a finite number")
curves = Path("artifacts/train/curves/plots/metrics/val")
curves.mkdir(parents=True)
rows = {"accuracy": [], "loss": []}
for epoch in range(train["epochs"]):
    values = {"val/accuracy": peak * min(1, (epoch + 1) / 5), "val/loss": 1 - peak}
    announce(values, epoch, os.environ.get(VARIABLE))
    for name, column in rows.items():
        column.append(f"{epoch}\\t{values['val/' + name]}")
    if (memory / "hangs").exists() and epoch == 3:
        time.sleep(600)
    time.sleep(0.05 if peak > 0.8 else 0.4)
for name, column in rows.items():
    (curves / f"{name}.tsv").write_text("\\n".join([f"step\\t{name}", *column]))
"""
SETTINGS = ["experiment=frozen", "train.epochs=10"]


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository in which nothing has run; not to be changed."""
    root = tmp_path_factory.mktemp("start") / "repository"
    shutil.copytree(REPOSITORY / "conf", root / "conf")
    (root / "dvc.yaml").write_text(DVC_YAML)
    (root / "train.py").write_text(TRAIN)
    (root / ".gitignore").write_text("/.protomask/\n/artifacts/\n/pushed\n")
    compose_and_dump(root / "params.yaml", str(root / "conf"), None, "config", str(root), [])
    for command in (
        "git init -q",
        "git config user.email somebody@example.org",
        "git config user.name Somebody",
        f"{sys.executable} -m dvc init -q",
        f"{sys.executable} -m dvc config hydra.enabled True",
        f"{sys.executable} -m dvc config core.analytics False",
        "git add .",
        "git commit -qm begin",
    ):
        subprocess.run(shlex.split(command), cwd=root, check=True)
    (root / ".protomask").mkdir()
    return root


@pytest.fixture
def repository(tmp_path: Path, start: Path) -> Path:
    return shutil.copytree(start, tmp_path / "repository")


def _command(*arguments: str) -> list[str]:
    given = [word for setting in SETTINGS for word in ("-S", setting)]
    return [sys.executable, "-m", "commands", "study", "tune", "--name", "s", *given, *arguments]


def _environment() -> dict[str, str]:
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return {**os.environ, "PYTHONPATH": str(REPOSITORY), "PATH": path}


def _start(repository: Path, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        _command(*arguments),
        cwd=repository,
        env=_environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def _tune(repository: Path, *arguments: str) -> tuple[int, str, str]:
    process = _start(repository, *arguments)
    out, err = process.communicate(timeout=120)
    return process.returncode, out, err


def _study(repository: Path, name: str = "s") -> optuna.Study:
    file = repository / ".protomask" / "tune" / f"{name}.sqlite"
    return optuna.load_study(study_name="search", storage=f"sqlite:///{file}")


def _experiments(repository: Path) -> set[str]:
    listed = subprocess.run(
        ["git", "for-each-ref", "--format=%(refname:lstrip=4)", "refs/exps"],
        cwd=repository,
        capture_output=True,
        text=True,
        check=True,
    )
    return set(listed.stdout.split())


def _copies(repository: Path) -> list[str]:
    folder = repository / ".dvc" / "tmp" / "exps" / "standalone"
    return [path.name for path in folder.glob("tmp*")]


def _trainings(repository: Path) -> list[int]:
    """The live processes that train in a copy of this repository."""
    found = []
    for process in psutil.process_iter(["cwd", "status"]):
        inside = str(process.info["cwd"]).startswith(str(repository / ".dvc"))
        if inside and process.info["status"] != psutil.STATUS_ZOMBIE:
            found.append(process.pid)
    return found


def _wait_for(condition, seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def _best_by_hand(study: optuna.Study) -> optuna.trial.FrozenTrial:
    done = [trial for trial in study.trials if trial.state == TrialState.COMPLETE]
    return max(done, key=lambda trial: trial.value)


def test_a_search(repository: Path) -> None:
    """Eight trials, of which one that learns less than the median is given up: no experiment of it
    remains, and what is printed at the end runs the best one from the run cache."""
    code, out, err = _tune(repository, "--trials", "8")
    assert code == 0, err
    study = _study(repository)
    pruned = [trial for trial in study.trials if trial.state == TrialState.PRUNED]
    done = [trial for trial in study.trials if trial.state == TrialState.COMPLETE]
    assert pruned and len(done) + len(pruned) == 8
    assert all(len(trial.intermediate_values) < 10 for trial in pruned)
    for trial in pruned:
        assert max(trial.intermediate_values.values()) < max(t.value for t in done)
    assert _experiments(repository) == {f"tune-s-{trial.number}" for trial in done}
    assert _copies(repository) == [] and _trainings(repository) == []
    assert not (repository / "artifacts").exists()
    best = _best_by_hand(study)
    assert f"best: trial {best.number}, validation accuracy {best.value:.4f}" in out
    rows = re.findall(r"^ *(\d+) .*(done|pruned) *$", err, re.MULTILINE)
    assert [number for number, _ in rows] == [str(number) for number in range(8)]
    trained = (repository / ".protomask" / "trained").read_text()
    assert len(trained) == 8
    shown = shlex.split(out.splitlines()[-1])
    assert shown[:3] == ["dvc", "exp", "run"] and shown[-2].startswith("-S")
    subprocess.run(shown, cwd=repository, env=_environment(), check=True, capture_output=True)
    assert (repository / "pushed").exists()
    assert (repository / ".protomask" / "trained").read_text() == trained


def test_killed_and_started_again(repository: Path) -> None:
    """Killed in its third trial, whose training goes on alone: the same command ends that one, runs
    its parameters again, and comes to the number of trials that was asked for."""
    assert _tune(repository, "--trials", "2")[0] == 0
    hangs = repository / ".protomask" / "hangs"
    hangs.touch()
    process = _start(repository, "--trials", "4")
    _wait_for(lambda: len(_study(repository).trials) == 3 and _trainings(repository))
    _wait_for(lambda: len(_study(repository).trials[2].intermediate_values) == 4)
    process.kill()
    process.communicate()
    assert _trainings(repository) and _copies(repository)
    hangs.unlink()
    code, out, err = _tune(repository, "--trials", "4")
    assert code == 0, err
    assert _trainings(repository) == [] and _copies(repository) == []
    study = _study(repository)
    assert [trial.state.name for trial in study.trials] == [
        "COMPLETE",
        "COMPLETE",
        "FAIL",
        "COMPLETE",
        "COMPLETE",
    ]
    assert study.trials[2].params == study.trials[3].params
    assert len(study.trials[3].intermediate_values) == 10
    assert f"best: trial {_best_by_hand(study).number}," in out
    assert _experiments(repository) == {f"tune-s-{number}" for number in (0, 1, 3, 4)}
    assert list((repository / ".protomask" / "tune").glob("*.curve")) == []


def test_stopped_by_hand(repository: Path) -> None:
    """Ctrl-C ends the training, leaves nothing behind, and says how to go on. Meanwhile a second
    search of the same name is refused."""
    (repository / ".protomask" / "hangs").touch()
    process = _start(repository, "--trials", "2")
    _wait_for(lambda: _trainings(repository))
    code, _, err = _tune(repository, "--trials", "2")
    assert code == 1 and "running already" in err
    assert _trainings(repository)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "same command again" in err and "Traceback" not in err
    assert _trainings(repository) == [] and _copies(repository) == []
    assert _experiments(repository) == set()


def test_failures(repository: Path) -> None:
    """One is told and passed over; three in a row stop the search."""
    fails = repository / ".protomask" / "fails"
    fails.touch()
    code, _, err = _tune(repository, "--trials", "5")
    assert code == 1
    assert "3 trials in a row have failed" in err
    assert err.count("the training loss is no longer a finite number") == 3
    assert [trial.state.name for trial in _study(repository).trials] == ["FAIL"] * 3
    assert _copies(repository) == [] and _experiments(repository) == set()
    fails.unlink()
    code, out, err = _tune(repository, "--trials", "4")
    assert code == 0, err
    assert "best: trial 3," in out


def test_what_dvc_has_trained_before_is_read_from_its_experiment(repository: Path) -> None:
    """The same search under another name trains nothing, and finds the same."""
    assert _tune(repository, "--trials", "2")[0] == 0
    trained = (repository / ".protomask" / "trained").read_text()
    code, _, err = _tune(repository, "--trials", "2", "--name", "again")
    assert code == 0, err
    assert (repository / ".protomask" / "trained").read_text() == trained
    first, again = _study(repository), _study(repository, "again")
    assert [trial.value for trial in again.trials] == [trial.value for trial in first.trials]
    assert [trial.user_attrs["loss"] for trial in again.trials] == [
        trial.user_attrs["loss"] for trial in first.trials
    ]


@pytest.fixture
def tune(repository: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., None]]:
    """The command in this process, for what ends before a trial."""
    monkeypatch.chdir(repository)
    before = {sign: signal.getsignal(sign) for sign in (signal.SIGINT, signal.SIGTERM)}
    yield lambda *settings, name="s": study_tune.run(name, 1, 0, [*SETTINGS, *settings])
    for sign, handler in before.items():
        signal.signal(sign, handler)


def test_refused(repository: Path, tune: Callable[..., None]) -> None:
    """Another search under the same name, names in use, and settings that make no parameters."""
    assert _tune(repository, "--trials", "1")[0] == 0
    # What differs from machine to machine may differ.
    tune("runtime.workers=7")
    for setting, said in (
        ("train.epochs=11", "train.epochs: 10 then, 11 now"),
        ("train.step_size=20", "range of step_size: 10 to 50 in steps of 5 then, None now"),
        ("train.epoch=3", "train.epoch"),
        ("train.epochs=-3", "params.yaml, as `dvc exp run` composes it:\n  train.epochs"),
    ):
        with pytest.raises(ProtoMaskError, match=re.escape(said)):
            tune(setting)
    with pytest.raises(ProtoMaskError, match="only letters"):
        tune(name="a/b")
    (repository / ".protomask" / "tune" / "s.sqlite").unlink()
    with pytest.raises(ProtoMaskError, match="dvc exp remove tune-s-0"):
        tune()
