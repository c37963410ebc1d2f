"""A saved model: a folder with its weights (safetensors) and a JSON file that describes it.

The backbone's weights are a file of their own. It is the same, to the byte, for all models of a
frozen backbone and in all stages after training, so that DVC keeps and sends it once.
"""

import json
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from pipeline.backbone.backbone import Backbone
from pipeline.crops.settings import CropSettings
from pipeline.datasets.index import ImageFiles
from pipeline.errors import ProtoMaskError, make, rerun
from pipeline.files import atomic_file, sha256
from pipeline.model.base.models import MODEL_SETTINGS, build
from pipeline.model.base.network import PrototypeNetwork
from pipeline.model.base.settings import BackboneSettings, Precision

FORMAT = 6
BACKBONE, WEIGHTS, ABOUT = "backbone.safetensors", "model.safetensors", "model.json"
OF_BACKBONE = "backbone."
"""What the names of the backbone's tensors begin with."""


class About(BaseModel):
    """Everything besides the weights that is needed to rebuild a model and apply it to an image.

    Args:
        class_names: names of the C classes, in the order of the logits.
        segmenter: fingerprint of the segmenter whose masks the model was trained on.
        crops: settings by which the training crops were cut.
        images: digest of the index of the images that the model was trained on.
        precision: dtype in which the backbone computed features in training, and is to compute
            them later on.
        made_with: parameters of all stages up to this model: stage → parameter → value.
        not_learned: what speaks against its having learned anything, in words; empty if nothing.
        typical: percentiles of the largest class scores of the validation images, from
            `typicality.calibrated`; empty if there are none, or before fine-tuning.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    class_names: list[str]
    segmenter: dict[str, Any]
    crops: CropSettings
    images: str
    precision: Precision
    made_with: dict[str, dict[str, Any]] = {}
    not_learned: list[str] = []
    typical: list[float] = []

    def refuse_unless(self, image_files: ImageFiles) -> None:
        """Checks that the model was trained on these images.

        Args:
            image_files: the images of a data set, whose digest is compared with the model's.

        Raises:
            ProtoMaskError: the model was trained on other images.
        """
        if self.images != image_files.digest():
            raise ProtoMaskError(
                f"the model was trained on other images than the {len(image_files)} of "
                f"{image_files.dataset!r} in the index: run `dvc repro`"
            )


class _Described(About):
    """The content of model.json."""

    format: int
    settings: dict[str, Any]
    num_prototypes: Annotated[int, Field(ge=1)]
    weights_sha256: dict[str, str]


def save_model(folder: Path, network: PrototypeNetwork, about: About) -> None:
    """Writes a model to a folder; equal models give equal bytes.

    Args:
        folder: folder that `backbone.safetensors`, `model.safetensors` and `model.json` are
            written to.
        network: the model to save, on any device.
        about: description of its classes, segmenter, crops and training images.
    """
    state = network.state_dict()
    state = {name: tensor.detach().cpu().contiguous() for name, tensor in state.items()}
    digests = {}
    for file, in_backbone in ((BACKBONE, True), (WEIGHTS, False)):
        some = {name: t for name, t in state.items() if name.startswith(OF_BACKBONE) == in_backbone}
        with atomic_file(folder / file) as part:
            save_file(some, part)
            digests[file] = sha256(part)
    described = _Described(
        **about.model_dump(),
        format=FORMAT,
        settings=network.settings.model_dump(mode="json"),
        num_prototypes=network.num_prototypes,
        weights_sha256=digests,
    )
    with atomic_file(folder / ABOUT) as part:
        part.write_text(described.model_dump_json(indent=2) + "\n", encoding="utf-8")


def _settings_of(values: dict[str, Any]) -> BackboneSettings:
    """Returns a model's settings from their JSON values.

    Raises:
        ValueError: there is no such model, or it has no such settings.
    """
    try:
        settings_type = MODEL_SETTINGS[values.get("name", "")]
    except ProtoMaskError as error:
        raise ValueError(str(error)) from None
    return settings_type.model_validate(values)


def load_model(folder: Path, advice: str | None = None) -> tuple[PrototypeNetwork, About]:
    """Reads a model written by `save_model`.

    Args:
        folder: folder that `save_model` has written to.
        advice: what errors advise; None: to run the stage again that the folder is named after.

    Returns:
        The model in evaluation mode, on the CPU, and its description.

    Raises:
        ProtoMaskError: the folder holds no model, or one that is damaged or of another format.
    """
    damaged = advice or rerun(folder.name)
    try:
        values = json.loads((folder / ABOUT).read_text(encoding="utf-8"))
        if isinstance(values, dict) and values.get("format") != FORMAT:
            raise ProtoMaskError(f"{folder / ABOUT} is of another version of ProtoMask: {damaged}")
        described = _Described.model_validate(values)
        settings = _settings_of(described.settings)
        state: dict[str, Tensor] = {}
        for file in (BACKBONE, WEIGHTS):
            if sha256(folder / file) != described.weights_sha256.get(file):
                raise ProtoMaskError(
                    f"{folder / file} is not the file that {ABOUT} describes: {damaged}"
                )
            state |= load_file(folder / file)
    except FileNotFoundError as error:
        name, missing = Path(error.filename).name, advice or make(folder.name)
        raise ProtoMaskError(f"no model in {folder}, {name} is missing: {missing}") from None
    except (ValueError, SafetensorError, OSError) as error:
        raise ProtoMaskError(f"{folder} holds no readable model ({error}): {damaged}") from None
    backbone = Backbone(settings.backbone, "none")
    network = build(settings, len(described.class_names), backbone)
    network.reshape(described.num_prototypes)
    try:
        network.load_state_dict(state)
    except RuntimeError as error:
        raise ProtoMaskError(
            f"the weights in {folder} are another model's ({error}): {damaged}"
        ) from None
    about = About(**{name: getattr(described, name) for name in About.model_fields})
    return network.eval(), about
