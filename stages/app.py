"""The stages of dvc.yaml as commands, `python3 -m stages STAGE`."""

import errno
import io
import sys
from concurrent.futures.process import BrokenProcessPool
from typing import TYPE_CHECKING, NoReturn

import typer
from rich.console import Console

from pipeline.errors import ProtoMaskError
from stages.interrupts import interrupts_answered

if TYPE_CHECKING:
    from stages.workspace import Workspace

app = typer.Typer(
    help="""Segmentation-guided prototype learning, stage by stage.

    `dvc repro` runs the stages in order and skips what is up to date; each can also be run by hand,
    in the folder of dvc.yaml, and then reads params.yaml and what the stage before it wrote.
    """,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
)
masks_app = typer.Typer(invoke_without_command=True, rich_markup_mode="markdown")
STAGES = "Stages, in the order in which data flows"


def here() -> "Workspace":
    """Returns the current folder; what computes is imported late, so that help is quick."""
    from stages.workspace import Workspace

    return Workspace()


def checked() -> "Workspace":
    """Returns the current folder, after its settings have been judged as far as they can be without
    data; see `stages.checks`."""
    from stages.checks import refuse_unusable_backbone

    workspace = here()
    refuse_unusable_backbone(workspace)
    return workspace


@app.command(rich_help_panel=STAGES)
def scan() -> None:
    """Look through `dataset.root` for photographs added, removed or changed.

    Reads the folder; writes artifacts/listing.json. Only a data set in a folder has this stage. It
    takes part in every `dvc repro`, and reads again only files whose size or time has changed. Says
    what it passes over.
    """
    from stages import scan

    scan.run(checked())


@app.command(rich_help_panel=STAGES)
def prepare() -> None:
    """Make the index of images: class, split, object box, object mask, parts.

    Reads the photographs (for `demo`, draws them); writes artifacts/index/. Beside the index,
    unreadable.csv names images that had to be left out, and remarks.csv files that were passed over
    or not used as they are.
    """
    from stages import prepare

    prepare.run(checked())


@masks_app.callback()
def masks(context: typer.Context) -> None:
    """Segment every image, or look at the masks there are.

    Without a further command this is the stage: it reads artifacts/index/photographs.parquet and
    the photographs, and writes artifacts/masks.zarr. Images that this machine has segmented before
    with the same segmenter are not segmented again.
    """
    if context.invoked_subcommand is None:
        from stages import masks

        masks.run(checked())


app.add_typer(masks_app, name="masks", rich_help_panel=STAGES)


@app.command(rich_help_panel=STAGES)
def crops() -> None:
    """Cut the crops of every image, along the masks that crops.choose takes.

    Reads artifacts/masks.zarr and the photographs; writes artifacts/crops.zarr.
    """
    from stages import crops

    crops.run(checked())


@app.command(rich_help_panel=STAGES)
def train() -> None:
    """Train the network: warm-up and joint epochs, resumed where a killed run stopped.

    Reads artifacts/crops.zarr and the index; writes artifacts/train/ (the epoch that did best on
    the validation split, and DVCLive's curves).
    """
    from stages import train

    train.run(here())


@app.command(rich_help_panel=STAGES)
def push() -> None:
    """Replace every prototype by the nearest training crop of its class.

    Reads artifacts/train/ and artifacts/crops.zarr; writes artifacts/push/ (the model,
    prototypes.csv with the origin of each, and its similarity to all training and validation
    images).
    """
    from stages import push

    push.run(here())


@app.command(rich_help_panel=STAGES)
def finetune() -> None:
    """Merge alike prototypes if `finetune.merge`, fine-tune the last layer, and prune if asked to.

    Reads artifacts/push/; writes artifacts/finetune/, the finished model.
    """
    from stages import finetune

    finetune.run(here())


@app.command(rich_help_panel=STAGES)
def evaluate() -> None:
    """Measure the model on the test split.

    Reads artifacts/finetune/ and the stores; writes artifacts/evaluate/: metrics.json, and
    what the model says of every test image.
    """
    from stages import evaluate

    evaluate.run(here())


@app.command(rich_help_panel=STAGES)
def explain() -> None:
    """Write the report on every prototype and what it decides.

    Reads everything before it, and parts.yaml; writes artifacts/report/: index.html, a page for
    each class, and one of the parts that masks show.
    """
    from stages import explain

    explain.run(here())


def run(app: typer.Typer) -> None:
    """Runs a command line; what its user can put right is said without a stack trace.

    What the encoding of the output lacks is printed by its number, as in `\\u2192`.
    """
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        with interrupts_answered():
            app(prog_name="protomask")
    except ProtoMaskError as error:
        _fail(str(error))
    except BrokenProcessPool:
        _fail(
            "a worker process was killed, most often because memory ran out; what was finished is "
            "kept: lower runtime.workers and run the same command again"
        )
    except MemoryError:
        _fail("out of memory; close other programs or lower runtime.workers")
    except OSError as error:
        hint = _HINTS.get(error.errno or 0)
        if hint is None:
            raise
        where = f": {error.filename}" if error.filename else ""
        _fail(f"{error.strerror}{where}. {hint}")


_HINTS = {
    errno.ENOSPC: "Make room on that disk and run the same command again; stages go on.",
    errno.EDQUOT: "Make room in your quota and run the same command again; stages go on.",
    errno.EACCES: "Give yourself permission for that folder (`ls -ld` shows whose it is).",
    errno.EPERM: "Give yourself permission for that folder (`ls -ld` shows whose it is).",
    errno.EIO: "The disk reports an error; look at its health before running again.",
    errno.ESTALE: "The file server has lost the file; mount it again and rerun the command.",
    errno.EROFS: "That disk is mounted read-only; use a copy of the repository on another.",
}


def _fail(message: str) -> NoReturn:
    Console(stderr=True, soft_wrap=True).print("[bold red]Error:[/]", end=" ")
    print(message, file=sys.stderr)
    raise SystemExit(1)
