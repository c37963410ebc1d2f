"""The command line, `protomask`: the stages of dvc.yaml, and commands for people."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from stages import launch
from stages.app import STAGES, app, here, masks_app, run

study_app = typer.Typer(
    help="Many experiments: their table, two of them side by side, a search for parameters.",
    no_args_is_help=True,
    rich_markup_mode="markdown",
)
PEOPLE = "For people"


def _print_version(asked: bool) -> None:
    if asked:
        from pipeline import __version__

        print(f"protomask {__version__}")
        raise typer.Exit


@app.callback()
def protomask(
    version: Annotated[
        bool,
        typer.Option(
            "--version", help="Print the version and exit.", callback=_print_version, is_eager=True
        ),
    ] = False,
) -> None:
    """Segmentation-guided prototype learning, stage by stage.

    `dvc repro` runs the stages in order and skips what is up to date; each can also be run by hand,
    in the folder of dvc.yaml, and then reads params.yaml and what the stage before it wrote.
    """


Store = Annotated[
    Path, typer.Argument(help="The mask store's folder.", show_default="artifacts/masks.zarr")
]

Model = Annotated[
    Path,
    typer.Option(
        help="A folder that `protomask export` wrote, or that of an experiment.",
        show_default="this folder",
    ),
]


@masks_app.command()
def info(store: Store = Path("artifacts/masks.zarr")) -> None:
    """Say what made a mask store, and how many masks of which sizes are in it."""
    from commands import inspect_masks

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
    from commands import inspect_masks

    inspect_masks.show(here(), image, store, out)


@masks_app.command()
def codebook(
    out: Annotated[Path, typer.Argument(help="The file to write.")],
    store: Store = Path("artifacts/masks.zarr"),
) -> None:
    """Keep the codebook that the masks were found with, and say how to pin it."""
    from commands import inspect_masks

    inspect_masks.codebook(out, store)


@masks_app.command()
def verify(store: Store = Path("artifacts/masks.zarr")) -> None:
    """Compare every byte of a mask store with the hashes written with it.

    In the workspace that the store is of, also the photographs with those that were segmented.
    """
    from commands import inspect_masks

    inspect_masks.verify(here(), store)


@masks_app.command()
def export(
    coco: Annotated[Path, typer.Option(help="The COCO JSON file to write.", show_default=False)],
    store: Store = Path("artifacts/masks.zarr"),
) -> None:
    """Write a mask store as COCO JSON, which pycocotools reads and the segmenter `import` too."""
    from commands import export_masks

    export_masks.run(here(), store, coco)


@masks_app.command("hash")
def hash_masks(
    masks: Annotated[
        Path, typer.Argument(help="A COCO JSON file, or what else docs/import.md lists.")
    ],
) -> None:
    """Print the hash of masks to import, which `segmenter.sha256` wants."""
    from pipeline.masks.segmenters.imported import content_hash

    print(content_hash(masks))


@app.command(rich_help_panel=STAGES)
def explain(
    photograph: Annotated[
        Path | None,
        typer.Argument(
            help="An image file of any kind, or an id in the index.", show_default=False
        ),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="The page to write about it.", show_default=False)
    ] = None,
    model: Model = Path(),
) -> None:
    """Write the report on every prototype and what it decides, or a page about one photograph.

    Without a photograph this is the stage: it reads everything before it, and writes
    artifacts/report/: index.html, a page for each class, a table of all test images with pages on
    each, and one of the parts that masks show.

    With one, it is classified by the finished model, and the page `--out` says why: its class and
    the runner-up, its crops, the prototypes they look like, and by which of their pixels.
    """
    if photograph is None and out is None:
        from stages import explain

        explain.run(here())
    elif photograph is None or out is None:
        raise typer.BadParameter("a photograph and --out PAGE.html go together")
    else:
        from commands import indexed, predict

        predict.write_page(model, indexed.file_of(here(), photograph), out)


@app.command(rich_help_panel=PEOPLE)
def predict(
    photographs: Annotated[
        list[Path], typer.Argument(help="Image files of any kind, folders of them, or patterns.")
    ],
    out: Annotated[
        Path | None, typer.Option(help="A folder for pictures of why.", show_default=False)
    ] = None,
    json: Annotated[
        Path | None,
        typer.Option(help="A file for all that is said; `-` prints it.", show_default=False),
    ] = None,
    csv: Annotated[
        Path | None,
        typer.Option(help="A file with a row for each; `-` prints it.", show_default=False),
    ] = None,
    parquet: Annotated[Path | None, typer.Option(help="The same rows.", show_default=False)] = None,
    model: Model = Path(),
) -> None:
    """Classify photographs, and say why.

    Uses the finished model of the experiment in this folder, or `--model`, and segments the
    photographs as its training images were. `--out` draws a picture of each: its regions, the
    prototypes they look like, and the points that each gives to the class. What in a folder cannot
    be read is named and counted, and the others are done.
    """
    from commands import predict
    from commands.answer_tables import Tables

    predict.run(model, photographs, out, Tables(json, csv, parquet))


@app.command("export", rich_help_panel=PEOPLE)
def export_model(out: Annotated[Path, typer.Argument(help="The folder to write.")]) -> None:
    """Write the finished model as one folder that travels.

    It has the weights, the prototypes' pictures, all settings, what the segmenter has learned, the
    metrics and a model card. `predict --model` and `from protomask import load` open it on machines
    without the data set, this repository or DVC. The layout is that of the Hugging Face hub.
    """
    from protomask import export

    export.export_model(here(), out)
    print(f"wrote {out}; its model card is {out / 'README.md'}")


@app.command(rich_help_panel=PEOPLE)
def params(
    markdown: Annotated[
        bool,
        typer.Option("--markdown", help="Of all segmenters and models, as docs/parameters.md."),
    ] = False,
) -> None:
    """List every parameter: value, default, range, the stages that depend on it, and its meaning.

    Of the parameters in params.yaml; a default is what the presets of its data set, segmenter and
    model give.
    """
    from commands import list_params

    if markdown:
        list_params.write_markdown()
    else:
        list_params.show(here())


@app.command("app", rich_help_panel=PEOPLE)
def serve(
    model: Model = Path(),
    port: Annotated[
        int, typer.Option(help="Of the page, on this machine.", min=1, max=65535)
    ] = 7860,
) -> None:
    """Open a page for photographs, masks and names of parts.

    Drop a photograph and see its regions, what decides between the first two classes, and the
    prototypes. In an experiment's folder also: the masks of the data set, and names for its parts,
    which are written into parts.yaml. Needs the extra `app`.
    """
    from commands import page

    page.run(model, port)


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
    from commands import study_tune

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
    from commands import study_table

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
    from commands import study_check

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
    from commands import study_compare

    study_compare.run((run_a, run_b), out)


app.add_typer(study_app, name="study", rich_help_panel=PEOPLE)


def main() -> None:
    """The installed command `protomask`: runs the code of the repository that it is called in."""
    launch.run_code_of_this_folder()
    launch.settle_surroundings()
    run(app)
