"""artifacts/masks.zarr → artifacts/crops.zarr."""

from pipeline.crops.writing import write_crops
from pipeline.masks.store import MaskStore
from pipeline.progress import examples
from stages.workspace import Workspace


def run(workspace: Workspace) -> None:
    params = workspace.read_params()
    image_files = workspace.read_image_files()
    masks = MaskStore(workspace.masks)
    masks.refuse_unless(params.segmenter, image_files)
    without = write_crops(
        workspace.crops,
        image_files,
        workspace.images_root(params),
        masks,
        params.crops,
        params.runtime.workers,
    )
    print(f"{len(image_files)} images' crops in {workspace.crops}")
    if without:
        wanted = "foreground mask" if params.crops.choose == "parts" else "mask"
        print(
            f"{len(without)} of {len(image_files)} images have no {wanted} to crop, and give "
            f"themselves as their one crop: {examples(without)}"
        )
