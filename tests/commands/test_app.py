"""The command line: quick help, errors in words, and nothing lost when a disk is full."""

import io
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
import yaml

import pipeline
from commands.app import main
from stages import prepare
from stages.workspace import Workspace

REPOSITORY = Path(__file__).parents[2]
COMMANDS = [
    (),
    *(("scan",), ("prepare",), ("masks",), ("crops",), ("train",), ("push",), ("finetune",)),
    *(("evaluate",), ("explain",), ("predict",), ("params",), ("export",), ("app",)),
    *(("masks", "info"), ("masks", "show"), ("masks", "verify")),
    *(("masks", "export"), ("masks", "hash")),
]


class Result(NamedTuple):
    """What a command said, and its exit status."""

    returncode: int
    stdout: str
    stderr: str


def _protomask(*arguments: str, cwd: Path) -> Result:
    """Runs a command in this process: starting another one for each takes seconds."""
    out, err = io.StringIO(), io.StringIO()
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(cwd)
        patch.setattr(sys, "argv", ["protomask", *arguments])
        patch.setattr(sys, "stdout", out)
        patch.setattr(sys, "stderr", err)
        # The errors are compared as text: no wrapping, no colours.
        for name, value in {"COLUMNS": "500", "NO_COLOR": "1", "TERM": "dumb"}.items():
            patch.setenv(name, value)
        with pytest.raises(SystemExit) as end:
            main()
    return Result(int(end.value.code or 0), out.getvalue(), err.getvalue())


def _error(result: Result) -> str:
    """Checks that a command failed in words; returns them."""
    assert result.returncode == 1, result.stderr
    assert "Traceback" not in result.stderr
    _, _, message = result.stderr.rpartition("Error:")
    assert message
    return message.strip()


def test_help_is_quick_and_whole() -> None:
    """In one process for all commands: none of them may import what computes."""
    script = """
import sys
from typer.testing import CliRunner
from commands.app import app
for line in sys.stdin:
    result = CliRunner().invoke(app, [*line.split(), "--help"])
    assert result.exit_code == 0, (line, result.output)
    assert "Usage:" in result.output, line
    assert len(result.output.splitlines()) > 6, line
for heavy in ("torch", "zarr", "pandas", "pyarrow", "skimage", "dvc", "PIL", "numpy"):
    assert heavy not in sys.modules, f"--help imports {heavy}"
"""
    lines = "".join(" ".join(command) + "\n" for command in COMMANDS)
    result = subprocess.run(
        [sys.executable, "-c", script], input=lines, cwd=REPOSITORY, capture_output=True, text=True
    )
    assert result.returncode == 0, result.stderr


def test_every_command_is_in_the_help() -> None:
    result = _protomask("--help", cwd=REPOSITORY)
    assert result.returncode == 0
    for command in {command[0] for command in COMMANDS if command}:
        assert f" {command} " in result.stdout
    assert "Stages, in the order in which data flows" in result.stdout


def test_the_version() -> None:
    result = _protomask("--version", cwd=REPOSITORY)
    assert (result.returncode, result.stdout) == (0, f"protomask {pipeline.__version__}\n")
    cited = yaml.safe_load((REPOSITORY / "CITATION.cff").read_text())["version"]
    assert cited == pipeline.__version__


def test_a_shell_completes_commands() -> None:
    """As after `protomask --install-completion`."""
    words = {"COMP_WORDS": "protomask ma", "COMP_CWORD": "1"}
    done = subprocess.run(
        [sys.executable, "-m", "commands"],
        env={**os.environ, **words, "_PROTOMASK_COMPLETE": "complete_bash"},
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
    )
    assert done.stdout.split() == ["masks"], done.stderr


def test_every_stage_of_the_experiment_is_a_command() -> None:
    stages = yaml.safe_load((REPOSITORY / "dvc.yaml").read_text())["stages"]
    commands = {stage.get("do", stage)["cmd"] for stage in stages.values()}
    assert commands <= {f"python3 -m stages {command[0]}" for command in COMMANDS if command}


def test_the_installed_command_is_this_one() -> None:
    script = shutil.which("protomask")
    if script is None:
        pytest.skip("protomask is not installed on PATH")
    result = subprocess.run([script, "--help"], capture_output=True, text=True)
    assert result.returncode == 0
    assert "Segmentation-guided prototype learning" in result.stdout


def test_a_command_that_does_not_exist() -> None:
    result = _protomask("mask", cwd=REPOSITORY)
    assert result.returncode == 2
    assert "No such command 'mask'" in result.stderr
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize("command", ["scan", "prepare", "masks", "crops"])
def test_outside_a_repository(tmp_path: Path, command: str) -> None:
    message = _error(_protomask(command, cwd=tmp_path))
    assert message == "no params.yaml: run protomask where dvc.yaml is"


