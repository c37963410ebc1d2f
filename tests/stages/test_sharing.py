"""docs/sharing.md, done as it says: its commands, two people, three places, and one of the two
without the segmenter's weights."""

import os
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import asyncssh
import pytest
import torch
import yaml
from servers import s3_server, ssh_server
from transformers import SegformerConfig, SegformerForSemanticSegmentation

from pipeline.files import sha256
from pipeline.masks.segmenters.slit.settings import PUBLISHED, WEIGHTS
from pipeline.workers import SHARE, THREADS

pytestmark = pytest.mark.slow

REPOSITORY = Path(__file__).parents[2]
PAGE = (REPOSITORY / "docs" / "sharing.md").read_text(encoding="utf-8")
SECRET = "7f1c-not-for-git"
KEPT = ("PATH", "LANG", THREADS, SHARE)
"""Environment variables that do not differ from person to person."""
NEVER_COMMITTED = "Experiments that were never committed"


def commands(heading: str, number: int = 0) -> str:
    """Returns a block of commands below a heading of the page."""
    section = re.split(r"^#+ ", PAGE.split(f"# {heading}\n", 1)[1], flags=re.MULTILINE)[0]
    return re.findall(r"^```\n(.*?)^```$", section, re.DOTALL | re.MULTILINE)[number]


