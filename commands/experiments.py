"""What DVC's records say of experiments: which runs there are, whether they are whole, and whether
their outputs say the same of themselves."""

import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import pandas as pd
from dvc.api import DVCFileSystem
from dvc.exceptions import DvcException
from dvc.repo import Repo
from dvc.utils.serialize import load_yaml
from dvc_data.index import DataIndexDirError

from pipeline.errors import ProtoMaskError
from pipeline.masks.segmenter import SEGMENTERS
from pipeline.parameters import Params, flat
from pipeline.study.runs import Run
from stages.provenance import Contradiction, MadeWith, asked, contradictions
from stages.workspace import Workspace

IN_REPOSITORY = Workspace()
"""Paths as DVC has them in any revision, relative to the repository's root."""
IMAGES = (IN_REPOSITORY.evaluate / "images.parquet").as_posix()
OLD_METRICS = Path("metrics.json")
"""Where runs of version 0.1 have their metrics."""
UNREACHABLE = (OSError, DvcException, DataIndexDirError)
"""What DVC raises where an output is neither in its cache nor in a remote."""
SECTIONS = {"seed", "dataset", "segmenter", "model"}


def said_by_dvc(error: Exception) -> str:
    """Returns what an error of DVC's says, and if there is no Git repository, what to do."""
    here = Path.cwd().resolve()
    if any((folder / ".git").exists() for folder in (here, *here.parents)):
        return str(error)
    return f"{error}: clone the repository, or make one of this folder (`git init`, and a commit)"


def read_runs(repo: Repo, revs: Sequence[str] = ()) -> Iterator[Run]:
    """Reads what `dvc exp show` shows: commits, experiments, and what is queued or has failed.

    Args:
        repo: the repository whose experiments are read.
        revs: commits, branches or experiments; none: HEAD and all commits that have experiments.
    """
    for state, kind in states(repo, revs):
        yield from _read(repo, state, kind)


def states(repo: Repo, revs: Sequence[str] = ()) -> Iterator[tuple[Any, str]]:
    """Yields each entry of `dvc exp show`, a DVC ExpState, and what it is: `commit`, or what DVC's
    queue says of an experiment. Arguments as of `read_runs`.

    Raises:
        ProtoMaskError: DVC's queue is broken.
    """
    try:
        shown = repo.experiments.show(revs=list(revs) or _baselines(repo), hide_workspace=True)
    except FileNotFoundError as error:
        raise ProtoMaskError(
            f"DVC's queue names an experiment that it has lost, as when a worker was killed "
            f"({error.filename}): `rm -r {Path(repo.tmp_dir, 'exps', 'celery')}` forgets what is "
            "queued, and keeps what has finished; then queue again what is missing"
        ) from None
    names = repo.experiments.get_exact_name([state.rev for state in shown])
    for state in shown:
        state.name = state.name or names[state.rev]  # of an experiment among `revs`
        yield state, "commit"
        for experiment in state.experiments or []:
            executor = experiment.executor
            yield experiment.revs[0], executor.state if executor else "success"


def _baselines(repo: Repo) -> list[str]:
    queue = repo.experiments.celery_queue
    tasks = [*queue.iter_queued(), *queue.iter_active(), *(of.entry for of in queue.iter_failed())]
    known = repo.experiments.ls(all_commits=True)
    return list(dict.fromkeys(["HEAD", *known, *(task.baseline_rev for task in tasks)]))


def _read(repo: Repo, state: Any, kind: str) -> Iterator[Run]:
    """Reads one entry of `dvc exp show`; a commit without a finished run is none.

    Args:
        repo: the repository whose experiments are read.
        state: DVC's ExpState of a commit or an experiment.
        kind: `commit`, or what DVC's queue says of an experiment.
    """
    name = state.name or state.rev[:7]
    params = params_of(state)
    if params is None or not params.keys() >= SECTIONS:
        if kind != "commit":
            print(f"{name} is left out: its params.yaml is none of this version", file=sys.stderr)
        return
    if kind in ("queued", "running", "failed"):
        yield Run(name, params, kind)  # type: ignore[arg-type]
        return
    measured = _content(state, "metrics", IN_REPOSITORY.metrics) or _content(
        state, "metrics", OLD_METRICS
    )
    files = DVCFileSystem(repo.root_dir, rev=state.rev)
    finished = measured is not None and up_to_date(files, params)
    try:
        wrong = contradicted(files, params) if finished else []
    except UNREACHABLE:
        print(f"{name} cannot be checked: its outputs are not to be had", file=sys.stderr)
        wrong = []
    if wrong:
        said = ", ".join(map(str, wrong))
        print(f"{name} is left out: its outputs were made with {said}", file=sys.stderr)
        return
    if measured is not None and finished:
        # Until version 0.2 the intervals stood among the metrics.
        metrics = {group: of for group, of in measured.items() if group != "intervals"}
        made = state.data.timestamp.timestamp()
        yield Run(name, params, "finished", metrics, _images(repo.root_dir, state.rev), made)
    elif kind != "commit":
        yield Run(name, params, "unfinished")


