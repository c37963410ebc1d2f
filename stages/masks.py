"""artifacts/index/photographs.parquet → artifacts/masks.zarr."""

from pipeline.masks.segment import remarks_on, segment_images, stored_masks
from pipeline.masks.store import write_store
from stages import workspace
from stages.params import read_params


def run() -> None:
    params = read_params(workspace.PARAMS)
    photographs = workspace.read_photographs()
    root, shards = workspace.root_of(params), workspace.memory() / "masks"
    machine = workspace.worker_of(params)
    segmented = segment_images(
        photographs,
        root,
        params.segmenter,
        shards,
        params.runtime.workers,
        machine,
        params.runtime.scheduler,
    )
    masks = list(stored_masks(photographs, params.segmenter, shards))
    remarks = remarks_on(masks, photographs, root, params.segmenter, machine)
    write_store(workspace.MASKS, photographs, params.segmenter, masks)
    print(
        f"{segmented} images segmented, the masks of all others were there; "
        f"{sum(map(len, masks))} masks of {len(photographs)} images in {workspace.MASKS}"
    )
    for remark in remarks:
        print(remark)
