"""Registries of the models and of their parameters, and the construction of a model from these.

Parameters are checked by stages that have no use for a network. So they are registered apart, and
where a model is a package, its module `settings` registers them without an import of PyTorch.
"""

from typing import TYPE_CHECKING, Any, TypeVar

from pipeline.model.base.settings import BackboneSettings
from pipeline.registry import Registry

if TYPE_CHECKING:
    from pipeline.backbone.backbone import Backbone
    from pipeline.model.base.network import PrototypeNetwork

MODELS: "Registry[type[PrototypeNetwork]]" = Registry("model", "pipeline.model", "protomask.models")
MODEL_SETTINGS: Registry[type[BackboneSettings]] = Registry(
    "model", "pipeline.model", "protomask.models", module="settings"
)

Network = TypeVar("Network", bound="type[PrototypeNetwork]")
Settings = TypeVar("Settings", bound=type[BackboneSettings])


def register(network: Network) -> Network:
    """Class decorator that registers a model, and its parameters, under the name in its settings.

    Args:
        network: the model's class, whose `settings_type` has a default `name`.

    Returns:
        The same class.

    Raises:
        ProtoMaskError: another model is registered under this name.
    """
    register_settings(network.settings_type)
    MODELS.add(_name(network.settings_type), network)
    return network


def register_settings(settings: Settings) -> Settings:
    """Class decorator that registers a model's parameters alone, for the module `settings`.

    Args:
        settings: the class of the parameters, with a default `name`.

    Returns:
        The same class.

    Raises:
        ProtoMaskError: another model is registered under this name.
    """
    MODEL_SETTINGS.add(_name(settings), settings)
    return settings


def build(
    settings: Any, num_classes: int, backbone: "Backbone | None" = None
) -> "PrototypeNetwork":
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


def _name(settings: type[BackboneSettings]) -> str:
    name: str = settings.model_fields["name"].default
    return name
