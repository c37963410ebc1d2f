"""The command line, `protomask`: every stage of dvc.yaml, and commands for people."""

import errno
import sys
from concurrent.futures.process import BrokenProcessPool
from enum import StrEnum
from pathlib import Path
from typing import Annotated, NoReturn

import typer
from rich.console import Console

from pipeline.errors import ProtoMaskError
from stages import launch

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
study_app = typer.Typer(
    help="Many experiments: their table, two of them side by side, a search for parameters.",
    no_args_is_help=True,
    rich_markup_mode="markdown",
)
STAGES, PEOPLE = "Stages, in the order in which data flows", "For people"

Store = Annotated[
    Path, typer.Argument(help="The mask store's folder.", show_default="artifacts/masks.zarr")
]


@app.command(rich_help_panel=STAGES)
def scan() -> None:
    """Look through `dataset.root` for photographs added, removed or changed.

    Reads the folder; writes artifacts/listing.json. Only a data set in a folder has this stage. It
    takes part in every `dvc repro`, and reads again only files whose size or time has changed.
    """
    from stages import scan

    scan.run()


@app.command(rich_help_panel=STAGES)
def prepare() -> None:
    """Make the index of images: class, split, object box, object mask, parts.

    Reads the photographs (for `demo`, draws them); writes artifacts/index/, with
    unreadable.csv beside the index for images that had to be left out.
    """
    from stages import prepare

    prepare.run()


@masks_app.callback()
def masks(context: typer.Context) -> None:
    """Segment every image, or look at the masks there are.

    Without a further command this is the stage: it reads artifacts/index/photographs.parquet and
    the photographs, and writes artifacts/masks.zarr. Images that this machine has segmented before
    with the same segmenter are not segmented again.
    """
    if context.invoked_subcommand is None:
        from stages import masks

        masks.run()


@masks_app.command()
def info(store: Store = Path("artifacts/masks.zarr")) -> None:
    """Say what made a mask store, and how many masks of which sizes are in it."""
    from stages import inspect_masks

    inspect_masks.info(store)


@masks_app.command()
def show(
    image: Annotated[str, typer.Argument(help="An image's id or path, as in the index.")],
    store: Store = Path("artifacts/masks.zarr"),
    out: Annotated[
        Path | None, typer.Option(help="The picture to write.", show_default="IMAGE.masks.png")
    ] = None,
) -> None:
    """List the masks of one image, and draw them over it."""
    from stages import inspect_masks

    inspect_masks.show(image, store, out)


@masks_app.command()
def verify(store: Store = Path("artifacts/masks.zarr")) -> None:
    """Compare every byte of a mask store with the hashes written with it.

    In the workspace that the store is of, also the photographs with those that were segmented.
    """
    from stages import inspect_masks

    inspect_masks.verify(store)


@masks_app.command()
def export(
    coco: Annotated[Path, typer.Option(help="The COCO JSON file to write.", show_default=False)],
    store: Store = Path("artifacts/masks.zarr"),
) -> None:
    """Write a mask store as COCO JSON, which pycocotools reads and the segmenter `import` too."""
    from stages import export_masks

    export_masks.run(store, coco)


@masks_app.command("hash")
def hash_masks(
    masks: Annotated[Path, typer.Argument(help="A COCO JSON file, or a folder of PNG files.")],
) -> None:
    """Print the hash of masks to import, which `segmenter.sha256` wants."""
    from pipeline.masks.imported import content_hash

    print(content_hash(masks))


app.add_typer(masks_app, name="masks", rich_help_panel=STAGES)


@app.command(rich_help_panel=STAGES)
def crops() -> None:
    """Cut the crops of every image's largest masks.

    Reads artifacts/masks.zarr and the photographs; writes artifacts/crops.zarr.
    """
    from stages import crops

    crops.run()


@app.command(rich_help_panel=STAGES)
def train() -> None:
    """Train the network: warm-up and joint epochs, resumed where a killed run stopped.

    Reads artifacts/crops.zarr and the index; writes artifacts/train/ (the epoch that did best on
    the validation split, and DVCLive's curves).
    """
    from stages import train

    train.run()


@app.command(rich_help_panel=STAGES)
def push() -> None:
    """Replace every prototype by the nearest training crop of its class.

    Reads artifacts/train/ and artifacts/crops.zarr; writes artifacts/push/ (the model,
    prototypes.csv with the origin of each, and all training images' distances).
    """
    from stages import push

    push.run()


@app.command(rich_help_panel=STAGES)
def finetune() -> None:
    """Prune prototypes if `prune.enabled`, and fine-tune the last layer.

    Reads artifacts/push/; writes artifacts/finetune/, the finished model.
    """
    from stages import finetune

    finetune.run()


@app.command(rich_help_panel=STAGES)
def evaluate() -> None:
    """Measure the model on the test split.

    Reads artifacts/finetune/ and the stores; writes metrics.json and artifacts/evaluate/ (what the
    model says of every test image, and the confusion matrix).
    """
    from stages import evaluate

    evaluate.run()


