"""The names that people give to a segmenter's parts, in a file beside the experiment.

The file is YAML: a line `codebook: 3fa2…`, and a line `7: wing` for each part. A codebook numbers
the parts, and the same number is another part in another codebook; so names are used for the
codebook that the file names, and for no other.
"""

from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from pipeline.errors import ProtoMaskError
from pipeline.files import atomic_file

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
    for key, entry in _entries(path, _text(path)).items():
        if key == CODEBOOK:
            codebook = entry.name
        elif not (key.isascii() and key.isdigit()):
            raise ProtoMaskError(
                f"{path}, line {entry.line}: {entry.key.value!r} is not the number of a part: "
                f"each line is to be such as `7: wing`, or `{CODEBOOK}: …`"
            )
        elif entry.name:
            given[int(key)] = entry.name
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
    return "".join([*lines, *(_line(part, names.get(part, "")) for part in parts)])


def rename_part(
    path: Path, segmenter: Mapping[str, Any], parts: Iterable[int], part: int, name: str
) -> None:
    """Writes a part's name into a file of names, and leaves all else in it as it is.

    Args:
        path: path of the YAML file; without a line for any part it gets one for each.
        segmenter: the segmenter's fingerprint.
        parts: the numbers of its parts, in the order of the lines of a new file.
        part: the number of the part.
        name: its name in one line; empty: the part's line stays, without a name.

    Raises:
        ProtoMaskError: the file is not such a file, names the parts of another codebook, or is
            written such that this line cannot be changed alone.
    """
    if remark := read_part_names(path, segmenter, {}).remark:
        raise ProtoMaskError(f"{remark}. Move {path} away first")
    text = _text(path)
    if _entries(path, text):
        if name:
            text = _changed(path, text, CODEBOOK, codebook_of(segmenter))
        text = _changed(path, text, part, name)
    else:
        text = _ended(text) + names_file(segmenter, parts, {part: name})
    with atomic_file(path) as file:
        file.write_text(text, encoding="utf-8", newline="")


class _Entry(NamedTuple):
    """A number or `codebook` in a file of names.

    Args:
        key, value: where they stand in the file.
        name: the value, in one line.
    """

    key: yaml.ScalarNode
    value: yaml.ScalarNode
    name: str

    @property
    def line(self) -> int:
        return self.key.start_mark.line + 1


def _entries(path: Path, text: str) -> dict[str, _Entry]:
    """Returns the entries of a file with this text by their keys, without leading zeros."""
    try:
        # As text, so that `12: no` is called "no", and a hash of digits is not a number.
        root = yaml.compose(text, Loader=yaml.BaseLoader)
    except yaml.YAMLError as error:
        raise _unreadable(path, error) from None
    if root is None:
        return {}
    if not isinstance(root, yaml.MappingNode):
        raise ProtoMaskError(f"{path} has to have a line for each part, such as `7: wing`")
    found: dict[str, _Entry] = {}
    for key, value in root.value:
        line = key.start_mark.line + 1
        if not (isinstance(key, yaml.ScalarNode) and isinstance(value, yaml.ScalarNode)):
            raise ProtoMaskError(f"{path}, line {line}: this is no name of a part, as in `7: wing`")
        word = key.value.lstrip("0") or key.value[:1]
        if word in found:
            raise ProtoMaskError(f"{path}, line {line}: {key.value} stands there twice")
        found[word] = _Entry(key, value, " ".join(value.value.split()))
    return found


def _changed(path: Path, text: str, key: int | str, name: str) -> str:
    """Returns a file's text with another name in one line, or with one line more.

    Raises:
        ProtoMaskError: that would change more than this.
    """
    entries, word, line = _entries(path, text), str(key), _line(key, name)
    names = {word: entry.name for word, entry in entries.items()}
    if names.get(word, "") == name:
        return text
    if word in entries:
        number = entries[word].line
        changed = _replaced(text, entries[word].value, line.partition(":")[2].strip())
    else:
        number, changed = _added(text, entries.values(), line)
    try:
        read = {word: entry.name for word, entry in _entries(path, changed).items()}
    except ProtoMaskError:
        read = {}
    more = len(changed.splitlines()) - len(text.splitlines())
    if read != {**names, word: name} or more != (word not in entries):
        raise ProtoMaskError(
            f"{path}, line {number}: as the file is written, this line cannot be changed alone: "
            f"write `{line.strip()}` there yourself"
        )
    return changed


def _replaced(text: str, value: yaml.ScalarNode, written: str) -> str:
    """Returns the text with another value, which may be empty, as the old one may."""
    before, after = text[: value.start_mark.index], text[value.end_mark.index :]
    if value.start_mark.index == value.end_mark.index:
        before += " "
    return f"{before if written else before.rstrip(' ')}{written}{after}"


def _added(text: str, entries: Collection[_Entry], line: str) -> tuple[int, str]:
    """Returns the number of a new line after the last entry, and the text with it."""
    text = _ended(text)
    ends = [mark.index for of in entries for mark in (of.key.end_mark, of.value.end_mark)]
    place = text.index("\n", max(ends) - 1) + 1
    indent = " " * min(of.key.start_mark.column for of in entries)
    added = f"{indent}{line.rstrip()}{_line_end(text)}"
    return text.count("\n", 0, place) + 1, text[:place] + added + text[place:]


def _line(key: int | str, value: str) -> str:
    if not value:
        return f"{key}:\n"
    return yaml.safe_dump({key: value}, allow_unicode=True, width=10_000)


def _ended(text: str) -> str:
    return text if text.endswith("\n") or not text else text + _line_end(text)


def _line_end(text: str) -> str:
    return "\r\n" if "\r\n" in text else "\n"


def _short(codebook: str) -> str:
    return codebook if len(codebook) <= SHORT else f"{codebook[:SHORT]}…"


def _text(path: Path) -> str:
    """Returns a file's text, with its line breaks as they are; empty without a file."""
    try:
        return path.read_bytes().decode("utf-8")
    except FileNotFoundError:
        return ""
    except (OSError, ValueError) as error:
        raise _unreadable(path, error) from None


def _unreadable(path: Path, error: Exception) -> ProtoMaskError:
    return ProtoMaskError(f"{path} cannot be read: {' '.join(str(error).split())}")
