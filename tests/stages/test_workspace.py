"""Where things lie, in a repository and in the copies that DVC makes of it."""

from pathlib import Path

import pytest
import yaml

from stages.params import Params, params_type
from stages.workspace import Workspace

workspace = Workspace()

COMMITTED = yaml.safe_load((Path(__file__).parents[2] / "params.yaml").read_text())


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    root = tmp_path.resolve() / "my repository"
    (root / "a" / "b").mkdir(parents=True)
    (root / "dvc.yaml").touch()
    monkeypatch.chdir(root)
    return root


def _params(name: str, root: str | None) -> Params:
    dataset = {**COMMITTED["dataset"], "name": name, "root": root}
    dataset["scanned"] = [] if name == "demo" else [root]
    values = {**COMMITTED, "dataset": dataset}
    return params_type(values).model_validate(values)


@pytest.mark.parametrize(
    "copy", ["standalone/tmpa1b2c3", "tmpxyz", "standalone/tmpa1b2c3/deeper/down"]
)
def test_a_copy_for_an_experiment_remembers_in_the_repository(
    repository: Path, monkeypatch: pytest.MonkeyPatch, copy: str
) -> None:
    folder = repository / ".dvc" / "tmp" / "exps" / copy
    folder.mkdir(parents=True)
    monkeypatch.chdir(folder)
    assert workspace.origin == repository
    assert workspace.cache == repository / ".protomask"
    assert (
        workspace.images_root(_params("folder", "../photographs")) == repository / "../photographs"
    )
    assert workspace.images_root(_params("folder", "photographs")) == repository / "photographs"
    # Outputs stay in the copy.
    assert not workspace.masks.is_absolute()


def test_in_the_repository_itself(repository: Path) -> None:
    assert workspace.origin == repository
    assert workspace.images_root(_params("folder", "photographs")) == repository / "photographs"


@pytest.mark.parametrize("place", ["tmp/exps/x", ".dvc/tmp", ".dvc/tmp/other/x", "exps/x"])
def test_what_only_looks_like_a_copy(
    repository: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    (repository / place).mkdir(parents=True)
    monkeypatch.chdir(repository / place)
    assert workspace.origin == repository / place


def test_a_linked_repository(
    repository: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (repository / ".dvc" / "tmp" / "exps" / "t").mkdir(parents=True)
    (tmp_path / "link").symlink_to(repository)
    monkeypatch.chdir(tmp_path / "link" / ".dvc" / "tmp" / "exps" / "t")
    assert workspace.origin == repository


def test_roots_that_need_no_repository(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/someone")
    assert workspace.images_root(_params("pets", "/data/pets")) == Path("/data/pets")
    assert workspace.images_root(_params("pets", "~/pets")) == Path("/home/someone/pets")
    assert workspace.images_root(_params("demo", None)) == workspace.index_folder


def test_features_are_remembered_only_for_a_frozen_backbone(repository: Path) -> None:
    def features_of(freeze_backbone: bool) -> Path | None:
        values = {**COMMITTED, "train": {**COMMITTED["train"], "freeze_backbone": freeze_backbone}}
        return workspace.feature_cache(params_type(values).model_validate(values))

    assert features_of(True) == repository / ".protomask" / "features"
    assert features_of(False) is None


@pytest.mark.parametrize("word", ["imagenet", "none"])
def test_weights_by_name(repository: Path, word: str) -> None:
    assert workspace.weights(_with_weights(word)) == word


def test_a_file_of_weights_is_found_from_a_copy(
    repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", "/home/someone")
    copy = repository / ".dvc" / "tmp" / "exps" / "t"
    copy.mkdir(parents=True)
    for folder in (repository, copy):
        monkeypatch.chdir(folder)
        found = workspace.weights(_with_weights("weights/a.pth"))
        assert found == str(repository / "weights/a.pth")
    assert workspace.weights(_with_weights("~/a.pth")) == "/home/someone/a.pth"
    assert workspace.weights(_with_weights("/data/a.pth")) == "/data/a.pth"


def _with_weights(pretrained: str) -> Params:
    model = {**COMMITTED["model"], "pretrained": pretrained}
    values = {**COMMITTED, "model": model}
    return params_type(values).model_validate(values)
