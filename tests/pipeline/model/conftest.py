"""Small models of every kind."""

from collections.abc import Callable

import pytest
import torch
from settings import model_settings

from pipeline.model.base.models import build
from pipeline.model.base.network import PrototypeNetwork

BACKBONE = {"backbone": "test_resnet", "pretrained": "none"}
SMALL = {
    "protomask": model_settings("protomask", **BACKBONE, embedding_dim=8, prototypes_per_class=2),
    "protopnet": model_settings("protopnet", **BACKBONE, embedding_dim=8, prototypes_per_class=2),
    "protopool": model_settings("protopool", **BACKBONE, embedding_dim=8, prototypes=7, slots=2),
    "pipnet": model_settings("pipnet", **BACKBONE, prototypes=9),
    "blackbox": model_settings("blackbox", **BACKBONE),
}


@pytest.fixture
def make_small() -> Callable[[str], PrototypeNetwork]:
    """Returns a model of three classes as one is after training, the same in every call."""

    def make(name: str) -> PrototypeNetwork:
        torch.manual_seed(0)
        network = build(SMALL[name], 3)
        network.standardise(torch.rand(20, network.backbone.num_features))
        with torch.no_grad():
            for group in network.parameter_groups().values():
                for parameter in group:
                    parameter.add_(0.1 * torch.randn_like(parameter))
        network.finish()
        return network.eval()

    return make
