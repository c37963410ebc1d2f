"""`protomask study tune`: a search in which every trial is a DVC experiment up to `train`."""

import csv
import io
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import deque
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dvc.api
import psutil
import yaml
from dvc.exceptions import DvcException
from dvc.repo import Repo
from dvc.repo.experiments.refs import ExpRefInfo
from dvc.utils.cli_parse import to_path_overrides
from dvc.utils.hydra import compose_and_dump
from filelock import FileLock, Timeout
from hydra.errors import HydraException
from omegaconf.errors import OmegaConfBaseException
from optuna.study import Study
from optuna.trial import FrozenTrial, Trial
from rich.table import Table
from scmrepo.exceptions import SCMError

from commands.experiments import IN_REPOSITORY, said_by_dvc
from pipeline.errors import ProtoMaskError
from pipeline.parameters import flat
from pipeline.progress import console, track
from pipeline.study import search
from pipeline.training.curve import VARIABLE, read_curve
from stages.interrupts import leave_interrupts
from stages.overrides import refuse_unusable
from stages.params import Params, read_params, refuse_subfolder
from stages.workspace import Workspace

POLL = 0.5
PATIENCE = {signal.SIGINT: 60.0, signal.SIGTERM: 10.0, signal.SIGKILL: 10.0}
FAILURES = 3
COPIES = Path(".dvc/tmp/exps")
STATES = {"COMPLETE": "done", "PRUNED": "pruned", "FAIL": "failed"}


@dataclass(frozen=True)
class Tuning:
    """One search in this repository.

    Args:
        folder: where searches are kept.
        name: of the search.
        settings: the user's, as `dvc exp run -S` takes them.
        space: what is searched.
        study: what has been tried.
        seed: of the choice of parameters.
    """

    folder: Path
    name: str
    settings: list[str]
    space: dict[str, search.Distribution]
    study: Study
    seed: int

    def experiment(self, trial: Trial | FrozenTrial) -> str:
        return f"tune-{self.name}-{trial.number}"

    def command(self, trial: Trial | FrozenTrial) -> list[str]:
        """Returns the words of the `dvc exp run` that runs a trial's parameters."""
        given = [*self.settings, *search.settings_of(trial)]
        return ["dvc", "exp", "run", *(word for setting in given for word in ("-S", setting))]

    def file(self, ending: str) -> Path:
        return self.folder / f"{self.name}.{ending}"


def run(name: str, trials: int, seed: int, settings: list[str]) -> None:
    """Searches until `trials` trials have ended, those of earlier runs of this command included.

    Raises:
        ProtoMaskError: the settings are wrong or others than the search was begun with, it is
            running already, this is no place for it, or three trials in a row have failed.
    """
    if not re.fullmatch(r"[A-Za-z0-9_-]+", name):
        raise ProtoMaskError(f"--name {name!r}: only letters, digits, - and _ can be in it")
    refuse_subfolder(Path.cwd())
    # SIGINT may be ignored (`nohup … &`), and what this starts would then ignore it too.
    for sign in (signal.SIGINT, signal.SIGTERM):
        signal.signal(sign, signal.default_int_handler)
    leave_interrupts()
    folder = Workspace().cache / "tune"
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(folder / f"{name}.lock", timeout=0):
            _search(_open(folder, name, seed, settings), trials)
    except Timeout:
        raise ProtoMaskError(f"a search named {name!r} is running already") from None
    except KeyboardInterrupt:
        console.print("Stopped. Run the same command again to go on from here.")
        raise SystemExit(130) from None


def _open(folder: Path, name: str, seed: int, settings: list[str]) -> Tuning:
    params, values = _compose(settings)
    given = [setting.partition("=")[0].rpartition(":")[2].lstrip("+") for setting in settings]
    space = search.space_of(params.train, [key.removeprefix("train.") for key in given])
    searched = {f"train.{key}" for key in space}
    decides = {
        key: value
        for key, value in flat(values).items()
        if key not in searched and not key.startswith("runtime.")
    }
    study = search.open_search(
        folder / f"{name}.sqlite",
        space,
        decides,
        seed,
        search.pruner_of(params.train.epochs, space),
    )
    return Tuning(folder, name, settings, space, study, seed)


