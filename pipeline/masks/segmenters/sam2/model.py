"""SAM 2.1's networks with their weights."""

import pickle
from collections.abc import Sequence

import torch
from hydra import initialize_config_module
from hydra.core.global_hydra import GlobalHydra
from sam2.build_sam import build_sam2
from sam2.modeling.sam2_base import SAM2Base

from pipeline.errors import ProtoMaskError
from pipeline.masks.segmenter import Machine
from pipeline.masks.segmenters.sam2.settings import ModelName
from pipeline.masks.weights import find_weights

URL = "https://dl.fbaipublicfiles.com/segment_anything_2/092824"
CONFIGS: dict[ModelName, str] = {
    "sam2.1_hiera_tiny": "sam2.1_hiera_t",
    "sam2.1_hiera_small": "sam2.1_hiera_s",
    "sam2.1_hiera_base_plus": "sam2.1_hiera_b+",
    "sam2.1_hiera_large": "sam2.1_hiera_l",
}


def load_model(name: ModelName, sha256: str, machine: Machine) -> SAM2Base:
    """Builds a network on the machine's device, with its weights, in evaluation mode.

    Args:
        name: name of the model.
        sha256: SHA-256 of the file with its weights, 64 hex digits.
        machine: the device, and the file with the weights, if it is not to be downloaded.

    Raises:
        ProtoMaskError: the weights are not available, or are those of another network.
    """
    path = find_weights(f"{URL}/{name}.pt", sha256, machine.weights)
    model = build(name, machine.device)
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)["model"]
        model.load_state_dict(state)
    except (RuntimeError, KeyError, TypeError, pickle.UnpicklingError, EOFError):
        raise ProtoMaskError(
            f"{path} holds no weights of {name}: choose the model that they are of with "
            f"segmenter.model ({', '.join(CONFIGS)})"
        ) from None
    return model.requires_grad_(False)


def build(name: ModelName, device: str, changed: Sequence[str] = ()) -> SAM2Base:
    """Builds a network with random weights, in evaluation mode.

    Args:
        name: name of the model, one of `CONFIGS`.
        device: PyTorch's name of the device.
        changed: Hydra overrides of the model's configuration.
    """
    # Hydra's state is global; sam2 initialises it on import, and DVC uses it as well.
    GlobalHydra.instance().clear()
    with initialize_config_module("sam2", version_base="1.2"):
        config = f"configs/sam2.1/{CONFIGS[name]}.yaml"
        return build_sam2(config, device=device, hydra_overrides_extra=list(changed))
