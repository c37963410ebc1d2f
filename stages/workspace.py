"""Where things lie: the stages' outputs, what outlives them, and the photographs.

`dvc exp run --temp` and `--queue` run the stages in a copy of the repository below `.dvc/tmp/exps`.
Outputs belong into the copy; what is cached from run to run, and a relative `dataset.root`, belong
to the repository that was copied.
"""

from dataclasses import dataclass
from pathlib import Path

from pipeline.datasets import fetch
from pipeline.datasets.dataset import DATASETS
from pipeline.datasets.index import ImageFiles, Index
from pipeline.masks.segmenter import Machine
from pipeline.masks.store import CODEBOOK
from pipeline.training.settings import Runtime
from stages.params import Params, read_params


@dataclass(frozen=True)
class Workspace:
    """A folder with `params.yaml` and what the stages make of it.

    Args:
        root: the folder; the default is the current one.
    """

    root: Path = Path()

    @property
    def params_file(self) -> Path:
        """The experiment's parameters."""
        return self.root / "params.yaml"

    @property
    def part_names(self) -> Path:
        """The names that people give to the segmenter's parts."""
        return self.root / "parts.yaml"

    @property
    def artifacts(self) -> Path:
        """The folder of all stages' outputs."""
        return self.root / "artifacts"

    @property
    def listing(self) -> Path:
        """What `scan` found below `dataset.root`."""
        return self.artifacts / "listing.json"

    @property
    def index_folder(self) -> Path:
        """The output of `prepare`."""
        return self.artifacts / "index"

    @property
    def index(self) -> Path:
        """The index of images, with all that is known of them."""
        return self.index_folder / "index.parquet"

    @property
    def image_files(self) -> Path:
        """The images' paths, hashes and sizes: what masks and crops depend on."""
        return self.index_folder / "photographs.parquet"

    @property
    def masks(self) -> Path:
        """The mask store."""
        return self.artifacts / "masks.zarr"

    @property
    def crops(self) -> Path:
        """The crop store."""
        return self.artifacts / "crops.zarr"

    @property
    def train(self) -> Path:
        """The trained model and its curves."""
        return self.artifacts / "train"

    @property
    def push(self) -> Path:
        """The model whose prototypes are training crops."""
        return self.artifacts / "push"

    @property
    def finetune(self) -> Path:
        """The finished model."""
        return self.artifacts / "finetune"

    @property
    def evaluate(self) -> Path:
        """The metrics, and what they were made of."""
        return self.artifacts / "evaluate"

    @property
    def metrics(self) -> Path:
        """The metrics that DVC knows."""
        return self.evaluate / "metrics.json"

    @property
    def intervals(self) -> Path:
        """The 95 % intervals of the metrics that are means over images."""
        return self.evaluate / "intervals.json"

    @property
    def made_with(self) -> Path:
        """The parameters that the metrics were really made with."""
        return self.evaluate / "made_with.json"

    @property
    def report(self) -> Path:
        """The report's pages."""
        return self.artifacts / "report"

    @property
    def origin(self) -> Path:
        """The repository that the workspace is, or is a copy of."""
        here = self.root.resolve()
        for folder in here.parents:
            if folder.parts[-3:] == (".dvc", "tmp", "exps"):
                return folder.parents[2]
        return here

    @property
    def cache(self) -> Path:
        """The folder of what outlives runs: finished masks, features, checkpoints, hashes."""
        return self.origin / ".protomask"

    def read_params(self) -> Params:
        """Reads and checks the parameters; for errors see `stages.params.read_params`."""
        return read_params(self.params_file)

    def read_index(self) -> Index:
        """Reads the index of images; for errors see `Index.read`."""
        return Index.read(self.index)

    def read_image_files(self) -> ImageFiles:
        """Reads the images' paths, hashes and sizes; for errors see `ImageFiles.read`."""
        return ImageFiles.read(self.image_files)

    def images_root(self, params: Params) -> Path:
        """Returns the folder that an index's paths are relative to."""
        if params.dataset.root is not None:
            return self.origin / Path(params.dataset.root).expanduser()
        published = DATASETS[params.dataset.name].publication
        if published is None:
            return self.index_folder
        return fetch.root_of(params.dataset.name, published)

    def weights(self, params: Params) -> str:
        """Returns `model.pretrained`, and if it is a file, where that lies."""
        pretrained = params.model.pretrained
        if pretrained in ("imagenet", "none"):
            return pretrained
        return str(self.origin / Path(pretrained).expanduser())

    def feature_cache(self, params: Params) -> Path | None:
        """Returns where features are cached: nowhere if the backbone is trained, since no other run
        has the same."""
        return self.cache / "features" if params.train.freeze_backbone else None

    def machine(self, params: Params) -> Machine:
        """Returns what masks are found with on this machine."""
        from pipeline.training.fabric import device_of  # imports torch

        return self._machine(params.runtime, device_of(params.runtime))

    def worker(self, params: Params) -> Machine:
        """Returns what the stage `masks` finds masks with: on a cluster, each worker's own device,
        of which this machine knows nothing."""
        runtime = params.runtime
        if not params.segmenter.uses_device:
            return self._machine(runtime, "cpu")
        if runtime.scheduler is None or runtime.scheduler.startswith("local:"):
            return self.machine(params)
        return self._machine(runtime, "cpu" if runtime.device == "cpu" else "cuda")

    def _machine(self, runtime: Runtime, device: str) -> Machine:
        return Machine(
            device,
            self._file(runtime.weights),
            self._file(runtime.masks),
            runtime.memory_fraction,
            runtime.compile,
            self._file(runtime.codebook) or self._stored_codebook(),
            runtime.engine,
        )

    def _stored_codebook(self) -> Path | None:
        stored = self.masks / CODEBOOK
        return stored if stored.is_file() else None

    def _file(self, name: str | None) -> Path | None:
        return None if name is None else self.origin / Path(name).expanduser()
