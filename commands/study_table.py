"""The table of a study, from DVC's own records of experiments."""

from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from dvc.exceptions import DvcException
from dvc.repo import Repo
from dvc.utils.serialize import load_yaml
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from commands.experiments import IN_REPOSITORY, read_runs, said_by_dvc
from pipeline.errors import ProtoMaskError
from pipeline.files import atomic_file
from pipeline.parameters import Params
from pipeline.study.commands import overrides_of
from pipeline.study.rendering import html, latex, markdown
from pipeline.study.table import tables

FORMATS = {"markdown": markdown, "latex": latex, "html": html}


def run(form: str, out: Path | None, metrics: Sequence[str], revs: Sequence[str]) -> None:
    """Prints the table, or writes it to a file."""
    if out and out.is_dir():
        raise ProtoMaskError(f"{out} is a folder; --out names the file to write")
    try:
        with Repo() as repo:
            compose_presets, groups = presets(repo)
            found = tables(
                read_runs(repo, revs),
                metrics,
                lambda params: overrides_of(params, compose_presets, groups),
            )
    except DvcException as error:
        said = said_by_dvc(error)
        raise ProtoMaskError(f"DVC cannot say which experiments there are: {said}") from None
    text = FORMATS[form](found)
    if out is None:
        print(text, end="")
        return
    with atomic_file(out) as part:
        part.write_text(text, encoding="utf-8")
    print(f"wrote {out}")


def presets(repo: Repo) -> tuple[Callable[[list[str]], Params], dict[str, list[str]]]:
    """Returns what DVC makes params.yaml from: a function of overrides, and groups of presets."""
    hydra = repo.config.get("hydra", {})
    if not hydra.get("enabled"):
        params = load_yaml(Path(repo.root_dir) / IN_REPOSITORY.params_file)
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
        group: sorted(preset.stem for preset in (folder / group).glob("[!_]*.yaml"))
        for group in named
    }
