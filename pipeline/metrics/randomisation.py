"""Controls for a model's explanations: models with random weights or random prototypes.

Adebayo et al. (2018), "Sanity Checks for Saliency Maps": an explanation that is the same for a
model with random weights does not explain what the model has learned.
"""

import copy

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pipeline.backbone.backbone import Backbone
from pipeline.crops.store import CropStore
from pipeline.model.base.models import build
from pipeline.model.base.network import PrototypeNetwork
from pipeline.saliency.prototypes import Prototypes, crops_at, insides_at
from pipeline.training.fabric import Fabric
from pipeline.training.features import in_passes

HEAD = ("prototypes", "classifier", "classifier.weight", "classifier.bias", "class_of", "own")
"""Tensors copied from the trained model: the prototypes and their weights for the classes."""

STANDARDISED_BY = 512
"""Number of random training crops that the features of a random backbone are standardised by."""


def build_controls(
    network: PrototypeNetwork,
    prototypes: Prototypes,
    crops: CropStore,
    rows_N: NDArray[np.int64],
    fabric: Fabric,
    seed: int,
) -> dict[str, PrototypeNetwork]:
    """Returns the controls of a model by name, on the fabric's device.

    Args:
        network: the trained model, which is not changed.
        prototypes: the model's prototypes, with where they came from.
        crops: store of the training images' crops, as the model sees them.
        rows_N: int64 N, the training images, as rows of the store.
        fabric: the device and the precision of the backbone.
        seed: seed of the random weights and the random choice of views, ≥ 0.

    Returns:
        `random_weights` and, for a model whose prototypes are pushed, `random_prototypes`.
    """
    sources, inside = prototypes.pixels(crops), prototypes.inside(crops)
    cell_P = torch.tensor(prototypes.cell_P)
    views = sources, inside, cell_P
    made = {"random_weights": with_random_weights(network, *views, crops, rows_N, fabric, seed)}
    if network.pushes:
        made["random_prototypes"] = with_random_prototypes(network, crops, rows_N, fabric, seed)
    return made


@torch.inference_mode()
def with_random_weights(
    network: PrototypeNetwork,
    sources_P1SS3: Tensor,
    inside_P1SS: Tensor,
    cell_P: Tensor,
    crops: CropStore,
    rows_N: NDArray[np.int64],
    fabric: Fabric,
    seed: int,
) -> PrototypeNetwork:
    """Returns the network with a random backbone and W, and the same views as prototypes.

    Its features are standardised by training crops, as those of the trained model are.

    Args:
        network: the trained model, which is not changed.
        sources_P1SS3: uint8 P×1×S×S×3, the training crop that each prototype was pushed onto.
        inside_P1SS: bool P×1×S×S, the masks inside these crops.
        cell_P: int64 P, the view of this crop that each prototype was pushed onto, from 0.
        crops: store of the training images' crops, as the model sees them.
        rows_N: int64 N, the training images, as rows of the store.
        fabric: the device and the precision of the backbone.
        seed: seed of the random weights and the random choice of crops, ≥ 0.

    Returns:
        The control model on the fabric's device, in evaluation mode.
    """
    with torch.inference_mode(False), torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        backbone = Backbone(network.settings.backbone, "none")
        control = build(network.settings, network.num_classes, backbone)
        control.reshape(network.num_prototypes)
        learned = {name: t for name, t in network.state_dict().items() if name in HEAD}
        control.load_state_dict(learned, strict=False)
        control = control.to(fabric.device).eval()
    places = _random_places(crops, rows_N, STANDARDISED_BY, np.random.default_rng(seed))
    seen = crops_at(crops, places), insides_at(crops, places)
    control.standardise(_features(control, *seen, fabric).flatten(0, 1))
    _push_onto(control, _features(control, sources_P1SS3, inside_P1SS, fabric), cell_P)
    return control


@torch.inference_mode()
def with_random_prototypes(
    network: PrototypeNetwork,
    crops: CropStore,
    rows_N: NDArray[np.int64],
    fabric: Fabric,
    seed: int,
) -> PrototypeNetwork:
    """Returns the network with random training views as prototypes.

    Args:
        network: the trained model, which is not changed and shares its backbone with the control.
        crops: store of the training images' crops, as the model sees them.
        rows_N: int64 N, the training images, as rows of the store.
        fabric: the device and the precision of the backbone.
        seed: seed of the random choice of views, ≥ 0.

    Returns:
        The control model on the fabric's device.
    """
    chance = np.random.default_rng(seed)
    P = network.num_prototypes
    places = _random_places(crops, rows_N, P, chance)
    with torch.inference_mode(False):  # or no gradient could go through the copy
        network = network.to(fabric.device)
        control = copy.deepcopy(network, {id(network.backbone): network.backbone})
    pixels, inside = crops_at(crops, places), insides_at(crops, places)
    features_PVF = _features(control, pixels, inside, fabric)
    _push_onto(
        control, features_PVF, torch.from_numpy(chance.integers(features_PVF.shape[1], size=P))
    )
    return control


def _random_places(
    crops: CropStore, rows_N: NDArray[np.int64], count: int, chance: np.random.Generator
) -> list[tuple[int, int]]:
    """Returns so many random crops of images, by row and number; repeated if there are fewer."""
    image_X, crop_X = np.nonzero(crops.valid[rows_N])
    chosen = chance.choice(len(image_X), count, replace=len(image_X) < count)
    return [(int(rows_N[image_X[x]]), int(crop_X[x])) for x in chosen]


def _push_onto(control: PrototypeNetwork, features_PVF: Tensor, cell_P: Tensor) -> None:
    control.push(control.embed(features_PVF[torch.arange(len(cell_P)), cell_P]))


def _features(
    network: PrototypeNetwork, crops_P1SS3: Tensor, inside_P1SS: Tensor, fabric: Fabric
) -> Tensor:
    valid_P1 = torch.ones(len(crops_P1SS3), 1, dtype=torch.bool)
    given = (tensor.to(fabric.device) for tensor in (crops_P1SS3, valid_P1, inside_P1SS))
    with fabric.autocast():
        return in_passes(network, *given).float()
