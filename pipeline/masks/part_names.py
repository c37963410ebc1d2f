"""The names that people give to a segmenter's parts, in a file beside the experiment.

The file is YAML: a line `codebook: 3fa2…`, and a line `7: wing` for each part. A codebook numbers
the parts, and the same number is another part in another codebook; so names are used for the
codebook that the file names, and for no other.
"""

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from pipeline.errors import ProtoMaskError

CODEBOOK = "codebook"
MOST_SAID, SHORT = 5, 16


class PartNames(NamedTuple):
    """What the parts of a segmenter are called.

    Args:
        own: the segmenter's names of its parts by their numbers; empty if it has none.
        given: names that people gave them, which take precedence.
        remark: why the names of the file are not used, as a sentence without a full stop; empty
            where they are, or where there are none.
    """

    own: Mapping[int, str]
    given: Mapping[int, str]
    remark: str = ""

    @property
    def names(self) -> dict[int, str]:
        """The names in use by the parts' numbers; parts without a name are missing."""
        return {**self.own, **self.given}

    def unknown(self, parts: Iterable[int]) -> str:
        """Returns a remark on names that were given to parts that do not occur; empty without any.

        Args:
            parts: the numbers of the parts that occur.
        """
        numbers = sorted(set(self.given) - set(parts))
        if not numbers:
            return ""
        said = ", ".join(f"{number} ({self.given[number]})" for number in numbers[:MOST_SAID])
        more = ", …" if len(numbers) > MOST_SAID else ""
        return f"names were given to parts that no mask shows: {said}{more}"


def codebook_of(segmenter: Mapping[str, Any]) -> str:
    """Returns what the numbers of a segmenter's parts are of.

    Args:
        segmenter: its fingerprint (`Segmenter.fingerprint`).

    Returns:
        The SHA-256 of its codebook, or, if it has none, its name.
    """
    return segmenter.get(CODEBOOK) or segmenter["name"]


def read_part_names(path: Path, segmenter: Mapping[str, Any], own: Mapping[int, str]) -> PartNames:
    """Reads the names that a file gives to a segmenter's parts.

    Args:
        path: path of the YAML file; without the file, no names are given.
        segmenter: the segmenter's fingerprint.
        own: the segmenter's own names of its parts by their numbers.

    Raises:
        ProtoMaskError: the file is not such a file, or does not say whose parts it names.
    """
    given, codebook, wanted = {}, "", codebook_of(segmenter)
    for number, key, value in _lines(path):
        if key == CODEBOOK:
            codebook = value
        elif not (key.isascii() and key.isdigit()):
            raise ProtoMaskError(
                f"{path}, line {number}: {key!r} is not the number of a part: each line is to be "
                f"such as `7: wing`, or `{CODEBOOK}: …`"
            )
        elif value:
            given[int(key)] = value
    if given and not codebook:
        raise ProtoMaskError(
            f"{path} does not say whose parts it names: add the line `{CODEBOOK}: {wanted}` if "
            "they are those of the masks that are there now"
        )
    if codebook in ("", wanted):
        return PartNames(own, given)
    remark = (
        f"the names in {path.name} are of the codebook {_short(codebook)}, and the parts of "
        f"{_short(wanted)}: they are not used"
    )
    return PartNames(own, {}, remark)


def names_file(segmenter: Mapping[str, Any], parts: Iterable[int], names: Mapping[int, str]) -> str:
    """Returns a file to be filled in, which `read_part_names` reads: a line for each part.

    Args:
        segmenter: the segmenter's fingerprint.
        parts: the numbers of its parts, in the order of the lines.
        names: the names of those that have one, by number.
    """
    lines = [_line(CODEBOOK, codebook_of(segmenter))]
    lines += [_line(part, names[part]) if part in names else f"{part}:\n" for part in parts]
    return "".join(lines)


def _line(key: int | str, value: str) -> str:
    return yaml.safe_dump({key: value}, allow_unicode=True, width=10_000)


def _short(codebook: str) -> str:
    return codebook if len(codebook) <= SHORT else f"{codebook[:SHORT]}…"


def _lines(path: Path) -> Iterator[tuple[int, str, str]]:
    """Yields the number of the line, the key and the value of each of a file's entries, as text."""
    try:
        # As text, so that `12: no` is called "no", and a hash of digits is not a number.
        root = yaml.compose(path.read_text(encoding="utf-8"), Loader=yaml.BaseLoader)
    except FileNotFoundError:
        return
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise ProtoMaskError(f"{path} cannot be read: {' '.join(str(error).split())}") from None
    if root is None:
        return
    if not isinstance(root, yaml.MappingNode):
        raise ProtoMaskError(f"{path} has to have a line for each part, such as `7: wing`")
    seen = set()
    for key, value in root.value:
        line = key.start_mark.line + 1
        if not (isinstance(key, yaml.ScalarNode) and isinstance(value, yaml.ScalarNode)):
            raise ProtoMaskError(f"{path}, line {line}: this is no name of a part, as in `7: wing`")
        word = key.value.lstrip("0") or key.value[:1]
        if word in seen:
            raise ProtoMaskError(f"{path}, line {line}: {key.value} stands there twice")
        seen.add(word)
        yield line, key.value, " ".join(value.value.split())
