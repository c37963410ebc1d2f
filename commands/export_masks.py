"""A mask store → a COCO JSON file."""

from pathlib import Path

from commands.inspect_masks import opened
from pipeline.errors import ProtoMaskError
from pipeline.masks.coco import write_coco
from stages.workspace import Workspace


def run(workspace: Workspace, store: Path, coco: Path) -> None:
    if coco.is_dir():
        raise ProtoMaskError(f"{coco} is a folder; --coco names the file to write")
    masks = opened(store)
    paths = _paths(workspace)
    images = list(zip(masks.ids, masks.about["images"]["sha256"], strict=True))
    write_coco(coco, masks, [paths.get(image, image[0]) for image in images])
    print(f"{masks.num_masks().sum()} masks of {len(masks)} images in {coco}")
    if unlisted := sum(image not in paths for image in images):
        print(
            f"{unlisted} images are named by their ids, because {workspace.image_files} does not "
            "have them"
        )


def _paths(workspace: Workspace) -> dict[tuple[str, str], str]:
    """Returns the path below the data set's folder of every image in the index, if there is one.

    An image is known by its id and the SHA-256 of its file: another data set may have the same ids.
    """
    if not workspace.image_files.exists():
        return {}
    table = workspace.read_image_files().table
    images = zip(table["id"], table["sha256"], strict=True)
    return dict(zip(images, table["path"], strict=True))
