"""What a model's explanations are compared with: models that have learned nothing.

Adebayo et al. (2018), "Sanity Checks for Saliency Maps": an explanation that looks the same for a
model with random weights does not explain what the model has learned.
"""

import copy

import numpy as np
import torch
from lightning_fabric import Fabric
from numpy.typing import NDArray
from torch import Tensor

from pipeline.crops.store import CropStore
from pipeline.model.base.backbone import Backbone
from pipeline.model.base.models import build
from pipeline.model.base.network import PrototypeNetwork
from pipeline.training.features import in_passes

HEAD = ("prototypes", "classifier", "classifier.weight", "classifier.bias", "class_of", "own")
"""What is not random: which classes the prototypes speak for."""


@torch.inference_mode()
def with_random_weights(
    network: PrototypeNetwork, sources_P1SS3: Tensor, cell_P: Tensor, fabric: Fabric, seed: int
) -> PrototypeNetwork:
    """Returns the same network with a random backbone and W, and the same views as prototypes.

    Args:
        network: the model; it is left as it is.
        sources_P1SS3: uint8, P×1×S×S×3, the training crops that its prototypes are of.
        cell_P: int64, the cells of these.
        fabric: device and precision.
        seed: of the weights.
    """
    with torch.inference_mode(False), torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        backbone = Backbone(network.settings.backbone, "none")
        control = build(network.settings, network.num_classes, backbone)
        control.reshape(network.num_prototypes)
    learned = {name: t for name, t in network.state_dict().items() if name in HEAD}
    control.load_state_dict(learned, strict=False)
    control = control.to(fabric.device).eval()
    features_PVF = _features(control, sources_P1SS3, fabric)
    control.standardise(features_PVF.flatten(0, 1))
    _push_onto(control, features_PVF, cell_P)
    return control


@torch.inference_mode()
def with_random_prototypes(
    network: PrototypeNetwork,
    crops: CropStore,
    rows_N: NDArray[np.int64],
    fabric: Fabric,
    seed: int,
) -> PrototypeNetwork:
    """Returns the same network with random views as prototypes.

    Args:
        network: the model; it is left as it is.
        crops: the crop store.
        rows_N: int64, the training images.
        fabric: device and precision.
        seed: decides which.
    """
    chance = np.random.default_rng(seed)
    image_X, crop_X = np.nonzero(crops.valid[rows_N])
    P = network.num_prototypes
    chosen_P = chance.choice(len(image_X), P, replace=len(image_X) < P)
    pixels = [crops.crops([rows_N[image_X[x]]])[:, crop_X[x]] for x in chosen_P]
    control = copy.deepcopy(network).to(fabric.device)
    features_PVF = _features(control, torch.from_numpy(np.stack(pixels)), fabric)
    _push_onto(
        control, features_PVF, torch.from_numpy(chance.integers(features_PVF.shape[1], size=P))
    )
    return control


def _push_onto(control: PrototypeNetwork, features_PVF: Tensor, cell_P: Tensor) -> None:
    control.push(control.embed(features_PVF[torch.arange(len(cell_P)), cell_P]))


def _features(network: PrototypeNetwork, crops_P1SS3: Tensor, fabric: Fabric) -> Tensor:
    crops = crops_P1SS3.to(fabric.device)
    valid_P1 = torch.ones(len(crops), 1, dtype=torch.bool, device=fabric.device)
    with fabric.autocast():
        return in_passes(network, crops, valid_P1).float()