@pytest.mark.parametrize("command", ["table", "check"])
def test_without_git(tmp_path: Path, command: str) -> None:
    message = _error(_protomask("study", command, cwd=tmp_path))
    assert message.startswith("DVC cannot say which experiments there are: ")
    assert "clone the repository, or make one of this folder (`git init`" in message


@pytest.mark.parametrize(
    "command",
    ["scan", "predict x.jpg", "study tune --name x", "masks info", "masks export --coco x.json"],
)
def test_in_a_sub_folder(tmp_path: Path, command: str) -> None:
    (tmp_path / "dvc.yaml").touch()
    place = tmp_path / "photographs"
    place.mkdir()
    message = _error(_protomask(*command.split(), cwd=place))
    assert message == f"{place} has no dvc.yaml: run it where dvc.yaml is, in {tmp_path}"
    assert list(place.iterdir()) == []


@pytest.fixture
def workplace(tmp_path: Path, make_photographs: Callable[..., Path]) -> Path:
    """A folder to run stages in, with photographs in it and cheap parameters."""
    return _fill(tmp_path / "work", make_photographs)


def _fill(folder: Path, make_photographs: Callable[..., Path]) -> Path:
    make_photographs(folder / "photographs")
    params = yaml.safe_load((REPOSITORY / "params.yaml").read_text())
    params["dataset"].update(name="folder", root="photographs", scanned=["photographs"])
    params["dataset"]["source"] = "artifacts/listing.json"
    params["segmenter"] = {"name": "patches", "version": 1, "grid": 2}
    params["crops"].update(side=16, per_image=2)
    params["runtime"]["workers"] = 1
    (folder / "params.yaml").write_text(yaml.safe_dump(params))
    return folder


def _change(workplace: Path, section: str, **values: object) -> None:
    path = workplace / "params.yaml"
    params = yaml.safe_load(path.read_text())
    params[section].update(values)
    path.write_text(yaml.safe_dump(params))


def _run(workplace: Path, *commands: str) -> str:
    said = ""
    for command in commands:
        result = _protomask(*command.split(), cwd=workplace)
        assert result.returncode == 0, result.stderr
        said += result.stdout
    return said


