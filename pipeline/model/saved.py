"""A saved model: a folder with its weights (safetensors) and a JSON file that says what they are."""

import json
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

from pipeline.crops.extraction import CropSettings
from pipeline.datasets.index import Photographs
from pipeline.datasets.listing import sha256
from pipeline.errors import ProtoMaskError
from pipeline.files import whole_file
from pipeline.model.backbone import Backbone
from pipeline.model.network import PrototypeNetwork
from pipeline.model.settings import ModelSettings

FORMAT = 1
WEIGHTS, ABOUT = "model.safetensors", "model.json"


class About(BaseModel):
    """Everything besides the weights that is needed to rebuild a model and to use it on a photograph.

    Args:
        class_names: the C classes, in the order of the logits.
        segmenter: the fingerprint of the segmenter whose masks it was trained on.
        crops: how its crops were cut.
        images: the digest of the index it was trained on.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    class_names: list[str]
    segmenter: dict[str, Any]
    crops: CropSettings
    images: str

    def refuse_unless(self, photographs: Photographs) -> None:
        """Checks that the model was trained on these images.

        Raises:
            ProtoMaskError: it was not.
        """
        if self.images != photographs.digest():
            raise ProtoMaskError(
                f"the model was trained on other images than the {len(photographs)} of "
                f"{photographs.dataset!r} in the index: run `dvc repro`"
            )


def save_model(folder: Path, network: PrototypeNetwork, about: About) -> None:
    """Writes a model; the same model gives the same bytes."""
    state = {name: tensor.detach().cpu().contiguous() for name, tensor in network.state_dict().items()}
    with whole_file(folder / WEIGHTS) as part:
        save_file(state, part)
        digest = sha256(part)
    described = {
        "format": FORMAT,
        "settings": network.settings.model_dump(mode="json"),
        "num_prototypes": len(network.prototypes),
        "weights_sha256": digest,
        **about.model_dump(mode="json"),
    }
    with whole_file(folder / ABOUT) as part:
        part.write_text(json.dumps(described, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def load_model(folder: Path) -> tuple[PrototypeNetwork, About]:
    """Reads a model that `save_model` wrote, in evaluation mode, on the CPU.

    Raises:
        ProtoMaskError: nothing there, damaged, or of another format.
    """
    try:
        described = json.loads((folder / ABOUT).read_text(encoding="utf-8"))
        if described.pop("format") != FORMAT:
            raise ProtoMaskError(f"{folder / ABOUT} is of another version of ProtoMask: train again")
        settings = ModelSettings(**described.pop("settings"))
        num_prototypes = described.pop("num_prototypes")
        digest = described.pop("weights_sha256")
        about = About(**described)
        if sha256(folder / WEIGHTS) != digest:
            raise ProtoMaskError(f"{folder / WEIGHTS} is not the file that {ABOUT} describes")
        state = load_file(folder / WEIGHTS)
    except FileNotFoundError as error:
        raise ProtoMaskError(
            f"no model in {folder}: {Path(error.filename).name} is missing; run `dvc repro`"
        ) from None
    except (KeyError, ValueError, ValidationError, SafetensorError, OSError) as error:
        raise ProtoMaskError(f"{folder} holds no readable model ({error}); train again") from None
    backbone = Backbone(settings.backbone, "none")
    network = PrototypeNetwork(settings, len(about.class_names), backbone)
    network.prototypes = nn.Parameter(network.prototypes.new_empty(num_prototypes, settings.embedding_dim))
    network.classifier = nn.Parameter(network.classifier.new_empty(network.num_classes, num_prototypes))
    network.class_of = network.class_of.new_empty(num_prototypes)
    try:
        network.load_state_dict(state)
    except RuntimeError as error:
        raise ProtoMaskError(f"{folder / WEIGHTS} holds another model: {error}") from None
    return network.eval(), about
