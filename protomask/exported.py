"""A model that travels: one folder with all that its answers need.

- `backbone.safetensors`, `model.safetensors`, `model.json`: the network, and how it was made.
- `prototypes.csv`, `prototypes/NUMBER.png`: where each prototype came from, and that view as the
  network sees it; what lies outside its mask is transparent.
- `codebook.safetensors`, `weights…`: what the segmenter needs, if it needs any.
- `config.json`: the rest of the settings, and the SHA-256 of all these files.
- `metrics.json`, `intervals.json`, `README.md`: how good it is; the model card.

The names are those of the Hugging Face hub.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from pipeline.crops.settings import CropSettings
from pipeline.errors import ProtoMaskError
from pipeline.files import sha256
from pipeline.masks.segmenter import Machine
from pipeline.model.base.network import PrototypeNetwork
from pipeline.model.base.saved import About, load_model
from pipeline.report.parts import Parts
from pipeline.report.predictor import Predictor
from pipeline.saliency.prototypes import Prototypes
from pipeline.training.fabric import device_of, make_fabric
from pipeline.training.prototype_sources import read_sources
from pipeline.training.settings import Runtime

CONFIG, SOURCES, PICTURES = "config.json", "prototypes.csv", "prototypes"
CODEBOOK, WEIGHTS = "codebook.safetensors", "weights"
ALONE: Mapping[str, Any] = {
    **dict.fromkeys(("weights", "masks", "codebook", "scheduler")),
    "engine": "pytorch",
    "devices": 1,
    "workers": 1,
    "compile": False,
    "memory_fraction": 0.9,
}
"""How a model runs without an experiment's settings, on any device."""


