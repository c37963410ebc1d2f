"""Every command that README and the pages print is run as printed, or held against what it calls.

What takes minutes at its printed size, or needs photographs, a GPU, other machines or the network,
is not run: its program and sub-command exist, with all options that are given, parameters are those
that presets compose and stages accept, and targets are stages.
"""

import re
import shlex
import shutil
from pathlib import Path

import pytest
from clones import STAGES, Clone, ran
from PIL import Image
from printed import Command, added_options, called, printed
from printed_checks import check_call, check_overrides, overrides_of

SHOW = {
    "dvc exp show --drop '.*' --keep 'Experiment|general.accuracy$|complexity.background|"
    "compactness.sparsity|compactness.local|finetune.reach'": "general.accuracy "
    "compactness.sparsity compactness.local_size complexity.background_overlap finetune.reach",
    "dvc exp show --drop '.*' --keep 'Experiment|dataset.name|segmenter.name|model.name|seed|"
    "general.accuracy$|complexity.background|compactness.sparsity'": "general.accuracy "
    "compactness.sparsity complexity.background_overlap seed "
    "dataset.name segmenter.name model.name",
}
"""What shows runs, and the columns that are meant."""

RUN = [
    "dvc repro",
    "git add params.yaml dvc.lock",
    "git commit -m 'The demo as it is'",
    "dvc exp run -S finetune.reach=0.1",
    "dvc metrics diff",
    "dvc exp show",
    *SHOW,
    "dvc exp show --only-changed --drop '.*' --keep 'Experiment|train\\.|general.accuracy$'",
    "dvc plots show",
    "dvc repro --force --single-item push",
    "dvc completion -s bash",
    "protomask --version",
    "protomask params",
    "protomask masks --help",
    "protomask masks info",
    "protomask masks show crested-barwing/001",
    "protomask masks verify",
    "protomask masks export --coco masks.json",
    "protomask masks hash masks.json",
    "protomask predict some.jpg photos/",
    "protomask predict photos/ --out pictures --csv answers.csv",
    "protomask predict photos/ some.jpg 'more/**/*.png'",
    "protomask predict photos/ --json answers.json --csv answers.csv --parquet answers.parquet",
    "protomask predict photos/ --csv -",
    "protomask predict photos/ --out pictures",
    "protomask export birds",
    "protomask predict photos/ --model birds",
    "protomask explain some.jpg --out page.html",
    "protomask explain crested-barwing/041 --out why.html",
    "protomask study table",
    "protomask study table --format latex --out table.tex",
    "protomask study table --format html --out table.html",
    "protomask study table --metrics accuracy --metrics background_overlap "
    "--metrics contrastivity.vlc",
    "protomask study check",
]
"""Run as printed, in this order, in an experiment on three classes of `demo`."""

NOT_RUN = {
    r"dvc (--wait-for-lock )?exp run( .*)?": "trains at its printed size, mostly on photographs",
    r"dvc queue .*": "works on what such a command has queued",
    r"protomask study tune .*": "trains thirty times",
    r"python benchmarks/.*": "measures for minutes",
    r"(dvc|protomask) .*\b[A-Z]{3,}\b.*": "names what the reader has",
    r"protomask (predict|explain|evaluate|masks show|masks hash)": "no command, only its name",
    r"python3 -m stages": "no command, only its name",
    r"dvc repro (--pull.*|-f -s (evaluate|masks)|crops|--force .* masks)": "like those that are "
    "run, or by test_sharing.py",
    r"dvc (cache|checkout|commit|config|gc|pull|push|remote|unprotect)( .*)?": "by test_sharing.py "
    "and test_links.py, where there is what it works on",
    r"git .*": "by test_sharing.py, where there is a repository to talk to",
    r"protomask params --markdown": "by test_list_params.py",
    r"protomask masks codebook .*": "by test_inspect_masks.py, of a segmenter that learns",
    r"protomask app( .*)?": "serves until it is stopped: by test_page_browser.py",
    r"protomask --install-completion": "changes the reader's shell",
    r"make .*|pytest .*": "runs this test",
    r"(pip|apt-get) .*": "installs",
    r"(dask|python3 -m distributed\S*|torchrun|python slurm\.py|sbatch)( .*)?": "wants machines",
    r"(hf|curl|docker) .*": "wants the network",
    r"(chmod|rm|sha256sum|sleep) .*": "the system's",
}
"""Not run as printed, and why."""

IN_TEST_EXTENDING = ("segmenter=columns", "model=margin", "evaluate=certainty", "dataset=table")
"""Presets that the page tells to write."""
GO_WITH = {"runtime.weights=FILE": "segmenter=sam2", "runtime.devices=4": "experiment=joint"}
"""What a parameter that a text adds to a command is meant for."""

SMALL = """# @package _global_
defaults:
  - override /segmenter: felzenszwalb
  - override /training: frozen
segmenter: {scales: [800], max_side: 96}
crops: {side: 32, per_image: 3, choose: largest}
model: {backbone: test_resnet, pretrained: none, embedding_dim: 16, prototypes_per_class: 2}
train: {epochs: 3}
finetune: {epochs: 2}
explain: {images: 0}
"""
ONE_AFTER_THE_OTHER = """
import shlex, sys
from commands.app import app

for line in sys.argv[1:]:
    print("$", line, flush=True)
    assert not app(shlex.split(line)[1:], standalone_mode=False)
"""
"""Calls `protomask` with each line, and imports PyTorch once."""
THREE = "{name: CLASSES[name] for name in CLASS_NAMES}"
MADE = """answers.csv answers.json answers.parquet birds/README.md dvc_plots/index.html masks.json
page.html pictures/001.png table.html table.tex why.html""".split()


