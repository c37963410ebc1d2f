"""Images of the data set, by their ids."""

from pathlib import Path

from stages.workspace import Workspace


def file_of(workspace: Workspace, named: Path) -> Path:
    """Returns the file of an image that is named by its path or, as in the index, by its id.

    Args:
        workspace: where the index lies, if there is one.
        named: the path or the id; what is neither comes back as it is.
    """
    if named.exists() or not workspace.index.exists():
        return named
    index = workspace.read_index()
    rows = {image: row for row, image in enumerate(index.ids)}
    row = rows.get(named.as_posix())
    if row is None:
        return named
    return workspace.images_root(workspace.read_params()) / index.table["path"][row]
