"""What outputs were made with: each stage's parameters go with what it makes, through all stages.

DVC alone answers for which output belongs to which parameters, and its records can be wrong: an
output may have been copied here, made by hand, or restored by a run cache that leaves a parameter
out of its key. So a stage compares what it reads with its parameters, and `evaluate` writes down
beside the metrics what they were really made with.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from pipeline.errors import ProtoMaskError, rerun
from pipeline.parameters import flat
from stages.params import Params

MadeWith = Mapping[str, Mapping[str, Any]]
"""Stage → parameter, as in `crops.side` → value."""

TRACKED = {
    "prepare": ("seed", "dataset.name", "dataset.num_classes", "dataset.fold", "dataset.folds"),
    "masks": ("segmenter",),
    "crops": ("crops",),
    "train": ("seed", "model", "train"),
    "finetune": ("seed", "finetune", "prune"),
    "evaluate": ("seed", "evaluate"),
}
"""Stage → the parameters or sections of them that change its output."""


class Contradiction(NamedTuple):
    """A parameter with which an output was not made.

    Args:
        name: the parameter, as in `crops.side`.
        made: its value when the output was made.
        given: its value in params.yaml.
    """

    name: str
    made: Any
    given: Any

    def __str__(self) -> str:
        return f"{self.name}={self.made} instead of {self.given}"


def tracked(stage: str, params: Params) -> dict[str, Any]:
    """Returns the parameters that change a stage's output: name → value."""
    values = flat(params.model_dump(mode="json"))
    return {name: value for name, value in values.items() if _belongs(name, TRACKED[stage])}


def asked(given: Mapping[str, Any], learned: Sequence[str]) -> dict[str, Any]:
    """Returns the parameters that ask for something: name → value.

    Not those that are null until a segmenter has learned them: any value fits them.

    Args:
        given: parameter → value, of any version.
        learned: the parameters that the segmenter sets where they are null (`Segmenter.learned`).
    """
    free = {f"segmenter.{name}" for name in learned if given.get(f"segmenter.{name}") is None}
    return {name: value for name, value in given.items() if name not in free}


def contradictions(made_with: MadeWith, given: Mapping[str, Any]) -> list[Contradiction]:
    """Returns where outputs were made with other values than those given, each once.

    Args:
        made_with: what the outputs say of themselves.
        given: parameter → value. A parameter that is missing here contradicts nothing: it is
            younger or older than what was made.
    """
    found = (
        Contradiction(name, made, given[name])
        for values in made_with.values()
        for name, made in values.items()
        if name in given and given[name] != made
    )
    return list({str(wrong): wrong for wrong in found}.values())


def refuse_contradictions(made_with: MadeWith, params: Params, path: Path, stage: str) -> None:
    """Checks that an output was made with these parameters.

    Args:
        made_with: what the output says of itself.
        params: the parameters that params.yaml holds now.
        path: where the output lies, for the message.
        stage: the stage that makes it.

    Raises:
        ProtoMaskError: it was not; the message names both values and the stage to run again, before
            which DVC runs those whose parameters have changed.
    """
    given = asked(flat(params.model_dump(mode="json")), params.segmenter.learned)
    found = contradictions(made_with, given)
    if found:
        said = ", ".join(map(str, found))
        raise ProtoMaskError(f"{path} was made with {said}: {rerun(stage)}")


def read_made_with(path: Path) -> MadeWith:
    """Reads what `evaluate` wrote beside the metrics.

    Raises:
        ProtoMaskError: the file is missing or damaged.
    """
    try:
        made_with = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(made_with, dict) or not all(
            isinstance(v, dict) for v in made_with.values()
        ):
            raise ValueError("no parameters by stage")
    except (OSError, ValueError) as error:
        raise ProtoMaskError(f"{path} cannot be read ({error}): {rerun('evaluate')}") from None
    return made_with


def _belongs(name: str, sections: tuple[str, ...]) -> bool:
    return any(name == section or name.startswith(f"{section}.") for section in sections)