def _compose(settings: list[str]) -> tuple[Params, dict[str, Any]]:
    """Returns the parameters that `dvc exp run` composes from conf/ with these settings, checked
    and as written."""
    overrides = to_path_overrides(settings).get(str(IN_REPOSITORY.params_file), [])
    try:
        refuse_unusable(overrides, Path.cwd())
    except HydraException as error:
        raise ProtoMaskError(f"{shlex.join(settings)} cannot be read: {error}") from None
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / IN_REPOSITORY.params_file
        conf = Path("conf").resolve()
        try:
            compose_and_dump(path, str(conf), None, "config", str(Path.cwd()), overrides)
        except (HydraException, OmegaConfBaseException) as error:
            raise ProtoMaskError(
                f"{conf} and the settings {shlex.join(settings)} make no parameters: {error}"
            ) from None
        try:
            params = read_params(path)
        except ProtoMaskError as error:
            composed = f"{IN_REPOSITORY.params_file}, as `dvc exp run` composes it"
            raise ProtoMaskError(str(error).replace(str(path), composed)) from None
        return params, yaml.safe_load(path.read_text(encoding="utf-8"))


def _search(tuning: Tuning, trials: int) -> None:
    for running in search.interrupted(tuning.study):
        _end_orphan(running)
        _clear(tuning, running)
        search.run_again(tuning.study, running)
    before = search.ended(tuning.study)
    _print_row("trial", *(key.replace("_", "\n", 1) for key in tuning.space), "accuracy", "state")
    for ended in before:
        _print_trial(tuning, ended)
    in_a_row = 0
    for _ in track(range(len(before), trials), "Trials"):
        trial = search.next_trial(tuning.study, tuning.space, tuning.seed)
        _try(tuning, trial)
        ended = tuning.study.get_trials(deepcopy=False)[trial.number]
        _print_trial(tuning, ended)
        in_a_row = in_a_row + 1 if search.ERROR in ended.user_attrs else 0
        if in_a_row == FAILURES:
            raise ProtoMaskError(
                f"{FAILURES} trials in a row have failed, the last with the error above; the whole "
                f"output is in {tuning.file('log')}. Put it right, and run the same command again"
            )
    _print_best(tuning)


def _try(tuning: Tuning, trial: Trial) -> None:
    """Runs a trial's experiment up to `train`, and ends the trial by what became of it."""
    experiment = tuning.experiment(trial)
    revision = _free_revision(experiment)
    curve = _curve_file(tuning, trial)
    command = [*tuning.command(trial), "--temp", "--name", experiment, "train"]
    with tuning.file("log").open("wb") as log:
        process = psutil.Popen(
            [sys.executable, "-m", *command],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            env={**os.environ, VARIABLE: str(curve)},
            start_new_session=True,
        )
    try:
        trial.set_user_attr("process", [process.pid, process.create_time()])
        hopeless = any(
            search.gives_up(trial, epoch, values) for epoch, values in _epochs(process, curve)
        )
        if hopeless and process.poll() is None:
            _end(process.pid)
            search.give_up(trial)
        elif process.wait() == 0:
            search.finish(trial, read_curve(curve) or _recorded(revision))
        else:
            search.fail(trial, _last_words(tuning.file("log")))
    finally:
        _end(process.pid)
        process.wait()
        _clear(tuning, trial)


def _epochs(process: psutil.Popen, curve: Path) -> Iterator[tuple[int, dict[str, float]]]:
    """Yields each epoch once, as it is announced, until the process has ended."""
    seen: set[int] = set()
    running = True
    while running:
        running = process.poll() is None
        for epoch, values in read_curve(curve).items():
            if epoch not in seen:
                seen.add(epoch)
                yield epoch, values
        time.sleep(POLL if running else 0)


def _free_revision(experiment: str) -> str:
    """Returns the name in Git of the experiment that is about to be run."""
    try:
        with Repo() as repo:
            revision = str(ExpRefInfo(repo.scm.get_rev(), experiment))
            taken = repo.scm.get_ref(revision) is not None
    except (DvcException, SCMError) as error:
        raise ProtoMaskError(f"DVC can run no experiments here: {said_by_dvc(error)}") from None
    if taken:
        raise ProtoMaskError(
            f"there is an experiment {experiment} already, of an earlier search: take another "
            f"--name, or remove it with `dvc exp remove {experiment}`"
        )
    return revision