@pytest.fixture(scope="module")
def commands(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Command]:
    """All printed commands by their words."""
    found = called(printed(), tmp_path_factory.mktemp("shell"))
    commands = {shlex.join(command.words): command for command in found}
    assert len(commands) > 120
    return commands


def test_every_command_is_run_or_it_is_said_why_not(commands: dict[str, Command]) -> None:
    rules = {line: [rule for rule in NOT_RUN if re.fullmatch(rule, line)] for line in commands}
    unlisted = [line for line in commands if line not in RUN and not rules[line]]
    assert not unlisted, "belongs into RUN or, with the reason, into NOT_RUN"
    needed = [rule for line in commands if line not in RUN for rule in rules[line]]
    assert ({*RUN} | {*NOT_RUN}) - {*commands} - {*needed} == set()


def test_every_command_calls_what_there_is(commands: dict[str, Command]) -> None:
    for line, command in commands.items():
        try:
            check_call(command.words)
        except (Exception, SystemExit) as error:
            pytest.fail(f"{command.place}: {line}: {error!r}")


def test_every_printed_parameter_can_be_set(commands: dict[str, Command]) -> None:
    texts = [(place, shlex.split(text)) for place, text in added_options()]
    given = {overrides_of(words): place for place, words in [*texts, *commands.values()]}
    del given[()]
    assert len(given) > 60
    for overrides, place in given.items():
        if set(overrides) & set(IN_TEST_EXTENDING):
            continue
        context = [GO_WITH[name] for name in overrides if name in GO_WITH]
        try:
            check_overrides([*context, *overrides])
        except Exception as error:
            pytest.fail(f"{place}: -S {shlex.join(overrides)}: {error}")


@pytest.mark.parametrize(
    "line",
    [
        "dvc repro pushed",
        "dvc metrics different",
        "protomask predict some.jpg --picture out",
        "protomask masks print",
        "protomask study table --format pdf",
        "python benchmarks/train.py --image 3",
        "python3 -m stages training",
        "make demonstration",
        "pip install -e '.[application]'",
    ],
)
def test_a_call_of_what_there_is_not_is_noticed(line: str) -> None:
    with pytest.raises((Exception, SystemExit)):
        check_call(shlex.split(line))


@pytest.mark.parametrize(
    "override", ["train.epoch=3", "seed=0,-1", "dataset=cub20", "train.epochs"]
)
def test_a_parameter_that_cannot_be_set_is_noticed(override: str) -> None:
    with pytest.raises(Exception, match=re.escape(override.partition("=")[0])):
        check_overrides([override])


@pytest.fixture
def clone(tmp_path: Path) -> Clone:
    """A clone in which the default is an experiment of a minute."""
    clone = Clone(tmp_path / "clone", "")
    clone.overrides = []
    clone.make()
    (clone.folder / "conf/experiment/small.yaml").write_text(SMALL)
    _replace(clone.folder / "conf/config.yaml", "experiment: unfrozen", "experiment: small")
    drawn = clone.folder / "pipeline/datasets/readers/demo/classes.py"
    _replace(drawn, "tuple(CLASSES)", f"tuple(CLASSES)[:3]\nCLASSES = {THREE}")
    clone.params()
    clone.git("add", "-A")
    clone.commit("small")
    return clone


@pytest.mark.slow
def test_as_printed(clone: Clone) -> None:
    for_dvc = [line for line in RUN if not line.startswith("protomask ")]
    said = {line: clone.run(*shlex.split(line)) for line in for_dvc}
    assert ran(said["dvc repro"]) == STAGES[1:]
    assert ran(said["dvc exp run -S finetune.reach=0.1"]) == ["finetune", "evaluate", "explain"]
    for line, columns in SHOW.items():
        assert ["Experiment", *columns.split()] in [row.split() for row in said[line].splitlines()]
    assert ran(said["dvc repro --force --single-item push"]) == ["push"]
    _lay_out_photographs(clone.folder)
    clone.run("python3", "-c", ONE_AFTER_THE_OTHER, *(line for line in RUN if line not in for_dvc))
    assert [name for name in MADE if not (clone.folder / name).is_file()] == []


def _replace(file: Path, old: str, new: str) -> None:
    text = file.read_text(encoding="utf-8")
    assert text.count(old) == 1
    file.write_text(text.replace(old, new), encoding="utf-8")


def _lay_out_photographs(folder: Path) -> None:
    """Puts photographs where the pages have them."""
    drawn = folder / "artifacts/index/images/crested-barwing"
    (folder / "photos").mkdir()
    for number in ("001", "002"):
        shutil.copy(drawn / f"{number}.jpg", folder / "photos")
    shutil.copy(drawn / "003.jpg", folder / "some.jpg")
    (folder / "more/here").mkdir(parents=True)
    Image.open(folder / "some.jpg").save(folder / "more/here/001.png")
