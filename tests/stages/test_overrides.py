"""What `dvc exp run -S` is given is judged before it changes params.yaml."""

import re
import shlex
from pathlib import Path

import pytest
import yaml
from clones import Clone
from hydra.errors import HydraException

from pipeline.errors import ProtoMaskError
from stages.overrides import refuse_unusable

REPOSITORY = Path(__file__).parents[2]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A repository's folder with the real presets, in which nothing has been run."""
    (tmp_path / "conf").symlink_to(REPOSITORY / "conf")
    return tmp_path


def _has(folder: Path, /, **data_set: object) -> None:
    """Has params.yaml name a data set."""
    params = yaml.safe_load((REPOSITORY / "params.yaml").read_text())
    params["dataset"] |= {"source": "artifacts/listing.json", **data_set}
    (folder / "params.yaml").write_text(yaml.safe_dump(params))


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("train.epoch=3", "train.epoch: there is no such parameter; did you mean train.epochs?"),
        ("epochs=3", "did you mean train.epochs or finetune.epochs?"),
        ("runtime.worker=1", "did you mean runtime.workers?"),
        ("model=protopool model.slot=3", "did you mean model.slots?"),
        ("model.slots=3", "model.slots: there is no such parameter"),
        ("model=blackbox,pipnet model.epsilon=0.1", "model.epsilon: there is no such parameter"),
        ("weather=rain", "weather: there is no such parameter ("),
        ("~train.epoch", "did you mean train.epochs?"),
        ("++train.epoch=3", "did you mean train.epochs?"),
        ("dataset=cub20", "dataset=cub20: there is no such preset; did you mean cub200?"),
        ("segmenter=sam2,drawm", "segmenter=drawm: there is no such preset; did you mean drawn?"),
    ],
)
def test_what_is_misspelt_is_named(root: Path, given: str, said: str) -> None:
    with pytest.raises(ProtoMaskError, match=re.escape(said)):
        refuse_unusable(given.split(), root)


@pytest.mark.parametrize(
    "given",
    [
        "",
        "train.epochs=3 seed=0,1,2",
        "model=protomask,protopool model.slots=3",
        "train.loss.cluster=0.1 train.loss={cluster:0.2}",
        "+train.loss.cross_entropy=2",
        "~train.loss.cluster",
        "experiment=cub200-sam2 model=protopnet,blackbox dataset.fold=0,1",
        "segmenter.levels=[3,9] dataset=folder 'dataset.root=\"~/my photos\"'",
    ],
)
def test_what_can_be_meant_passes(root: Path, given: str) -> None:
    refuse_unusable(shlex.split(given), root)


def test_what_is_no_override(root: Path) -> None:
    with pytest.raises(HydraException):
        refuse_unusable(["train.epochs"], root)


def test_a_run_does_not_silently_go_back_to_the_presets_data_set(root: Path) -> None:
    _has(root, name="folder", root="~/my photos", num_classes=3, code="pipeline/x.py")
    said = (
        "this run names no data set, and the presets' is demo, while params.yaml has folder. Add "
        "-S dataset=folder -S dataset.code=pipeline/x.py -S dataset.num_classes=3 "
        "-S 'dataset.root=\"~/my photos\"' to go on with that, or -S dataset=demo"
    )
    for given in ([], ["train.epochs=3"], ["dataset.num_classes=4"], ["experiment=joint"]):
        with pytest.raises(ProtoMaskError, match=f"^{re.escape(said)}$"):
            refuse_unusable(given, root)
    for named in ("dataset=demo", "dataset=folder,pets", "experiment=cub200-sam2"):
        refuse_unusable([named], root)


def test_nothing_to_be_kept(root: Path) -> None:
    _has(root, name="demo")
    refuse_unusable(["train.epochs=3"], root)
    for content in ("", "[]", "dataset: 3", "{", "dataset: {name: 3}", "a: 1"):
        (root / "params.yaml").write_text(content)
        refuse_unusable([], root)


def test_a_data_set_without_a_preset(root: Path) -> None:
    _has(root, name="bats", root="/data")
    with pytest.raises(ProtoMaskError, match=r"has bats\. Add -S dataset=bats to go on"):
        refuse_unusable([], root)


@pytest.mark.slow
def test_dvc_says_it_and_leaves_everything_as_it_was(clone: Clone) -> None:
    before = (clone.folder / "params.yaml").read_text()
    (clone.folder / "sub").mkdir()
    for options, said in (
        (["-S", "train.epoch=3", "--queue"], "ERROR: train.epoch: there is no such parameter"),
        (["--set-param=runtime.worker=1"], "ERROR: runtime.worker: there is no such parameter"),
        (["-S", "train.epochs=4"], "ERROR: this run names no data set"),
    ):
        assert said in clone.run("dvc", "exp", "run", *options, ok=False)
    said = clone.run("dvc", "--cd", "sub", "exp", "run", ok=False)
    assert f"ERROR: dvc.yaml is not here: run the command in {clone.folder}" in said
    assert list((clone.folder / "sub").iterdir()) == []
    assert (clone.folder / "params.yaml").read_text() == before
    assert "Queued" not in clone.run("dvc", "queue", "status")
