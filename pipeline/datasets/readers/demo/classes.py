"""The demo's twelve bird classes, each described part by part.

A class has one style for each part that varies. It shares all parts but one with its sister, the
other class of its family.
"""

from collections.abc import Mapping

from pipeline.errors import ProtoMaskError

PARTS = (
    "crown",
    "beak",
    "eye",
    "cheek",
    "throat",
    "breast",
    "belly",
    "back",
    "wing",
    "wing bar",
    "tail",
    "legs",
)

Styles = Mapping[str, str]
"""The style of every part that varies; eye, cheek, back and legs look the same in all classes."""

PLAIN: Styles = {
    "crown": "smooth",
    "beak": "cone",
    "throat": "plain",
    "breast": "plain",
    "belly": "plain",
    "wing": "plain",
    "wing bar": "none",
    "tail": "square",
}

CLASSES: dict[str, Styles] = {
    # Barwings: two pale bars across the wing.
    "crested barwing": {**PLAIN, "crown": "crest", "wing bar": "double"},
    "smooth barwing": {**PLAIN, "wing bar": "double"},
    # Reedlings: a streaked breast and a needle of a beak.
    "forktail reedling": {**PLAIN, "beak": "needle", "breast": "streaked", "tail": "forked"},
    "fantail reedling": {**PLAIN, "beak": "needle", "breast": "streaked", "tail": "fan"},
    # Creepers: a spotted breast, a banded tail and a large beak.
    "curvebill creeper": {**PLAIN, "beak": "curved", "breast": "spotted", "tail": "banded"},
    "stoutbill creeper": {**PLAIN, "beak": "stout", "breast": "spotted", "tail": "banded"},
    # Seedfinches: a dark cap and, in one, a bright patch on the wing.
    "mirrored seedfinch": {**PLAIN, "crown": "cap", "wing bar": "patch", "belly": "barred"},
    "plainwing seedfinch": {**PLAIN, "crown": "cap", "belly": "barred"},
    # Wagtails: long tails, spangled wings; one wears a bib.
    "bibbed wagtail": {
        **PLAIN,
        "beak": "needle",
        "throat": "bib",
        "wing": "spangled",
        "tail": "streamer",
    },
    "whitethroat wagtail": {**PLAIN, "beak": "needle", "wing": "spangled", "tail": "streamer"},
    # Topknots: a plume on the head, one bar on the wing; one has a dark breast.
    "vested topknot": {
        **PLAIN,
        "crown": "plume",
        "breast": "dark",
        "wing bar": "single",
    },
    "plain topknot": {**PLAIN, "crown": "plume", "wing bar": "single"},
}

CLASS_NAMES = tuple(CLASSES)


def distinguishing_parts(first: str, second: str) -> list[str]:
    """Returns the parts that differ between two classes, in the order of `PARTS`."""
    return [part for part in PARTS if CLASSES[first].get(part) != CLASSES[second].get(part)]


def has_part(class_name: str, part: str) -> bool:
    """Returns whether birds of a class have a part: all but wing bars are on every bird."""
    return _styles(class_name).get(part) != "none"


def styles_of(class_name: str, parts_from: Mapping[str, str] | None = None) -> dict[str, str]:
    """Returns a class's styles, with single parts taken from other classes.

    Args:
        class_name: name of the class, one of `CLASS_NAMES`.
        parts_from: for each part to replace, the class to take it from.

    Raises:
        ProtoMaskError: there is no such class or part.
    """
    styles = dict(_styles(class_name))
    for part, donor in (parts_from or {}).items():
        if part not in PARTS:
            raise ProtoMaskError(f"no part {part!r}; there are {', '.join(PARTS)}")
        if part in styles:
            styles[part] = _styles(donor)[part]
    return styles


def _styles(class_name: str) -> Styles:
    if class_name not in CLASSES:
        raise ProtoMaskError(f"no class {class_name!r}; there are {', '.join(CLASSES)}")
    return CLASSES[class_name]
