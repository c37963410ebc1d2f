"""artifacts/index/photographs.parquet → artifacts/masks.zarr."""

from pipeline.masks.segment import segment_images, stored_masks
from pipeline.masks.store import MaskStore, write_store
from stages import workspace
from stages.params import read_params


def run() -> None:
    params = read_params(workspace.PARAMS)
    photographs = workspace.read_photographs()
    root, shards = workspace.root_of(params), workspace.memory() / "masks"
    segmented = segment_images(
        photographs,
        root,
        params.segmenter,
        shards,
        params.runtime.workers,
        workspace.worker_of(params),
        params.runtime.scheduler,
    )
    masks = stored_masks(photographs, params.segmenter, shards)
    write_store(workspace.MASKS, photographs, params.segmenter, masks)
    store = MaskStore(workspace.MASKS)
    print(
        f"{segmented} images segmented, the masks of all others were there; "
        f"{store.num_masks().sum()} masks of {len(photographs)} images in {workspace.MASKS}"
    )
