"""The table of a study, from DVC's own records of experiments."""

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
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from pipeline.errors import ProtoMaskError
from pipeline.files import whole_file
from pipeline.study.commands import queue_command
from pipeline.study.rendering import html, latex, markdown
from pipeline.study.runs import Params, Run, flat
from pipeline.study.table import tables
from stages import workspace

FORMATS = {"markdown": markdown, "latex": latex, "html": html}
IMAGES = (workspace.EVALUATE / "images.parquet").as_posix()
SECTIONS = {"seed", "dataset", "segmenter", "model"}


def run(form: str, out: Path | None, metrics: Sequence[str], revs: Sequence[str]) -> None:
    """Prints the table, or writes it to a file."""
    if out and out.is_dir():
        raise ProtoMaskError(f"{out} is a folder; --out names the file to write")
    try:
        with Repo() as repo:
            presets, groups = _presets(repo)
            found = tables(
                read_runs(repo, revs),
                metrics,
                lambda params: queue_command(params, presets, groups),
            )
    except DvcException as error:
        raise ProtoMaskError(f"DVC cannot say which experiments there are: {error}") from None
    text = FORMATS[form](found)
    if out is None:
        print(text, end="")
        return
    with whole_file(out) as part:
        part.write_text(text, encoding="utf-8")
    print(f"wrote {out}")


def read_runs(repo: Repo, revs: Sequence[str] = ()) -> Iterator[Run]:
    """Reads what `dvc exp show` shows: commits, experiments, and what is queued or has failed.

    Args:
        repo: the repository.
        revs: commits, branches or experiments; none: HEAD and all commits that have experiments.
    """
    states = repo.experiments.show(revs=list(revs) or _baselines(repo), hide_workspace=True)
    for state in states:
        yield from _read(repo, state, "commit")
        for experiment in state.experiments or []:
            executor = experiment.executor
            yield from _read(repo, experiment.revs[0], executor.state if executor else "success")


def _baselines(repo: Repo) -> list[str]:
    queue = repo.experiments.celery_queue
    tasks = [*queue.iter_queued(), *queue.iter_active(), *(of.entry for of in queue.iter_failed())]
    known = repo.experiments.ls(all_commits=True)
    return list(dict.fromkeys(["HEAD", *known, *(task.baseline_rev for task in tasks)]))


def _read(repo: Repo, state: Any, kind: str) -> Iterator[Run]:
    """Reads one entry of `dvc exp show`; a commit without a finished run is none.

    Args:
        repo: the repository.
        state: DVC's ExpState.
        kind: `commit`, or what DVC's queue says of an experiment.
    """
    name = state.name or state.rev[:7]
    params = _content(state, "params", workspace.PARAMS)
    if params is None or not params.keys() >= SECTIONS:
        if kind != "commit":
            print(f"{name} is left out: its params.yaml is none of this version", file=sys.stderr)
        return
    if kind in ("queued", "running", "failed"):
        yield Run(name, params, kind)  # type: ignore[arg-type]
        return
    measured = _content(state, "metrics", workspace.METRICS)
    finished = measured is not None and _up_to_date(
        DVCFileSystem(repo.root_dir, rev=state.rev), params
    )
    if measured is not None and finished:
        metrics = {group: of for group, of in measured.items() if group != "intervals"}
        made = state.data.timestamp.timestamp()
        yield Run(name, params, "finished", metrics, _images(repo.root_dir, state.rev), made)
    elif kind != "commit":
        yield Run(name, params, "unfinished")


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


def _up_to_date(files: DVCFileSystem, params: Params) -> bool:
    """Whether metrics.json follows from these parameters.

    It is left as it was by `dvc exp run train`, and in a commit of changed parameters.
    """
    try:
        stages = load_yaml("dvc.lock", fs=files)["stages"]
    except FileNotFoundError:
        return False
    makers = {out["path"]: stage for stage in stages.values() for out in stage.get("outs", [])}
    maker = makers.get(workspace.METRICS.as_posix())
    return maker is not None and _follows(maker, makers, params)


def _follows(stage: dict, makers: Mapping[str, dict], params: Params) -> bool:
    """Whether dvc.lock has the stage with these parameters, and with what it was made from."""
    used = stage.get("params", {}).get(workspace.PARAMS.as_posix(), {})
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


def _presets(repo: Repo) -> tuple[Callable[[list[str]], Params], dict[str, list[str]]]:
    """Returns what DVC makes params.yaml from: a function of overrides, and groups of presets."""
    hydra = repo.config.get("hydra", {})
    if not hydra.get("enabled"):
        params = load_yaml(Path(repo.root_dir) / workspace.PARAMS)
        return lambda _: params, {}
    folder = Path(repo.root_dir) / hydra.get("config_dir", "conf")
    name = hydra.get("config_name", "config")

    @cache
    def composed(overrides: tuple[str, ...]) -> Any:
        with initialize_config_dir(str(folder), version_base=None):
            config = compose(name, list(overrides))
        return OmegaConf.to_container(config, resolve=True)

    groups = load_yaml(folder / f"{name}.yaml").get("defaults", [])
    named = [group for entry in groups if isinstance(entry, dict) for group in entry]
    return lambda overrides: composed(tuple(overrides)), {
        group: sorted(preset.stem for preset in (folder / group).glob("*.yaml")) for group in named
    }
