"""Components by name, found without an import where their module is called so."""

import subprocess
import sys
from importlib.metadata import EntryPoint

import pytest

from pipeline import registry as registries
from pipeline.datasets.dataset import DATASETS
from pipeline.errors import ProtoMaskError
from pipeline.metrics.group import METRIC_GROUPS
from pipeline.registry import Registry

NAMES_ARE_CHECKED = """
import sys
from pipeline.metrics.group import METRIC_GROUPS

METRIC_GROUPS.refuse_unknown("truth")
assert "pipeline.metrics.groups.truth" not in sys.modules
assert "truth" in METRIC_GROUPS
assert "pipeline.metrics.groups.truth" in sys.modules
assert "pipeline.metrics.groups.general" not in sys.modules
"""


@pytest.mark.parametrize("registry", [DATASETS, METRIC_GROUPS], ids=lambda found: found.kind)
def test_a_component_has_the_name_of_its_module(registry: Registry) -> None:
    """Otherwise its name would be accepted, and not be found."""
    assert set(registry.own()) <= set(registry.names())
    assert all(registry[name].name == name for name in registry.own())


def test_a_name_is_checked_without_an_import() -> None:
    subprocess.run([sys.executable, "-c", NAMES_ARE_CHECKED], check=True)


def test_an_unknown_name_is_answered_with_those_there_are() -> None:
    said = r"no metric group 'complexty'; did you mean complexity\? \(there are: compactness, "
    for ask in (METRIC_GROUPS.__getitem__, METRIC_GROUPS.refuse_unknown):
        with pytest.raises(ProtoMaskError, match=said):
            ask("complexty")
    assert "complexty" not in METRIC_GROUPS
    assert 3 not in METRIC_GROUPS


def test_a_second_component_of_a_name_is_refused() -> None:
    registry: Registry[object] = Registry("metric group", "pipeline.metrics.groups", "nobody")
    first = object()
    registry.add("general", first)
    registry.add("general", first)
    with pytest.raises(ProtoMaskError, match="two components are called 'general'"):
        registry.add("general", object())


@pytest.fixture
def plugins(monkeypatch: pytest.MonkeyPatch) -> list[EntryPoint]:
    """Entry points of packages that are installed; a test adds to them."""
    entries: list[EntryPoint] = []
    monkeypatch.setattr(registries, "_entries", lambda group: tuple(entries))
    return entries


def groups() -> Registry[object]:
    return Registry("metric group", "pipeline.metrics.groups", "protomask.metric_groups")


def test_an_entry_point_does_not_hide_an_own_component(plugins: list[EntryPoint]) -> None:
    plugins.append(EntryPoint("general", "birdlab.general", "protomask.metric_groups"))
    said = r"groups\.general and birdlab\.general are both modules of a metric group"
    with pytest.raises(ProtoMaskError, match=said):
        groups().refuse_unknown("general")


def test_a_plugin_that_cannot_be_imported_is_named(plugins: list[EntryPoint]) -> None:
    plugins.append(EntryPoint("certainty", "birdlab.certainty", "protomask.metric_groups"))
    with pytest.raises(ProtoMaskError, match="certainty, which cannot be imported: No mod"):
        groups()["certainty"]


def test_a_module_without_a_component_of_its_name_is_named(plugins: list[EntryPoint]) -> None:
    plugins.append(EntryPoint("certainty", "colorsys", "protomask.metric_groups"))
    with pytest.raises(ProtoMaskError, match="colorsys registers no metric group called 'certain"):
        groups()["certainty"]
