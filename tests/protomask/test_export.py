"""A model that travels: the folder, and what opens it without its experiment."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from huggingface_hub import ModelCard
from PIL import Image
from settings import parts

from pipeline.errors import ProtoMaskError
from pipeline.files import sha256
from pipeline.masks.segmenter import Machine, Source
from pipeline.masks.store import CODEBOOK
from pipeline.model.base.saved import load_model, save_model
from protomask import Answer, load
from protomask.export import export_model
from stages.workspace import Workspace

PHOTOGRAPH = Path("photographs/class 1/003.png")


def same(one: Answer, other: Answer) -> bool:
    assert np.array_equal(np.asarray(one.figure()), np.asarray(other.figure()))
    return one.to_dict() == other.to_dict()


@pytest.fixture(scope="module")
def exported(finished_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("exported") / "birds"
    export_model(Workspace(finished_run), out)
    return out


def test_it_says_what_the_experiment_says(
    exported: Path, finished_run: Path, tmp_path: Path
) -> None:
    moved = shutil.copytree(exported, tmp_path / "elsewhere")
    answers = [load(at).predict(finished_run / PHOTOGRAPH) for at in (finished_run, moved)]
    assert same(*answers)
    for place, answer in enumerate(answers):
        answer.write_page(tmp_path / f"{place}.html")
    assert (tmp_path / "0.html").read_bytes() == (tmp_path / "1.html").read_bytes()


def test_the_same_model_gives_the_same_bytes(
    exported: Path, finished_run: Path, tmp_path: Path
) -> None:
    export_model(Workspace(finished_run), tmp_path / "again")
    names = sorted(path.relative_to(exported) for path in exported.rglob("*") if path.is_file())
    assert names == [
        *map(
            Path,
            ("README.md", "backbone.safetensors", "config.json", "intervals.json", "metrics.json"),
        ),
        *map(Path, ("model.json", "model.safetensors")),
        *(Path(f"prototypes/{number:04d}.png") for number in range(6)),
        Path("prototypes.csv"),
    ]
    for name in names:
        assert (exported / name).read_bytes() == (tmp_path / "again" / name).read_bytes()
        assert str(finished_run).encode() not in (exported / name).read_bytes()


def test_the_model_card_is_one_of_the_hubs(exported: Path, finished_run: Path) -> None:
    card = ModelCard.load(exported / "README.md")
    (result,) = card.data.eval_results
    metrics = json.loads((exported / "metrics.json").read_text())
    assert (result.metric_type, result.metric_value) == ("accuracy", metrics["general"]["accuracy"])
    assert card.data.library_name == "protomask" and result.dataset_name == "folder"
    assert "What it must not be used for" in card.text
    intervals = json.loads((exported / "intervals.json").read_text())["general"]["accuracy"]
    assert f"| {intervals['low']:.4g}–{intervals['high']:.4g} | Share of test" in card.text
    assert "crops.side: 32" in card.text


def test_the_card_has_a_table_for_each_question(exported: Path) -> None:
    """Groups call different figures the same, and the question tells them apart."""
    tables = (exported / "README.md").read_text(encoding="utf-8").split("\n### ")[1:]
    metrics = json.loads((exported / "metrics.json").read_text())
    assert [table.partition(":")[0].lower() for table in tables] == list(metrics)
    found = {table.splitlines()[0]: table for table in tables}
    assert "\n| Accuracy | " in found["General: Is it right?"]
    distances = found["Contrastivity: Do different prototypes say different things?"]
    assert distances.count("\n|---|") == 1 and "\n| Location change | " in distances


def test_a_prototypes_picture_is_transparent_outside_its_mask(exported: Path) -> None:
    with Image.open(exported / "prototypes" / "0000.png") as picture:
        assert picture.mode == "RGBA" and picture.size == (32, 32)
        assert np.asarray(picture)[..., 3].all()  # a patch fills its box


def test_a_codebook_travels(run_folder: Path, tmp_path: Path) -> None:
    """With a model whose crops are said to come from masks of `parts`."""
    workspace = Workspace(run_folder)
    sources = [
        Source(run_folder, path.relative_to(run_folder).as_posix(), sha256(path))
        for path in sorted((run_folder / "photographs").rglob("*.png"))[:4]
    ]
    fitted = parts().fit(sources, tmp_path / "cache", Machine())
    content = fitted.learnt()
    assert content is not None
    (workspace.masks / CODEBOOK).write_bytes(content)
    network, about = load_model(workspace.finetune)
    about = about.model_copy(update={"segmenter": fitted.fingerprint()})
    save_model(workspace.finetune, network, about)
    before = load(run_folder).predict(PHOTOGRAPH)
    export_model(workspace, tmp_path / "birds")
    photograph = shutil.copy(PHOTOGRAPH, tmp_path / "003.png")
    shutil.rmtree(run_folder)
    shutil.rmtree(tmp_path / "cache")
    assert same(before, load(tmp_path / "birds").predict(photograph))


@pytest.mark.parametrize("name", ["model.safetensors", "prototypes/0003.png", "metrics.json"])
def test_what_is_missing_or_damaged_is_named(exported: Path, tmp_path: Path, name: str) -> None:
    copy = shutil.copytree(exported, tmp_path / "copy")
    (copy / name).write_bytes(b"version https://git-lfs.github.com/spec/v1\n")
    with pytest.raises(ProtoMaskError, match=f"{name} is not as it was exported: get"):
        load(copy)
    (copy / name).unlink()
    with pytest.raises(ProtoMaskError, match=f"{name} is missing: get"):
        load(copy)


def test_a_folder_of_another_version_is_refused(exported: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(exported, tmp_path / "copy")
    config = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps({**config, "format": 2}))
    with pytest.raises(ProtoMaskError, match="of another version of ProtoMask"):
        load(copy)


def test_nothing_that_is_there_is_written_over(finished_run: Path, tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "mine.jpg").touch()
    with pytest.raises(ProtoMaskError, match="is there already"):
        export_model(Workspace(finished_run), tmp_path / "photos")
    assert [path.name for path in (tmp_path / "photos").iterdir()] == ["mine.jpg"]


def test_a_segmenter_that_knows_other_images_only_does_not_travel(
    run_folder: Path, tmp_path: Path
) -> None:
    finetune = Workspace(run_folder).finetune
    network, about = load_model(finetune)
    drawn = {"name": "drawn", "version": 2}
    save_model(finetune, network, about.model_copy(update={"segmenter": drawn}))
    with pytest.raises(ProtoMaskError, match="choose another segmenter"):
        export_model(Workspace(run_folder), tmp_path / "birds")
    assert not (tmp_path / "birds").exists()
