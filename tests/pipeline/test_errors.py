"""The advice of errors names stages that there are, in the same words everywhere."""

import re
from pathlib import Path

import yaml

REPOSITORY = Path(__file__).parents[2]
STAGES = set(yaml.safe_load((REPOSITORY / "dvc.yaml").read_text())["stages"])
CODE = {
    path: path.read_text(encoding="utf-8")
    for folder in ("pipeline", "stages", "commands")
    for path in (REPOSITORY / folder).rglob("*.py")
}


def test_advice_names_stages() -> None:
    advice = re.compile(r"\b(?:make|rerun)\(['\"](\w+)['\"]\)")
    named = {stage for text in CODE.values() for stage in advice.findall(text)}
    assert {"masks", "evaluate"} < named <= STAGES


def test_no_message_has_words_of_its_own_for_the_same_advice() -> None:
    own = [path.name for path, text in CODE.items() if re.search(r"`dvc repro [\w{]", text)]
    assert own == ["errors.py"]