def params_of(state: Any) -> Params | None:
    """Returns what params.yaml holds in an entry of `dvc exp show`; None if there is none."""
    return _content(state, "params", IN_REPOSITORY.params_file)


def contradicted(files: DVCFileSystem, params: Params) -> list[Contradiction] | None:
    """Returns where a revision's outputs say of themselves that they were made with other values
    than its params.yaml has, though dvc.lock has them with these; None if it has no outputs.

    Args:
        files: the revision's files, as DVC has them.
        params: what the revision's params.yaml holds.

    Raises:
        UNREACHABLE: outputs are neither in DVC's cache nor in a remote.
    """
    makers, given = _makers(files), flat(params)
    segmenter = str(given.get("segmenter.name"))
    learned = SEGMENTERS[segmenter].learned if segmenter in SEGMENTERS else ()
    said = [
        read(content)
        for path, read in SAID.items()
        if _belongs_to_run(path, makers, params) and (content := _json(files, path)) is not None
    ]
    found = [wrong for of in said for wrong in contradictions(of, asked(given, learned))]
    return list({wrong.name: wrong for wrong in found}.values()) if said else None


def _belongs_to_run(path: Path, makers: Mapping[str, dict], params: Params) -> bool:
    """Whether an output follows from the parameters, or was left as it was by a run that ended
    before its stage."""
    maker = next((makers[p] for p in _and_parents(path.as_posix()) if p in makers), None)
    return maker is not None and _follows(maker, makers, params)


def _json(files: DVCFileSystem, path: Path) -> Any:
    """Reads a file of a revision's outputs; None if the revision has no such file."""
    try:
        return json.loads(files.cat(path.as_posix()))
    except FileNotFoundError:
        return None


def _of_masks(said: dict) -> MadeWith:
    return {"masks": flat({"segmenter": said["attributes"]["segmenter"]})}


def _of_crops(said: dict) -> MadeWith:
    return {**_of_masks(said), "crops": flat({"crops": said["attributes"]["settings"]})}


def _of_model(said: dict) -> MadeWith:
    """Models of older versions say only how they are built and what they see."""
    built = {"model": said["settings"]}
    seen = {"segmenter": said["segmenter"], "crops": said["crops"]}
    return said.get("made_with") or {"train": flat(built), "crops": flat(seen)}


SAID: dict[Path, Callable[[Any], MadeWith]] = {
    IN_REPOSITORY.masks / "zarr.json": _of_masks,
    IN_REPOSITORY.crops / "zarr.json": _of_crops,
    IN_REPOSITORY.train / "model.json": _of_model,
    IN_REPOSITORY.finetune / "model.json": _of_model,
    IN_REPOSITORY.made_with: lambda said: said,
}
"""A file of an output → what it says that the output was made with."""


def _content(state: Any, kind: str, path: Path) -> dict[str, Any] | None:
    if state.data is None:
        return None
    content: dict[str, Any] | None = getattr(state.data, kind).get(path.as_posix(), {}).get("data")
    return content


def _images(root: str, rev: str) -> Callable[[], pd.DataFrame | None]:
    """Returns what reads an experiment's values of single images, from DVC's cache or remote."""

    @cache
    def read() -> pd.DataFrame | None:
        try:
            with DVCFileSystem(root, rev=rev).open(IMAGES, "rb") as file:
                return pd.read_parquet(file)
        except (OSError, DvcException):
            print(f"{IMAGES} of {rev[:7]} is neither here nor in a remote", file=sys.stderr)
            return None

    return read


def up_to_date(files: DVCFileSystem, params: Params) -> bool:
    """Whether the metrics follow from these parameters.

    They are left as they were by `dvc exp run train`, and in a commit of changed parameters.
    """
    makers = _makers(files)
    maker = makers.get(IN_REPOSITORY.evaluate.as_posix())
    return maker is not None and _follows(maker, makers, params)


def _makers(files: DVCFileSystem) -> dict[str, dict]:
    """Returns an output's path → what dvc.lock has of the stage that made it."""
    try:
        stages = load_yaml("dvc.lock", fs=files)["stages"]
    except FileNotFoundError:
        return {}
    return {out["path"]: stage for stage in stages.values() for out in stage.get("outs", [])}


def _follows(stage: dict, makers: Mapping[str, dict], params: Params) -> bool:
    """Whether dvc.lock has the stage with these parameters, and with what it was made from."""
    used = stage.get("params", {}).get(IN_REPOSITORY.params_file.as_posix(), {})
    given = flat(params)
    if any(given.get(name, ...) != value for name, value in flat(used).items()):
        return False
    for dep in stage.get("deps", []):
        maker = next((makers[p] for p in _and_parents(dep["path"]) if p in makers), None)
        if maker is None:
            continue
        made = next((out for out in maker["outs"] if out["path"] == dep["path"]), dep)
        if made.get("md5") != dep.get("md5") or not _follows(maker, makers, params):
            return False
    return True


def _and_parents(path: str) -> list[str]:
    return [path, *(folder.as_posix() for folder in Path(path).parents)]
