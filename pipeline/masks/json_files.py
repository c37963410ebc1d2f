"""Reading JSON files of a known form; what is wrong in one is named."""

import codecs
import json
import re
from pathlib import Path
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError

from pipeline.errors import ProtoMaskError

T = TypeVar("T")


def parse(path: Path, form: TypeAdapter[T], what: str) -> T:
    """Reads a JSON file.

    Args:
        path: path of the file.
        form: what it has to hold.
        what: what a file of this form is called.

    Raises:
        ProtoMaskError: the file is damaged, or has another form; the message says where.
    """
    text = path.read_bytes().removeprefix(codecs.BOM_UTF8)
    try:
        return form.validate_json(text)
    except ValidationError as error:
        problems = error.errors(include_url=False, include_input=False)
    if problems[0]["type"] == "json_invalid":
        raise ProtoMaskError(f"{path} is damaged: {problems[0]['msg']}")
    # A mask may have several formats; the error of the attempt that came furthest is relevant.
    first = [problem for problem in problems if problem["loc"][:2] == problems[0]["loc"][:2]]
    furthest = max(first, key=lambda problem: len(problem["loc"]))
    place = _named(json.loads(text), furthest["loc"])
    raise ProtoMaskError(f"{path} is no {what}: {place}: {furthest['msg']}")


def _named(content: Any, place: tuple[int | str, ...]) -> str:
    """Returns the location of an error, with the id of the image or annotation if it has one."""
    numbered = next((at for at, key in enumerate(place) if isinstance(key, int)), None)
    if numbered is None:
        return ".".join(map(str, place)) or "the file"
    *above, item = place[: numbered + 1]
    for key in place[: numbered + 1]:
        content = content[key]
    number = content.get("id") if isinstance(content, dict) else None
    section = ".".join(map(str, above)) or "item"
    what = f"{section}.{item}" if number is None else f"{section.rstrip('s')} {number}"
    # pydantic also names the types that it tried, such as RunLengths and list[int].
    keys = place[numbered + 1 :]
    fields = [str(key) for key in keys if isinstance(key, int) or re.fullmatch("[a-z_]+", key)]
    return ": ".join([what, ".".join(fields)]) if fields else what