class Config(BaseModel):
    """What config.json holds.

    Args:
        model_type: by which such a folder is known.
        format: of the folder; raised when other code cannot read it any more.
        version: of ProtoMask, which wrote it.
        data_set: name of the data set that the model was trained on.
        only_mask: whether pages show relevance on the crops' masks only.
        part_names: names of the parts by their numbers.
        part_shares: share of the training images in which each part is found, in (0, 1].
        codebook, weights: the segmenter's files, if it needs any.
        files: SHA-256 of each file by its path, with forward slashes.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    model_type: Literal["protomask"] = "protomask"
    format: Literal[1] = 1
    version: str
    data_set: str
    only_mask: bool
    part_names: dict[int, str]
    part_shares: dict[int, Annotated[float, Field(gt=0, le=1)]]
    codebook: str | None
    weights: str | None
    files: dict[str, str]


class Exported:
    """A folder that `export_model` wrote.

    Args:
        folder: the folder.

    Raises:
        ProtoMaskError: it is none, of another version, or a file is missing or damaged.
    """

    def __init__(self, folder: Path) -> None:
        self.folder, self.config = folder, _read_config(folder)
        for name, digest in self.config.files.items():
            path = folder / name
            if not path.is_file() or sha256(path) != digest:
                what = "is not as it was exported" if path.exists() else "is missing"
                raise ProtoMaskError(f"{path} {what}: {_again(folder)}")

    @classmethod
    def lies_in(cls, folder: Path) -> bool:
        """Returns whether a folder says that it is such a one."""
        try:
            values = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return False
        return isinstance(values, dict) and values.get("model_type") == "protomask"

    def model(self) -> tuple[PrototypeNetwork, About]:
        """Returns the model, in evaluation mode on the CPU, and its description."""
        return load_model(self.folder, _again(self.folder))

    def predictor(self, device: str) -> Predictor:
        """Returns what applies the model to images.

        Args:
            device: `auto`, `cpu` or `cuda`.

        Raises:
            ProtoMaskError: there is no such device, or a component that the model needs is not
                installed.
        """
        network, about = self.model()
        runtime = on_device(ALONE, device)
        sources = read_sources(self.folder / SOURCES)
        ids = sorted(set(sources["image"]))
        settings = about.crops if network.sees == "crops" else about.crops.of_whole_images()
        prototypes = Prototypes.of(network, sources, about.class_names, ids, settings.side)
        parts = Parts(self.config.part_names, self.config.part_shares)
        machine = Machine(
            device_of(runtime),
            weights=self._file(self.config.weights),
            codebook=self._file(self.config.codebook),
        )
        crops = PrototypeCrops(
            self.folder / PICTURES, settings, network.sees == "whole", prototypes
        )
        fabric = make_fabric(runtime, about.precision)
        return Predictor(network, fabric, about, machine, prototypes, crops, ids, parts)

    def _file(self, name: str | None) -> Path | None:
        return None if name is None else self.folder / name


class PrototypeCrops:
    """The crops that prototypes came from, as a crop store gives them (`StoredCrops`).

    A row is an image that a prototype came from, in the order of their ids; of its crops there are
    those of prototypes.

    Args:
        folder: folder of the pictures.
        settings: how they were cut.
        whole_images: whether each image is its own only crop.
        prototypes: the prototypes.
    """

    def __init__(
        self, folder: Path, settings: CropSettings, whole_images: bool, prototypes: Prototypes
    ) -> None:
        self.settings, self.whole_images = settings, whole_images
        self.part_names: dict[int, str] = {}
        self._crops_of: dict[int, dict[int, Path]] = {}
        places = zip(prototypes.rows_P.tolist(), prototypes.crop_P.tolist(), strict=True)
        for number, (row, crop) in enumerate(places):
            self._crops_of.setdefault(row, {})[crop] = folder / picture_name(number)

    def crops(self, images: Sequence[int] | NDArray[np.integer]) -> NDArray[np.uint8]:
        """Returns the crops of some images: uint8 B×K×S×S×3, zeros where there is no prototype."""
        return np.stack([self._read(int(row))[..., :3] for row in images])

    def inside(self, image: int) -> NDArray[np.bool_]:
        """Returns the masks inside the crops of one image: bool K×S×S."""
        return self._read(image)[..., 3] > 0

    def _read(self, row: int) -> NDArray[np.uint8]:
        count, side = 1 if self.whole_images else self.settings.per_image, self.settings.side
        found = np.zeros((count, side, side, 4), np.uint8)
        for crop, path in self._crops_of[row].items():
            with Image.open(path) as picture:
                found[crop] = np.asarray(picture)
        return found


def picture_name(prototype: int) -> str:
    """Returns the name of the picture of a prototype."""
    return f"{prototype:04d}.png"


def draw_cut(pixels: NDArray[np.uint8], inside: NDArray[np.bool_]) -> Image.Image:
    """Returns a crop as a picture whose pixels outside the mask are transparent, and kept.

    Args:
        pixels: the RGB crop, uint8 S×S×3.
        inside: bool S×S, the mask inside it.
    """
    return Image.fromarray(np.dstack([pixels, inside.astype(np.uint8) * 255]), "RGBA")


def hashes_below(folder: Path) -> Mapping[str, str]:
    """Returns the SHA-256 of each file in a folder by its path, with forward slashes, sorted."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): sha256(path) for path in files}


def _read_config(folder: Path) -> Config:
    try:
        return Config.model_validate_json((folder / CONFIG).read_bytes())
    except (OSError, ValidationError):
        raise ProtoMaskError(
            f"{folder / CONFIG} is missing, damaged, or of another version of ProtoMask: "
            f"{_again(folder)}, or install that version"
        ) from None


def _again(folder: Path) -> str:
    return f"get {folder} again where it came from, or export it again (`protomask export`)"


def on_device(runtime: Mapping[str, Any], device: str) -> Runtime:
    """Returns settings with another device.

    Args:
        runtime: all settings but `device`, by name.
        device: `auto`, `cpu` or `cuda`.

    Raises:
        ProtoMaskError: there is no such device.
    """
    try:
        return Runtime.model_validate({**runtime, "device": device})
    except ValidationError:
        raise ProtoMaskError(f"there is no device {device!r}: auto, cpu or cuda") from None
