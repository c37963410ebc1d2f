"""Where things lie: the stages' outputs, what outlives them, and the photographs.

`dvc exp run --temp` and `--queue` run the stages in a copy of the repository below `.dvc/tmp/exps`.
Outputs belong into the copy; what is remembered from run to run, and a relative `dataset.root`,
belong to the repository that was copied.
"""

from pathlib import Path

from pipeline.datasets import fetch
from pipeline.datasets.dataset import DATASETS
from pipeline.datasets.index import Index, Photographs
from pipeline.masks.segmenter import Machine
from pipeline.training.settings import Runtime
from stages.params import Params

PARAMS = Path("params.yaml")
ARTIFACTS = Path("artifacts")
LISTING = ARTIFACTS / "listing.json"
INDEX_FOLDER = ARTIFACTS / "index"
INDEX = INDEX_FOLDER / "index.parquet"
PHOTOGRAPHS = INDEX_FOLDER / "photographs.parquet"
MASKS = ARTIFACTS / "masks.zarr"
CROPS = ARTIFACTS / "crops.zarr"
TRAIN = ARTIFACTS / "train"
PUSH = ARTIFACTS / "push"
FINETUNE = ARTIFACTS / "finetune"
EVALUATE = ARTIFACTS / "evaluate"
METRICS = EVALUATE / "metrics.json"
MADE_WITH = EVALUATE / "made_with.json"
REPORT = ARTIFACTS / "report"


def origin() -> Path:
    """Returns the repository that the current folder is, or is a copy of."""
    here = Path.cwd().resolve()
    for folder in here.parents:
        if folder.parts[-3:] == (".dvc", "tmp", "exps"):
            return folder.parents[2]
    return here


def memory() -> Path:
    """Returns the folder of what outlives runs: finished masks, features, checkpoints, hashes."""
    return origin() / ".protomask"


def root_of(params: Params) -> Path:
    """Returns the folder that an index's paths are relative to."""
    if params.dataset.root is None:
        published = DATASETS[params.dataset.name].publication
        return INDEX_FOLDER if published is None else fetch.root_of(params.dataset.name, published)
    return origin() / Path(params.dataset.root).expanduser()


def weights_of(params: Params) -> str:
    """Returns `model.pretrained`, and if it is a file, where that lies."""
    pretrained = params.model.pretrained
    if pretrained in ("imagenet", "none"):
        return pretrained
    return str(origin() / Path(pretrained).expanduser())


def machine_of(params: Params) -> Machine:
    """Returns what masks are found with on this machine."""
    from pipeline.training.devices import device_of  # `scan` does not wait for torch

    return _machine(params.runtime, device_of(params.runtime))


def worker_of(params: Params) -> Machine:
    """Returns what the stage `masks` finds masks with: on a cluster, each worker's own device, of
    which this machine knows nothing."""
    runtime = params.runtime
    if runtime.scheduler is None or runtime.scheduler.startswith("local:"):
        return machine_of(params)
    return _machine(runtime, "cpu" if runtime.device == "cpu" else "cuda")


def _machine(runtime: Runtime, device: str) -> Machine:
    return Machine(
        device,
        _file(runtime.weights),
        _file(runtime.masks),
        runtime.memory_fraction,
        runtime.compile,
    )


def _file(name: str | None) -> Path | None:
    return None if name is None else origin() / Path(name).expanduser()


def read_index() -> Index:
    return Index.read(INDEX)


def read_photographs() -> Photographs:
    return Photographs.read(PHOTOGRAPHS)


def features(params: Params) -> Path | None:
    """Returns where features are remembered: nowhere if the backbone is trained, since no other run
    has the same."""
    return memory() / "features" if params.train.freeze_backbone else None
