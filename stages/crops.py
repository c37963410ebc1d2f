"""artifacts/masks.zarr → artifacts/crops.zarr."""

from pipeline.crops.writing import write_crops
from pipeline.masks.store import MaskStore
from stages import workspace
from stages.params import read_params


def run() -> None:
    params = read_params(workspace.PARAMS)
    photographs = workspace.read_photographs()
    masks = MaskStore(workspace.MASKS)
    masks.refuse_unless(params.segmenter, photographs)
    without = write_crops(
        workspace.CROPS,
        photographs,
        workspace.root_of(params),
        masks,
        params.crops,
        params.runtime.workers,
    )
    print(f"{len(photographs)} images' crops in {workspace.CROPS}")
    if without:
        print(f"{without} images have no mask and give themselves as their one crop")
