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
from pipeline.model.backbone import Backbone
from pipeline.model.network import PrototypeNetwork
from pipeline.training.features import in_passes


@torch.inference_mode()
def with_random_weights(
    network: PrototypeNetwork, sources_P1SS3: Tensor, fabric: Fabric, seed: int
) -> PrototypeNetwork:
    """Returns the same network with a random backbone and W, and the same crops as prototypes.

    Args:
        network: the model; it is left as it is.
        sources_P1SS3: uint8, P×1×S×S×3, the training crops that are its prototypes.
        fabric: device and precision.
        seed: of the weights.
    """
    with torch.inference_mode(False), torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        control = PrototypeNetwork(
            network.settings, network.num_classes, Backbone(network.settings.backbone, "none")
        )
    control.prototypes = copy.deepcopy(network.prototypes)
    control.classifier = copy.deepcopy(network.classifier)
    control.class_of = network.class_of.clone()
    control = control.to(fabric.device).eval()
    features_PF = _features(control, sources_P1SS3, fabric)
    control.standardise(features_PF)
    control.prototypes.copy_(control.embed(features_PF))
    return control


@torch.inference_mode()
def with_random_prototypes(
    network: PrototypeNetwork,
    crops: CropStore,
    rows_N: NDArray[np.int64],
    fabric: Fabric,
    seed: int,
) -> PrototypeNetwork:
    """Returns the same network with random crops as prototypes.

    Args:
        network: the model; it is left as it is.
        crops: the crop store.
        rows_N: int64, the training images.
        fabric: device and precision.
        seed: decides which crops.
    """
    chance = np.random.default_rng(seed)
    image_X, crop_X = np.nonzero(crops.valid[rows_N])
    P = len(network.prototypes)
    chosen_P = chance.choice(len(image_X), P, replace=len(image_X) < P)
    pixels = [crops.crops([rows_N[image_X[x]]])[:, crop_X[x]] for x in chosen_P]
    control = copy.deepcopy(network).to(fabric.device)
    features_PF = _features(control, torch.from_numpy(np.stack(pixels)), fabric)
    control.prototypes.copy_(control.embed(features_PF))
    return control


def _features(network: PrototypeNetwork, crops_P1SS3: Tensor, fabric: Fabric) -> Tensor:
    crops = crops_P1SS3.to(fabric.device)
    valid_P1 = torch.ones(len(crops), 1, dtype=torch.bool, device=fabric.device)
    with fabric.autocast():
        return in_passes(network, crops, valid_P1)[:, 0].float()