def _recorded(revision: str) -> dict[int, dict[str, float]]:
    """Returns the curve that lies in an experiment: DVC has restored `train` from its run cache,
    and nothing was trained."""
    curve: dict[int, dict[str, float]] = {}
    for name in (search.ACCURACY, search.LOSS):
        path = IN_REPOSITORY.train / "curves" / "plots" / "metrics" / f"{name}.tsv"
        try:
            text = dvc.api.read(path.as_posix(), rev=revision)
        except (DvcException, OSError):
            continue
        for row in csv.DictReader(io.StringIO(text), delimiter="\t"):
            curve.setdefault(int(row["step"]), {})[name] = float(row[path.stem])
    return curve


def _end_orphan(trial: FrozenTrial) -> None:
    """Ends the experiment of a search that was killed and could not end it itself."""
    pid, begun = trial.user_attrs.get("process", (None, None))
    if pid is not None and _begun(pid) in (None, begun):  # else it is somebody else's by now
        _end(pid)


def _begun(pid: int) -> float | None:
    try:
        return psutil.Process(pid).create_time()
    except psutil.NoSuchProcess:
        return None


def _end(group: int) -> None:
    """Ends the processes of a group: SIGINT first, at which DVC removes its copy."""
    for sign, patience in PATIENCE.items():
        deadline = time.monotonic() + patience
        with suppress(ProcessLookupError):  # it may end at this moment
            if _members(group):
                os.killpg(group, sign)
        while _members(group) and time.monotonic() < deadline:
            time.sleep(0.1)


def _members(group: int) -> list[int]:
    """Returns the live processes of a group."""
    return [
        process.pid
        for process in psutil.process_iter(["status"])
        if process.info["status"] != psutil.STATUS_ZOMBIE and _group(process.pid) == group
    ]


def _group(pid: int) -> int | None:
    try:
        return os.getpgid(pid)
    except OSError:
        return None


def _clear(tuning: Tuning, trial: Trial | FrozenTrial) -> None:
    """Removes a trial's curve, and the copy of the repository that a killed DVC leaves behind."""
    _curve_file(tuning, trial).unlink(missing_ok=True)
    for info in COPIES.glob("run/*/*.run"):
        try:
            about = json.loads(info.read_text(encoding="utf-8"))
        except (ValueError, FileNotFoundError):  # another experiment is just writing its own
            continue
        copy = Path(about["root_dir"])
        if about["name"] == tuning.experiment(trial) and COPIES.resolve() in copy.parents:
            shutil.rmtree(copy, ignore_errors=True)


def _curve_file(tuning: Tuning, trial: Trial | FrozenTrial) -> Path:
    return tuning.file(f"{trial.number}.curve")


def _last_words(log: Path) -> str:
    """Returns the last lines that a failed experiment said, without DVC's on the failure itself."""
    with log.open(encoding="utf-8", errors="replace") as lines:
        said = (line.rstrip() for line in lines if "ERROR: failed to reproduce" not in line)
        return "\n".join(deque(filter(None, said), maxlen=8))


def _print_trial(tuning: Tuning, trial: FrozenTrial) -> None:
    score = search.score_of(trial)
    params = (f"{trial.params[key]:.3g}" for key in tuning.space)
    state = STATES[trial.state.name]
    _print_row(str(trial.number), *params, "" if score is None else f"{score:.4f}", state)
    if search.ERROR in trial.user_attrs:
        console.print(trial.user_attrs[search.ERROR], markup=False, style="dim")


def _print_row(*cells: str) -> None:
    table = Table.grid(padding=(0, 1))
    for width in (5, *[10] * (len(cells) - 3), 8, 6):
        table.add_column(width=width, justify="right")
    table.add_row(*cells)
    console.print(table)


def _print_best(tuning: Tuning) -> None:
    best = search.best_of(tuning.study)
    if best is None:
        raise ProtoMaskError("no trial was trained to the end: raise --trials")
    print(f"best: trial {best.number}, validation accuracy {best.value:.4f}")
    for setting in search.settings_of(best):
        print(f"  {setting}")
    print(f"run it in full:\n  {shlex.join(tuning.command(best))}")
