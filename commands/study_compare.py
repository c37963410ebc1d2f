"""Two runs that DVC knows → a page that compares them image by image."""

import contextlib
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
from dvc.api import DVCFileSystem
from dvc.exceptions import DvcException
from dvc.repo import Repo
from dvc.scm import RevError
from dvc.utils.serialize import load_yaml
from dvc_data.index import DataIndexDirError

from commands.experiments import IN_REPOSITORY, said_by_dvc, up_to_date
from pipeline.errors import ProtoMaskError, rerun
from pipeline.files import atomic_file
from pipeline.report.heatmaps import relevance_of
from pipeline.report.image_renderer import ImageRenderer
from pipeline.report.parts import Parts
from pipeline.report.score_lines import Explainer
from pipeline.saliency.maps import SimilarPlaces
from pipeline.study.comparison_page import (
    Compared,
    Tested,
    compare,
    draw_images,
    verdicts,
    write_comparison,
)
from pipeline.study.runs import Run
from pipeline.training.fabric import device_of
from pipeline.training.settings import Runtime
from protomask.named_parts import named_parts
from stages.finished import Finished
from stages.workspace import Workspace

HERE = "workspace"
NEEDED = (
    IN_REPOSITORY.index_folder,
    IN_REPOSITORY.masks,
    IN_REPOSITORY.crops,
    IN_REPOSITORY.finetune,
    IN_REPOSITORY.evaluate,
)


def run(revs: tuple[str, str], out: Path) -> None:
    """Writes the page about two revisions, each an experiment, commit, branch or `workspace`."""
    if out.is_dir():
        raise ProtoMaskError(f"{out} is a folder; --out names the page to write")
    runtime = Workspace().read_params().runtime
    with contextlib.ExitStack() as stack:
        workspaces = [stack.enter_context(_outputs(rev)) for rev in revs]
        a, b = (_tested(*of, runtime) for of in zip(revs, workspaces, strict=True))
        compared = compare(a, b)
        _draw(out, a, b, compared)
    counts = compared.outcome
    print(
        f"{out}: {out.stat().st_size / 1e6:.1f} MB; of {counts.images} images {counts.both} right "
        f"in both runs, {counts.only_a} in {revs[0]} only, {counts.only_b} in {revs[1]} only"
    )


def _draw(out: Path, a: Tested, b: Tested, compared: Compared) -> None:
    """Draws what each run says, and writes the page."""
    places_a, places_b = (of[compared.shown].tolist() for of in compared.pairs[:2])
    drawn, said = draw_images(a, places_a), (verdicts(a, places_a), verdicts(b, places_b))
    with atomic_file(out) as part:
        write_comparison(part, a, b, compared, drawn, said)


def _tested(rev: str, workspace: Workspace, runtime: Runtime) -> Tested:
    """Opens a run's outputs, on this machine's device.

    Raises:
        ProtoMaskError: something is missing, damaged or of another version.
    """
    with _named(rev, workspace):
        params, finished = workspace.read_params(), Finished.read(workspace)
        index, crops, prototypes = finished.index, finished.crops, finished.prototypes()
        outputs = finished.outputs()
        outputs.refuse_unless(prototypes)
        finished.refuse_unless_evaluated_with(params)
        network = finished.network.to(device_of(runtime))
        places = SimilarPlaces(network) if network.in_cells else None
        relevance, only_mask = relevance_of(network), params.explain.only_mask
        return Tested(
            Run(rev, params.model_dump(mode="json")),
            index,
            outputs,
            _read_measured(workspace.evaluate / "images.parquet"),
            Explainer(
                prototypes,
                relevance,
                crops,
                index.ids,
                only_mask,
                places,
                parts=_parts(finished),
            ),
            ImageRenderer(
                index, workspace.images_root(params), finished.masks(), crops, prototypes.views
            ),
        )


def _parts(finished: Finished) -> Parts:
    parts, remark = named_parts(finished)
    if remark:
        print(f"Warning: {remark}", file=sys.stderr)
    return parts


def _read_measured(path: Path) -> pd.DataFrame:
    try:
        return pd.read_parquet(path, partitioning=None)
    except (OSError, ValueError) as error:
        raise ProtoMaskError(f"{path} cannot be read ({error}): {rerun('evaluate')}") from None


