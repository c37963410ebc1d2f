"""The parts of a finished experiment, with the names that people gave them."""

from typing import NamedTuple

from pipeline.errors import ProtoMaskError
from pipeline.masks.part_names import read_part_names
from pipeline.report.parts import Parts
from stages.finished import Finished


class NamedParts(NamedTuple):
    """An experiment's parts.

    Args:
        parts: their names, and in how many images each is found; the latter is not known where the
            masks that its crops were cut from are gone.
        remark: why names that people gave are not used, as a sentence without a full stop; empty
            where they are, or where there are none.
    """

    parts: Parts
    remark: str


def named_parts(finished: Finished) -> NamedParts:
    """Returns an experiment's parts.

    Raises:
        ProtoMaskError: the file of names is none.
    """
    own, path = finished.crops.part_names, finished.workspace.part_names
    names = read_part_names(path, finished.about.segmenter, own)
    try:
        parts = Parts.of(finished.masks(), names.names)
    except ProtoMaskError:
        parts = Parts(names.names, {})
    return NamedParts(parts, names.remark)
