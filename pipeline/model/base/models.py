"""Registry of the models, and the construction of a model from its settings."""

from typing import Any, TypeVar

from pipeline.model.base.backbone import Backbone
from pipeline.model.base.network import PrototypeNetwork
from pipeline.registry import Registry

MODELS: Registry[type[PrototypeNetwork]] = Registry("model", "pipeline.model", "protomask.models")

Network = TypeVar("Network", bound=type[PrototypeNetwork])


def register(network: Network) -> Network:
    """Class decorator that registers a model under the name in its settings.

    Args:
        network: the model's class, whose `settings_type` has a default `name`.

    Returns:
        The same class.

    Raises:
        ProtoMaskError: another model is registered under this name.
    """
    MODELS.add(network.settings_type.model_fields["name"].default, network)
    return network


def build(settings: Any, num_classes: int, backbone: Backbone | None = None) -> PrototypeNetwork:
    """Builds a new model.

    Args:
        settings: the model's own settings, an instance of a subclass of `BackboneSettings`.
        num_classes: C, the number of classes, ≥ 1.
        backbone: the feature extractor; None builds it from the settings.

    Returns:
        The initialised model, on the CPU.

    Raises:
        ProtoMaskError: no model is registered under the settings' name, or the backbone cannot be
            built.
    """
    return MODELS[settings.name](settings, num_classes, backbone)