def _bytes_below(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def test_the_first_stages_one_after_the_other(workplace: Path) -> None:
    said = _run(workplace, "scan", "prepare", "masks", "crops")
    assert "10 files in" in said
    assert "10 images of 2 classes: 6 train, 2 val, 2 test" in said
    assert "10 images segmented; 40 masks of 10 images" in said
    assert "10 images' crops in artifacts/crops.zarr" in said
    assert sorted(path.name for path in (workplace / "artifacts").iterdir()) == [
        "crops.zarr",
        "index",
        "listing.json",
        "masks.zarr",
    ]
    before = _bytes_below(workplace / "artifacts")
    shutil.rmtree(workplace / "artifacts")
    assert "0 images segmented, since the masks of all 10 were there; 40 masks" in _run(
        workplace, "scan", "prepare", "masks", "crops"
    )
    assert _bytes_below(workplace / "artifacts") == before


def test_outputs_do_not_depend_on_where_they_are_made(
    workplace: Path, tmp_path: Path, make_photographs: Callable[..., Path]
) -> None:
    """Two colleagues share a cache: one keeps photographs beside the repository, one elsewhere."""
    other = _fill(tmp_path / "colleague", make_photographs)
    (other / "photographs").rename(tmp_path / "disk")
    _change(other, "dataset", root=str(tmp_path / "disk"), scanned=[str(tmp_path / "disk")])
    _change(other, "runtime", workers=2)
    for folder in (workplace, other):
        _run(folder, "scan", "prepare", "masks", "crops")
    assert _bytes_below(workplace / "artifacts") == _bytes_below(other / "artifacts")


def test_stages_out_of_order(workplace: Path) -> None:
    assert _error(_protomask("prepare", cwd=workplace)) == (
        "no artifacts/listing.json: run `protomask scan` first"
    )
    for command in ("masks", "crops"):
        message = _error(_protomask(command, cwd=workplace))
        assert "no index at artifacts/index/photographs.parquet" in message


def test_crops_of_another_segmenters_masks(workplace: Path) -> None:
    _run(workplace, "scan", "prepare", "masks")
    _change(workplace, "segmenter", grid=3)
    message = _error(_protomask("crops", cwd=workplace))
    assert "grid=2 instead of 3: run `dvc repro masks`" in message


def test_wrong_parameters(workplace: Path) -> None:
    _change(workplace, "crops", sied=3)
    assert "crops.sied: no such parameter; did you mean side?" in _error(
        _protomask("scan", cwd=workplace)
    )


def test_a_listing_that_is_none(workplace: Path) -> None:
    (workplace / "artifacts").mkdir()
    for content in ("", "[]", "{", '{"a": 1'):
        (workplace / "artifacts" / "listing.json").write_text(content)
        message = _error(_protomask("prepare", cwd=workplace))
        assert "artifacts/listing.json is no listing" in message
        assert "protomask scan" in message


def test_a_folder_without_photographs(workplace: Path) -> None:
    shutil.rmtree(workplace / "photographs")
    message = _error(_protomask("scan", cwd=workplace))
    assert "dataset.root:" in message
    assert "photographs does not exist" in message


def test_a_failed_prepare_leaves_what_was_there(workplace: Path) -> None:
    _run(workplace, "scan", "prepare")
    before = _bytes_below(workplace / "artifacts")
    (workplace / "photographs" / "class 0" / "000.png").write_bytes(b"")
    assert "1 of 10 images cannot be read" in _error(_protomask("prepare", cwd=workplace))
    assert _bytes_below(workplace / "artifacts") == before


def _mounted(place: Path, *options: str) -> bool:
    place.mkdir(exist_ok=True)
    if os.geteuid() != 0 or shutil.which("mount") is None:
        return False
    return subprocess.run(["mount", *options, str(place)], capture_output=True).returncode == 0


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 192 kB."""
    place = tmp_path / "disk"
    if not _mounted(place, "-t", "tmpfs", "-o", "size=192k", "tmpfs"):
        pytest.skip("mounting a small disk needs root")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)


@pytest.mark.parametrize("command", ["scan", "prepare", "masks", "crops"])
def test_a_full_disk(small_disk: Path, make_photographs: Callable[..., Path], command: str) -> None:
    """What was there stays, nothing half-written does, and with room the same command goes on."""
    workplace = _fill(small_disk, make_photographs)
    earlier = ["scan", "prepare", "masks", "crops"]
    earlier = earlier[: earlier.index(command)]
    _run(workplace, *earlier)
    before = _bytes_below(workplace)
    filler = workplace / "filler"
    with filler.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(bytes(4096))
        except OSError:
            pass
    message = _error(_protomask(command, cwd=workplace))
    assert "No space left on device" in message
    assert "Make room on that disk and run the same command again" in message
    filler.unlink()
    after = _bytes_below(workplace)
    assert {name: after.get(name) for name in before} == before
    assert not [name for name in after if name.endswith(".part")]
    _run(workplace, command)


@pytest.fixture
def read_only(workplace: Path) -> Iterator[Callable[[str], None]]:
    """Makes a folder below the workplace read-only, for root as well."""
    mounted: list[Path] = []

    def make(name: str) -> None:
        place = workplace / name
        place.mkdir(exist_ok=True)
        if not _mounted(place, "--bind", str(place)):
            pytest.skip("binding a read-only folder needs root")
        mounted.append(place)
        subprocess.run(["mount", "-o", "remount,ro,bind", str(place)], check=True)

    yield make
    for place in mounted:
        subprocess.run(["umount", "-l", str(place)], check=True)


@pytest.mark.parametrize("name", ["artifacts", ".protomask"])
def test_a_folder_that_cannot_be_written(
    workplace: Path, read_only: Callable[[str], None], name: str
) -> None:
    _run(workplace, "scan", "prepare")
    shutil.rmtree(workplace / ".protomask")
    before = _bytes_below(workplace / "artifacts")
    read_only(name)
    for command in ("scan", "masks"):
        message = _error(_protomask(command, cwd=workplace))
        assert "Read-only file system" in message
        assert "use a copy of the repository on another" in message
    assert _bytes_below(workplace / "artifacts") == before


def test_a_folder_of_somebody_else(workplace: Path) -> None:
    if os.geteuid() == 0:
        pytest.skip("permissions do not bind root")
    (workplace / "artifacts").mkdir(mode=0o500)
    message = _error(_protomask("scan", cwd=workplace))
    assert "Permission denied" in message
    assert "Give yourself permission" in message


def test_a_file_in_the_place_of_a_folder(workplace: Path) -> None:
    (workplace / ".protomask").touch()
    message = _error(_protomask("scan", cwd=workplace))
    assert ".protomask/checked cannot be made: a file lies where a folder belongs" in message


def test_an_interrupted_command_says_no_more_than_that(
    workplace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(workspace: Workspace) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(prepare, "run", interrupt)
    result = _protomask("prepare", cwd=workplace)
    assert result.returncode == 130
    assert "Traceback" not in result.stderr
