"""The parts of a finished experiment, with the names that people gave them."""

import sys

from pipeline.errors import ProtoMaskError
from pipeline.masks.part_names import read_part_names
from pipeline.report.parts import Parts
from stages.finished import Finished


def named_parts(finished: Finished) -> Parts:
    """Returns an experiment's parts; warns if names were given to those of another codebook.

    Where the masks that its crops were cut from are gone, it is not known in how many images each
    part is found.

    Raises:
        ProtoMaskError: the file of names is none.
    """
    own, path = finished.crops.part_names, finished.workspace.part_names
    names = read_part_names(path, finished.about.segmenter, own)
    if names.remark:
        print(f"Warning: {names.remark}", file=sys.stderr)
    try:
        return Parts.of(finished.masks(), names.names)
    except ProtoMaskError:
        return Parts(names.names, {})