@contextlib.contextmanager
def _named(rev: str, workspace: Workspace) -> Iterator[None]:
    """Says in errors which run they are about, with paths as that run has them."""
    try:
        yield
    except ProtoMaskError as error:
        elsewhere = (
            f" (that run is not checked out: first `dvc exp apply {rev}`, then compare `{HERE}`)"
        )
        said = str(error).replace(f"{workspace.root}/", "")
        raise ProtoMaskError(f"{rev}: {said}{'' if rev == HERE else elsewhere}") from None


@contextlib.contextmanager
def _outputs(rev: str) -> Iterator[Workspace]:
    """Yields a workspace with a revision's parameters and outputs; it is gone after the block.

    The outputs are links to the files in DVC's cache. The folder lies where DVC's own copies of the
    repository do, so that `Workspace.origin` finds the repository from it; its dvc.yaml is empty
    and says that parameters may be read here.

    Raises:
        ProtoMaskError: there is no such revision, or it was not evaluated, or outputs are missing.
    """
    if rev == HERE:
        _warn_of_changed_parameters()
        yield Workspace()
        return
    try:
        with Repo() as repo:
            copies = Path(repo.root_dir) / ".dvc" / "tmp" / "exps"
            copies.mkdir(parents=True, exist_ok=True)
            files = DVCFileSystem(repo.root_dir, rev=rev)
            params = _params(files, rev)
            cached = _cached(repo, files, rev)
    except RevError:
        raise ProtoMaskError(
            f"there is no run {rev!r}: `dvc exp show` lists the experiments, and `workspace` is "
            "what lies here"
        ) from None
    except DvcException as error:
        said = said_by_dvc(error)
        raise ProtoMaskError(f"DVC cannot say what {rev!r} has made: {said}") from None
    with tempfile.TemporaryDirectory(prefix="compare-", dir=copies) as name:
        folder = Path(name)
        (folder / IN_REPOSITORY.params_file).write_bytes(params)
        (folder / "dvc.yaml").touch()
        for path, target in cached.items():
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / path).symlink_to(target)
        yield Workspace(folder)


def _warn_of_changed_parameters() -> None:
    params_file, metrics = IN_REPOSITORY.params_file, IN_REPOSITORY.metrics
    if Path("dvc.lock").exists() and not up_to_date(DVCFileSystem(), load_yaml(params_file)):
        print(
            f"{params_file} or an output has changed since {metrics} was made: the page may name "
            "parameters that the workspace's run did not have; see `dvc status`",
            file=sys.stderr,
        )


def _params(files: DVCFileSystem, rev: str) -> bytes:
    """Returns a revision's parameters.

    Raises:
        ProtoMaskError: it has none, or no metrics that follow from them.
    """
    try:
        params = load_yaml(IN_REPOSITORY.params_file.as_posix(), fs=files)
    except FileNotFoundError:
        raise ProtoMaskError(f"{rev} has no {IN_REPOSITORY.params_file}: it is no run") from None
    if not up_to_date(files, params):
        raise ProtoMaskError(
            f"{rev} was not evaluated with its parameters: check it out (`dvc exp apply {rev}`) "
            "and run it to the end (`dvc exp run`)"
        )
    content: bytes = files.cat(IN_REPOSITORY.params_file.as_posix())
    return content


def _cached(repo: Repo, files: DVCFileSystem, rev: str) -> dict[str, Path]:
    """Returns where DVC's cache has a revision's outputs: path → file.

    Raises:
        ProtoMaskError: some are not there.
    """
    cached: dict[str, Path] = {}
    missing = []
    for output in NEEDED:
        paths = {
            path: Path(repo.cache.local.oid_to_path(digest))
            for path, digest in _digests(files, output).items()
        }
        if not paths or not all(path.is_file() for path in paths.values()):
            missing.append(str(output))
        cached |= paths
    if missing:
        raise ProtoMaskError(
            f"{', '.join(missing)} of {rev} {'are' if len(missing) > 1 else 'is'} not in DVC's "
            f"cache: check it out (`dvc exp apply {rev}`) and run `dvc pull`, or where no remote "
            "has it, `dvc exp run`"
        )
    return cached


def _digests(files: DVCFileSystem, output: Path) -> dict[str, str]:
    """Returns the files of an output and what DVC calls them; none if it has lost their list.

    An experiment's commit has `metrics.json` itself, too: such a file is described by Git first.
    """
    try:
        found = files.find(output.as_posix(), detail=True)
    except DataIndexDirError:
        return {}
    return {path: about["dvc_info"]["md5"] for path, about in found.items()}
