"""Each stage of dvc.yaml lists exactly the code that can change its output: what it imports.

Otherwise DVC would keep outputs of other code, or run GPU-hours again for a comment.
"""

from pathlib import Path

import grimp
import pytest
import yaml

from pipeline.datasets.dataset import DATASETS

REPOSITORY = Path(__file__).parents[2]
STAGES = yaml.safe_load((REPOSITORY / "dvc.yaml").read_text())["stages"]
CHECKING = ("stages.params", "stages.workspace")
"""What they import is not followed: they check parameters and name folders."""
WITHOUT_EFFECT = {
    *CHECKING,
    "commands",
    "pipeline",
    "pipeline.download",
    "pipeline.errors",
    "pipeline.files",
    "pipeline.parameters",
    "pipeline.progress",
    "pipeline.registry",
    "pipeline.workers",
    "stages",
}
"""How errors are said, files written whole, progress shown, components found by name, processes
started."""
FOR_PEOPLE = {
    "pipeline.report.image_page",
    "pipeline.report.prediction_picture",
    "pipeline.report.predictor",
}
"""What lies in a folder with what a stage imports, and costs little when it is edited: the pictures
of `predict` and `explain PHOTO`."""
METRIC_GROUPS = "pipeline.metrics.groups"
"""What finds them by name: `measuring` computes with them, the report has their descriptions."""
BY_VERSION = ("masks", "crops")
"""These depend on the version among their parameters and on their store's format instead."""
OF_FOLDERS = {"pipeline.datasets.archives", "pipeline.datasets.fetch"}
"""Fetching, which ends before `prepare` begins; the listing has the hashes of what was fetched."""


@pytest.fixture(scope="module")
def graph() -> grimp.ImportGraph:
    graph = grimp.build_graph(
        "pipeline", "stages", exclude_type_checking_imports=True, cache_dir=None
    )
    for module in CHECKING:
        for imported in list(graph.find_modules_directly_imported_by(module)):
            graph.remove_import(importer=module, imported=imported)
    for group in graph.find_children(METRIC_GROUPS):
        graph.add_import(importer="pipeline.metrics.measuring", imported=group)
    return graph


def listed(stage: str, graph: grimp.ImportGraph) -> set[str]:
    """The modules that a stage's dependencies are or hold."""
    found: set[str] = set()
    for dep in STAGES[stage]["deps"]:
        if dep.startswith(("pipeline/", "stages/")):
            name = dep.removesuffix(".py").replace("/", ".")
            assert (REPOSITORY / dep).exists()
            found |= {name} | (graph.find_descendants(name) if not dep.endswith(".py") else set())
    return found


@pytest.mark.parametrize("stage", [name for name in STAGES if name not in ("scan", *BY_VERSION)])
def test_a_stage_lists_what_it_imports_and_nothing_else(
    stage: str, graph: grimp.ImportGraph
) -> None:
    imported = {f"stages.{stage}", *graph.find_upstream_modules(f"stages.{stage}")}
    imported -= WITHOUT_EFFECT | OF_FOLDERS
    if "pipeline.metrics.group" in imported:
        imported |= graph.find_children(METRIC_GROUPS)
    # A package's own file says what is in it, or is what its name says.
    packages = {name for name in graph.modules if graph.find_children(name)}
    has = listed(stage, graph)
    assert imported - has - packages == set(), "not among the dependencies"
    # A model may stand on anything that all have in common.
    has = {name for name in has if not name.startswith("pipeline.model.base")}
    assert has - imported - packages - FOR_PEOPLE == set(), "cannot change the output"


def test_names_of_parts_change_the_report_alone() -> None:
    assert [name for name, of in STAGES.items() if "parts.yaml" in of.get("deps", [])] == [
        "explain"
    ]


@pytest.mark.parametrize("stage", BY_VERSION)
def test_expensive_stages_depend_on_their_stores_format_and_no_other_code(stage: str) -> None:
    assert all(dep.startswith("artifacts/") for dep in STAGES[stage]["deps"])
    assert {f"pipeline/{stage}/store.py": ["FORMAT"]} in STAGES[stage]["params"]


def test_models_and_data_sets_are_dependencies_by_their_presets(
    graph: grimp.ImportGraph,
) -> None:
    for stage in ("train", "push", "finetune", "evaluate", "explain"):
        assert "${model.code}" in STAGES[stage]["deps"]
        upstream = graph.find_upstream_modules(f"stages.{stage}")
        assert "pipeline.model.base.models" in upstream
    for preset in (REPOSITORY / "conf" / "model").glob("*.yaml"):
        code = yaml.safe_load(preset.read_text())["code"]
        assert code == f"pipeline/model/{preset.stem}" and (REPOSITORY / code).is_dir()
        # A model stands on what all have in common, which is a dependency as a whole.
        model = f"pipeline.model.{preset.stem}"
        own = graph.find_upstream_modules(f"{model}.model") - WITHOUT_EFFECT
        others = {name for name in own if not name.startswith("pipeline.model.base")}
        assert others <= {
            model,
            f"{model}.settings",
            "pipeline.backbone",
            "pipeline.backbone.backbone",
            "pipeline.backbone.engine",
            "pipeline.backbone.weights",
            "pipeline.model",
            "pipeline.crops.settings",
            "pipeline.crops.store",
            "pipeline.datasets.index",
        }
    assert "${dataset.code}" in STAGES["prepare"]["deps"]
    for name in DATASETS.names():
        code = yaml.safe_load((REPOSITORY / f"conf/dataset/{name}.yaml").read_text())["code"]
        assert (REPOSITORY / code).exists()
        reader = code.removesuffix(".py").replace("/", ".")
        own = graph.find_descendants(reader) | {reader}
        used = {use for module in own for use in graph.find_upstream_modules(module)}
        assert used - own - listed("prepare", graph) - WITHOUT_EFFECT <= {
            "pipeline.datasets",
            "pipeline.datasets.readers",
        }