@app.command(rich_help_panel=STAGES)
def explain(
    photograph: Annotated[
        Path | None, typer.Argument(help="An image file of any kind.", show_default=False)
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="The page to write about it.", show_default=False)
    ] = None,
) -> None:
    """Write the report on every prototype and what it decides, or a page about one photograph.

    Without a photograph this is the stage: it reads everything before it, and writes
    artifacts/report/: index.html, and a page for each class.

    With one, it is classified by the finished model, and the page `--out` says why: its class and
    the runner-up, its crops, the prototypes they look like, and by which of their pixels.
    """
    if photograph is None and out is None:
        from stages import explain

        explain.run()
    elif photograph is None or out is None:
        raise typer.BadParameter("a photograph and --out PAGE.html go together")
    else:
        from stages import predict

        predict.write_page(photograph, out)


@app.command(rich_help_panel=PEOPLE)
def predict(
    photographs: Annotated[list[Path], typer.Argument(help="Image files of any kind.")],
    out: Annotated[Path, typer.Option(help="A folder for the pictures.")] = Path("explanations"),
) -> None:
    """Classify photographs, and draw a picture of why.

    Uses the finished model in artifacts/finetune/, segments the photographs as its training images
    were, and writes a picture for each: its crops, the prototypes they look like, and the points
    that each gives to the class.
    """
    from stages import predict

    predict.run(photographs, out)


@study_app.command()
def tune(
    name: Annotated[str, typer.Option(help="What the search is called.", show_default=False)],
    trials: Annotated[int, typer.Option(help="How many trials there are to be.", min=1)] = 30,
    seed: Annotated[int, typer.Option(help="Of the choice of parameters.", min=0)] = 0,
    set_param: Annotated[
        list[str] | None,
        typer.Option("-S", "--set-param", help="As of `dvc exp run`, for every trial."),
    ] = None,
) -> None:
    """Search for learning rates, warm-up epochs and step size by the validation accuracy.

    Every trial is a DVC experiment, `tune-NAME-NUMBER`, that stops after `train`; one that learns
    less than the others is given up on the way. A parameter that `-S` sets is not searched. Stop it
    at any time: the same command goes on with what it has. At the end it says how to run the best
    parameters in full.
    """
    from stages import study_tune

    study_tune.run(name, trials, seed, set_param or [])


class TableFormat(StrEnum):
    """What a table is written in."""

    markdown = "markdown"
    latex = "latex"
    html = "html"


@study_app.command()
def table(
    form: Annotated[TableFormat, typer.Option("--format", help="What to write.")] = (
        TableFormat.markdown
    ),
    out: Annotated[
        Path | None, typer.Option(help="The file to write.", show_default="the terminal")
    ] = None,
    metrics: Annotated[
        list[str] | None,
        typer.Option(
            help="A metric, as in metrics.json: `iou_prp`, `contrastivity.vlc`. Once for each.",
            show_default="a dozen",
        ),
    ] = None,
    rev: Annotated[
        list[str] | None,
        typer.Option(
            help="Only this experiment, or this commit and its experiments. Once for each.",
            show_default="all",
        ),
    ] = None,
) -> None:
    """Print the table of all experiments: mean ± standard deviation over folds and seeds.

    Reads what DVC knows of experiments and of its queue. Experiments that differ in `seed` and
    `dataset.fold` alone are one row. The best of a column is bold; † marks what a paired bootstrap
    over the test images cannot tell from it. Runs that are missing are named, with the command
    that queues them.
    """
    from stages import study_table

    study_table.run(form.value, out, metrics or [], rev or [])


@study_app.command()
def check(
    rev: Annotated[
        list[str] | None,
        typer.Option(
            help="Only this experiment, or this commit and its experiments. Once for each.",
            show_default="all",
        ),
    ] = None,
) -> None:
    """Say of every run whether its outputs were made with the parameters that it is listed with.

    Reads DVC's records of experiments, and from its cache or a remote what masks, crops, models and
    metrics say of themselves. Runs that contradict their parameters are named, and the exit status
    is then 1.
    """
    from stages import study_check

    study_check.run(rev or [])


@study_app.command()
def compare(
    run_a: Annotated[
        str, typer.Argument(metavar="RUN", help="An experiment, commit, branch or `workspace`.")
    ],
    run_b: Annotated[str, typer.Argument(metavar="RUN", help="Another.")],
    out: Annotated[Path, typer.Option(help="The page to write.", show_default=False)],
) -> None:
    """Write a page that compares two runs image by image: who is right, and why.

    Reads what both runs have made from DVC's cache; they must be of the same data set. Says whether
    the difference may be chance, and draws the images that one or both named wrong, with what each
    model saw in them.
    """
    from stages import study_compare

    study_compare.run((run_a, run_b), out)


app.add_typer(study_app, name="study", rich_help_panel=PEOPLE)


def main() -> None:
    """The installed command `protomask`: runs the code of the repository that it is called in."""
    launch.run_code_of_this_folder()
    run_command_line()


def run_command_line() -> None:
    """Runs the command line; what its user can put right is said without a stack trace."""
    try:
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
        _fail(f"{error.strerror}: {error.filename or Path.cwd()}. {hint}")


_HINTS = {
    errno.ENOSPC: "Make room on that disk and run the same command again; finished work is kept.",
    errno.EDQUOT: "Make room in your quota and run the same command again; finished work is kept.",
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