class Person:
    """Somebody with a home of their own, on a machine that reaches no other."""

    def __init__(self, home: Path, photographs: Path, repository: Path) -> None:
        self.home = home
        shutil.copytree(photographs, home / "photographs")
        (home / ".gitconfig").write_text(
            f"[user]\nname = {home.name}\nemail = {home.name}@example.org\n"
            f'[url "{repository}"]\ninsteadOf = https://git.example.org/team/birds.git\n'
        )

    def run(self, script: str, folder: Path | None = None) -> str:
        """Runs commands in the person's clone, or another folder; returns what they printed."""
        done = subprocess.run(
            ["bash", "-e"],
            input=script,
            cwd=folder or self.clone,
            text=True,
            env=self.environment(),
            timeout=600,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        assert done.returncode == 0, done.stdout
        return done.stdout

    def environment(self) -> dict[str, str]:
        kept = {name: value for name, value in os.environ.items() if name in KEPT}
        own = {"HOME": str(self.home), "PROTOMASK_CACHE": str(self.cache)}
        return {**kept, **own, "HTTPS_PROXY": "http://127.0.0.1:9"}

    @property
    def cache(self) -> Path:
        return self.home / "cache"

    @property
    def clone(self) -> Path:
        return self.home / "birds"

    @property
    def store(self) -> Path:
        return self.clone / "artifacts" / "masks.zarr"

    def masks(self) -> dict[str, str]:
        """Returns the hash of each file of the mask store in the person's clone."""
        return {str(path.relative_to(self.store)): sha256(path) for path in _files(self.store)}

    def never_segmented(self) -> bool:
        return not self.cache.exists() and not (self.clone / ".protomask" / "masks").exists()


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights of SLIT's network that nobody trained."""
    folder = tmp_path_factory.mktemp("weights")
    torch.manual_seed(0)
    network = SegformerForSemanticSegmentation(SegformerConfig(num_labels=1, **PUBLISHED))
    network.decode_head.classifier.weight.data *= 40  # boundaries here, regions there
    network.save_pretrained(folder)
    return folder / "model.safetensors"


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory, weights: Path) -> Path:
    """The team's repository; its presets `sam2` are a network that a CPU runs in a second."""
    folder = tmp_path_factory.mktemp("start")
    listed = ["git", "ls-files", "-co", "--exclude-standard"]
    for name in subprocess.check_output(listed, cwd=REPOSITORY, text=True).splitlines():
        if not name.startswith("tests/") and (REPOSITORY / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(REPOSITORY / name, folder / name)
    quick = {
        "name": "slit",
        "version": 1,
        "weights_sha256": sha256(weights),
        "side": 32,
        "precision": "float32",
    }
    for preset, threshold in (("sam2", 0.5), ("sam2_large", 0.6)):
        file = folder / "conf" / "segmenter" / f"{preset}.yaml"
        file.write_text(yaml.safe_dump({**quick, "threshold": threshold}))
    commit = "git -c user.name=team -c user.email=team@example.org commit -qm start"
    script = f"git init -q -b main; git add -A; {commit}; git clone -q --bare . birds.git"
    subprocess.run(["bash", "-ec", script], cwd=folder, check=True)
    return folder / "birds.git"


@pytest.fixture
def repository(tmp_path: Path, start: Path) -> Path:
    return shutil.copytree(start, tmp_path / "birds.git")


@pytest.fixture(scope="module")
def photographs(
    tmp_path_factory: pytest.TempPathFactory, make_photographs: Callable[..., Path]
) -> Path:
    folder = tmp_path_factory.mktemp("photographs")
    return make_photographs(folder / "photographs", classes=2, per_class=6)


@pytest.fixture(scope="module")
def computed(
    tmp_path_factory: pytest.TempPathFactory, photographs: Path, start: Path, weights: Path
) -> Path:
    """A clone in which the page's two experiments have been computed, the committed one last."""
    person = Person(tmp_path_factory.mktemp("homes") / "computing", photographs, start)
    kept = person.cache / "weights" / f"{sha256(weights)[:16]}-{Path(WEIGHTS).name}"
    kept.parent.mkdir(parents=True)
    kept.hardlink_to(weights)
    person.run("git clone -q https://git.example.org/team/birds.git", person.home)
    for block in (commands(NEVER_COMMITTED), commands("2. Compute and push")):
        assert "12 images segmented" in person.run(block.splitlines()[0])
    return person.clone


@pytest.fixture
def ada(tmp_path: Path, photographs: Path, repository: Path, computed: Path) -> Person:
    """She has computed masks."""
    person = Person(tmp_path / "ada", photographs, repository)
    shutil.copytree(computed, person.clone, symlinks=True)
    return person


@pytest.fixture
def grace(tmp_path: Path, photographs: Path, repository: Path) -> Person:
    """She has photographs, and nothing else yet: no weights, and no way to get them."""
    return Person(tmp_path / "grace", photographs, repository)


@dataclass(frozen=True)
class Place:
    """How it is named, and what somebody has to tell DVC who is not the one who named it."""

    add: str
    log_in: str = ""


@pytest.fixture(params=["A folder on a file server", "SSH", "S3-compatible storage"])
def place(
    request: pytest.FixtureRequest, tmp_path: Path, ada: Person, grace: Person
) -> Iterator[Place]:
    add, server = commands(request.param), tmp_path / "server"
    if request.param == "SSH":
        (server / "srv").mkdir(parents=True)
        keys = [_make_key(ada.home / ".ssh" / "id_ed25519"), _make_key(grace.home / "keys/team")]
        (tmp_path / "authorized_keys").write_text("".join(keys))
        with ssh_server(server, tmp_path / "authorized_keys") as port:
            for person in (ada, grace):
                (person.home / ".ssh").mkdir(exist_ok=True)
                (person.home / ".ssh" / "config").write_text(
                    f"Host files.example.org\nHostName 127.0.0.1\nPort {port}\n"
                )
            yield Place(add, commands("Credentials", 0))
    elif request.param == "S3-compatible storage":
        for person, profile in ((ada, "default"), (grace, "birds")):
            (person.home / ".aws").mkdir()
            (person.home / ".aws" / "credentials").write_text(
                f"[{profile}]\naws_access_key_id = {person.home.name}\n"
                f"aws_secret_access_key = {SECRET}\n"
            )
        with s3_server("our-bucket") as url:
            yield Place(add.replace("https://s3.example.org", url), commands("Credentials", 1))
    else:
        yield Place(add.replace("/mnt/team/protomask", str(server)))


def _make_key(file: Path) -> str:
    """Returns the public key as a line for `authorized_keys`."""
    file.parent.mkdir()
    key = asyncssh.generate_private_key("ssh-ed25519")
    key.write_private_key(file)
    return key.export_public_key().decode()


def clone_script() -> str:
    return commands("3. Everyone else").removesuffix("dvc pull masks\n")


def nothing_ran(output: str) -> bool:
    return re.findall("Running stage '(.*)'", output) in ([], ["scan@root"])


def test_colleague_without_weights_gets_all_masks(ada: Person, grace: Person, place: Place) -> None:
    assert nothing_ran(ada.run(place.add + commands("2. Compute and push")))
    committed = ada.masks()
    grace.run(clone_script() + place.log_in + "dvc pull masks", grace.home)
    assert grace.masks() == committed and grace.never_segmented()

    grace.run("rm -r .dvc/cache artifacts")
    assert nothing_ran(grace.run(commands("3. Everyone else", 1)))
    assert grace.masks() == committed and grace.never_segmented()

    assert nothing_ran(ada.run(commands(NEVER_COMMITTED)))
    assert ada.masks() != committed
    assert nothing_ran(grace.run(commands(NEVER_COMMITTED, 1)))
    assert grace.masks() == ada.masks() and grace.never_segmented()

    grace.run("git checkout -q . && rm -r .dvc/cache artifacts")
    shutil.copy(ada.clone / "params.yaml", grace.clone)
    assert nothing_ran(grace.run("dvc repro --pull masks"))
    assert grace.masks() == ada.masks() and grace.never_segmented()
    for person in (ada, grace):
        everything = person.run("git add -A && git diff HEAD && git log -p")
        assert "dvc.lock" in everything
        assert SECRET not in everything
        assert "keys/team" not in (person.clone / ".dvc" / "config").read_text()


def test_two_people_compute_the_same(tmp_path: Path, ada: Person, grace: Person) -> None:
    compute = commands("2. Compute and push").splitlines()[0].replace("=sam2 ", "=patches ")
    server = f"dvc remote add -d team {tmp_path / 'server'}\n"
    grace.run(clone_script(), grace.home)
    for person in (ada, grace):
        person.run("rm -rf .dvc/cache .protomask artifacts")
        assert "12 images segmented" in person.run(server + compute)
    assert grace.masks() == ada.masks()
    assert (grace.clone / "dvc.lock").read_bytes() == (ada.clone / "dvc.lock").read_bytes()
    with ThreadPoolExecutor() as pool:
        list(pool.map(lambda person: person.run("dvc push --run-cache"), (ada, grace)))
    assert "Everything is up to date" in grace.run("dvc push")
    pushed = [path for path in (tmp_path / "server").rglob("*") if path.is_file()]
    assert len(pushed) == len(list(_files(ada.clone / ".dvc" / "cache")))


def test_first_commit_counts_where_masks_differ(tmp_path: Path, ada: Person, grace: Person) -> None:
    server = f"dvc remote add -d team {tmp_path / 'server'}\n"
    commit = commands("2. Compute and push").split("\n", 1)[1]
    grace.run(clone_script(), grace.home)
    shutil.rmtree(grace.clone)
    shutil.copytree(ada.clone, grace.clone)
    ada.run(server + commit)
    other = grace.store / "zarr.json"
    grace.run(f"dvc unprotect artifacts/masks.zarr && echo >> '{other}' && dvc commit -f masks")
    grace.run(server + "git add -A && git commit -qm 'The same masks, nearly'")
    assert grace.masks() != ada.masks()
    grace.run(commands("Two people compute the same masks"))
    assert grace.masks() == ada.masks()


def test_clones_on_one_machine_keep_masks_once(tmp_path: Path, ada: Person, grace: Person) -> None:
    share = commands("Disk space").replace("/scratch/team/dvc-cache", str(tmp_path / "cache"))
    server = f"dvc remote add -d team {tmp_path / 'server'}\n"
    ada.run(server + commands("2. Compute and push").split("\n", 1)[1])
    grace.run(clone_script() + share, grace.home)
    ada.run(share)
    first, second = (sorted(_files(person.store)) for person in (ada, grace))
    assert [path.stat().st_ino for path in first] == [path.stat().st_ino for path in second]

    grace.run("dvc config --local cache.type symlink && dvc checkout --relink masks")
    assert all(path.is_symlink() for path in _files(grace.store))
    assert "5 files" in grace.run("protomask masks verify")


def test_old_masks_leave_the_cache(ada: Person) -> None:
    before, kept = len(list(_files(ada.clone / ".dvc" / "cache"))), ada.masks()
    ada.run(commands("Disk space", 1))
    assert len(list(_files(ada.clone / ".dvc" / "cache"))) < before
    ada.run("rm -r artifacts && dvc checkout masks")
    assert ada.masks() == kept


def _files(folder: Path) -> Iterator[Path]:
    return (path for path in folder.rglob("*") if path.is_file())
