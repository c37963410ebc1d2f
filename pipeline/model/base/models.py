"""The models by name, and building one from its settings."""

from typing import Any, TypeVar

from pipeline.model.base.backbone import Backbone
from pipeline.model.base.network import PrototypeNetwork
from pipeline.registry import Registry

MODELS: Registry[type[PrototypeNetwork]] = Registry("model", "pipeline.model", "protomask.models")

Network = TypeVar("Network", bound=type[PrototypeNetwork])


def register(network: Network) -> Network:
    """Registers a model under the name that its settings have; a decorator of its class."""
    MODELS.add(network.settings_type.model_fields["name"].default, network)
    return network


def build(settings: Any, num_classes: int, backbone: Backbone | None = None) -> PrototypeNetwork:
    """Returns a new model.

    Args:
        settings: the model's own, a subclass of `BackboneSettings`.
        num_classes: C.
        backbone: the feature extractor; built from the settings where None.

    Raises:
        ProtoMaskError: no model is registered under the settings' name.
    """
    return MODELS[settings.name](settings, num_classes, backbone)
