"""What stages and commands import before they run: nothing that they may not use."""

import json
import subprocess
import sys
from pathlib import Path

from dvc.utils.hydra import compose_and_dump

REPOSITORY = Path(__file__).parents[2]
WITHOUT_NETWORK = ["stages.scan", "stages.prepare", "stages.masks", "stages.crops"]
WITH_NETWORK = [
    "stages.train",
    "stages.push",
    "stages.finetune",
    "stages.evaluate",
    "stages.explain",
    "commands.predict",
    "commands.study_table",
    "commands.study_compare",
]
HEAVY = [
    "dvclive",
    "distributed",
    "kornia",
    "lightning_fabric",
    "openvino",
    "optuna",
    "requests",
    "scipy.stats",
    "skimage",
    "sklearn",
    "timm",
    "torch",
    "torch._dynamo",
    "torchvision",
    "zennit",
]
"""Packages and modules that take long to import; functions that use them import them."""
SCRIPT = """
import json, sys
from pathlib import Path
from importlib import import_module
from pipeline.model.base.models import MODEL_SETTINGS
from stages.workspace import Workspace

stages, heavy, root = json.load(sys.stdin)
MODEL_SETTINGS.names()
workspace = Workspace(Path(root))
workspace.worker(workspace.read_params())
found = {}
for stage in stages:
    import_module(stage)
    found[stage] = [name for name in heavy if name in sys.modules]
print(json.dumps(found))
"""


def test_stages_import_what_they_use_when_they_use_it(tmp_path: Path) -> None:
    """In one process for all; before them, the parameters of all models are judged. The segmenter
    is one that uses no device: to name the device of another takes torch."""
    overrides = ["segmenter=felzenszwalb"]
    conf = str(REPOSITORY / "conf")
    compose_and_dump(tmp_path / "params.yaml", conf, None, "config", "", overrides)
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT],
        input=json.dumps([[*WITHOUT_NETWORK, *WITH_NETWORK], HEAVY, str(tmp_path)]),
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {
        **{stage: [] for stage in WITHOUT_NETWORK},
        **{stage: ["torch"] for stage in WITH_NETWORK},
    }
